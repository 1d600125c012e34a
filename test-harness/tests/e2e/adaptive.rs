//! Adaptive limits: the rate follows the load that the sidecar tells, and silence means the full rate.
//! The sidecar is a scripted one, so that the load is known; at the end there is the real one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use test_harness::exact::{bucket, exhausted, exhausted_without_pauses, share, tightest};
use test_harness::mesh::SOON;
use test_harness::pour::{Exchange, Next, Pour, get};
use test_harness::upstream::Fault;
use test_harness::wait::{until, until_true};
use test_harness::{Mesh, Response, Rule, Upstream, policy};

const SECOND: Duration = Duration::from_secs(1);
/// How long the scripted sidecar holds a poll.
const HELD_MS: u64 = 200;
/// So long after the sidecar's last word its load counts.
const SILENCE: Duration = Duration::from_secs(5);
/// How much later it is heard, and how much longer a worker remembers, at most. A load that was
/// never forgotten would count for as long as the test looks.
const LATE: Duration = Duration::from_secs(2);
/// Clients that ask all the time.
const CONNECTIONS: usize = 4;

/// 50 a second and as many at once; a tenth of it at full load.
fn limit() -> Value {
    json!({ "name": "load", "key": [], "algorithm": "adaptive", "requests": 50, "per": "1s",
            "adaptive": { "threshold": 0.5, "floor": 0.1 } })
}

/// What a sidecar answers that has nothing to hand over.
fn says(load: Option<u32>) -> Rule {
    let mut answer =
        json!({ "protocol": 3, "commands": [], "state": { "store": "", "number": 0 } });
    if let Some(load) = load {
        answer["load"] = json!(load);
    }
    Rule { delay_ms: HELD_MS, ..Rule::json(&answer).path("/sync").header("x-tracseq-sync", "3") }
}

/// A house whose sidecar tells this load.
fn under(load: Option<u32>, test: impl FnOnce(&mut Mesh, &Upstream) -> Result<()>) -> Result<()> {
    let sidecar = Upstream::start("sidecar")?;
    sidecar.only(says(load));
    let policy = policy::with(&json!({ "rate_limits": [limit()] }));
    Mesh::with(policy).sidecar_at(sidecar.address()).run(|mesh| {
        mesh.until_synced(SOON)?;
        test(mesh, &sidecar)
    })
}

/// Asks all the time until `end`.
fn offer(mesh: &Mesh, end: Instant) -> Result<Vec<Exchange>> {
    offer_while(mesh, || Instant::now() < end)
}

fn offer_while(mesh: &Mesh, wanted: impl Fn() -> bool + Sync) -> Result<Vec<Exchange>> {
    Pour { to: mesh.gateway(), connections: CONNECTIONS, depth: 1 }.run(|_, out| {
        get("/api/auth/x", &[], out);
        if wanted() { Next::Send } else { Next::End }
    })
}

/// That nobody was turned away for the load's sake, and that the bucket gave what it has: never more,
/// hardly less.
fn gives_all(all: &[Exchange]) -> Result<()> {
    ensure!(count(all, 200) + count(all, 429) == all.len(), "somebody was turned away");
    let admitted: Vec<_> =
        all.iter().filter(|e| e.status == 200).map(|e| (e.sent, e.done)).collect();
    let found = tightest(&admitted, bucket(50, 50, SECOND)).context("nothing was admitted")?;
    ensure!(found.is_kept(), "too many: {found:?}");
    let span = exhausted_without_pauses(all, 429, SECOND).context("nothing was refused")?;
    let (given, admitted) = (50 + share(50, span, SECOND), admitted.len() as u64);
    println!("{admitted} admitted of at least {given}; nearest to the bound: {found:?}");
    ensure!(admitted * 100 >= given * 98, "{admitted} of {given} were admitted");
    Ok(())
}

fn count(all: &[Exchange], status: u16) -> usize {
    all.iter().filter(|e| e.status == status).count()
}

/// Empties the bucket, and waits until somebody is refused for the load's sake.
fn until_overloaded(mesh: &Mesh) -> Result<Response> {
    until("the load to be known", SOON, || {
        let answer = mesh.get("/api/auth/x").send()?;
        let refused = (answer.status == 503).then(|| answer.expect_refusal(503, "overloaded"));
        refused.transpose()
    })
}

#[test]
fn without_a_word_of_the_load_the_rate_is_the_full_one() -> Result<()> {
    under(None, |mesh, _| {
        let all = offer(mesh, Instant::now() + 4 * SECOND)?;
        gives_all(&all)
    })
}

#[test]
fn below_the_threshold_too() -> Result<()> {
    under(Some(500), |mesh, _| {
        let all = offer(mesh, Instant::now() + 4 * SECOND)?;
        gives_all(&all)
    })
}

