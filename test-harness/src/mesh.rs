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

mod builder;

pub use builder::Builder;

use crate::access_log::Line;
use crate::artefacts::Artefacts;
use crate::client::Request;
use crate::envoy::{self, Envoy};
use crate::policy::{self, Check};
use crate::sidecar::Sidecar;
use crate::stats::Stats;
use crate::token::{Key, Token};
use crate::upstream::Upstream;
use crate::wait;
use anyhow::{Context, Result, bail};
use builder::write_policy;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Anything that should happen at once on an idle machine; the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);

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
        Builder::new(policy)
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

    /// Ends Envoy at once and starts it again at the same addresses: everything in its memory is
    /// gone. It serves when this returns; what the sidecar hands over comes a moment later.
    ///
    /// # Errors
    /// It does not come back.
    pub fn restart_envoy(&mut self) -> Result<()> {
        self.envoy.restart()
    }

    /// Ends the sidecar at once and starts it again at the same address with the same data. The new
    /// one knows the policy in force when this returns.
    ///
    /// # Errors
    /// It does not come back, or filter and sidecar do not find each other.
    pub fn restart_sidecar(&mut self) -> Result<()> {
        self.sidecar()?.restart()?;
        // What the filter says of the connection may still be about the old one.
        wait::until_true("the new sidecar to hear the filter", SOON, || {
            let limits = self.sidecar()?.get("/gateway/rate-limits")?.expect(200)?.json();
            Ok(limits.get("connected") == Some(&Value::Bool(true)))
        })?;
        self.until_synced(SOON)
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

    /// Waits until the filter has everything that the sidecar holds of revoked tokens.
    ///
    /// # Errors
    /// It has not in time; with the report.
    pub fn until_seeded(&mut self, deadline: Duration) -> Result<()> {
        let seeded = |s: &Stats| s.filter("gateway_revocation_seeded", &[]) == 1;
        self.envoy.stats_until("the revocations to be handed over", deadline, seeded).map(|_| ())
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
