//! `cargo xtask bench`: the performance suite. Under construction.

use crate::workspace::Workspace;
use anyhow::{Result, bail};

/// What can be chosen for a run.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

/// Runs the suite.
pub(crate) fn run(_args: &Args, _ctx: &Workspace) -> Result<()> {
    bail!("bench is not built yet")
}
