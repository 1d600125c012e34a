//! The sidecar hangs, or Envoy starts anew; no request notices. What happens when the sidecar dies is
//! in `recovery.rs`.

use anyhow::Result;
use std::time::Duration;
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, Request, policy};

/// The filter gives a call to the sidecar several seconds; an answer that waited for one would take
/// longer than this, one on a busy machine does not.
const NOT_DELAYED: Duration = Duration::from_secs(1);

#[test]
fn a_sidecar_that_hangs_delays_no_request() -> Result<()> {
    Mesh::with(policy::base()).run(|mesh| {
        let to = mesh.gateway();
        mesh.sidecar()?.process().freeze()?;
        let load = Load::start(4, move || Request::new(to, "GET", "/api/auth/load"))?;
        mesh.until_metric("gateway_sidecar_connected", &[], 0)?;
        let tally = load.stop()?.only(&[200])?;
        assert!(tally.longest < NOT_DELAYED, "an answer took {:?}", tally.longest);
        mesh.sidecar()?.process().thaw()?;
        mesh.until_synced(SOON)
    })
}

fn healthy(mesh: &mut Mesh) -> Result<()> {
    let sidecar = mesh.sidecar()?;
    until_true("the sidecar to find all healthy", SOON, || {
        Ok(sidecar.get("/health")?.json()["status"] == "healthy")
    })
}

#[test]
fn an_envoy_that_starts_anew_finds_its_sidecar_again() -> Result<()> {
    Mesh::with(policy::base()).run(|mesh| {
        healthy(mesh)?;
        mesh.envoy().restart()?;
        mesh.until_synced(SOON)?;
        healthy(mesh)?;
        mesh.get("/api/auth/x").send()?.expect(200)?;
        let metrics = mesh.sidecar()?.get("/metrics")?.expect(200)?.text();
        assert!(metrics.contains("gateway_requests_total{"), "{metrics}");
        Ok(())
    })
}
