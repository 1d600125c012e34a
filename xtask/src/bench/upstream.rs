//! The service behind Envoy: one nginx process that answers everything with the same small body.
//!
//! nginx is steadier and cheaper than the scripted upstream of the tests, so less of what is measured
//! is the upstream.

use super::http;
use super::tools;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// nginx starts in milliseconds; a machine under load gets this long.
const START: Duration = Duration::from_secs(10);
/// Between two looks at whether it answers.
const LOOK: Duration = Duration::from_millis(20);

/// A running nginx; ends with this value.
pub(super) struct Upstream {
    child: Child,
    address: SocketAddr,
    version: String,
}

impl Upstream {
    /// Starts nginx on a free port, with its files in `dir`, and waits until it answers.
    pub(super) fn start(nginx: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let address = free_address()?;
        let config = dir.join("nginx.conf");
        fs::write(&config, text(address, dir)).context("writing nginx.conf")?;
        let log = File::create(dir.join("nginx.log")).context("creating nginx.log")?;
        let child = tools::command(nginx)
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", nginx.display()))?;
        let mut upstream = Self { child, address, version: version(nginx) };
        upstream.wait(&dir.join("nginx.log"))?;
        Ok(upstream)
    }

    /// Where it answers.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name and version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    fn wait(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + START;
        while let Err(error) = http::get(self.address, "/") {
            let ended = self.child.try_wait().context("waiting for nginx")?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(log).unwrap_or_default();
                bail!("nginx does not answer: {error:#}\n{}", log.trim_end());
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It is one process without state: nothing is lost by ending it at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("no free port")
}

/// `nginx version: nginx/1.22.1`, printed on stderr.
fn version(nginx: &Path) -> String {
    let output = tools::command(nginx).arg("-v").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
    text.trim().rsplit(' ').next().unwrap_or("nginx").to_owned()
}

/// One process, no log, connections that are never closed by count.
fn text(address: SocketAddr, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {dir}/nginx.pid;\n\
         error_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {dir}/body;\n\
           proxy_temp_path {dir}/proxy;\n\
           fastcgi_temp_path {dir}/fastcgi;\n\
           uwsgi_temp_path {dir}/uwsgi;\n\
           scgi_temp_path {dir}/scgi;\n\
           keepalive_requests 1000000000;\n\
           keepalive_timeout 1h;\n\
           server {{\n\
             listen {address};\n\
             location / {{\n\
               default_type application/json;\n\
               return 200 '{{\"service\":\"samples\",\"path\":\"/api/samples/1\"}}';\n\
             }}\n\
           }}\n\
         }}\n"
    )
}
