//! A million clients that nobody has seen before: memory stays flat, and who is limited stays limited.
//! Alone in its file, so that no other test runs beside it: memory and time are measured.

use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Instant;
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::pour::{Next, Pour, get};
use test_harness::{Mesh, Request, policy};

/// How many.
const MILLION: u64 = 1_000_000;
/// After so many the limit's table has been full for long: it has room for tens of thousands.
const FULL_AFTER: u64 = MILLION / 5;
/// Envoy keeps two answers back at most on a connection (its protection from clients that do not
/// read), so two requests at once are as many as it takes.
const DEPTH: usize = 2;
/// Enough to keep two workers busy.
const CONNECTIONS: usize = 16;
/// What Envoy may grow by while 800,000 more clients come. A key in shared data takes some hundred
/// bytes (the name, the value, their place in a map): if each left one, that would be 80 MiB. What
/// is left to allow for is what allocators keep for threads and connections.
const GROWTH_MAX: u64 = 8 << 20;

/// Sends one request each for clients from `from` to `to`; none of them may be refused.
fn spray(mesh: &Mesh, from: u64, to: u64) -> Result<()> {
    let pour = Pour { to: mesh.gateway(), connections: CONNECTIONS, depth: DEPTH };
    let all = pour.run(|number, out| {
        let client = format!("client-{}", from + number);
        // No route leads there: Envoy's own 404 is the cheapest answer that has passed every limit.
        get("/none", &[("x-client", &client)], out);
        if from + number < to { Next::Send } else { Next::End }
    })?;
    ensure!(all.len() as u64 == to - from, "{} answers", all.len());
    let strange = all.iter().find(|e| e.status != 404);
    ensure!(strange.is_none(), "a new client was not let in: {strange:?}");
    Ok(())
}

#[test]
fn a_million_new_clients_cost_no_memory_and_free_nobody() -> Result<()> {
    // The one that is limited owes twenty hours, each of the others one.
    let limit = json!({ "name": "per-client", "key": ["header:x-client"],
        "algorithm": "token_bucket", "requests": 1, "per": "1h", "burst": 20 });
    let policy = policy::with(&json!({ "rate_limits": [limit] }));
    Mesh::with(policy).concurrency(2).without_access_log().run(|mesh| {
        let to = mesh.gateway();
        let greedy = move || Request::new(to, "GET", "/none").header("x-client", "greedy");
        for _ in 0..20 {
            greedy().send()?.expect(404)?;
        }
        greedy().send()?.expect_refusal(429, "rate-limited")?;
        let asks_on = Load::start(1, greedy)?;
        let begin = Instant::now();
        let empty = mesh.envoy().process().resident_bytes()?;
        spray(mesh, 0, FULL_AFTER)?;
        let full = mesh.envoy().process().resident_bytes()?;
        let evicted = || mesh.metric("gateway_record_evicted_total", &[]);
        let evicted_before = evicted()?;
        spray(mesh, FULL_AFTER, MILLION)?;
        let evicted = evicted()?;
        let took = begin.elapsed();
        asks_on.more(1, SOON)?;
        let asked = asks_on.stop()?.only(&[429])?.total();
        let end = mesh.envoy().process().resident_bytes()?;
        // A figure, no bound: what is promised is an answer. That answers go on coming is what a
        // connection of the load waits for, and fails without.
        println!("{MILLION} clients in {took:?}; {asked} requests of the limited one, all refused");
        println!(
            "Envoy has {} KiB before, {} KiB after {FULL_AFTER}, {} KiB at the end",
            empty >> 10,
            full >> 10,
            end >> 10
        );
        println!("evicted: {evicted_before} records after {FULL_AFTER}, {evicted} at the end");
        ensure!(evicted_before > 0, "the table was not full yet");
        ensure!(end.saturating_sub(full) < GROWTH_MAX, "Envoy has grown from {full} to {end}");
        for outcome in ["error_allowed", "error_refused"] {
            let failed = mesh.metric("gateway_rate_limit_total", &[("outcome", outcome)])?;
            println!("{outcome}: {failed}");
        }
        Ok(())
    })
}
