//! The whole house for one test: Envoy with the filter, the sidecar, scripted services, a policy.
//!
//! ```no_run
//! # use test_harness::{Mesh, policy};
//! # use serde_json::json;
//! # fn main() -> anyhow::Result<()> {
//! Mesh::with(policy::with(&json!({ "https": { "mode": "refuse" } }))).run(|mesh| {
//!     mesh.get("/api/auth/x").send()?.expect_refusal(403, "https-required")?;
//!     Ok(())
//! })
//! # }
//! ```

use crate::access_log::Line;
use crate::artefacts::Artefacts;
use crate::bootstrap::Bootstrap;
use crate::client::Request;
use crate::envoy::{self, Envoy};
use crate::policy::{self, Check};
use crate::sidecar::{self, Sidecar};
use crate::stats::Stats;
use crate::token::{Key, Token};
use crate::upstream::Upstream;
use crate::{port, wait};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Anything that should happen at once on an idle machine; the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);

/// What a house is built from.
#[derive(Clone, Debug)]
pub struct Builder {
    policy: Value,
    concurrency: u32,
    with_sidecar: bool,
    trusted_hops: u32,
    http2: Vec<String>,
    connections: Option<u32>,
}

impl Builder {
    /// Envoy's worker threads; 2 unless set, so that what must hold across workers is tested.
    #[must_use]
    pub const fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Without a sidecar: the filter alone.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.with_sidecar = false;
        self
    }

    /// As behind one proxy that is trusted: `X-Forwarded-For` and `-Proto` of a request count.
    #[must_use]
    pub const fn behind_proxy(mut self) -> Self {
        self.trusted_hops = 1;
        self
    }

    /// This service is spoken to in HTTP/2.
    #[must_use]
    pub fn http2_service(mut self, name: &str) -> Self {
        self.http2.push(name.to_owned());
        self
    }

    /// With room for so many connections from clients.
    #[must_use]
    pub const fn connections(mut self, most: u32) -> Self {
        self.connections = Some(most);
        self
    }

    /// Builds the house, runs the test in it, and checks that no VM trapped. A failure shows what
    /// Envoy and sidecar said, and keeps the directory with everything.
    ///
    /// # Errors
    /// The house does not stand, the test's own error, or a VM trapped.
    pub fn run(self, test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
        let mut mesh = Mesh::start(self)?;
        let result = test(&mut mesh).and_then(|()| mesh.must_not_have_trapped());
        if let Err(error) = result {
            let report = mesh.report();
            mesh.keep = true;
            return Err(error.context(report));
        }
        Ok(())
    }
}

/// A standing house. Dropping it takes everything down.
#[derive(Debug)]
pub struct Mesh {
    artefacts: Artefacts,
    envoy: Envoy,
    sidecar: Option<Sidecar>,
    upstreams: BTreeMap<String, Upstream>,
    dir: Option<TempDir>,
    keep: bool,
    offered_bad: bool,
}

impl Mesh {
    /// A house with this policy.
    #[must_use]
    pub const fn with(policy: Value) -> Builder {
        Builder {
            policy,
            concurrency: 2,
            with_sidecar: true,
            trusted_hops: 0,
            http2: Vec::new(),
            connections: None,
        }
    }

    fn start(builder: Builder) -> Result<Self> {
        let artefacts = Artefacts::find()?;
        let dir = tempfile::Builder::new().prefix("gateway-test-").tempdir()?;
        let place = dir.path();
        std::fs::create_dir(place.join("ecds"))?;
        write_policy(&artefacts, place, &builder.policy, Check::Checked)?;
        let mut bootstrap = Bootstrap::read(&artefacts.bootstrap)?;
        let mut upstreams = BTreeMap::new();
        for name in bootstrap.services()? {
            let upstream = Upstream::start(&name)?;
            bootstrap.service(&name, "127.0.0.1", upstream.address().port())?;
            upstreams.insert(name, upstream);
        }
        for name in &builder.http2 {
            bootstrap.http2(name)?;
        }
        let sidecar_at = SocketAddr::from((Ipv4Addr::LOCALHOST, port::reserve()?));
        bootstrap.listen(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)?;
        bootstrap.admin(0)?;
        bootstrap.policy(&resource(place))?;
        bootstrap.module(&artefacts.module)?;
        bootstrap.sidecar("127.0.0.1", sidecar_at.port())?;
        bootstrap.trusted_hops(builder.trusted_hops)?;
        if let Some(most) = builder.connections {
            bootstrap.connections(most)?;
        }
        let envoy = Envoy::start(envoy_options(&artefacts, place, builder.concurrency), bootstrap);
        let envoy = envoy.inspect_err(|_| eprintln!("--- policy\n{:#}", builder.policy))?;
        let admin = envoy.admin();
        let dir = Some(dir);
        let (sidecar, keep, offered_bad) = (None, false, false);
        let mut mesh = Self { artefacts, envoy, sidecar, upstreams, dir, keep, offered_bad };
        if builder.with_sidecar {
            let options = sidecar_options(&mesh.artefacts, mesh.place()?, sidecar_at, admin);
            mesh.sidecar = Some(Sidecar::start(options)?);
            mesh.until_synced(SOON)?;
        }
        Ok(mesh)
    }

