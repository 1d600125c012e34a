//! What the house is furnished with: the copies that it runs, the command that renders its policy, and
//! its services. Keeps no state.

use super::policy::Chosen;
use super::{Args, Cluster, Upstream as Given};
use crate::workspace::output;
use anyhow::{Context as _, Result, bail};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use test_harness::process::Process;
use test_harness::{Artefacts, Bootstrap, Upstream, sidecar};

/// How long the first result of the rendering may take.
const RENDERED_WITHIN: Duration = Duration::from_secs(5);
/// Digits of a checksum that tell the builds of one day apart.
const CHECKSUM_DIGITS: usize = 12;

/// What the policy's command does with mistakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It ends.
    Strict,
    /// The gateway refuses, and says so itself.
    Lenient,
}

/// Starts the command that renders the policy now and whenever it is saved, and waits until the
/// first result is there.
pub(super) fn render(
    sidecar: &Path,
    policy: &Path,
    module: &Path,
    place: &Path,
    mode: Mode,
) -> Result<Process> {
    let out = resource(place);
    let before = std::fs::read(&out).ok();
    let mut command = Command::new(sidecar);
    command.arg("render").arg(policy).arg("--watch");
    command.arg("--module").arg(module).arg("--out").arg(&out);
    if mode == Mode::Lenient {
        command.arg("--unchecked");
    }
    let mut process = Process::start("render", command, place)?;
    let names_module = module.to_string_lossy().into_owned();
    test_harness::wait::until_true("the policy to be rendered", RENDERED_WITHIN, || {
        process.must_run()?;
        let now = std::fs::read(&out).ok();
        let fresh = now.as_ref().is_some_and(|text| {
            before.as_ref() != now.as_ref() || String::from_utf8_lossy(text).contains(&names_module)
        });
        Ok(fresh)
    })?;
    Ok(process)
}

/// The policy as Envoy loads it.
pub(super) fn resource(place: &Path) -> PathBuf {
    place.join("ecds/policy.yaml")
}

/// Copies the filter under a name with its checksum. Envoy reads a module once per name, and a
/// build must not change one that is in use.
pub(super) fn keep_module(artefacts: &Artefacts, place: &Path) -> Result<PathBuf> {
    let sum = checksum(&artefacts.module)?;
    let kept = place.join(format!("gateway_filter-{sum}.wasm"));
    if !kept.exists() {
        std::fs::copy(&artefacts.module, &kept)
            .with_context(|| format!("copying the filter to {}", kept.display()))?;
    }
    Ok(kept)
}

/// A folder for the executables that run, beside the one where they are built.
pub(super) fn kept_beside(built: &Path) -> Result<TempDir> {
    let parent = built.parent().and_then(Path::parent).context("an artefact lies in a folder")?;
    let folder = tempfile::Builder::new().prefix("up-").tempdir_in(parent);
    folder.with_context(|| format!("making a folder in {}", parent.display()))
}

/// Copies the sidecar, so that the one that runs can be started again after a build.
pub(super) fn keep_sidecar(artefacts: &Artefacts, place: &Path) -> Result<PathBuf> {
    let kept = place.join(format!("gateway-sidecar-{}", checksum(&artefacts.sidecar)?));
    if !kept.exists() {
        std::fs::copy(&artefacts.sidecar, &kept)
            .with_context(|| format!("copying the sidecar to {}", kept.display()))?;
    }
    Ok(kept)
}

/// A short name for what is in a file.
fn checksum(file: &Path) -> Result<String> {
    let sum = output(Command::new("sha256sum").arg(file))?;
    Ok(sum.chars().take(CHECKSUM_DIGITS).collect())
}

/// How the sidecar is started.
pub(super) fn sidecar(
    args: &Args,
    chosen: &Chosen,
    executable: PathBuf,
    place: &Path,
    listen: SocketAddr,
    envoy_admin: SocketAddr,
) -> sidecar::Options {
    sidecar::Options {
        executable,
        dir: place.to_owned(),
        listen,
        envoy_admin,
        admin_token_file: place.join("admin-token"),
        data_dir: args.data_dir.clone().unwrap_or_else(|| place.join("data")),
        files_dir: args.files_dir.clone(),
        environment: chosen.sidecar_environment(),
        arguments: Vec::new(),
    }
}

/// Adds the clusters that were given, and says which one the policy needs in addition.
pub(super) fn clusters(
    bootstrap: &mut Bootstrap,
    given: &[Cluster],
    issuers: &[(String, String)],
) -> Result<()> {
    for one in given {
        bootstrap.cluster(&one.name, &one.peer).context("--cluster")?;
    }
    for (name, host) in issuers {
        if !bootstrap.has_cluster(name)? {
            bail!(
                "the policy fetches keys from the cluster {name:?}, which Envoy does not know. \
                 Say where it is, for example: --cluster {name}=https://{host}"
            );
        }
    }
    Ok(())
}

/// Starts the demo services, in this process, and puts the real ones that were given beside them.
pub(super) fn services(bootstrap: &mut Bootstrap, given: &[Given]) -> Result<Vec<Upstream>> {
    let mut services = Vec::new();
    for name in bootstrap.services()? {
        if given.iter().any(|one| one.name == name) {
            continue;
        }
        let service = Upstream::start(&name)?;
        bootstrap.service(&name, "127.0.0.1", service.address().port())?;
        services.push(service);
    }
    for one in given {
        bootstrap.service(&one.name, &one.host, one.port)?;
    }
    Ok(services)
}
