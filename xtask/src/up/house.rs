//! Everything that `up` runs: Envoy, the sidecar, the command that renders a saved policy, and the
//! demo services in this process. Nothing outlives the [`House`].

use super::parts::Mode;
use super::policy::Chosen;
use super::ports::Ports;
use super::saved::Saved;
use super::signals::Signals;
use super::{Args, logs, parts};
use crate::workspace::say;
use anyhow::{Context as _, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_harness::process::Process;
use test_harness::stats::Stats;
use test_harness::{Artefacts, Bootstrap, Envoy, Sidecar, Upstream, envoy, port, sidecar, wait};

/// Ready means in sync; the filter polls within a second or two of its start.
const SYNC_WITHIN: Duration = Duration::from_secs(30);
/// How long requests in flight may take after Ctrl-C.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// How long the sidecar, or the command that renders, may take to stop.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Before a dead part is started again: time to see in the metrics that the sidecar is gone.
const RESTART_AFTER: Duration = Duration::from_secs(3);

/// What runs.
pub(super) struct House {
    // Dropped in this order: first what uses the others.
    pub(super) envoy: Envoy,
    pub(super) sidecar: Sidecar,
    pub(super) renderer: Process,
    saved: Saved,
    /// The filter that Envoy loads at the moment.
    pub(super) module: PathBuf,
    /// How the sidecar that runs at the moment was started.
    pub(super) sidecar_options: sidecar::Options,
    _services: Vec<Upstream>,
    sidecar_gone: Option<Instant>,
    renderer_gone: Option<Instant>,
    pub(super) artefacts: Artefacts,
    policy: PathBuf,
    /// The executables that run: beside the built ones, since not every folder for temporary files
    /// lets programs be started.
    pub(super) kept: TempDir,
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
        let module = parts::keep_module(&artefacts, place)?;
        let kept = parts::kept_beside(&artefacts.sidecar)?;
        let executable = parts::keep_sidecar(&artefacts, kept.path())?;
        let renderer = parts::render(&executable, &chosen.file, &module, place, Mode::Strict)?;
        let mut bootstrap = Bootstrap::read(&artefacts.bootstrap)?;
        let services = parts::services(&mut bootstrap, &args.upstream)?;
        parts::clusters(&mut bootstrap, &args.cluster, &chosen.issuers())?;
        let sidecar_port = if ports.sidecar == 0 { port::reserve()? } else { ports.sidecar };
        bootstrap.listen(IpAddr::V4(Ipv4Addr::LOCALHOST), ports.gateway)?;
        bootstrap.admin(ports.envoy_admin)?;
        bootstrap.policy(&parts::resource(place))?;
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
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, sidecar_port));
        let sidecar_options =
            parts::sidecar(args, chosen, executable, place, listen, envoy.admin());
        let sidecar = Sidecar::start(sidecar_options.clone())?;
        if chosen.has_sidecar() {
            in_sync(&mut envoy, chosen).with_context(|| sidecar.tail())?;
        }
        Ok(Self {
            envoy,
            sidecar,
            renderer,
            saved: Saved::default(),
            module,
            sidecar_options,
            _services: services,
            sidecar_gone: None,
            renderer_gone: None,
            artefacts,
            policy: chosen.file.clone(),
            kept,
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

    /// Looks whether everything still runs. Other parts are started again, because the gateway
    /// serves without them; Envoy's end is ours.
    pub(super) fn look_after(&mut self) -> Result<()> {
        if let Err(error) = self.envoy.process().must_run() {
            return Err(self.keep_logs(error));
        }
        for log in logs::keep_short(self.place()?) {
            say(&format!("{log} was too long and begins anew"));
        }
        let minor = [self.look_after_renderer(), self.look_after_sidecar()];
        for error in minor.into_iter().filter_map(Result::err) {
            eprintln!("{error:#}");
        }
        Ok(())
    }

    fn look_after_renderer(&mut self) -> Result<()> {
        for sentence in self.saved.news(&self.renderer.stderr()?) {
            say(&sentence);
        }
        if self.renderer.ended()?.is_none() {
            self.renderer_gone = None;
        } else if due(&mut self.renderer_gone, "the command that renders a saved policy has ended")
        {
            eprintln!("{}", self.renderer.tail());
            self.renderer = self.render().context("a saved policy cannot be rendered")?;
            say("the command that renders a saved policy runs again");
        }
        Ok(())
    }

    fn look_after_sidecar(&mut self) -> Result<()> {
        let ends = "the sidecar has ended; the gateway serves on without it";
        if self.sidecar.process().ended()?.is_none() {
            self.sidecar_gone = None;
        } else if due(&mut self.sidecar_gone, ends) {
            self.sidecar.restart().context("the sidecar cannot be started")?;
            say("the sidecar runs again");
        }
        Ok(())
    }

    /// Starts the command that renders a saved policy, as it is needed while the gateway runs.
    pub(super) fn render(&self) -> Result<Process> {
        let sidecar = &self.sidecar_options.executable;
        parts::render(sidecar, &self.policy, &self.module, self.place()?, Mode::Lenient)
    }

    /// Takes everything down so that no request that had begun fails. One more signal cuts that
    /// short.
    ///
    /// # Errors
    /// Not every request was answered.
    pub(super) fn drain(mut self, signals: &Signals) -> Result<()> {
        let seconds = DRAIN_WITHIN.as_secs();
        say(&format!(
            "draining: requests in flight get {seconds} s at most; Ctrl-C again stops at once"
        ));
        let drained = wait::unless(&signals.at_once, || self.envoy.drain(DRAIN_WITHIN));
        for stopped in [self.sidecar.stop(STOP_WITHIN), self.renderer.stop(STOP_WITHIN)] {
            if let Err(error) = stopped {
                eprintln!("{error:#}");
            }
        }
        match drained {
            Ok(()) => say("stopped; every request that had begun was answered"),
            Err(error) if signals.asked_again() => {
                return Err(error.context("stopped before every request was answered, as asked"));
            }
            Err(error) => {
                let error = error.context("stopped, but not every request may have been answered");
                return Err(self.keep_logs(error));
            }
        }
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

/// Waits until filter and sidecar know each other, and the filter knows what is revoked.
fn in_sync(envoy: &mut Envoy, chosen: &Chosen) -> Result<()> {
    let is = |s: &Stats, name: &str| s.filter(name, &[]) > 0;
    let seeded = |s: &Stats| !chosen.revokes() || is(s, "gateway_revocation_seeded");
    let ready = |s: &Stats| is(s, "gateway_sidecar_connected") && seeded(s);
    envoy.stats_until("filter and sidecar to be in sync", SYNC_WITHIN, ready).map(|_| ())
}

/// Whether it is time to start again what has ended. Says at first that it has.
fn due(gone: &mut Option<Instant>, what: &str) -> bool {
    let since = *gone.get_or_insert_with(|| {
        eprintln!("{what}");
        Instant::now()
    });
    let due = since.elapsed() >= RESTART_AFTER;
    if due {
        *gone = Some(Instant::now());
    }
    due
}