    /// A GET through the gateway.
    #[must_use]
    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    /// A request through the gateway.
    #[must_use]
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.gateway(), method, target)
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway(&self) -> SocketAddr {
        self.envoy.gateway()
    }

    /// Envoy.
    pub const fn envoy(&mut self) -> &mut Envoy {
        &mut self.envoy
    }

    /// The sidecar.
    ///
    /// # Errors
    /// The house was built without one.
    pub fn sidecar(&mut self) -> Result<&mut Sidecar> {
        self.sidecar.as_mut().context("this house has no sidecar")
    }

    /// A service.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn upstream(&self, name: &str) -> Result<&Upstream> {
        self.upstreams.get(name).with_context(|| format!("no service {name:?}"))
    }

    /// Closes a service: connections to it are refused from now on.
    pub fn close(&mut self, name: &str) {
        self.upstreams.remove(name);
    }

    /// A good token of the demo's issuer.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, subject: &str) -> Result<String> {
        Token::new(Key::Hs256(policy::JWT_SECRET.into()), subject).sign()
    }

    /// All statistics of this moment.
    ///
    /// # Errors
    /// Envoy's admin does not answer.
    pub fn stats(&self) -> Result<Stats> {
        self.envoy.stats()
    }

    /// A metric of the filter, summed over all that carry these labels.
    ///
    /// # Errors
    /// Envoy's admin does not answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        Ok(self.stats()?.filter(name, labels))
    }

    /// Waits until a metric of the filter has a value.
    ///
    /// # Errors
    /// It does not in time; with the report.
    pub fn until_metric(&mut self, name: &str, labels: &[(&str, &str)], value: u64) -> Result<()> {
        let what = format!("{name}{labels:?} to be {value}");
        self.envoy.stats_until(&what, SOON, |s| s.filter(name, labels) == value).map(|_| ())
    }

    /// Waits until filter and sidecar know each other.
    ///
    /// # Errors
    /// They do not in time; with the report.
    pub fn until_synced(&mut self, deadline: Duration) -> Result<()> {
        let connected = |s: &Stats| s.filter("gateway_sidecar_connected", &[]) == 1;
        self.envoy.stats_until("filter and sidecar to be in sync", deadline, connected).map(|_| ())
    }

    /// Waits for an access log line.
    ///
    /// # Errors
    /// None comes in time.
    pub fn logged(&self, what: &str, fits: impl Fn(&Line) -> bool) -> Result<Line> {
        wait::until(&format!("an access log line: {what}"), SOON, || {
            Ok(self.envoy.access_log()?.into_iter().find(&fits))
        })
    }

    /// Brings another policy into force, as saving the file does, and waits until Envoy took it.
    /// Workers follow a moment later: wait for what the policy does.
    ///
    /// # Errors
    /// It has mistakes, the gateway refuses it, or Envoy does not take it in time.
    pub fn set_policy(&mut self, policy: &Value) -> Result<()> {
        let stats = self.stats()?;
        let (was_taken, was_refused) = (stats.policies_taken(), stats.policies_refused());
        write_policy(&self.artefacts, self.place()?, policy, Check::Checked)?;
        let judged =
            |s: &Stats| s.policies_taken() > was_taken || s.policies_refused() > was_refused;
        let stats = self.envoy.stats_until("Envoy to take the policy", SOON, judged)?;
        if stats.policies_refused() > was_refused {
            bail!("the gateway refused a policy that its check had passed");
        }
        Ok(())
    }

    /// Hands a policy to the gateway unchecked, and waits until Envoy refused it.
    ///
    /// # Errors
    /// Envoy does not refuse it.
    pub fn offer_bad_policy(&mut self, policy: &Value) -> Result<()> {
        let before = self.stats()?.policies_refused();
        self.expect_refused_policies();
        write_policy(&self.artefacts, self.place()?, policy, Check::Unchecked)?;
        let what = "Envoy to refuse the policy";
        self.envoy.stats_until(what, SOON, |s| s.policies_refused() > before).map(|_| ())
    }

    /// From now on Envoy may log that it was offered a policy which the filter refused.
    pub const fn expect_refused_policies(&mut self) {
        self.offered_bad = true;
    }

    /// No VM trapped, nothing critical was logged: a request never gets that far.
    ///
    /// # Errors
    /// One did.
    pub fn must_not_have_trapped(&mut self) -> Result<()> {
        let log = self.envoy.log()?;
        // So Envoy calls a policy that it was offered and that the filter refused.
        let refusal = |line: &str| self.offered_bad && line.ends_with("failed to load");
        let critical: Vec<&str> =
            log.lines().filter(|l| l.contains("[critical]") && !refusal(l)).collect();
        if !critical.is_empty() {
            bail!("Envoy logged critical lines:\n{}", critical.join("\n"));
        }
        // A trap is no critical line, and the VM is made anew only at the next request.
        let trapped: Vec<&str> = log.lines().filter(|l| envoy::is_trap(l)).collect();
        if !trapped.is_empty() {
            bail!("a VM trapped:\n{}", trapped.join("\n"));
        }
        if self.envoy.process().ended()?.is_some() {
            return Ok(());
        }
        let reloads = |name: &str| name.starts_with("wasm.") && name.contains("vm_reload");
        let stats = self.stats()?;
        if stats.sum(reloads) > 0 {
            bail!("a VM was reloaded:\n{}", stats.lines(|n, v| v > 0 && reloads(n)));
        }
        Ok(())
    }

    /// What a failure shows.
    #[must_use]
    pub fn report(&self) -> String {
        let sidecar = self.sidecar.as_ref().map(Sidecar::tail).unwrap_or_default();
        format!("{}{sidecar}", self.envoy.report())
    }

    /// The directory with everything of this house.
    ///
    /// # Errors
    /// It is being taken down.
    pub fn place(&self) -> Result<&Path> {
        self.dir.as_ref().map(TempDir::path).context("the house is being taken down")
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
            self.keep = true;
        }
        if self.keep
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}

