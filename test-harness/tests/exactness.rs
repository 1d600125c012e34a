//! Limits are exact on four workers at once: never one request too many in any span, and almost none
//! too few. Alone in its file, so that no other test takes the processors that offer the load.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use test_harness::exact::{
    bucket, exhausted_without_pauses, refusals_apart, share, tightest, window,
};
use test_harness::pour::{Exchange, Next, Pour, get};
use test_harness::{Mesh, policy};

/// Held by the test that has the machine.
static ALONE: Mutex<()> = Mutex::new(());
/// So many connections that four workers all have some: the chance that one has none is below one in
/// a thousand, and below one in ten million that only two have any.
const CONNECTIONS: usize = 32;
const SECOND: Duration = Duration::from_secs(1);
/// Sub-windows of a sliding window (`docs/rate-limiting.md`).
const PARTS: u32 = 10;
/// From so many requests a second on workers take tokens in advance (`docs/rate-limiting.md`). The
/// hot cases are little above it, so that a slow machine can offer more than they give.
const HOT: u64 = 1000;

/// A limit, the load that it is under, and where that goes.
struct Case {
    name: &'static str,
    algorithm: &'static str,
    /// Each second.
    requests: u64,
    /// Of a token bucket.
    burst: Option<u64>,
    /// `/none` has no route: Envoy's own 404 is the cheapest answer that has passed every limit.
    path: &'static str,
    /// What an admitted request gets.
    admitted: u16,
    /// Requests at once on a connection.
    depth: usize,
    lasts: Duration,
}

/// Offers the load to a gateway with four workers; gives what came of it.
fn offer(case: &Case) -> Result<Vec<Exchange>> {
    let _alone = ALONE.lock();
    let name = case.name;
    let mut limit = json!({ "name": name, "key": [], "algorithm": case.algorithm,
        "requests": case.requests, "per": "1s" });
    if let (Some(limit), Some(burst)) = (limit.as_object_mut(), case.burst) {
        limit.insert("burst".to_owned(), json!(burst));
    }
    let policy = policy::with(&json!({ "rate_limits": [limit] }));
    let mut all = Vec::new();
    Mesh::with(policy).concurrency(4).run(|mesh| {
        let pour = Pour { to: mesh.gateway(), connections: CONNECTIONS, depth: case.depth };
        let end = Instant::now() + case.lasts;
        all = pour.run(|_, out| {
            get(case.path, &[], out);
            if Instant::now() < end { Next::Send } else { Next::End }
        })?;
        let strange = all.iter().find(|e| e.status != case.admitted && e.status != 429);
        ensure!(strange.is_none(), "{strange:?}");
        let count = |outcome| mesh.metric("gateway_rate_limit_total", &[("limit", name), outcome]);
        let let_in = count(("outcome", "ok"))? + count(("outcome", "near"))?;
        let passed = all.iter().filter(|e| e.status == case.admitted).count();
        ensure!(let_in == passed as u64, "{let_in} were counted as let in, {passed} were");
        ensure!(count(("outcome", "over"))? == all.len() as u64 - let_in);
        if case.admitted == 200 {
            ensure!(mesh.upstream("samples")?.count() == let_in);
        }
        workers_took_part(mesh)
    })?;
    Ok(all)
}

/// At least three of the four had connections.
fn workers_took_part(mesh: &mut Mesh) -> Result<()> {
    let stats = mesh.stats()?;
    let had = |worker: u32| {
        let of = format!(".worker_{worker}.downstream_cx_total");
        stats.sum(|name| name.starts_with("listener.") && name.ends_with(&of)) > 0
    };
    let workers = (0..4).filter(|worker| had(*worker)).count();
    ensure!(workers >= 3, "only {workers} workers had connections");
    Ok(())
}

