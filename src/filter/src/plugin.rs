//! One policy in one VM: read at configure time, then only used.
//!
//! A refused policy is refused as a whole, with every mistake in the log. Envoy then keeps the
//! plugin that it has. Envoy asks once, in a throw-away VM, and remembers the answer, so reading a
//! policy depends on nothing but its text and the environment.

mod needs;
mod timer;

use crate::document;
use crate::generation::{Raised, Standing, stand};
use crate::host::{Buffer, Host, Level, attribute};
use crate::limits::{InForce, News};
use crate::load::Reader;
use crate::log;
use crate::metrics::{Metrics, Reload};
use crate::replica::{Seen, View};
use crate::reports::Reports;
use crate::secrets::Files;
use crate::seed::Cached;
use crate::sync::{FIRST_TICK, Sync};
use crate::tokens::{Ours, Patience, Tokens};
use crate::waiting::{Waiter, Waiting};
use needs::Needs;
use policy::config::{self, Environment, Mistake};
use policy::replica::{Seeded, State};
use policy::stage::limit::Leases;
use policy::time::{Moment, Nanos};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use timer::Timer;

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
    pub(crate) policy: InForce<H>,
    /// `None` when the policy has no authentication.
    pub(crate) tokens: Option<RefCell<Tokens<H>>>,
    pub(crate) secrets: RefCell<Files<H>>,
    /// What this VM holds of limits' hot keys.
    pub(crate) leases: RefCell<Leases>,
    /// Who was limited or banned here.
    pub(crate) reports: RefCell<Reports<H>>,
    pub(crate) load: Reader<H>,
    /// Streams that wait.
    pub(crate) waiting: Waiting<H>,
    pub(crate) metrics: Metrics<H>,
    pub(crate) seed: Rc<Cached>,
    /// What a request need not be asked for.
    pub(crate) needs: Needs,
    /// When it was configured, on the monotonic clock.
    configured: Nanos,
    sync: Option<Sync<H>>,
    view: Rc<View<H>>,
    timer: Timer,
    round: Cell<Round>,
    vigil: Cell<Vigil>,
}

