//! One running case: an Envoy set up as its plan says, and a sidecar where the plan has one.

use super::http;
use super::process::{self, Served};
use super::variants::{self, PATH};
use crate::build;
use crate::workspace::{Workspace, write_whole};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use test_harness::token::{Key, Token};
use test_harness::{Bootstrap, Envoy, Sidecar, envoy, port, sidecar, wait};

/// Signs the token of the run; Envoys that live for minutes on loopback need no better one.
const SECRET: &str = "for-benchmarks-only-0123456789abcdef";
/// The same as a JWK holds it: base64url without padding.
pub(super) const SECRET_JWK: &str = "Zm9yLWJlbmNobWFya3Mtb25seS0wMTIzNDU2Nzg5YWJjZGVm";
/// What filter and sidecar of the run know each other by.
const SYNC_TOKEN: &str = "for-benchmarks-only-sync";
/// From serving to the first good answer: the upstream's health check and the sidecar's first sync.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// What all cases of a run share.
pub(super) struct Setting<'a> {
    /// The Envoy executable.
    pub(super) envoy: &'a Path,
    /// The folder with filter and sidecar.
    pub(super) dist: &'a Path,
    /// The project's `envoy` folder.
    pub(super) files: &'a Path,
    /// Where the upstream answers.
    pub(super) upstream: SocketAddr,
    /// Where the cases' files go.
    pub(super) work: &'a Path,
}

impl Setting<'_> {
    /// The demo policy.
    pub(super) fn demo(&self) -> Result<Value> {
        read(&self.files.join("policy.yaml"))
    }
}

/// How one Envoy is set up.
pub(super) struct Plan {
    /// As folders and messages call it.
    pub(super) name: String,
    /// Envoy's `--concurrency`.
    pub(super) concurrency: u32,
    /// What stands before the router.
    pub(super) chain: Chain,
    /// The token of every request.
    pub(super) token: String,
}

/// What stands before the router.
pub(super) enum Chain {
    /// Filters of Envoy's own; none for the router alone.
    Native {
        /// The filters.
        filters: Vec<Value>,
        /// Whether hosts that fail are taken out, the native stand-in for the breaker.
        outlier_detection: bool,
    },
    /// Our filter.
    Ours {
        /// Its policy.
        policy: Value,
        /// Whether a sidecar runs beside it.
        has_sidecar: bool,
    },
}

/// The token of the demo policy that may read samples.
pub(super) fn demo_token() -> Result<String> {
    let token = Token::new(Key::Hs256(SECRET.into()), "u-17");
    token.claim("permissions", vec!["samples:read"]).sign()
}

/// A running case. Dropping it ends its processes.
pub(super) struct Gateway {
    name: String,
    envoy: Envoy,
    pid: u32,
    stat_prefix: String,
    headers: Vec<(String, String)>,
    request: String,
    _sidecar: Option<Sidecar>,
}

/// Builds what the suites need, and hands back the Envoy executable.
pub(super) fn artefacts(ctx: &Workspace, version: Option<&str>) -> Result<PathBuf> {
    build::run(&build::Args { envoy_version: version.map(str::to_owned) }, ctx)?;
    Ok(ctx.dist().join(build::ENVOY))
}

