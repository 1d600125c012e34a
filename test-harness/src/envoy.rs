//! A real Envoy: started, ready by its own word, asked for its statistics, drained, killed.

use crate::access_log::{self, Line};
use crate::bootstrap::Bootstrap;
use crate::client::{Request, Response};
use crate::process::Process;
use crate::stats::Stats;
use crate::wait;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// From start to serving: the wasm compiler needs a second or two, a loaded machine many more.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// Envoy's own drain time: how long connections of a listener that is replaced may go on.
const DRAIN_SECONDS: u32 = 1;
/// Access log lines are on disk this soon, so that tests need not wait ten seconds for them.
const FLUSH_MS: u32 = 50;
/// After the last request of a drain, connections that stay idle this long are given up.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// SIGTERM to end, when nothing is in flight any more.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How to run it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable.
    pub executable: PathBuf,
    /// Where its files go: the adapted bootstrap, logs, the admin's address.
    pub dir: PathBuf,
    /// `--concurrency`.
    pub concurrency: u32,
    /// Set for Envoy in addition to what we have ourselves: the policy's variables.
    pub environment: Vec<(String, String)>,
    /// Arguments in addition to the harness's own.
    pub arguments: Vec<String>,
}

/// A running Envoy. Dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    options: Options,
    bootstrap: Bootstrap,
    process: Process,
    admin: SocketAddr,
    gateway: SocketAddr,
}

impl Envoy {
    /// Starts it and waits until it serves with an accepted policy.
    ///
    /// # Errors
    /// It ends, it refuses the policy, or it is not ready in time; with the end of its log.
    pub fn start(options: Options, mut bootstrap: Bootstrap) -> Result<Self> {
        let (mut process, admin) = launch(&options, &bootstrap)?;
        let ready = wait::until("Envoy to serve", READY_WITHIN, || {
            process.must_run()?;
            must_not_refuse(admin)?;
            if get(admin, "/ready").is_ok_and(|r| r.status == 200) {
                listener(admin)
            } else {
                Ok(None)
            }
        });
        let gateway = ready.map_err(|e| anyhow!("{e:#}\n{}", process.tail()))?;
        // A restart comes back where everybody knows it.
        bootstrap.admin(admin.port())?;
        bootstrap.listen(gateway.ip(), gateway.port())?;
        Ok(Self { options, bootstrap, process, admin, gateway })
    }

    /// Where the gateway listens, loopback when it listens everywhere.
    #[must_use]
    pub fn gateway(&self) -> SocketAddr {
        match self.gateway {
            SocketAddr::V4(a) if a.ip().is_unspecified() => ([127, 0, 0, 1], a.port()).into(),
            other => other,
        }
    }

    /// Where Envoy's admin listens.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process.
    #[must_use]
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks the admin with GET.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        get(self.admin, path)
    }

    /// Orders something from the admin with POST.
    ///
    /// # Errors
    /// No answer, or not 200.
    pub fn post(&self, path: &str) -> Result<Response> {
        Request::new(self.admin, "POST", path).send()?.expect(200)
    }

    /// All statistics of this moment.
    ///
    /// # Errors
    /// The admin does not answer.
    pub fn stats(&self) -> Result<Stats> {
        stats(self.admin)
    }

    /// Waits until the statistics fit.
    ///
    /// # Errors
    /// They do not in time, or Envoy has ended.
    pub fn stats_until(
        &mut self,
        what: &str,
        deadline: Duration,
        fits: impl Fn(&Stats) -> bool,
    ) -> Result<Stats> {
        let result = wait::until(what, deadline, || {
            self.process.must_run()?;
            let stats = stats(self.admin)?;
            Ok(fits(&stats).then_some(stats))
        });
        result.map_err(|e| anyhow!("{e:#}\n{}", self.report()))
    }

    /// The access log so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn access_log(&self) -> Result<Vec<Line>> {
        Ok(access_log::lines(&self.process.stdout()?))
    }

    /// Envoy's own log so far, the filter's lines included.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.stderr()
    }

    /// Ends it so that no request that had begun fails: nobody new is let in, requests finish and
    /// their connections close, idle connections get a moment, then it stops. At the deadline it
    /// stops anyhow.
    ///
    /// The port closes before clients are asked to leave: a client that is sent away while the port
    /// is open comes back at once, and one whose new connection waits to be accepted when the port
    /// closes is reset. Behind a load balancer, fail the health check first and give it its time.
    ///
    /// # Errors
    /// It has ended already, cannot be ended, or requests were still under way at the deadline.
    pub fn drain(&mut self, deadline: Duration) -> Result<()> {
        self.process.must_run()?;
        self.post("/drain_listeners")?;
        self.post("/healthcheck/fail")?;
        let mut requests_seen = 0;
        let mut quiet_since = Instant::now();
        let quiet = wait::until_true("requests to finish", deadline, || {
            let stats = self.stats()?;
            let requests = stats.get("http.gateway.downstream_rq_total");
            if stats.get("http.gateway.downstream_rq_active") > 0 || requests != requests_seen {
                requests_seen = requests;
                quiet_since = Instant::now();
                return Ok(false);
            }
            let left = stats.get("http.gateway.downstream_cx_active");
            Ok(left == 0 || quiet_since.elapsed() >= IDLE_GRACE)
        });
        let stopped = self.process.stop(STOP_WITHIN);
        quiet.and(stopped.map(|_| ()))
    }

    /// Ends it at once and starts it again at the same addresses. Nothing in memory survives.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill9()?;
        *self = Self::start(self.options.clone(), self.bootstrap.clone())?;
        Ok(())
    }

    /// What a failure shows: logs, telling statistics, where the configuration is.
    #[must_use]
    pub fn report(&self) -> String {
        let telling = |name: &str, value: u64| {
            let of_ours = name.starts_with("wasm") || name.starts_with("extension_config");
            let of_traffic = name.starts_with("http.gateway.downstream_rq");
            value > 0 && (of_ours || of_traffic)
        };
        let stats =
            self.stats().map_or_else(|e| format!("(no statistics: {e:#})\n"), |s| s.lines(telling));
        let files = self.options.dir.display();
        format!(
            "{}--- statistics\n{stats}--- configuration and whole logs: {files}\n",
            self.process.tail()
        )
    }
}

