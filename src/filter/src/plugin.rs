//! One policy in one VM: read at configure time, then only used.
//!
//! A refused policy is refused as a whole, with every mistake in the log. Envoy then keeps the
//! plugin that it has. Envoy asks once, in a throw-away VM, and remembers the answer, so reading a
//! policy depends on nothing but its text and the environment.

use crate::cache::Remembering;
use crate::document;
use crate::generation::{Raised, Standing, stand};
use crate::host::{Buffer, Host, Level, attribute};
use crate::log;
use crate::metrics::{Metrics, Reload};
use crate::replica::View;
use crate::seed::Cached;
use crate::signatures::HostSignatures;
use crate::sync::{FIRST_TICK, Sync};
use policy::config::{self, Environment, Mistake};
use policy::model::{Breakers, IpLists, KeyPart, Policy};
use policy::time::Nanos;
use policy::verify::{TokenError, Verified, Verify};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use token::Verifier;

/// The plugin that guards requests.
const ROOT_GATEWAY: &str = "gateway";
/// The plugin that does nothing: as a bootstrap service it keeps shared data alive while listeners
/// come and go.
const ROOT_PIN: &str = "pin";
/// How often a plugin looks after what is not a request: short enough that a sidecar that came
/// back is noticed within two seconds, long enough to cost nothing.
pub(crate) const TICK: Nanos = Nanos::from_millis(500);

/// A configured gateway plugin.
pub(crate) struct Plugin<H: Host> {
    pub(crate) host: H,
    pub(crate) policy: Policy,
    pub(crate) verify: RefCell<Box<dyn Verify>>,
    pub(crate) metrics: Metrics<H>,
    pub(crate) seed: Rc<Cached>,
    /// What a request need not be asked for.
    pub(crate) needs: Needs,
    /// When it was configured, on the monotonic clock.
    configured: Nanos,
    /// How often it ticks now.
    pace: Cell<Nanos>,
    sync: Option<Sync<H>>,
}

/// Attributes that only some policies look at. Each costs a microsecond per request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// The client's address: for IP lists and for limits by `ip`.
    pub(crate) client: bool,
    /// The response flags: for breakers.
    pub(crate) flags: bool,
}

impl Needs {
    fn of(policy: &Policy) -> Self {
        let IpLists { allow, deny, exempt } = &policy.ip;
        let listed = !(allow.is_empty() && deny.is_empty() && exempt.is_empty());
        let keyed = policy.rate_limits.iter().any(|limit| limit.key.contains(&KeyPart::Ip));
        let Breakers { default, services } = &policy.circuit_breakers;
        Self { client: listed || keyed, flags: default.is_some() || !services.is_empty() }
    }
}

/// What became of a configuration.
pub(crate) enum Configured<H: Host> {
    /// A gateway plugin.
    Gateway(Rc<Plugin<H>>),
    /// The plugin that does nothing.
    Pin,
    /// Refused; the reasons are in the log.
    Refused,
}

/// What all plugins of one VM share.
pub(crate) struct Shared<H: Host> {
    pub(crate) host: H,
    pub(crate) metrics: Metrics<H>,
    pub(crate) seed: Rc<Cached>,
    pub(crate) view: Rc<View<H>>,
}

/// Reads the configuration of a root context.
pub(crate) fn configure<H: Host>(shared: &Shared<H>, size: usize) -> Configured<H> {
    let host = &shared.host;
    let root = host.attribute(attribute::ROOT_ID).unwrap_or_default();
    if root == ROOT_PIN.as_bytes() {
        return Configured::Pin;
    }
    if root != ROOT_GATEWAY.as_bytes() {
        let given = String::from_utf8_lossy(&root).into_owned();
        let fields =
            [("root_id", given.into()), ("allowed", [ROOT_GATEWAY, ROOT_PIN].as_slice().into())];
        log::line(host, Level::Error, "unknown root_id", &fields);
        return Configured::Refused;
    }
    match read(shared, size) {
        Ok(plugin) => Configured::Gateway(Rc::new(plugin)),
        Err(mistakes) => {
            for mistake in mistakes {
                let fields = [
                    ("path", mistake.path.into()),
                    ("wrong", mistake.wrong.into()),
                    ("allowed", mistake.allowed.into()),
                ];
                log::line(host, Level::Error, "policy refused", &fields);
            }
            shared.metrics.policy(Reload::Refused);
            Configured::Refused
        }
    }
}

