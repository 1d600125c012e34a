//! Everything that `up` runs: Envoy, the sidecar, the command that renders a saved policy, and the
//! demo services in this process. Nothing outlives the [`House`].

use super::policy::Chosen;
use super::ports::Ports;
use super::saved::Saved;
use super::{Args, Upstream as Given};
use crate::workspace::{output, say};
use anyhow::{Context as _, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_harness::process::Process;
use test_harness::{Artefacts, Bootstrap, Envoy, Sidecar, Upstream, envoy, port, sidecar};

/// Ready means in sync; the filter polls within a second or two of its start.
const SYNC_WITHIN: Duration = Duration::from_secs(30);
/// How long requests in flight may take after Ctrl-C.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// How long the sidecar may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Before a dead sidecar is started again: time to see in the metrics that it is gone.
const RESTART_AFTER: Duration = Duration::from_secs(3);

/// Digits of a checksum that tell the builds of one day apart.
const CHECKSUM_DIGITS: usize = 12;

/// What runs.
pub(super) struct House {
    // Dropped in this order: first what uses the others.
    envoy: Envoy,
    sidecar: Sidecar,
    renderer: Process,
    saved: Saved,
    /// The filter that Envoy loads at the moment.
    module: PathBuf,
    /// Which sidecar runs at the moment.
    sidecar_sum: String,
    _services: Vec<Upstream>,
    sidecar_gone: Option<Instant>,
    artefacts: Artefacts,
    policy: PathBuf,
    dir: Option<TempDir>,
}

impl House {
    /// Starts everything and waits until every part answers.
    pub(super) fn start(
        args: &Args,
        artefacts: Artefacts,
        chosen: &Chosen,
        ports: &Ports,
    ) -> Result<Self> {
        ports.must_be_free()?;
        let dir = tempfile::Builder::new().prefix("tracseq-gateway-up-").tempdir()?;
        let place = dir.path();
        std::fs::create_dir(place.join("ecds")).context("making the watched folder")?;
        let module = keep_module(&artefacts, place)?;
        let sidecar_sum = checksum(&artefacts.sidecar)?;
        let renderer = render(&artefacts, &chosen.file, &module, place, Mode::Strict)?;
        let mut bootstrap = Bootstrap::read(&artefacts.bootstrap)?;
        let services = services(&mut bootstrap, &args.upstream)?;
        let sidecar_port = if ports.sidecar == 0 { port::reserve()? } else { ports.sidecar };
        bootstrap.listen(IpAddr::V4(Ipv4Addr::LOCALHOST), ports.gateway)?;
        bootstrap.admin(ports.envoy_admin)?;
        bootstrap.policy(&resource(place))?;
        bootstrap.module(&module)?;
        bootstrap.sidecar("127.0.0.1", sidecar_port)?;
        let options = envoy::Options {
            executable: artefacts.envoy.clone(),
            dir: place.to_owned(),
            concurrency: args.concurrency,
            environment: chosen.envoy_environment(),
            arguments: Vec::new(),
        };
        let mut envoy = Envoy::start(options, bootstrap)?;
        let options = sidecar::Options {
            executable: artefacts.sidecar.clone(),
            dir: place.to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, sidecar_port)),
            envoy_admin: envoy.admin(),
            admin_token_file: place.join("admin-token"),
            environment: chosen.sidecar_environment(),
            arguments: Vec::new(),
        };
        let sidecar = Sidecar::start(options)?;
        if chosen.has_sidecar() {
            let connected =
                |s: &test_harness::stats::Stats| s.filter("gateway_sidecar_connected", &[]) > 0;
            envoy
                .stats_until("filter and sidecar to be in sync", SYNC_WITHIN, connected)
                .with_context(|| sidecar.tail())?;
        }
        Ok(Self {
            envoy,
            sidecar,
            renderer,
            saved: Saved::default(),
            module,
            sidecar_sum,
            _services: services,
            sidecar_gone: None,
            artefacts,
            policy: chosen.file.clone(),
            dir: Some(dir),
        })
    }

    /// Where the gateway listens.
    pub(super) fn gateway(&self) -> SocketAddr {
        self.envoy.gateway()
    }

    /// Where the sidecar listens.
    pub(super) fn sidecar(&self) -> SocketAddr {
        self.sidecar.address()
    }

    /// Where Envoy's admin listens.
    pub(super) fn envoy_admin(&self) -> SocketAddr {
        self.envoy.admin()
    }

    /// The folder with logs, the adapted bootstrap and the admin token.
    pub(super) fn place(&self) -> Result<&Path> {
        self.dir.as_ref().map(TempDir::path).context("everything is being taken down")
    }

    /// Looks whether everything still runs. The sidecar is started again, because the gateway
    /// serves without it; Envoy's end is ours.
    pub(super) fn look_after(&mut self) -> Result<()> {
        if let Err(error) = self.envoy.process().must_run() {
            return Err(self.keep_logs(error));
        }
        for sentence in self.saved.news(&self.renderer.stderr()?) {
            say(&sentence);
        }
        if self.renderer.ended()?.is_some() {
            eprintln!("the command that renders a saved policy has ended; starting it again");
            eprintln!("{}", self.renderer.tail());
            self.renderer = self.render()?;
        }
        if self.sidecar.process().ended()?.is_none() {
            self.sidecar_gone = None;
            return Ok(());
        }
        match self.sidecar_gone {
            None => {
                eprintln!("the sidecar has ended; the gateway serves on without it");
                self.sidecar_gone = Some(Instant::now());
            }
            Some(since) if since.elapsed() >= RESTART_AFTER => {
                match self.sidecar.restart() {
                    Ok(()) => say("the sidecar runs again"),
                    Err(error) => eprintln!("the sidecar cannot be started: {error:#}"),
                }
                self.sidecar_gone = self.sidecar_gone.map(|_| Instant::now());
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Brings the filter that has just been built into force. Envoy changes over between requests.
    pub(super) fn swap_filter(&mut self) -> Result<()> {
        let module = keep_module(&self.artefacts, self.place()?)?;
        if module == self.module {
            say("the filter is the same as before");
            return Ok(());
        }
        self.module = module;
        self.renderer.stop(STOP_WITHIN)?;
        self.renderer = self.render()?;
        say(&format!("the filter is {}", self.module.display()));
        Ok(())
    }

    /// Starts the sidecar that has just been built instead of the one that runs.
    pub(super) fn swap_sidecar(&mut self) -> Result<()> {
        let sum = checksum(&self.artefacts.sidecar)?;
        if sum == self.sidecar_sum {
            say("the sidecar is the same as before");
            return Ok(());
        }
        self.sidecar_sum = sum;
        self.sidecar.stop(STOP_WITHIN)?;
        self.sidecar.restart()?;
        say("the sidecar is the new one");
        Ok(())
    }

    /// Starts the command that renders a saved policy, as it is needed while the gateway runs.
    fn render(&self) -> Result<Process> {
        render(&self.artefacts, &self.policy, &self.module, self.place()?, Mode::Lenient)
    }

    /// Takes everything down so that no request that had begun fails.
    pub(super) fn drain(mut self) -> Result<()> {
        say(&format!("draining: requests in flight get {} s at most", DRAIN_WITHIN.as_secs()));
        let drained = self.envoy.drain(DRAIN_WITHIN);
        let stopped = self.sidecar.stop(STOP_WITHIN);
        self.renderer.stop(STOP_WITHIN)?;
        if let Err(error) = drained.and(stopped.map(|_| ())) {
            eprintln!("not everything finished in time: {error:#}");
        }
        say("stopped");
        Ok(())
    }

    /// Keeps the folder, whose logs say why this happened.
    fn keep_logs(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.dir.take() {
            Some(dir) => error.context(format!("logs are kept in {}", dir.keep().display())),
            None => error,
        }
    }
}

/// What the policy's command does with mistakes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It ends.
    Strict,
    /// The gateway refuses, and says so itself.
    Lenient,
}

/// Starts the command that renders the policy now and whenever it is saved, and waits until the
/// first result is there.
fn render(
    artefacts: &Artefacts,
    policy: &Path,
    module: &Path,
    place: &Path,
    mode: Mode,
) -> Result<Process> {
    let out = resource(place);
    let before = std::fs::read(&out).ok();
    let mut command = Command::new(&artefacts.sidecar);
    command.arg("render").arg(policy).arg("--watch");
    command.arg("--module").arg(module).arg("--out").arg(&out);
    if mode == Mode::Lenient {
        command.arg("--unchecked");
    }
    let mut process = Process::start("render", command, place)?;
    let names_module = module.to_string_lossy().into_owned();
    test_harness::wait::until_true("the policy to be rendered", STOP_WITHIN, || {
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
fn resource(place: &Path) -> PathBuf {
    place.join("ecds/policy.yaml")
}

/// Copies the filter under a name with its checksum. Envoy reads a module once per name, and a
/// build must not change one that is in use.
fn keep_module(artefacts: &Artefacts, place: &Path) -> Result<PathBuf> {
    let sum = checksum(&artefacts.module)?;
    let kept = place.join(format!("gateway_filter-{sum}.wasm"));
    if !kept.exists() {
        std::fs::copy(&artefacts.module, &kept)
            .with_context(|| format!("copying the filter to {}", kept.display()))?;
    }
    Ok(kept)
}

/// A short name for what is in a file.
fn checksum(file: &Path) -> Result<String> {
    let sum = output(Command::new("sha256sum").arg(file))?;
    Ok(sum.chars().take(CHECKSUM_DIGITS).collect())
}

/// Starts the demo services, in this process, and puts the real ones that were given beside them.
fn services(bootstrap: &mut Bootstrap, given: &[Given]) -> Result<Vec<Upstream>> {
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