/// Says what was measured, and that no span holds more than `allowed`.
fn never_too_many(case: &Case, all: &[Exchange], allowed: impl Fn(Duration) -> u64) -> Result<u64> {
    let admitted = all.iter().filter(|e| e.status == case.admitted);
    let admitted: Vec<_> = admitted.map(|e| (e.sent, e.done)).collect();
    let found = tightest(&admitted, allowed).context("nothing was admitted")?;
    let name = case.name;
    println!("{name}: {} requests in {:?}, {} admitted", all.len(), case.lasts, admitted.len());
    println!("{name}: nearest to the bound: {found:?}");
    ensure!(found.is_kept(), "{name} admitted too many: {found:?}");
    ensure!(
        all.len() * 2 >= admitted.len() * 3,
        "too slow a machine: {name} gave {} of the {} requests that were offered in {:?}, and a \
         limit that is not exceeded by half shows nothing",
        admitted.len(),
        all.len(),
        case.lasts
    );
    Ok(admitted.len() as u64)
}

/// At least 99 % of what the bucket gives while it is asked for more: its whole burst before the first
/// refusal, and what came back between that and the last one.
fn token_bucket_is_exact(case: &Case) -> Result<()> {
    let (requests, burst) = (case.requests, case.burst.unwrap_or(case.requests));
    let all = offer(case)?;
    let admitted = never_too_many(case, &all, bucket(burst, requests, SECOND))?;
    let full = SECOND * u32::try_from(burst)? / u32::try_from(requests)?;
    let span = exhausted_without_pauses(&all, 429, full).context("nothing was refused")?;
    let given = burst + share(requests, span, SECOND);
    println!("{}: {admitted} of at least {given}, with nothing left for {span:?}", case.name);
    ensure!(span * 2 >= case.lasts, "too slow a machine: nothing was left for {span:?} only");
    ensure!(admitted * 100 >= given * 99, "{admitted} of {given} were admitted");
    Ok(())
}

/// At least `requests` in any eleven sub-windows: when it refuses, the running sub-window and the ten
/// before it hold `requests`. Two refusals that are so far apart speak of other ones each.
///
/// What a worker has taken in advance and cannot spend, because its connections are not served for
/// a while, is given back: of a limit that is hot enough for that, 95 % are asked for.
fn sliding_window_is_exact(case: &Case) -> Result<()> {
    let requests = case.requests;
    let all = offer(case)?;
    let admitted = never_too_many(case, &all, window(requests, SECOND))?;
    let elevens = refusals_apart(&all, 429, SECOND / PARTS * (PARTS + 1));
    let given = requests * elevens;
    let least = if requests >= HOT { given * 95 / 100 } else { given };
    println!("{}: {admitted} of {given}, at least {least}", case.name);
    ensure!(elevens >= 3, "too slow a machine: it refused in {elevens} windows only");
    ensure!(admitted >= least, "{admitted} of {given} were admitted");
    Ok(())
}

#[test]
fn a_token_bucket_is_exact_across_workers() -> Result<()> {
    token_bucket_is_exact(&Case {
        name: "bucket",
        algorithm: "token_bucket",
        requests: 200,
        burst: Some(50),
        path: "/api/samples/x",
        admitted: 200,
        depth: 1,
        lasts: Duration::from_secs(5),
    })
}

/// So fast that workers take tokens in batches.
#[test]
fn a_hot_token_bucket_is_exact_across_workers() -> Result<()> {
    token_bucket_is_exact(&Case {
        name: "hot-bucket",
        algorithm: "token_bucket",
        requests: 1200,
        burst: Some(1200),
        path: "/none",
        admitted: 404,
        depth: 2,
        lasts: Duration::from_secs(6),
    })
}

#[test]
fn a_sliding_window_is_exact_across_workers() -> Result<()> {
    sliding_window_is_exact(&Case {
        name: "window",
        algorithm: "sliding_window",
        requests: 100,
        burst: None,
        path: "/api/samples/x",
        admitted: 200,
        depth: 1,
        lasts: Duration::from_millis(5700),
    })
}

/// So fast that workers take tokens in batches, each from one sub-window.
#[test]
fn a_hot_sliding_window_is_exact_across_workers() -> Result<()> {
    sliding_window_is_exact(&Case {
        name: "hot-window",
        algorithm: "sliding_window",
        requests: 1200,
        burst: None,
        path: "/none",
        admitted: 404,
        depth: 2,
        lasts: Duration::from_millis(5700),
    })
}
