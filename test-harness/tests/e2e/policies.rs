//! A policy is changed while requests flow: nothing is dropped, nothing is forgotten, and a mistake
//! changes nothing.

use anyhow::Result;
use serde_json::{Value, json};
use std::process::Command;
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::process::Process;
use test_harness::wait::until_true;
use test_harness::{Artefacts, Mesh, Request, policy};

/// A limit that one request exhausts, a breaker that one failure opens, and a header to tell
/// policies apart.
fn policy(frame_options: &str) -> Value {
    policy::with(&json!({
        "rate_limits": [{ "name": "samples", "match": { "services": ["samples"] }, "key": [],
            "algorithm": "token_bucket", "requests": 1, "per": "1h", "burst": 1 }],
        "circuit_breakers": { "services": { "storage": { "failure_threshold": 1, "timeout": "10m" }}},
        "security_headers": { "preset": "seed", "override": { "X-Frame-Options": frame_options } }
    }))
}

fn in_force(mesh: &Mesh, frame_options: &str) -> Result<()> {
    until_true("the policy to be in force", SOON, || {
        let mut all = true;
        // More than the workers there are: each must have it.
        for _ in 0..8 {
            let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
            all &= answer.header("x-frame-options") == frame_options;
        }
        Ok(all)
    })
}

#[test]
fn a_change_under_traffic_drops_nothing_and_forgets_nothing() -> Result<()> {
    Mesh::with(policy("DENY")).run(|mesh| {
        mesh.get("/api/samples/x").send()?.expect(200)?;
        mesh.get("/api/samples/x").send()?.expect_refusal(429, "rate-limited")?;
        mesh.get("/api/storage/status/503").send()?.expect(503)?;
        mesh.get("/api/storage/x").send()?.expect_refusal(503, "breaker-open")?;
        let before = mesh.metric("gateway_policy_generation", &[])?;
        let to = mesh.gateway();
        let load = Load::start(8, move || Request::new(to, "GET", "/api/auth/load"))?;
        load.more(100, SOON)?;
        for (i, frame_options) in (1..).zip(["SAMEORIGIN", "DENY", "SAMEORIGIN"]) {
            mesh.set_policy(&policy(frame_options))?;
            in_force(mesh, frame_options)?;
            load.more(100, SOON)?;
            mesh.until_metric("gateway_policy_generation", &[], before + i)?;
        }
        load.stop()?.only(&[200])?;
        mesh.get("/api/samples/x").send()?.expect_refusal(429, "rate-limited")?;
        mesh.get("/api/storage/x").send()?.expect_refusal(503, "breaker-open")?;
        mesh.until_synced(SOON)
    })
}

#[test]
fn a_bad_policy_is_refused_and_the_old_one_serves_on() -> Result<()> {
    Mesh::with(policy("DENY")).run(|mesh| {
        let to = mesh.gateway();
        let load = Load::start(4, move || Request::new(to, "GET", "/api/auth/load"))?;
        load.more(50, SOON)?;
        let mut bad = policy("SAMEORIGIN");
        bad["rate_limits"][0]["requests"] = json!(0);
        bad["htps"] = json!({ "mode": "off" });
        mesh.offer_bad_policy(&bad)?;
        load.more(50, SOON)?;
        load.stop()?.only(&[200])?;
        in_force(mesh, "DENY")?;
        let refused = [("outcome", "refused")];
        assert_eq!(mesh.metric("gateway_policy_reload_total", &refused)?, 1);
        let log = mesh.envoy().log()?;
        for path in ["rate_limits[0].requests", "htps"] {
            assert!(log.contains(path), "the log does not name {path}");
        }
        mesh.set_policy(&policy("SAMEORIGIN"))?;
        in_force(mesh, "SAMEORIGIN")
    })
}

#[test]
fn the_same_bad_policy_is_refused_again_with_its_reasons() -> Result<()> {
    Mesh::with(policy("DENY")).run(|mesh| {
        let bad = policy::with(&json!({ "htps": { "mode": "off" } }));
        let refused = |mesh: &mut Mesh, times: u64| {
            mesh.offer_bad_policy(&bad)?;
            let outcome = [("outcome", "refused")];
            mesh.until_metric("gateway_policy_reload_total", &outcome, times)
        };
        refused(mesh, 1)?;
        let told = |mesh: &mut Mesh| anyhow::Ok(mesh.envoy().log()?.matches("htps").count());
        let once = told(mesh)?;
        mesh.set_policy(&policy("SAMEORIGIN"))?;
        in_force(mesh, "SAMEORIGIN")?;
        refused(mesh, 2)?;
        assert_eq!(told(mesh)?, 2 * once, "the reasons are told each time");
        in_force(mesh, "SAMEORIGIN")
    })
}

#[test]
fn a_mistake_is_found_before_the_gateway_sees_it() -> Result<()> {
    Mesh::with(policy("DENY")).concurrency(1).run(|mesh| {
        let error = mesh.set_policy(&policy::with(&json!({ "https": { "mode": "maybe" } })));
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("https.mode") && error.contains("redirect"), "{error}");
        in_force(mesh, "DENY")
    })
}

/// Saves the policy file as an editor does: in place.
fn save(mesh: &Mesh, policy: &Value) -> Result<()> {
    Ok(std::fs::write(mesh.place()?.join("policy.yaml"), policy.to_string())?)
}

#[test]
fn saving_the_file_is_enough_where_render_watches_it() -> Result<()> {
    Mesh::with(policy("DENY")).run(|mesh| {
        let artefacts = Artefacts::find()?;
        let mut command = Command::new(&artefacts.sidecar);
        command.arg("render").arg(mesh.place()?.join("policy.yaml"));
        command.arg("--module").arg(&artefacts.module);
        command.arg("--out").arg(mesh.place()?.join("ecds/policy.yaml")).arg("--watch");
        let mut watcher = Process::start("watcher", command, mesh.place()?)?;
        save(mesh, &policy("SAMEORIGIN"))?;
        in_force(mesh, "SAMEORIGIN")?;
        mesh.expect_refused_policies();
        save(mesh, &json!({ "version": 1, "nonsense": true }))?;
        until_true("the gateway to say that it refused", SOON, || {
            Ok(mesh.envoy().log()?.contains("nonsense"))
        })?;
        in_force(mesh, "SAMEORIGIN")?;
        save(mesh, &policy("DENY"))?;
        in_force(mesh, "DENY")?;
        watcher.must_run()?;
        assert!(watcher.stop(SOON)?.success(), "{}", watcher.tail());
        Ok(())
    })
}
