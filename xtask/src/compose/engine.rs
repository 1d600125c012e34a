//! A container engine and the program that reads docker-compose.yml: those that are there, or an
//! engine of our own, started and stopped with the run. Knows nothing of images and services.

use crate::packages;
use crate::workspace::{Workspace, is_root, on_path, output, say};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use test_harness::process::Process;
use test_harness::wait;

/// An engine on an idle machine answers in two seconds; a busy one gets time.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// The engine's own limit for ending its containers is 15 s.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// An engine of our own leaves the machine's packet filter and forwarding as they are, since what it
/// changes there it does not put back, and restoring a copy would undo what others changed meanwhile.
/// The run needs neither: containers of one network meet on its bridge, published ports are served
/// by docker-proxy, and nothing in it calls the world outside.
const HANDS_OFF: [&str; 3] = ["--iptables=false", "--ip6tables=false", "--ip-forward=false"];
/// Whether the packet filter also sees what passes between two ports of a bridge.
const BRIDGES_FILTERED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// An engine that answers.
#[derive(Debug)]
pub(super) struct Engine {
    compose: Vec<&'static str>,
    own: Option<Box<Own>>,
}

/// The search for an engine ends with one, or with the reason why there is none.
#[derive(Debug)]
pub(super) enum Found {
    /// It answers.
    Engine(Engine),
    /// None answers, and none could be started.
    None(String),
}

impl Engine {
    /// The engine that answers; where none does and `may_install`, one of our own.
    pub(super) fn find(ctx: &Workspace, may_install: bool) -> Result<Found> {
        if answers(None)
            && let Some(compose) = compose()
        {
            return Ok(Found::Engine(Self { compose, own: None }));
        }
        if let Some(reason) = why_not_install(may_install) {
            return Ok(Found::None(reason));
        }
        packages::ensure(ctx, &["docker.io", "docker-compose"], "the docker-compose run")?;
        let Some(compose) = compose() else {
            return Ok(Found::None("docker-compose is installed but does not run".to_owned()));
        };
        if answers(None) {
            return Ok(Found::Engine(Self { compose, own: None }));
        }
        match Own::start(ctx) {
            Ok(own) => Ok(Found::Engine(Self { compose, own: Some(Box::new(own)) })),
            Err(error) => Ok(Found::None(format!("no dockerd of our own here: {error:#}"))),
        }
    }

    /// `docker`, talking to this engine.
    pub(super) fn docker(&self, ctx: &Workspace) -> Command {
        self.aimed(ctx.command("docker"))
    }

    /// `docker compose` or `docker-compose`, talking to this engine.
    pub(super) fn compose(&self, ctx: &Workspace) -> Command {
        let mut words = self.compose.iter();
        let mut command = ctx.command(words.next().copied().unwrap_or("docker-compose"));
        command.args(words);
        self.aimed(command)
    }

    /// Whether we started it, so that nobody else uses it.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// What it is, for the user.
    pub(super) fn shown(&self) -> String {
        let whose = if self.is_own() { "an engine started for this run" } else { "the engine" };
        format!("{} with {whose}", self.compose.join(" "))
    }

    fn aimed(&self, mut command: Command) -> Command {
        if let Some(own) = &self.own {
            command.env("DOCKER_HOST", &own.address);
        }
        command
    }
}

/// An engine of our own. Dropping it stops it.
#[derive(Debug)]
struct Own {
    daemon: Process,
    address: String,
    /// Sockets: in the system's directory for temporary files, since their paths must be short.
    sockets: TempDir,
    /// Images and containers; removed with the engine.
    _data: TempDir,
}

impl Own {
    fn start(ctx: &Workspace) -> Result<Self> {
        say("starting dockerd for this run (no container engine answers)");
        let base = ctx.root().join("target/compose");
        std::fs::create_dir_all(&base).with_context(|| format!("creating {}", base.display()))?;
        let data = tempfile::Builder::new().prefix("engine-").tempdir_in(&base)?;
        let sockets = tempfile::Builder::new().prefix("gateway-engine-").tempdir()?;
        let address = format!("unix://{}", sockets.path().join("docker.sock").display());
        let mut command = Command::new("dockerd");
        command.args(["--bridge", "none", "--host", &address]).args(HANDS_OFF);
        command.arg("--data-root").arg(data.path().join("data"));
        command.arg("--exec-root").arg(sockets.path().join("exec"));
        command.arg("--pidfile").arg(sockets.path().join("docker.pid"));
        let daemon = Process::start("dockerd", command, data.path())?;
        let mut own = Self { daemon, address, sockets, _data: data };
        let address = own.address.clone();
        wait::until_true("dockerd to answer", STARTED_WITHIN, || {
            own.daemon.must_run()?;
            Ok(answers(Some(&address)))
        })?;
        // Only now: dockerd loads the module that decides it.
        let filtered = std::fs::read_to_string(BRIDGES_FILTERED).unwrap_or_default();
        let rules = output(Command::new("iptables").args(["-S", "FORWARD"])).unwrap_or_default();
        if filtered.trim() == "1" && forwards_nothing(&rules) {
            bail!(
                "this machine's packet filter drops what containers say to each other (`iptables -S \
                 FORWARD` begins with `-P FORWARD DROP`), and we do not change it: start the \
                 machine's own engine"
            );
        }
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.stop(STOPPED_WITHIN) {
            let sockets = self.sockets.path().display();
            eprintln!("stopping dockerd (its sockets are in {sockets}): {error:#}");
        }
    }
}

/// Whether the packet filter, by its own account, forwards only what some rule allows. An engine that
/// ran earlier may have left it so.
fn forwards_nothing(rules: &str) -> bool {
    rules.lines().any(|line| line == "-P FORWARD DROP")
}

/// Whether an engine answers, at this address or where the environment says.
fn answers(address: Option<&str>) -> bool {
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.Version}}"]);
    if let Some(address) = address {
        command.env("DOCKER_HOST", address);
    }
    quietly(&mut command)
}

/// The program that reads docker-compose.yml: Compose v2 where it is there, else docker-compose.
fn compose() -> Option<Vec<&'static str>> {
    [vec!["docker", "compose"], vec!["docker-compose"]].into_iter().find(|words| {
        let mut words = words.iter();
        words
            .next()
            .is_some_and(|program| quietly(Command::new(program).args(words).arg("version")))
    })
}

/// Whether a command succeeds; what it prints is of no interest.
fn quietly(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Why no engine of our own can be had, if so.
fn why_not_install(may_install: bool) -> Option<String> {
    let missing = "no container engine with `docker compose` answers";
    if !may_install {
        return Some(format!(
            "{missing}; start one, or let `cargo xtask compose --install` install and start one \
             (Debian or Ubuntu, as root)"
        ));
    }
    if !is_root() {
        return Some(format!("{missing}, and only root can start one"));
    }
    if on_path("apt-get").is_none() || !Path::new("/etc/os-release").exists() {
        return Some(format!(
            "{missing}, and we know how to install one only on Debian and Ubuntu"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::forwards_nothing;

    #[test]
    fn a_packet_filter_that_drops_by_default_is_known() {
        assert!(forwards_nothing("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n"));
        assert!(!forwards_nothing("-P FORWARD ACCEPT\n-A FORWARD -i br0 -j DROP\n"));
        assert!(!forwards_nothing(""));
    }
}