/// From the bytes of a policy to a plugin.
fn read<H: Host>(shared: &Shared<H>, size: usize) -> Result<Plugin<H>, Vec<Mistake>> {
    let host = shared.host.clone();
    let bytes = host.buffer(Buffer::PluginConfiguration, size).unwrap_or_default();
    if bytes.is_empty() {
        return Err(mistake("the configuration is empty", "a policy, at least `{version: 1}`"));
    }
    let document = document::read(&bytes)
        .map_err(|error| mistake(&format!("not JSON: {error}"), "a policy as JSON"))?;
    let variables = |name: &str| host.variable(name);
    let policy = config::read(&document, Environment::Given(&variables))?;
    let verify = verifier(&policy, shared)?;
    let configured = host
        .moment()
        .and_then(|now| host.tick_every(FIRST_TICK).map(|()| now.monotonic))
        .map_err(|status| mistake(&format!("no clock or timer: {status:?}"), "a host with both"))?;
    for warning in &policy.warnings {
        log::line(&host, Level::Warn, "policy warning", &[("warning", warning.as_str().into())]);
    }
    shared.metrics.prepare(policy.rate_limits.iter().map(|limit| limit.name.as_str()));
    let sync = Sync::new(&policy, &host, &shared.metrics, &shared.view);
    let needs = Needs::of(&policy);
    Ok(Plugin {
        host,
        policy,
        verify: RefCell::new(verify),
        metrics: shared.metrics.clone(),
        seed: Rc::clone(&shared.seed),
        needs,
        configured,
        pace: Cell::new(FIRST_TICK),
        sync,
    })
}

/// A mistake of the whole document.
fn mistake(wrong: &str, allowed: &str) -> Vec<Mistake> {
    vec![Mistake { path: "policy".into(), wrong: wrong.into(), allowed: allowed.into() }]
}

fn verifier<H: Host>(policy: &Policy, shared: &Shared<H>) -> Result<Box<dyn Verify>, Vec<Mistake>> {
    match &policy.authentication {
        Some(section) => {
            let verifier = Verifier::new(section, HostSignatures(shared.host.clone()))?;
            let metrics = shared.metrics.clone();
            let note = Box::new(move |recall| metrics.recall(recall));
            Ok(Box::new(Remembering::new(verifier, note)))
        }
        None => Ok(Box::new(NoProviders)),
    }
}

/// Stands where a policy has no authentication: nothing asks it, and it trusts nothing.
struct NoProviders;

impl Verify for NoProviders {
    fn verify(&mut self, _token: &[u8], _now: Nanos) -> Result<Verified, TokenError> {
        Err(TokenError::Untrusted)
    }
}

impl<H: Host> Plugin<H> {
    /// Finds out whether this policy is the one in force, and keeps in touch with the sidecar.
    pub(crate) fn on_tick(&self) {
        let Ok(now) = self.host.moment() else { return };
        let Ok(standing) = stand(&self.host, self.policy.hash, self.configured) else { return };
        if let Standing::Newest { generation, raised: Raised::ByThisCall } = standing {
            self.metrics.policy(Reload::Ok);
            let fields = [
                ("policy", self.policy.name.as_str().into()),
                ("hash", format!("{:016x}", self.policy.hash).into()),
                ("generation", generation.into()),
            ];
            log::line(&self.host, Level::Info, "policy in force", &fields);
        }
        if let Some(sync) = &self.sync {
            match standing {
                Standing::Newest { generation, .. } => {
                    sync.on_tick(generation, self.seed.get(&self.host), now);
                }
                Standing::Outdated => sync.retire(),
            }
        }
        self.keep_pace(now.monotonic);
    }

    /// Ticks as often as there is something to do.
    fn keep_pace(&self, now: Nanos) {
        let wanted = self.sync.as_ref().map_or(TICK, |sync| sync.pace(now - self.configured));
        if wanted != self.pace.get() && self.host.tick_every(wanted).is_ok() {
            self.pace.set(wanted);
        }
    }

    /// Takes the answer to a call.
    pub(crate) fn on_call_response(&self, token: u32, body: usize) {
        let Ok(now) = self.host.moment() else { return };
        if let Some(sync) = &self.sync {
            sync.on_answer(token, body, self.seed.get(&self.host), now);
        }
        self.keep_pace(now.monotonic);
    }

    /// Lets go of what other VMs wait for. The plugin is about to be destroyed.
    pub(crate) fn retire(&self) {
        if let Some(sync) = &self.sync {
            sync.retire();
        }
    }
}