#[test]
fn at_full_load_the_floor_is_left_and_who_suffers_is_told_why() -> Result<()> {
    under(Some(1000), |mesh, _| {
        // Until the load is known the bucket is an ordinary one; empty it is either way.
        until_overloaded(mesh)?;
        let begin = Instant::now();
        let all = offer(mesh, begin + 4 * SECOND)?;
        let admitted = count(&all, 200) as u64;
        let least = share(5, exhausted(&all, 503).context("nothing was refused")?, SECOND);
        println!("{admitted} admitted in 4 s, {} overloaded", count(&all, 503));
        ensure!(count(&all, 503) > count(&all, 429), "most were refused for their own sake");
        ensure!(admitted >= least.saturating_sub(1), "{admitted} of at least {least}");
        // What was left in the bucket is less than one token, and what it gives is a tenth.
        let most = 1 + share(5, begin.elapsed(), SECOND);
        ensure!(admitted <= most, "{admitted} of at most {most}");
        let told = until_overloaded(mesh)?;
        let kind = told.json()["type"].as_str().unwrap_or_default().to_owned();
        ensure!(kind.ends_with("#temporary-reduced-capacity"), "{kind}");
        ensure!(told.header("retry-after") == "1", "{told:?}");
        let labels = [("reason", "overloaded")];
        ensure!(mesh.metric("gateway_requests_total", &labels)? > count(&all, 503) as u64);
        Ok(())
    })
}

#[test]
fn between_threshold_and_full_load_the_rate_falls_evenly() -> Result<()> {
    under(Some(750), |mesh, _| {
        until_overloaded(mesh)?;
        let begin = Instant::now();
        let all = offer(mesh, begin + 4 * SECOND)?;
        let admitted = count(&all, 200) as u64;
        // Half of the way from the whole to a tenth: 55 %, 27.5 a second.
        let least = share(55, exhausted(&all, 503).context("nothing was refused")?, 2 * SECOND);
        let most = 1 + share(55, begin.elapsed(), 2 * SECOND);
        println!("{admitted} admitted, {least} to {most} were expected");
        ensure!((least * 98 / 100..=most).contains(&admitted), "{admitted}: {least} to {most}");
        Ok(())
    })
}

#[test]
fn after_five_seconds_of_silence_the_full_rate_is_back() -> Result<()> {
    under(Some(1000), |mesh, sidecar| {
        until_overloaded(mesh)?;
        sidecar.only(Rule::fault(Fault::Hang));
        // The poll that it holds is answered all the same: the silence begins with its last answer.
        let end = || sidecar.answered().map(|last| last + SILENCE + LATE + 3 * SECOND);
        let all = offer_while(mesh, || end().is_none_or(|end| Instant::now() < end))?;
        let quiet = sidecar.answered().context("the sidecar never answered")?;
        let after: Vec<Exchange> =
            all.iter().filter(|e| e.sent >= quiet + SILENCE + LATE).copied().collect();
        let told = all.iter().filter(|e| e.status == 503).map(|e| e.done).max();
        let last = told.context("nobody was told of the load")?.saturating_duration_since(quiet);
        println!("the last who was told of the load: {last:?} after the silence began");
        ensure!(count(&after, 503) == 0, "the load was still believed");
        ensure!(last >= SILENCE - SECOND, "forgotten too soon: {last:?}");
        // From there on it gives 50 a second again, whatever had been left before.
        let span = exhausted_without_pauses(&after, 429, SECOND).context("nothing was refused")?;
        let (given, admitted) = (share(50, span, SECOND), count(&after, 200) as u64);
        println!("{admitted} of at least {given} after that");
        ensure!(admitted * 100 >= given * 95, "{admitted} of {given}");
        Ok(())
    })
}

/// The load that the real sidecar says it measures, as a share; `None` while it measures none.
fn measured(mesh: &mut Mesh) -> Result<Option<f64>> {
    let page = mesh.sidecar()?.get("/metrics")?.expect(200)?.text();
    let sample = page.lines().find_map(|line| line.strip_prefix("gateway_load_ratio "));
    sample.map(|value| value.trim().parse().context("a sample")).transpose()
}

/// With the lowest threshold there is, any machine that answers requests is above it.
#[test]
fn the_real_sidecar_measures_while_somebody_wants_it_and_the_rate_follows() -> Result<()> {
    let mut limit = limit();
    limit["adaptive"] = json!({ "threshold": 0.001, "floor": 0.001 });
    Mesh::with(policy::with(&json!({ "rate_limits": [limit] }))).run(|mesh| {
        until_true("somebody to be told of the load", SOON, || {
            let all = offer(mesh, Instant::now() + SECOND / 2)?;
            Ok(count(&all, 503) > 0)
        })?;
        let load = measured(mesh)?.context("the load is not shown")?;
        ensure!(load > 0.0 && load <= 1.0, "{load}");
        // Nobody needs it any more.
        mesh.set_policy(&policy::base())?;
        until_true("the measuring to end", SOON, || Ok(measured(mesh)?.is_none()))?;
        Ok(())
    })
}
