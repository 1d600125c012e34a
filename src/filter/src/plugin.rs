//! One policy in one VM: read at configure time, then only used.
//!
//! A refused policy is refused as a whole, with every mistake in the log. Envoy then keeps the
//! plugin that it has. Envoy asks once, in a throw-away VM, and remembers the answer, so reading a
//! policy depends on nothing but its text and the environment.

use crate::document;
use crate::generation::{Raised, Standing, stand};
use crate::host::{Buffer, Host, Level, attribute};
use crate::log;
use crate::metrics::{Metrics, Reload};
use crate::replica::View;
use crate::secrets::Files;
use crate::seed::Cached;
use crate::sync::{FIRST_TICK, Sync};
use crate::tokens::{Ours, Patience, Tokens};
use crate::waiting::{self, Waiting};
use policy::config::{self, Environment, Mistake};
use policy::model::{Breakers, IpLists, KeyPart, Policy};
use policy::replica::Seeded;
use policy::time::{Moment, Nanos};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

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
    /// `None` when the policy has no authentication.
    pub(crate) tokens: Option<RefCell<Tokens<H>>>,
    pub(crate) secrets: RefCell<Files<H>>,
    /// Streams that wait for keys.
    pub(crate) waiting: Waiting<H>,
    pub(crate) metrics: Metrics<H>,
    pub(crate) seed: Rc<Cached>,
    /// What a request need not be asked for.
    pub(crate) needs: Needs,
    /// When it was configured, on the monotonic clock.
    configured: Nanos,
    sync: Option<Sync<H>>,
    view: Rc<View<H>>,
    tick: Cell<Tick>,
    vigil: Cell<Vigil>,
}

/// The timer.
#[derive(Clone, Copy, Debug)]
struct Tick {
    /// What it is set to.
    period: Nanos,
    /// When everything was last looked after, and after how long it is again.
    last: Nanos,
    pace: Nanos,
}

/// Who says that the list of revocations is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vigil {
    /// Another plugin of this process, or nobody has to.
    Off,
    /// This one, and it has not yet.
    On,
}

/// Attributes that only some policies look at. Each costs a microsecond per request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// The client's address: for IP lists, for limits by `ip` and for API keys.
    pub(crate) client: bool,
    /// How a call really ended: the response flags, and the service that it went to if another
    /// filter chose the route anew. For breakers; without any, the first choice is label enough.
    pub(crate) outcome: bool,
}

impl Needs {
    fn of(policy: &Policy) -> Self {
        let IpLists { allow, deny, exempt } = &policy.ip;
        let listed = !(allow.is_empty() && deny.is_empty() && exempt.is_empty());
        let keyed = policy.rate_limits.iter().any(|limit| limit.key.contains(&KeyPart::Ip));
        let api_keys = policy.authentication.as_ref().and_then(|section| section.api_keys.as_ref());
        // Keys that are made at run time may be for some addresses only.
        let bound = api_keys.is_some_and(|api_keys| {
            policy.sidecar.is_some() || api_keys.keys.iter().any(|key| !key.cidrs.is_empty())
        });
        let Breakers { default, services } = &policy.circuit_breakers;
        Self {
            client: listed || keyed || bound,
            outcome: default.is_some() || !services.is_empty(),
        }
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
    let view = Rc::clone(&shared.view);
    let section = policy.authentication.as_ref();
    let tokens =
        section.map(|section| Tokens::new(&policy, section, (&host, &shared.metrics, &view)));
    let tokens = tokens.transpose()?.map(RefCell::new);
    let configured = host
        .moment()
        .and_then(|now| host.tick_every(FIRST_TICK).map(|()| now.monotonic))
        .map_err(|status| mistake(&format!("no clock or timer: {status:?}"), "a host with both"))?;
    for warning in &policy.warnings {
        log::line(&host, Level::Warn, "policy warning", &[("warning", warning.as_str().into())]);
    }
    shared.metrics.prepare(policy.rate_limits.iter().map(|limit| limit.name.as_str()));
    let sync = Sync::new(&policy, &host, &shared.metrics, &view);
    Ok(Plugin {
        tokens,
        secrets: RefCell::new(Files::new(&policy, &host, &view)),
        waiting: Waiting::default(),
        needs: Needs::of(&policy),
        metrics: shared.metrics.clone(),
        seed: Rc::clone(&shared.seed),
        tick: Cell::new(Tick { period: FIRST_TICK, last: Nanos::ZERO, pace: FIRST_TICK }),
        vigil: Cell::new(Vigil::Off),
        host,
        policy,
        configured,
        sync,
        view,
    })
}

/// A mistake of the whole document.
fn mistake(wrong: &str, allowed: &str) -> Vec<Mistake> {
    vec![Mistake { path: "policy".into(), wrong: wrong.into(), allowed: allowed.into() }]
}

impl<H: Host> Plugin<H> {
    /// Wakes streams whose keys came; and, once in a while, finds out whether this policy is the one
    /// in force, keeps in touch with the sidecar and has key sets refreshed.
    pub(crate) fn on_tick(&self, root: u32) {
        let Ok(now) = self.host.moment() else { return };
        let Tick { last, pace, .. } = self.tick.get();
        if self.waiting.is_empty() || now.monotonic - last >= pace {
            self.look_after(now);
        }
        self.wake(root, now);
        self.keep_pace(now.monotonic);
    }