/// When everything was last looked after, and after how long it is again.
#[derive(Clone, Copy, Debug)]
struct Round {
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
    shared.metrics.prepare(&policy.rate_limits);
    let sync = Sync::new(&policy, &host, &shared.metrics, &view);
    Ok(Plugin {
        tokens,
        secrets: RefCell::new(Files::new(&policy, &host, &view)),
        leases: RefCell::default(),
        reports: RefCell::new(Reports::new(&policy, &host, &shared.seed)),
        load: Reader::new(&host),
        waiting: Waiting::default(),
        needs: Needs::of(&policy),
        metrics: shared.metrics.clone(),
        seed: Rc::clone(&shared.seed),
        timer: Timer::set(FIRST_TICK, configured),
        round: Cell::new(Round { last: configured, pace: FIRST_TICK }),
        vigil: Cell::new(Vigil::Off),
        policy: InForce::new(&host, policy),
        host,
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
    /// Wakes streams whose keys or turn came; and, once in a while, finds out whether this policy is
    /// the one in force, keeps in touch with the sidecar and has key sets refreshed. A plugin that
    /// was replaced ticks on for the streams that it has.
    pub(crate) fn on_tick(&self, root: u32) {
        let Ok(now) = self.host.moment() else { return };
        let Round { last, pace } = self.round.get();
        if self.waiting.is_empty() || now.monotonic - last >= pace {
            self.look_after(now);
        }
        self.wake(root, now);
        let turns = self.waiting.take_turns(now.monotonic);
        self.resume(root, turns);
        // Letting many streams go on takes time, and those that still wait count on theirs.
        let later = if self.waiting.is_empty() { None } else { self.host.monotonic().ok() };
        let now = later.unwrap_or(now.monotonic);
        self.keep_pace(now);
        self.timer.restart(&self.host, self.next(now), now);
    }

    /// Sees to it that whoever has begun to wait is looked after in time.
    pub(crate) fn set_timer(&self, now: Nanos) {
        self.timer.hurry(&self.host, self.next(now), now);
    }

    /// Looks after the rest as often as there is something to do.
    fn keep_pace(&self, now: Nanos) {
        let pace = self.sync.as_ref().map_or(TICK, |sync| sync.pace(now - self.configured));
        self.round.set(Round { pace, ..self.round.get() });
    }

    /// When the next tick is needed: for a stream that waits, or to look after the rest.
    fn next(&self, now: Nanos) -> Nanos {
        let Round { last, pace } = self.round.get();
        self.waiting.next(now).map_or(last + pace, |soon| soon.min(last + pace))
    }

    fn look_after(&self, now: Moment) {
        let policy = self.policy.written();
        if let Ok(standing) = stand(&self.host, policy.hash, self.configured) {
            self.stand(standing, now);
        }
        if let Some(tokens) = &self.tokens
            && let Ok(mut tokens) = tokens.try_borrow_mut()
        {
            tokens.keep_up(now);
        }
        if let Ok(mut reports) = self.reports.try_borrow_mut() {
            reports.on_tick(now);
        }
        self.watch_seeding(now);
        self.round.set(Round { last: now.monotonic, ..self.round.get() });
    }

    fn stand(&self, standing: Standing, now: Moment) {
        if let Standing::Newest { generation, raised: Raised::ByThisCall } = standing {
            self.metrics.policy(Reload::Ok);
            let policy = self.policy.written();
            let fields = [
                ("policy", policy.name.as_str().into()),
                ("hash", format!("{:016x}", policy.hash).into()),
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
        let Some(revocation) = &self.policy.written().revocation else { return };
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

    /// What the sidecar has handed over; `None` for a policy without one.
    pub(crate) fn look(&self) -> Option<Seen> {
        self.needs.state.then(|| self.view.look())
    }

    /// Takes over what the sidecar changed, for the request that is about to be judged. Gives the
    /// keys of the fingerprints of those who may be banned.
    pub(crate) fn keep_up(&self, seen: Option<Seen>, leases: &mut Leases) -> Option<[u64; 2]> {
        let seen = seen?;
        if self.policy.keep_up(seen.generation) == News::Some {
            // Numbers may be others now, or an administrator has reset somebody.
            leases.forget();
        }
        let State { store, keys, .. } = seen.state.filter(|_| seen.may_ban())?;
        (store != State::UNKNOWN.store).then_some(keys)
    }

    /// Judges streams again for whose keys there is news, or that have no more time.
    fn wake(&self, root: u32, now: Moment) {
        if self.waiting.is_empty() {
            return;
        }
        let settled = |provider| {
            let tokens = self.tokens.as_ref().and_then(|tokens| tokens.try_borrow().ok());
            tokens.is_none_or(|tokens| tokens.is_settled(provider, now.monotonic))
        };
        let ready = self.waiting.take(now.monotonic, settled);
        self.resume(root, ready);
    }

    fn resume(&self, root: u32, ready: Vec<Waiter<H>>) {
        if ready.is_empty() {
            return;
        }
        for waiter in ready {
            let Some(stream) = waiter.stream.upgrade() else { continue };
            // A stream that the host does not know any more is over; its log entry is all it gets.
            if self.host.enter(waiter.context).is_ok() {
                stream.go_on();
            }
        }
        // What the rest of this callback does counts for the plugin again.
        let _stays = self.host.enter(root);
    }

    /// Whether a token may wait for keys now.
    pub(crate) fn patience(&self) -> Patience {
        if self.waiting.has_room() { Patience::Some } else { Patience::None }
    }

    /// Takes the answer to a call.
    pub(crate) fn on_call_response(&self, root: u32, token: u32, body: usize) {
        let Ok(now) = self.host.moment() else { return };
        let tokens = self.tokens.as_ref().and_then(|tokens| tokens.try_borrow_mut().ok());
        if tokens.map(|mut tokens| tokens.on_answer(token, body, now)) == Some(Ours::Yes) {
            self.wake(root, now);
        } else {
            let reports = self.reports.try_borrow_mut().ok();
            let ours = reports.map(|mut reports| reports.on_answer(token, body, now));
            if let (Some(Ours::No) | None, Some(sync)) = (ours, &self.sync) {
                sync.on_answer(token, body, self.seed.get(&self.host), now);
            }
        }
        self.keep_pace(now.monotonic);
        self.set_timer(now.monotonic);
    }

    /// Lets go of what other VMs wait for, and of streams that nobody would wake any more. The
    /// plugin is about to be destroyed; Envoy does that when its last stream is gone.
    pub(crate) fn retire(&self) {
        if let Some(sync) = &self.sync {
            sync.retire();
        }
        if let Some(tokens) = &self.tokens
            && let Ok(mut tokens) = tokens.try_borrow_mut()
        {
            tokens.retire();
        }
        for waiter in self.waiting.take_all() {
            let Some(stream) = waiter.stream.upgrade() else { continue };
            if self.host.enter(waiter.context).is_ok() {
                stream.give_up();
            }
        }
    }
}
