//! The sidecar dies and comes back; no request notices. Alone in its file, so that no other test runs
//! beside it: how soon it is back is measured.

use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::{Mesh, Request, policy};

/// From the moment the sidecar answers again: the promise of the project.
const BACK_IN_SYNC: Duration = Duration::from_secs(2);

#[test]
fn no_request_fails_while_the_sidecar_is_gone_and_it_is_back_in_sync_soon() -> Result<()> {
    let sections = json!({
        "rate_limits": [{ "name": "samples", "match": { "services": ["samples"] }, "key": [],
            "algorithm": "token_bucket", "requests": 1, "per": "1h", "burst": 2 }],
        "circuit_breakers": { "default": { "failure_threshold": 2, "timeout": "10m" } }
    });
    Mesh::with(policy::with(&sections)).run(|mesh| {
        mesh.get("/api/samples/x").send()?.expect(200)?;
        let to = mesh.gateway();
        let load = Load::start(8, move || Request::new(to, "GET", "/api/auth/load"))?;
        load.more(100, SOON)?;
        mesh.sidecar()?.kill9()?;
        mesh.until_metric("gateway_sidecar_connected", &[], 0)?;
        load.more(100, SOON)?;
        // What was counted still counts, and what goes wrong now is seen.
        mesh.get("/api/samples/x").send()?.expect(200)?;
        mesh.get("/api/samples/x").send()?.expect_refusal(429, "rate-limited")?;
        for _ in 0..2 {
            mesh.get("/api/storage/status/503").send()?.expect(503)?;
        }
        mesh.get("/api/storage/x").send()?.expect_refusal(503, "breaker-open")?;
        mesh.sidecar()?.restart()?;
        let back = Instant::now();
        mesh.until_synced(SOON)?;
        let took = back.elapsed();
        load.more(100, SOON)?;
        load.stop()?.only(&[200])?;
        assert!(took < BACK_IN_SYNC, "in sync only {took:?} after it answered");
        mesh.sidecar()?.post("/gateway/circuit-breakers/storage/reset")?.expect(200)?;
        mesh.get("/api/storage/x").send()?.expect(200)?;
        Ok(())
    })
}