    /// Ticks as often as there is something to do.
    fn keep_pace(&self, now: Nanos) {
        let pace = self.sync.as_ref().map_or(TICK, |sync| sync.pace(now - self.configured));
        self.tick.set(Tick { pace, ..self.tick.get() });
        self.set_timer();
    }

    fn look_after(&self, now: Moment) {
        if let Ok(standing) = stand(&self.host, self.policy.hash, self.configured) {
            self.stand(standing, now);
        }
        if let Some(tokens) = &self.tokens
            && let Ok(mut tokens) = tokens.try_borrow_mut()
        {
            tokens.keep_up(now);
        }
        self.watch_seeding(now);
        self.tick.set(Tick { last: now.monotonic, ..self.tick.get() });
    }

    fn stand(&self, standing: Standing, now: Moment) {
        if let Standing::Newest { generation, raised: Raised::ByThisCall } = standing {
            self.metrics.policy(Reload::Ok);
            let fields = [
                ("policy", self.policy.name.as_str().into()),
                ("hash", format!("{:016x}", self.policy.hash).into()),
                ("generation", generation.into()),
            ];
            log::line(&self.host, Level::Info, "policy in force", &fields);
            self.vigil.set(Vigil::On);
        }
        if let Some(sync) = &self.sync {
            match standing {
                Standing::Newest { generation, .. } => {
                    sync.on_tick(generation, self.seed.get(&self.host), now);
                }
                Standing::Outdated => sync.retire(),
            }
        }
        // An old policy's requests have keys fetched when they need them.
        if let (Standing::Newest { .. }, Some(tokens)) = (standing, &self.tokens)
            && let Ok(mut tokens) = tokens.try_borrow_mut()
        {
            tokens.refresh(now.monotonic);
        }
    }

    /// Shows whether the list of revocations is there, and says once when it is late.
    fn watch_seeding(&self, now: Moment) {
        let Some(revocation) = &self.policy.revocation else { return };
        let state = self.view.look().state;
        let seeded = state.is_some_and(|state| state.seeded == Seeded::Yes);
        self.metrics.revocation_seeded(seeded);
        if seeded {
            self.vigil.set(Vigil::Off);
        } else if self.vigil.get() == Vigil::On
            && now.monotonic - self.configured >= revocation.seed_deadline
        {
            self.vigil.set(Vigil::Off);
            let fields = [
                ("seed_deadline_ms", revocation.seed_deadline.as_millis().into()),
                ("on_unseeded", format!("{:?}", revocation.on_unseeded).to_lowercase().into()),
            ];
            let late = "the sidecar has not handed the revocations over in time";
            log::line(&self.host, Level::Error, late, &fields);
        }
    }

    /// Judges waiting streams again for which there is news, or no more time.
    fn wake(&self, root: u32, now: Moment) {
        if self.waiting.is_empty() {
            return;
        }
        let settled = |provider| {
            let tokens = self.tokens.as_ref().and_then(|tokens| tokens.try_borrow().ok());
            tokens.is_none_or(|tokens| tokens.is_settled(provider, now.monotonic))
        };
        let ready = self.waiting.take(now.monotonic, settled);
        if ready.is_empty() {
            return;
        }
        for wait in ready {
            let Some(stream) = wait.stream.upgrade() else { continue };
            // A stream that the host does not know any more is over; its log entry is all it gets.
            if self.host.enter(wait.context).is_ok() {
                stream.go_on();
            }
        }
        // What the rest of this callback does counts for the plugin again.
        let _stays = self.host.enter(root);
    }

    /// Sets the timer as it is needed now: a stream that has begun to wait is looked after soon.
    pub(crate) fn set_timer(&self) {
        let tick = self.tick.get();
        let soon = if self.waiting.is_empty() { tick.pace } else { waiting::TICK };
        let wanted = tick.pace.min(soon);
        if wanted != tick.period && self.host.tick_every(wanted).is_ok() {
            self.tick.set(Tick { period: wanted, ..tick });
        }
    }

    /// Whether a token may wait for keys now.
    pub(crate) fn patience(&self) -> Patience {
        if self.waiting.has_room() { Patience::Some } else { Patience::None }
    }

    /// Takes the answer to a call.
    pub(crate) fn on_call_response(&self, root: u32, token: u32, body: usize) {
        let Ok(now) = self.host.moment() else { return };
        let ours = self.tokens.as_ref().and_then(|tokens| tokens.try_borrow_mut().ok());
        if ours.map(|mut tokens| tokens.on_answer(token, body, now)) == Some(Ours::Yes) {
            self.wake(root, now);
        } else if let Some(sync) = &self.sync {
            sync.on_answer(token, body, self.seed.get(&self.host), now);
        }
        self.keep_pace(now.monotonic);
    }

    /// Lets go of what other VMs wait for. The plugin is about to be destroyed.
    pub(crate) fn retire(&self) {
        if let Some(sync) = &self.sync {
            sync.retire();
        }
        if let Some(tokens) = &self.tokens
            && let Ok(mut tokens) = tokens.try_borrow_mut()
        {
            tokens.retire();
        }
    }
}