fn resource(place: &Path) -> PathBuf {
    place.join("ecds/policy.yaml")
}

fn write_policy(artefacts: &Artefacts, place: &Path, policy: &Value, check: Check) -> Result<()> {
    let file = place.join("policy.yaml");
    std::fs::write(&file, serde_json::to_string_pretty(policy)?)?;
    policy::render(&artefacts.sidecar, &file, &artefacts.module, &resource(place), check)
}

fn envoy_options(artefacts: &Artefacts, place: &Path, concurrency: u32) -> envoy::Options {
    envoy::Options {
        executable: artefacts.envoy.clone(),
        dir: place.to_owned(),
        concurrency,
        environment: vec![
            (policy::JWT_VARIABLE.to_owned(), policy::JWT_SECRET.to_owned()),
            (policy::SYNC_VARIABLE.to_owned(), policy::SYNC_TOKEN.to_owned()),
        ],
        arguments: Vec::new(),
    }
}

fn sidecar_options(
    artefacts: &Artefacts,
    place: &Path,
    listen: SocketAddr,
    envoy_admin: SocketAddr,
) -> sidecar::Options {
    sidecar::Options {
        executable: artefacts.sidecar.clone(),
        dir: place.to_owned(),
        listen,
        envoy_admin,
        admin_token_file: place.join("admin-token"),
        environment: vec![(policy::SYNC_VARIABLE.to_owned(), policy::SYNC_TOKEN.to_owned())],
        arguments: Vec::new(),
    }
}
