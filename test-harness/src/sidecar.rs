//! The real sidecar: started beside an Envoy, asked, killed, started again; and its commands.

use crate::client::{Request, Response};
use crate::process::Process;
use crate::wait;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// From start to answering.
pub const READY_WITHIN: Duration = Duration::from_secs(20);

/// How to run it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable.
    pub executable: PathBuf,
    /// Where its logs go.
    pub dir: PathBuf,
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Envoy's admin.
    pub envoy_admin: SocketAddr,
    /// The admin token's file; it is made when it does not exist.
    pub admin_token_file: PathBuf,
    /// Where it keeps what must survive; it is made when it does not exist.
    pub data_dir: PathBuf,
    /// Files that a policy names are read only below this.
    pub files_dir: PathBuf,
    /// Set for it in addition to what we have ourselves: the token of the channel to the filter.
    pub environment: Vec<(String, String)>,
    /// Arguments in addition to the harness's own.
    pub arguments: Vec<String>,
}

/// A running sidecar. Dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    options: Options,
    process: Process,
    address: SocketAddr,
}

impl Sidecar {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It ends or does not answer in time; with the end of its log.
    pub fn start(options: Options) -> Result<Self> {
        let mut command = Command::new(&options.executable);
        command.args(["serve", "--listen", &options.listen.to_string()]);
        command.args(["--envoy-admin", &format!("http://{}", options.envoy_admin)]);
        command.arg("--admin-token-file").arg(&options.admin_token_file);
        command.arg("--data-dir").arg(&options.data_dir);
        command.arg("--files-dir").arg(&options.files_dir);
        command.args(&options.arguments);
        command.envs(options.environment.iter().map(|(k, v)| (k, v)));
        let mut process = Process::start("sidecar", command, &options.dir)?;
        let known = (options.listen.port() != 0).then_some(options.listen);
        let answering = wait::until("the sidecar to answer", READY_WITHIN, || {
            process.must_run()?;
            let Some(address) = known.or_else(|| announced(&process)) else { return Ok(None) };
            let alive = Request::new(address, "GET", "/livez").send();
            Ok(alive.is_ok_and(|r| r.status == 200).then_some(address))
        });
        let address = answering.map_err(|e| anyhow!("{e:#}\n{}", process.tail()))?;
        Ok(Self { options: Options { listen: address, ..options }, process, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    #[must_use]
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The admin token.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn admin_token(&self) -> Result<String> {
        let file = &self.options.admin_token_file;
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }

    /// A GET without a token.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        Request::new(self.address, "GET", path).send()
    }

    /// A POST with the admin token.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&self, path: &str) -> Result<Response> {
        self.admin("POST", path)?.send()
    }

    /// A GET with the admin token.
    ///
    /// # Errors
    /// No answer.
    pub fn read(&self, path: &str) -> Result<Response> {
        self.admin("GET", path)?.send()
    }

    /// A POST of this JSON with the admin token.
    ///
    /// # Errors
    /// No answer.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Response> {
        self.admin("POST", path)?.json(body).send()
    }

    /// A DELETE with the admin token.
    ///
    /// # Errors
    /// No answer.
    pub fn delete(&self, path: &str) -> Result<Response> {
        self.admin("DELETE", path)?.send()
    }

    /// A request with the admin token, for what has no name of its own.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn admin(&self, method: &str, path: &str) -> Result<Request> {
        Ok(Request::new(self.address, method, path).bearer(&self.admin_token()?))
    }

    /// The end of what it said, for messages.
    #[must_use]
    pub fn tail(&self) -> String {
        self.process.tail()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9().map(|_| ())
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.process.stop(deadline)
    }

    /// Starts it again at the same address; kills it first when it still runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        *self = Self::start(self.options.clone())?;
        Ok(())
    }
}

/// The address in the log line that says `listening`.
fn announced(process: &Process) -> Option<SocketAddr> {
    let text = process.stdout().ok()? + &process.stderr().ok()?;
    text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).find_map(|line| {
        let says = line.get("message")?.as_str()? == "listening";
        says.then(|| line.get("address")?.as_str()?.parse().ok()).flatten()
    })
}

/// What a command of the sidecar said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whether it ended with 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `gateway-sidecar <arguments>` to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(executable: &Path, arguments: &[&str]) -> Result<Said> {
    let output = Command::new(executable)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {}", executable.display()))?;
    Ok(Said {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
