//! Sliding windows: never more in any window, refusals are not counted, and what a client is told.
//! That four workers at once keep to them is in `exactness.rs`.

use anyhow::Result;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use test_harness::mesh::SOON;
use test_harness::wait::until;
use test_harness::{Mesh, policy};

fn window(name: &str, key: &Value, requests: u32, per: &str) -> Value {
    json!({ "name": name, "key": key, "algorithm": "sliding_window",
            "requests": requests, "per": per })
}

#[test]
fn each_client_has_a_window_and_is_told_about_it() -> Result<()> {
    let limit = window("per-client", &json!(["header:x-client"]), 3, "1h");
    Mesh::with(policy::with(&json!({ "rate_limits": [limit] }))).run(|mesh| {
        let ask = |client: &str| mesh.get("/api/auth/x").header("x-client", client);
        for left in ["2", "1", "0"] {
            let answer = ask("anna").send()?.expect(200)?;
            assert_eq!(answer.header("x-ratelimit-remaining"), left);
            assert_eq!(answer.header("x-ratelimit-limit"), "3");
        }
        let answer = ask("anna").send()?.expect_refusal(429, "rate-limited")?;
        let wait: u64 = answer.header("retry-after").parse()?;
        // It leaves the window after an hour, and may have to wait for its sub-window to end.
        assert!((3590..=3600 + 360).contains(&wait), "retry-after {wait}");
        ask("bert").send()?.expect(200)?;
        Ok(())
    })
}

/// Asking all the time neither helps nor harms.
#[test]
fn who_hammers_is_let_in_when_the_window_has_room_and_not_before() -> Result<()> {
    let per = Duration::from_secs(2);
    let limit = window("narrow", &json!([]), 3, "2s");
    Mesh::with(policy::with(&json!({ "rate_limits": [limit] }))).run(|mesh| {
        let first = Instant::now();
        for _ in 0..3 {
            mesh.get("/api/auth/x").send()?.expect(200)?;
        }
        let third = Instant::now();
        let mut refused = 0;
        let again = until("room in the window", SOON, || {
            let answer = mesh.get("/api/auth/x").send()?;
            refused += u32::from(answer.status == 429);
            Ok((answer.status == 200).then(Instant::now))
        })?;
        // All three before were decided before `third`, this one before `again`.
        assert!(again - first >= per, "admitted {:?} after the first", again - first);
        println!("admitted {:?} after the third, {refused} refusals between", again - third);
        assert!(refused > 3, "hardly asked");
        Ok(())
    })
}

#[test]
fn what_a_later_limit_refuses_is_given_back_to_the_window() -> Result<()> {
    let mut narrow = window("narrow", &json!([]), 1, "1h");
    narrow["match"] = json!({ "services": ["storage"] });
    let limits = json!([window("wide", &json!([]), 3, "1h"), narrow]);
    Mesh::with(policy::with(&json!({ "rate_limits": limits }))).run(|mesh| {
        mesh.get("/api/storage/x").send()?.expect(200)?;
        for _ in 0..5 {
            mesh.get("/api/storage/x").send()?.expect_refusal(429, "rate-limited")?;
        }
        for _ in 0..2 {
            mesh.get("/api/auth/x").send()?.expect(200)?;
        }
        mesh.get("/api/auth/x").send()?.expect_refusal(429, "rate-limited")?;
        Ok(())
    })
}

#[test]
fn a_shadow_window_counts_and_never_refuses() -> Result<()> {
    let mut shadow = window("trial", &json!(["ip"]), 1, "1h");
    shadow["mode"] = json!("shadow");
    Mesh::with(policy::with(&json!({ "rate_limits": [shadow] }))).run(|mesh| {
        for _ in 0..4 {
            let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
            assert_eq!(answer.header("ratelimit"), "", "nobody is told of a trial");
        }
        let labels = [("limit", "trial"), ("outcome", "shadow_over")];
        mesh.until_metric("gateway_rate_limit_total", &labels, 3)
    })
}

/// A request that costs more leaves less for others, and nothing is taken when it does not fit.
#[test]
fn a_dear_request_is_admitted_whole_or_not_at_all() -> Result<()> {
    let mut dear = window("dear", &json!([]), 10, "1h");
    dear["cost"] = json!(4);
    Mesh::with(policy::with(&json!({ "rate_limits": [dear] }))).run(|mesh| {
        for left in ["6", "2"] {
            let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
            assert_eq!(answer.header("x-ratelimit-remaining"), left);
        }
        for _ in 0..2 {
            let answer = mesh.get("/api/auth/x").send()?.expect_refusal(429, "rate-limited")?;
            assert_eq!(answer.header("x-ratelimit-remaining"), "2");
        }
        Ok(())
    })
}
