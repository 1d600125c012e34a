//! Children of the harness start, answer, stop when asked, and are killed when they do not.

use anyhow::Result;
use std::process::Command;
use std::time::Duration;
use test_harness::process::Process;
use test_harness::wait::{until, until_true};
use test_harness::{Request, port};

const SOON: Duration = Duration::from_secs(20);

/// The demo service, and the address that it printed.
fn demo_service(dir: &std::path::Path) -> Result<(Process, std::net::SocketAddr)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-service"));
    command.args(["--name", "storage", "--listen", "127.0.0.1:0"]);
    let mut process = Process::start("demo", command, dir)?;
    let address = until("the service to say where it is", SOON, || {
        process.must_run()?;
        let said = process.stdout()?;
        Ok(said.trim().rsplit_once("http://").and_then(|(_, address)| address.parse().ok()))
    })?;
    Ok((process, address))
}

#[test]
fn the_demo_service_serves_and_stops_cleanly() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut process, address) = demo_service(dir.path())?;
    let answer = Request::new(address, "GET", "/api/storage/x").send()?.expect(200)?;
    assert_eq!(answer.json()["service"], "storage");
    assert!(process.stop(SOON)?.success());
    assert!(Request::new(address, "GET", "/").send().is_err());
    Ok(())
}

#[test]
fn a_process_that_does_not_listen_to_reason_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut process, _) = demo_service(dir.path())?;
    process.freeze()?;
    let ended = process.stop(Duration::from_millis(200))?;
    assert!(!ended.success(), "{ended}");
    Ok(())
}

#[test]
fn a_process_that_ended_shows_what_it_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let command = Command::new(env!("CARGO_BIN_EXE_demo-service"));
    let mut process = Process::start("demo", command, dir.path())?;
    process.wait(SOON)?;
    let error = format!("{:#}", process.must_run().unwrap_err());
    assert!(error.contains("usage: demo-service"), "{error}");
    Ok(())
}

#[test]
fn a_dropped_process_is_gone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (process, address) = demo_service(dir.path())?;
    drop(process);
    until_true("the port to be closed", SOON, || {
        Ok(Request::new(address, "GET", "/healthz").send().is_err())
    })
}

#[test]
fn a_reserved_port_can_be_opened_by_whoever_knows_it() -> Result<()> {
    let port = port::reserve()?;
    std::net::TcpListener::bind(("127.0.0.1", port))?;
    Ok(())
}