impl Gateway {
    /// Starts the processes and waits for the first good answer.
    pub(super) fn start(plan: Plan, setting: &Setting<'_>) -> Result<Self> {
        let dir = setting.work.join(&plan.name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let admin = port::reserve()?;
        let sidecar_port = port::reserve()?;
        let resource = dir.join("ecds/policy.yaml");
        let mut bootstrap = bootstrap(setting, admin, sidecar_port, &resource)?;
        let stat_prefix = variants::stat_prefix(bootstrap.document_mut())?;
        variants::set_up(bootstrap.document_mut(), &plan.chain)?;
        let mut sidecar = None;
        if let Chain::Ours { policy, has_sidecar } = &plan.chain {
            render(policy, &resource, setting)?;
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, sidecar_port));
            let envoy_admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
            let start = || start_sidecar(setting, &dir, listen, envoy_admin);
            sidecar = has_sidecar.then(start).transpose()?;
        }
        let mut envoy = Envoy::start(
            envoy::Options {
                executable: setting.envoy.to_owned(),
                concurrency: plan.concurrency,
                environment: environment(),
                arguments: Vec::new(),
                dir,
            },
            bootstrap,
        )?;
        let pid = envoy.process().pid();
        let headers = vec![bearer(&plan.token)];
        let request = http::request(envoy.gateway(), PATH, &headers);
        let name = plan.name;
        let gateway = Self { name, envoy, pid, stat_prefix, headers, request, _sidecar: sidecar };
        gateway.settle()?;
        Ok(gateway)
    }

    /// Waits for the first good answer.
    fn settle(&self) -> Result<()> {
        let mut last = 0;
        let settled = wait::until_true("an answer with 200", SETTLED_WITHIN, || {
            last = self.ask(&self.request)?.status;
            Ok(last == 200)
        });
        settled.with_context(|| format!("the last answer was {last}\n{}", self.envoy.report()))
    }

    /// Sends one request on a connection of its own.
    pub(super) fn ask(&self, request: &str) -> Result<http::Answer> {
        http::Connection::open(self.address())?.call(request.as_bytes())
    }

    /// As messages call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Envoy's process.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the gateway listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.envoy.gateway()
    }

    /// What to send beside the request line.
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The whole request.
    pub(super) fn request(&self) -> &str {
        &self.request
    }

    /// The request with these headers instead.
    pub(super) fn request_with(&self, headers: &[(String, String)]) -> String {
        http::request(self.address(), PATH, headers)
    }

    /// The request's URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address())
    }

    /// What Envoy has answered so far, by its own count.
    pub(super) fn served(&self) -> Result<Served> {
        process::served(self.envoy.admin(), &self.stat_prefix)
    }
}

/// The header that carries a token.
pub(super) fn bearer(token: &str) -> (String, String) {
    ("authorization".to_owned(), format!("Bearer {token}"))
}

/// The bootstrap that users run, on these ports.
fn bootstrap(
    setting: &Setting<'_>,
    admin: u16,
    sidecar_port: u16,
    resource: &Path,
) -> Result<Bootstrap> {
    let mut bootstrap = Bootstrap::read(&setting.files.join("envoy.yaml"))?;
    bootstrap.listen(Ipv4Addr::LOCALHOST.into(), 0)?;
    bootstrap.admin(admin)?;
    bootstrap.policy(resource)?;
    bootstrap.module(&setting.dist.join(build::FILTER))?;
    bootstrap.sidecar("127.0.0.1", sidecar_port)?;
    for service in bootstrap.services()? {
        let upstream = setting.upstream;
        bootstrap.service(&service, &upstream.ip().to_string(), upstream.port())?;
    }
    Ok(bootstrap)
}

/// A YAML file as a tree.
fn read(path: &Path) -> Result<Value> {
    Ok(Bootstrap::read(path)?.document_mut().clone())
}

/// The variables that the demo policy names, for Envoy and the sidecar.
fn environment() -> Vec<(String, String)> {
    [("TRACSEQ_JWT_SECRET", SECRET), ("GATEWAY_SYNC_TOKEN", SYNC_TOKEN)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// Wraps a policy into the resource that Envoy loads, as users do.
fn render(policy: &Value, resource: &Path, setting: &Setting<'_>) -> Result<()> {
    let dir = resource.parent().context("the resource has no folder")?;
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let bare = dir.with_file_name("policy.json");
    write_whole(&bare, policy.to_string().as_bytes())?;
    let module = setting.dist.join(build::FILTER);
    let [bare, module, out] = [&bare, &module, resource].map(|path| path.display().to_string());
    let said = sidecar::run(
        &setting.dist.join(build::SIDECAR),
        &["render", &bare, "--module", &module, "--out", &out],
    )?;
    if !said.ok {
        bail!("`gateway-sidecar render` failed:\n{}", said.stderr.trim_end());
    }
    Ok(())
}

fn start_sidecar(
    setting: &Setting<'_>,
    dir: &Path,
    listen: SocketAddr,
    envoy_admin: SocketAddr,
) -> Result<Sidecar> {
    Sidecar::start(sidecar::Options {
        executable: setting.dist.join(build::SIDECAR),
        dir: dir.to_owned(),
        listen,
        envoy_admin,
        admin_token_file: dir.join("admin-token"),
        data_dir: dir.join("data"),
        files_dir: dir.join("files"),
        environment: environment(),
        arguments: Vec::new(),
    })
}
