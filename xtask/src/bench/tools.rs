//! Programs that the suite needs and Rust has not: wrk and nginx.
//!
//! Taken from `PATH`; otherwise, on Debian and Ubuntu, their packages are unpacked under
//! `target/tools/debian`. They are not installed: that would need root, and would start an nginx
//! service on port 80.

use crate::workspace::{self, Workspace};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program from a Debian package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool {
    /// The executable's name.
    name: &'static str,
    /// Where the package puts it.
    inside: &'static str,
    /// The package, and those libraries of it that a small system lacks.
    packages: &'static [&'static str],
    /// An argument that makes it print a version, to see whether it starts at all.
    probe: &'static str,
}

/// The load generator.
pub(super) const WRK: Tool = Tool {
    name: "wrk",
    inside: "usr/bin/wrk",
    packages: &["wrk", "libluajit-5.1-2"],
    probe: "--version",
};

/// The upstream.
pub(super) const NGINX: Tool =
    Tool { name: "nginx", inside: "usr/sbin/nginx", packages: &["nginx"], probe: "-v" };

/// Finds the tool or unpacks its package; the error says what to run.
pub(super) fn find(tool: Tool, ctx: &Workspace) -> Result<PathBuf> {
    let on_path = workspace::on_path(tool.name);
    let unpacked = ctx.root().join("target/tools/debian");
    let local = unpacked.join(tool.inside);
    // Debian keeps nginx in a folder that only root has on PATH.
    let candidates = [on_path, Some(Path::new("/").join(tool.inside)), Some(local.clone())];
    for candidate in candidates.into_iter().flatten() {
        if starts(&candidate, tool.probe) {
            return Ok(candidate);
        }
    }
    let advice = format!(
        "`{}` is needed; on Debian or Ubuntu run: apt-get install {}",
        tool.name,
        tool.packages.first().unwrap_or(&tool.name)
    );
    unpack(tool, &unpacked).with_context(|| advice.clone())?;
    if !starts(&local, tool.probe) {
        bail!("{advice}");
    }
    Ok(local)
}

/// A command that finds the libraries unpacked beside the tool.
pub(super) fn command(tool: &Path) -> Command {
    let mut command = Command::new(tool);
    if let Some(root) = tool.ancestors().nth(3).filter(|root| root.ends_with("tools/debian")) {
        command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
    }
    command
}

/// Whether it can be started: a missing library shows as a status of 127.
fn starts(tool: &Path, probe: &str) -> bool {
    let missing = Some(127);
    let output = command(tool).arg(probe).output();
    workspace::is_executable(tool) && output.is_ok_and(|output| output.status.code() != missing)
}

/// Downloads and unpacks packages; refreshes the lists once when they are missing and we are root.
fn unpack(tool: Tool, into: &Path) -> Result<()> {
    if workspace::on_path("apt-get").is_none() || workspace::on_path("dpkg-deb").is_none() {
        bail!("no `apt-get` and `dpkg-deb` here");
    }
    workspace::say(&format!("unpacking the Debian packages {}", tool.packages.join(", ")));
    let debs = into.join("packages");
    std::fs::create_dir_all(&debs).with_context(|| format!("creating {}", debs.display()))?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.current_dir(&debs).args(["-q", "download"]).args(tool.packages);
        workspace::output(&mut command)
    };
    if let Err(error) = download() {
        if !workspace::is_root() {
            return Err(error);
        }
        workspace::output(Command::new("apt-get").args(["-q", "update"]))?;
        download()?;
    }
    let found = std::fs::read_dir(&debs).with_context(|| format!("reading {}", debs.display()))?;
    for deb in found.flatten().map(|entry| entry.path()) {
        workspace::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
    }
    Ok(())
}
