//! Leaky buckets: requests leave one by one at even distances, in their order, never early; a full
//! queue refuses; who goes away frees the last place and no other.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use test_harness::mesh::SOON;
use test_harness::raw::Raw;
use test_harness::wait::{until, until_true};
use test_harness::{Mesh, Request, Response, policy};

/// One every `per`.
fn leak(per: &str, queue: u32) -> Value {
    json!({ "name": "smooth", "key": ["service"], "algorithm": "leaky_bucket",
            "requests": 1, "per": per, "queue": queue })
}

fn alone(limit: &Value) -> Value {
    policy::with(&json!({ "rate_limits": [limit] }))
}

type Asked = JoinHandle<Result<Response>>;

/// A request that is on its way while the test goes on.
fn ask(request: Request) -> Asked {
    std::thread::spawn(|| request.send())
}

fn answer(asked: Asked) -> Result<Response> {
    asked.join().map_err(|_| anyhow!("a thread failed"))?
}

/// Waits until so many requests have been paused altogether.
fn until_paused(mesh: &mut Mesh, count: u64) -> Result<()> {
    mesh.until_metric("gateway_rate_limit_paused_total", &[("limit", "smooth")], count)
}

/// A request whose client can hang up.
fn hold(to: SocketAddr, path: &str) -> Result<Raw> {
    let mut raw = Raw::connect(to)?;
    raw.send(format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n"))?;
    Ok(raw)
}

#[test]
fn requests_leave_one_by_one_in_their_order_and_never_early() -> Result<()> {
    // A request has as long to arrive before its turn, or it would not wait.
    let distance = Duration::from_secs(3);
    Mesh::with(alone(&leak("3s", 10))).concurrency(4).run(|mesh| {
        let begin = Instant::now();
        let mut asked = Vec::new();
        // Each is sent when the one before has its turn, so that there is an order to keep.
        for number in 0..5 {
            asked.push(ask(mesh.get(&format!("/api/auth/{number}"))));
            match number {
                0 => until_true("the first to arrive", SOON, || {
                    Ok(mesh.upstream("auth")?.count() == 1)
                })?,
                _ => until_paused(mesh, number)?,
            }
        }
        for one in asked {
            answer(one)?.expect(200)?;
        }
        let seen = mesh.upstream("auth")?.seen();
        let order: Vec<&str> = seen.iter().map(|request| request.target.as_str()).collect();
        assert_eq!(order, ["0", "1", "2", "3", "4"].map(|n| format!("/api/auth/{n}")));
        // The first turn was after `begin` and before the first arrival; the others follow at even
        // distances. So nobody may arrive before `begin` and so many distances, whatever the way
        // took; and each must be there before the next one's turn.
        let first = seen.first().context("nothing arrived")?.at;
        for (number, request) in (0..).zip(&seen) {
            let turn = distance * number;
            let (earliest, latest) = (begin + turn, first + turn + distance);
            let at = request.at.saturating_duration_since(begin);
            println!("{number}: {at:?} after the begin, its turn was after {turn:?} at least");
            ensure!(request.at >= earliest, "{number} came {:?} early", earliest - request.at);
            ensure!(request.at < latest, "{number} came {:?} late", request.at - latest);
        }
        Ok(())
    })
}

#[test]
fn a_full_queue_refuses_and_says_when_there_is_a_place() -> Result<()> {
    Mesh::with(alone(&leak("3s", 2))).concurrency(4).run(|mesh| {
        let begin = Instant::now();
        let first = mesh.get("/api/auth/x").send()?.expect(200)?;
        assert_eq!(first.header("x-ratelimit-remaining"), "2", "places in the queue");
        let waiting = [ask(mesh.get("/api/auth/x")), ask(mesh.get("/api/auth/x"))];
        until_paused(mesh, 2)?;
        let refused = mesh.get("/api/auth/x").send()?.expect_refusal(429, "rate-limited")?;
        let told = Instant::now();
        let retry: u64 = refused.header("retry-after").parse()?;
        assert!((1..=3).contains(&retry), "retry-after {retry}");
        assert_eq!(mesh.upstream("auth")?.count(), 1, "one was forwarded early");
        // Another service has a queue of its own.
        mesh.get("/api/storage/x").send()?.expect(200)?;
        let there = told + Duration::from_secs(retry);
        until_true("the time that was told", SOON, || Ok(Instant::now() >= there))?;
        mesh.get("/api/auth/x").send()?.expect(200)?;
        // It had the fourth turn.
        assert!(begin.elapsed() >= Duration::from_secs(9), "{:?}", begin.elapsed());
        for one in waiting {
            answer(one)?.expect(200)?;
        }
        let labels = [("limit", "smooth"), ("outcome", "over")];
        mesh.until_metric("gateway_rate_limit_total", &labels, 1)
    })
}

#[test]
fn who_hangs_up_gives_the_last_place_back_and_no_other() -> Result<()> {
    Mesh::with(alone(&leak("10m", 2))).concurrency(4).run(|mesh| {
        let to = mesh.gateway();
        let refused = |mesh: &Mesh| -> Result<()> {
            mesh.get("/api/auth/x").send()?.expect_refusal(429, "rate-limited").map(|_| ())
        };
        mesh.get("/api/auth/x").send()?.expect(200)?;
        let second = hold(to, "/api/auth/second")?;
        until_paused(mesh, 1)?;
        let third = hold(to, "/api/auth/third")?;
        until_paused(mesh, 2)?;
        refused(mesh)?;
        drop(third);
        // The gateway hears of it in its own time; then there is a place again.
        let fourth = until("the place of the third", SOON, || {
            let labels = [("limit", "smooth")];
            let paused = || mesh.metric("gateway_rate_limit_paused_total", &labels);
            let over = || mesh.metric("gateway_rate_limit_total", &[("outcome", "over")]);
            // Counted first: it may be refused before this thread asks.
            let before = over()?;
            let mut raw = hold(to, "/api/auth/fourth")?;
            until_true("it to be judged", SOON, || Ok(paused()? == 3 || over()? > before))?;
            if paused()? == 3 {
                return Ok(Some(raw));
            }
            ensure!(raw.answer()?.status() == 429);
            Ok(None)
        })?;
        refused(mesh)?;
        // Somebody waits behind the second: its turn passes unused, so that distances are kept.
        drop(second);
        mesh.logged("of the second", |line| line.text("path") == "/api/auth/second")?;
        refused(mesh)?;
        drop(fourth);
        mesh.logged("of the fourth", |line| line.text("path") == "/api/auth/fourth")?;
        assert_eq!(mesh.upstream("auth")?.count(), 1, "who has gone was forwarded");
        Ok(())
    })
}

#[test]
fn who_waits_across_a_change_of_the_policy_is_served_at_its_turn() -> Result<()> {
    let distance = Duration::from_secs(4);
    Mesh::with(alone(&leak("4s", 3))).concurrency(4).run(|mesh| {
        let begin = Instant::now();
        mesh.get("/api/auth/0").send()?.expect(200)?;
        let one = ask(mesh.get("/api/auth/1"));
        until_paused(mesh, 1)?;
        let mut changed = alone(&leak("4s", 3));
        changed["security_headers"] = json!({ "preset": "owasp-api" });
        mesh.set_policy(&changed)?;
        let two = ask(mesh.get("/api/auth/2"));
        until_paused(mesh, 2)?;
        // And one that knows no such limit any more.
        mesh.set_policy(&policy::base())?;
        for (turn, waiting) in (1..).zip([one, two]) {
            answer(waiting)?.expect(200).with_context(|| format!("the one with turn {turn}"))?;
            ensure!(begin.elapsed() >= distance * turn, "turn {turn} at {:?}", begin.elapsed());
        }
        Ok(())
    })
}

#[test]
fn a_body_waits_with_its_request_and_arrives_whole() -> Result<()> {
    // More than a connection may have waiting in memory.
    let body = "tracseq ".repeat(32 << 10);
    Mesh::with(alone(&leak("2s", 4))).run(|mesh| {
        mesh.get("/api/auth/x").send()?.expect(200)?;
        let post = |mesh: &Mesh| mesh.request("POST", "/api/auth/echo").body(body.clone());
        let waiting = [ask(post(mesh)), ask(post(mesh).http2())];
        for one in waiting {
            let answer = answer(one)?.expect(200)?;
            assert!(answer.json()["body"] == body.as_str(), "the body is another one");
        }
        until_paused(mesh, 2)
    })
}

/// Only who may pass waits: a refusal by authentication or by another limit comes at once.
#[test]
fn who_is_refused_is_not_kept_waiting() -> Result<()> {
    let narrow = json!({ "name": "narrow", "key": ["user"], "requests": 1, "per": "1h" });
    let sections = json!({
        "authentication": policy::hs256(), "rate_limits": [leak("10m", 5), narrow]
    });
    Mesh::with(policy::with(&sections)).run(|mesh| {
        let anna = mesh.token("anna")?;
        mesh.get("/api/auth/x").bearer(&anna).send()?.expect(200)?;
        mesh.get("/api/auth/x").send()?.expect_refusal(401, "credentials-missing")?;
        let refused = mesh.get("/api/auth/x").bearer(&anna).send()?;
        refused.expect_refusal(429, "rate-limited")?;
        until_paused(mesh, 0)
    })
}

#[test]
fn a_shadow_queue_delays_nobody() -> Result<()> {
    let mut shadow = leak("10m", 1);
    shadow["mode"] = json!("shadow");
    Mesh::with(alone(&shadow)).run(|mesh| {
        for _ in 0..4 {
            mesh.get("/api/auth/x").send()?.expect(200)?;
        }
        let labels = [("limit", "smooth"), ("outcome", "shadow_over")];
        mesh.until_metric("gateway_rate_limit_total", &labels, 2)?;
        until_paused(mesh, 0)
    })
}
