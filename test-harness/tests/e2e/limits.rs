//! Token buckets: exact whatever the number of workers, and told to the client.

use anyhow::Result;
use serde_json::{Value, json};
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::{Mesh, Request, policy};

/// So slow that nothing comes back during a test.
fn limit(name: &str, key: &Value, burst: u32) -> Value {
    json!({ "name": name, "key": key, "algorithm": "token_bucket",
            "requests": 1, "per": "1h", "burst": burst })
}

#[test]
fn exactly_the_burst_is_admitted_across_workers() -> Result<()> {
    let limits = json!({ "rate_limits": [limit("everyone", &json!([]), 100)] });
    Mesh::with(policy::with(&limits)).concurrency(2).run(|mesh| {
        let to = mesh.gateway();
        let load = Load::start(16, move || Request::new(to, "GET", "/api/samples/x"))?;
        load.more(400, SOON)?;
        let tally = load.stop()?.only(&[200, 429])?;
        assert_eq!(tally.of(200), 100, "{tally:?}");
        assert_eq!(mesh.upstream("samples")?.count(), 100);
        let refused = mesh.metric("gateway_requests_total", &[("reason", "rate-limited")])?;
        assert_eq!(refused, tally.of(429));
        Ok(())
    })
}

#[test]
fn each_user_has_a_bucket_and_is_told_about_it() -> Result<()> {
    let mut per_user = limit("per-user", &json!(["user"]), 3);
    per_user["requests"] = json!(3);
    let sections = json!({ "authentication": policy::hs256(), "rate_limits": [per_user] });
    Mesh::with(policy::with(&sections)).run(|mesh| {
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        for left in ["2", "1", "0"] {
            let answer = mesh.get("/api/auth/x").bearer(&anna).send()?.expect(200)?;
            assert_eq!(answer.header("x-ratelimit-remaining"), left);
            assert_eq!(answer.header("x-ratelimit-limit"), "3");
            assert!(answer.header("ratelimit").starts_with("\"per-user\";r="), "{answer:?}");
            assert!(answer.header("ratelimit-policy").starts_with("\"per-user\";q="), "{answer:?}");
        }
        let answer = mesh.get("/api/auth/x").bearer(&anna).send()?;
        let answer = answer.expect_refusal(429, "rate-limited")?;
        let wait: u64 = answer.header("retry-after").parse()?;
        assert!((1..=3600).contains(&wait), "retry-after {wait}");
        assert!(answer.json()["type"].as_str().unwrap_or_default().ends_with("#quota-exceeded"));
        mesh.get("/api/auth/x").bearer(&bert).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn what_a_later_limit_refuses_is_given_back_by_the_earlier_one() -> Result<()> {
    let mut narrow = limit("narrow", &json!([]), 1);
    narrow["match"] = json!({ "services": ["storage"] });
    let limits = json!({ "rate_limits": [limit("wide", &json!([]), 3), narrow] });
    Mesh::with(policy::with(&limits)).run(|mesh| {
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
fn a_shadow_limit_counts_and_never_refuses() -> Result<()> {
    let mut shadow = limit("trial", &json!(["ip"]), 1);
    shadow["mode"] = json!("shadow");
    Mesh::with(policy::with(&json!({ "rate_limits": [shadow] }))).run(|mesh| {
        for _ in 0..4 {
            mesh.get("/api/auth/x").send()?.expect(200)?;
        }
        let labels = [("limit", "trial"), ("outcome", "shadow_over")];
        mesh.until_metric("gateway_rate_limit_total", &labels, 3)
    })
}
