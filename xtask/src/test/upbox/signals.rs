//! A signal before `up` is ready, and a second one while it drains.

use super::{
    ANY_PORTS, field, nothing_runs, parts, ready, says, slow_curl, up, with_policy, write,
};
use crate::children;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::time::Duration;
use test_harness::wait;

/// From a signal that allows no drain to the end.
const AT_ONCE: Duration = Duration::from_secs(15);
/// From the command to the start of Envoy; the build before has been done.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// A request that takes longer than [`AT_ONCE`].
const SLOW: &str = "/api/samples/delay/40000";

/// Who stops it while Envoy starts need not wait until everything runs.
pub(super) fn while_it_starts(ctx: &Workspace, dir: &Path) -> Result<()> {
    let mut house = up(ctx, "up-early", dir, &ANY_PORTS)?;
    let parts = wait::until("Envoy's process", STARTS_WITHIN, || {
        house.must_run()?;
        let parts = children::below(house.pid());
        Ok(parts.iter().any(|part| part.line.contains("envoy.json")).then_some(parts))
    })?;
    house.terminate()?;
    let status = house.wait(AT_ONCE).with_context(|| house.tail())?;
    let said = house.stderr()?;
    let told = said.contains("stopped before everything ran");
    ensure!(!status.success() && told, "{status}\n{}", house.tail());
    nothing_runs(&parts)?;
    println!("    a signal while it starts is heard");
    Ok(())
}

/// The second signal cuts the drain short, and the end says so.
pub(super) fn twice(ctx: &Workspace, dir: &Path) -> Result<()> {
    let policy = write(dir, "twice.yaml", "version: 1\nname: twice\n")?;
    let mut house = with_policy(ctx, "up-twice", dir, &policy)?;
    let ready = ready(&mut house)?;
    let slow = format!("curl -sS '{}{SLOW}'", field(&ready, "gateway")?);
    let mut curl = slow_curl(&slow, dir, &field(&ready, "envoy_admin")?)?;
    let parts = parts(&house)?;
    house.terminate()?;
    says(&mut house, "draining")?;
    // Signals that come close together are one.
    let ended = wait::until("the end", AT_ONCE, || {
        house.terminate()?;
        house.ended()
    });
    let status = ended.with_context(|| house.tail())?;
    let told = house.stderr()?.contains("stopped before every request was answered");
    ensure!(!status.success() && told, "{status}\n{}", house.tail());
    nothing_runs(&parts)?;
    curl.wait(AT_ONCE).context("the slow request ends with Envoy")?;
    println!("    a second signal cuts the drain short");
    Ok(())
}