/// Writes the bootstrap, starts the process, and waits for the admin's address.
fn launch(options: &Options, bootstrap: &Bootstrap) -> Result<(Process, SocketAddr)> {
    let config = options.dir.join("envoy.json");
    let address = options.dir.join("envoy-admin.address");
    bootstrap.write(&config)?;
    if address.exists() {
        std::fs::remove_file(&address).context("an old admin address file")?;
    }
    let mut command = Command::new(&options.executable);
    command.arg("-c").arg(&config).arg("--admin-address-path").arg(&address);
    command.args(["--concurrency", &options.concurrency.to_string()]);
    command.args(["--drain-time-s", &DRAIN_SECONDS.to_string(), "--drain-strategy", "immediate"]);
    command.args(["--file-flush-interval-msec", &FLUSH_MS.to_string()]);
    // The filter's own lines, and of Envoy's only those that matter.
    command.args(["--log-level", "warning", "--component-log-level", "wasm:info"]);
    command.arg("--disable-hot-restart");
    command.args(&options.arguments);
    command.envs(options.environment.iter().map(|(k, v)| (k, v)));
    let mut process = Process::start("envoy", command, &options.dir)?;
    let found = wait::until("Envoy's admin to listen", READY_WITHIN, || {
        process.must_run()?;
        Ok(read_address(&address))
    })?;
    Ok((process, found))
}

fn read_address(file: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn get(admin: SocketAddr, path: &str) -> Result<Response> {
    Request::new(admin, "GET", path).send()
}

fn stats(admin: SocketAddr) -> Result<Stats> {
    Ok(Stats::parse(&get(admin, "/stats")?.expect(200)?.text()))
}

/// Whether this line of Envoy's log says that a function of a VM did not return.
#[must_use]
pub fn is_trap(line: &str) -> bool {
    line.contains("Uncaught RuntimeError")
        || (line.contains("Function: ") && line.contains(" failed: "))
}

/// The first policy was refused: waiting longer would not help.
fn must_not_refuse(admin: SocketAddr) -> Result<()> {
    let Ok(stats) = stats(admin) else { return Ok(()) };
    if stats.policies_refused() > 0 {
        bail!("Envoy refused the policy");
    }
    Ok(())
}

/// The address of the gateway's listener, once it is there.
fn listener(admin: SocketAddr) -> Result<Option<SocketAddr>> {
    let document = get(admin, "/listeners?format=json")?.expect(200)?.json();
    let all = document.get("listener_statuses").and_then(Value::as_array);
    let ours = all.into_iter().flatten().find(|l| l.get("name") == Some(&Value::from("gateway")));
    let Some(socket) = ours.and_then(|l| l.pointer("/local_address/socket_address")) else {
        return Ok(None);
    };
    let ip = socket.get("address").and_then(Value::as_str).and_then(|a| a.parse().ok());
    let port = socket.get("port_value").and_then(Value::as_u64).and_then(|p| p.try_into().ok());
    Ok(ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::is_trap;

    #[test]
    fn a_trap_is_known_by_what_envoy_says_of_it() {
        for said in [
            "[error][wasm] Function: proxy_on_request_headers failed: Uncaught RuntimeError: x",
            "[error][wasm] Function: proxy_on_tick failed: null function or function signature",
        ] {
            assert!(is_trap(said), "{said}");
        }
        assert!(!is_trap("[warning][wasm] {\"message\":\"the sidecar's call failed\"}"));
    }
}
