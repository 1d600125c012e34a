//! `up` with a service and a policy of one's own, under load: the policy is saved again and again,
//! then SIGTERM comes, and no request fails.

use super::{ANY_PORTS, STOP_WITHIN, address, nothing_runs, parts, ready, says, up, write};
use crate::workspace::{Workspace, output};
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use test_harness::load::Load;
use test_harness::{Request, Upstream, wait};

/// Clients, each with a connection that it keeps.
const CLIENTS: usize = 8;
/// Enough that every client is in the middle of its work.
const SOME_REQUESTS: u64 = 400;
/// How long they, or a saved policy, may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// A policy that lets everybody in.
const OPEN: &str = "version: 1\nname: open\n";
/// The same with a corner of loopback closed, from where the load does not come.
const CLOSED: &str = "version: 1\nname: closed\nip: { deny: [\"127.0.0.66/32\"] }\n";
/// What has a mistake in its third line.
const BAD: &str = "version: 1\nname: bad\nhttps: { mode: sometimes }\n";

/// The case.
pub(super) fn test(ctx: &Workspace, dir: &Path) -> Result<()> {
    let service = Upstream::start("samples")?;
    let given = format!("samples={}", service.address());
    let policy = write(dir, "busy.yaml", OPEN)?;
    let arguments = [&ANY_PORTS[..], &["--upstream", &given, "--policy", &policy]].concat();
    let mut house = up(ctx, "up-busy", dir, &arguments)?;
    let ready = ready(&mut house)?;
    let gateway = address(&ready, "gateway")?;
    let get = move || Request::new(gateway, "GET", "/api/samples/42");
    get().send()?.expect(200)?;
    ensure!(service.count() > 0, "the service that was given has seen no request");
    println!("    a service of one's own is reached");

    let load = Load::start(CLIENTS, get)?;
    load.more(SOME_REQUESTS, SOON)?;
    from_the_corner(gateway, "200")?;
    write(dir, "busy.yaml", CLOSED)?;
    from_the_corner(gateway, "403").with_context(|| house.tail())?;
    write(dir, "busy.yaml", BAD)?;
    says(&mut house, "busy.yaml:3: https.mode")?;
    from_the_corner(gateway, "403")?;
    write(dir, "busy.yaml", OPEN)?;
    from_the_corner(gateway, "200").with_context(|| house.tail())?;
    load.more(SOME_REQUESTS, SOON)?;
    load.tally().only(&[200])?;
    println!("    a saved policy changes the gateway, a bad one is named and does not");

    let parts = parts(&house)?;
    house.terminate()?;
    let status = house.wait(STOP_WITHIN).with_context(|| house.tail())?;
    let tally = load.stop()?.only_until_closed(&[200])?;
    ensure!(status.success(), "after SIGTERM: {status}\n{}", house.tail());
    nothing_runs(&parts)?;
    println!("    SIGTERM under load: {} requests, none failed", tally.total());
    Ok(())
}

/// Waits until a request from the closed corner gets this status.
fn from_the_corner(gateway: SocketAddr, status: &str) -> Result<()> {
    let url = format!("http://{gateway}/api/samples/42");
    let arguments = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--interface", "127.0.0.66"];
    wait::until_true(&format!("{status} from the corner"), SOON, || {
        Ok(output(Command::new("curl").args(arguments).arg(&url))? == status)
    })
}
