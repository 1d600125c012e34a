//! The service behind Envoy: one process that answers everything with the same small body.
//!
//! nginx is steadier and cheaper than the demo service, so less of what is measured is the upstream.
//! The demo service stands in where there is no nginx; the report says which it was.

use super::http;
use super::tools;
use super::variants::SERVICE;
use crate::build;
use crate::workspace::{self, Workspace};
use anyhow::{Context as _, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use test_harness::process::Process;
use test_harness::{port, wait};

/// Either starts in milliseconds; a machine under load gets this long.
const START: Duration = Duration::from_secs(10);

/// A running upstream; ends with this value.
pub(super) struct Upstream {
    process: Process,
    address: SocketAddr,
    version: String,
}

impl Upstream {
    /// Starts nginx, or where it cannot be had the demo service, and waits until it answers.
    pub(super) fn start(ctx: &Workspace, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::reserve()?));
        let (command, version) = match tools::find(tools::NGINX, ctx) {
            Ok(nginx) => (nginx_at(&nginx, address, dir)?, version(&nginx)),
            Err(error) => {
                workspace::say(&format!("the demo service stands in for nginx: {error:#}"));
                build::native(ctx)?;
                let mut command = Command::new(ctx.dist().join(build::DEMO_SERVICE));
                command.args(["--listen", &address.to_string(), "--name", SERVICE]);
                (command, "demo-service".to_owned())
            }
        };
        let mut process = Process::start("upstream", command, dir)?;
        let answering = wait::until_true("the upstream to answer", START, || {
            process.must_run()?;
            Ok(http::get(address, "/").is_ok())
        });
        answering.with_context(|| process.tail())?;
        Ok(Self { process, address, version })
    }

    /// Where it answers.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name and version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Whether it still runs: without it every answer is a 503.
    pub(super) fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }
}

/// nginx with its files in `dir`.
fn nginx_at(nginx: &Path, address: SocketAddr, dir: &Path) -> Result<Command> {
    let config = dir.join("nginx.conf");
    fs::write(&config, text(address, dir)).context("writing nginx.conf")?;
    let mut command = tools::command(nginx);
    command.arg("-p").arg(dir).arg("-c").arg(&config);
    Ok(command)
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
