//! One run of docker-compose.yml under a name of its own: up, questions, down. Knows nothing of what
//! is tested.

use super::engine::Engine;
use super::interrupt::Interrupt;
use crate::workspace::{Workspace, output, run, write_whole};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use test_harness::policy::{JWT_SECRET, JWT_VARIABLE, SYNC_TOKEN, SYNC_VARIABLE};
use test_harness::wait;

/// Eleven containers on two busy cores; each health check is looked at every two seconds.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks: each is a command or a request of its own, and the log is to stay readable.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a failure shows of each service's log.
const LOG_LINES: &str = "--tail=60";

/// The services, running or not. Dropping it takes them down.
#[derive(Debug)]
pub(super) struct Project<'a> {
    ctx: &'a Workspace,
    engine: &'a Engine,
    interrupt: &'a Interrupt,
    name: String,
    /// Holds the policy that the run edits: the checkout's stays as it is.
    policies: TempDir,
    is_up: bool,
}

/// A container, as the engine lists it.
#[derive(Debug, Clone)]
pub(super) struct Container {
    /// The service in docker-compose.yml.
    pub(super) service: String,
    /// The engine's id.
    pub(super) id: String,
    /// `Up 3 seconds (healthy)`.
    status: String,
}

impl<'a> Project<'a> {
    /// A project that is not up yet. `name` is also the tag of its images.
    pub(super) fn new(
        ctx: &'a Workspace,
        engine: &'a Engine,
        interrupt: &'a Interrupt,
        name: &str,
    ) -> Result<Self> {
        let base = ctx.root().join("target/compose");
        fs::create_dir_all(&base).with_context(|| format!("creating {}", base.display()))?;
        let policies = tempfile::Builder::new().prefix("policy-").tempdir_in(&base)?;
        // Made for the owner alone; the container that reads it runs as another user.
        fs::set_permissions(policies.path(), fs::Permissions::from_mode(0o755))?;
        let name = name.to_owned();
        let project = Self { ctx, engine, interrupt, name, policies, is_up: false };
        fs::copy(ctx.root().join("envoy/policy.yaml"), project.policy_file())
            .context("copying envoy/policy.yaml")?;
        Ok(project)
    }

    /// Starts everything and waits until every part says that it is healthy.
    pub(super) fn up(&mut self) -> Result<()> {
        self.is_up = true;
        run(self.compose().args(["up", "--detach", "--no-build"]))?;
        self.healthy()
    }

    /// Waits until every container is healthy.
    pub(super) fn healthy(&self) -> Result<()> {
        self.until("every container to be healthy", HEALTHY_WITHIN, || {
            let containers = self.containers()?;
            if let Some(dead) = containers.iter().find(|c| c.status.starts_with("Exited")) {
                bail!("{} has ended: {}", dead.service, dead.status);
            }
            let healthy = containers.iter().all(|c| c.status.contains("(healthy)"));
            Ok(healthy && !containers.is_empty())
        })
    }

    /// Stops everything and removes containers, networks and volumes. Twice is as good as once.
    pub(super) fn down(&mut self) -> Result<()> {
        if !self.is_up {
            return Ok(());
        }
        let mut command = self.compose();
        // A group of its own: a second Ctrl-C must not end the cleaning up.
        command.process_group(0);
        output(command.args(["down", "--volumes", "--remove-orphans", "--timeout", "5"]))?;
        self.is_up = false;
        Ok(())
    }

    /// Prints what a person needs to see why the run failed.
    pub(super) fn explain(&self) {
        for arguments in [vec!["ps"], vec!["logs", "--no-color", LOG_LINES]] {
            if let Err(error) = run(self.compose().args(arguments)) {
                eprintln!("{error:#}");
            }
        }
    }

    /// `docker-compose <arguments>`; what it printed.
    pub(super) fn order(&self, arguments: &[&str]) -> Result<String> {
        output(self.compose().args(arguments))
    }

    /// Every container of the run.
    pub(super) fn containers(&self) -> Result<Vec<Container>> {
        let format = "{{.Label \"com.docker.compose.service\"}}\t{{.ID}}\t{{.Status}}";
        let mut list = self.engine.docker(self.ctx);
        list.args(["ps", "--all", "--no-trunc", "--format", format, "--filter"]);
        list.arg(format!("label=com.docker.compose.project={}", self.name));
        let mut containers = Vec::new();
        for line in output(&mut list)?.lines() {
            let mut parts = line.split('\t').map(str::to_owned);
            if let (Some(service), Some(id), Some(status)) =
                (parts.next(), parts.next(), parts.next())
            {
                containers.push(Container { service, id, status });
            }
        }
        Ok(containers)
    }

    /// What `docker inspect` says of a container, in this format.
    pub(super) fn inspect(&self, container: &Container, format: &str) -> Result<String> {
        let mut inspect = self.engine.docker(self.ctx);
        let said = output(inspect.args(["inspect", "--format", format, &container.id]))?;
        Ok(said.trim().to_owned())
    }

    /// Where a port of the gateway's namespace is published on this machine.
    pub(super) fn published(&self, port: u16) -> Result<SocketAddr> {
        let said = self.order(&["port", "gateway", &port.to_string()])?;
        let outside = said.trim().rsplit(':').next().and_then(|digits| digits.parse().ok());
        let outside: u16 = outside.with_context(|| format!("port {port}: {said:?}"))?;
        Ok(SocketAddr::from(([127, 0, 0, 1], outside)))
    }

    /// Replaces a text of the policy that stands there, as an editor that saves the file does.
    pub(super) fn edit_policy(&self, from: &str, to: &str) -> Result<()> {
        let file = self.policy_file();
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        if !text.contains(from) {
            bail!("envoy/policy.yaml no longer says `{from}`: adapt the run");
        }
        write_whole(&file, text.replace(from, to).as_bytes())
    }

    /// Waits for a condition; ends at once when the run is interrupted.
    pub(super) fn until(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        wait::until_true(what, deadline, || {
            self.interrupt.check()?;
            let holds = condition()?;
            if !holds {
                std::thread::park_timeout(LOOK_EVERY);
            }
            Ok(holds)
        })
    }

    fn policy_file(&self) -> PathBuf {
        self.policies.path().join("policy.yaml")
    }

    fn compose(&self) -> Command {
        let mut command = self.engine.compose(self.ctx);
        command.args(["--project-name", &self.name, "--file", "docker-compose.yml"]);
        command
            .env("GATEWAY_TAG", &self.name)
            .env("GATEWAY_POLICY_DIR", self.policies.path())
            // Any free port, of IPv4 alone: for IPv6 the engine would take another number.
            .env("GATEWAY_PORT", "127.0.0.1:0")
            .env("PROMETHEUS_PORT", "0")
            .env(JWT_VARIABLE, JWT_SECRET)
            .env(SYNC_VARIABLE, SYNC_TOKEN);
        command
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("containers of {} may be left: {error:#}", self.name);
        }
    }
}
