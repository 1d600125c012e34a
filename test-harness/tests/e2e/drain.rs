//! The gateway goes away politely.

use anyhow::Result;
use std::time::Duration;
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, Request, policy};

const DRAIN_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn no_request_that_had_begun_fails_when_the_gateway_stops_under_load() -> Result<()> {
    Mesh::with(policy::base()).run(|mesh| {
        let to = mesh.gateway();
        let slow = std::thread::spawn(move || {
            Request::new(to, "GET", "/api/storage/delay/2500").send()?.expect(200)
        });
        let load = Load::start(8, move || Request::new(to, "GET", "/api/auth/load"))?;
        load.more(200, SOON)?;
        until_true("the slow request to arrive", SOON, || {
            Ok(mesh.upstream("storage")?.count() == 1)
        })?;
        mesh.envoy().drain(DRAIN_WITHIN)?;
        let tally = load.stop()?.only_until_closed(&[200])?;
        assert!(tally.refused > 0, "the load went on until nobody listened: {tally:?}");
        slow.join().unwrap()?;
        Ok(())
    })
}

#[test]
fn load_balancers_are_told_first() -> Result<()> {
    Mesh::with(policy::base()).concurrency(1).run(|mesh| {
        mesh.get("/health").send()?.expect(200)?;
        mesh.envoy().post("/healthcheck/fail")?;
        mesh.get("/health").send()?.expect(503)?;
        let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
        assert_eq!(answer.header("connection"), "close");
        Ok(())
    })
}
