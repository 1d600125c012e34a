//! Events as Envoy metrics: every name in one enum, every event in one exhaustive match.
//!
//! Metrics are defined when they are first needed and then remembered by number, per VM. Envoy never
//! forgets a metric, so labels come only from the policy, from Envoy's own cluster names and from
//! enums, and their number is bounded here as well.

mod access;
mod name;
#[cfg(test)]
mod tests;

use crate::host::{Host, Level};
use crate::log;
use access::AccessSlots;
pub(crate) use access::{Fetched, Recall};
use hashbrown::HashMap;
use name::{Name, full};
use policy::event::{CallKind, Event, Events, LimitOutcome};
use policy::kernel::breaker::State;
use policy::model::{Limit, LimitAlgorithm};
use policy::reason::Reason;
use policy::time::Nanos;
use std::cell::RefCell;
use std::rc::Rc;

/// Most services with a label of their own. Clusters come from Envoy's configuration, but a
/// discovery service can make new ones for ever; beyond this they share the label [`OTHER`].
pub(crate) const SERVICES_MAX: usize = 1000;
/// Most limits with a label of their own, counted over all policies that this VM has seen.
const LIMITS_MAX: usize = 1000;
/// The label of whatever came too late.
const OTHER: &str = "other";
/// Most log lines about bugs that one VM writes: a bug may strike on every request.
const BUG_LINES_MAX: u32 = 10;

/// How a policy was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// It is in force.
    Ok,
    /// It was refused, the one before stays.
    Refused,
}

impl Reload {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

/// The number of a metric, once it is defined.
type Slot = Option<u32>;

/// The metrics of one service. The class of a response is its first digit.
#[derive(Debug, Default)]
struct ServiceSlots {
    allowed: Slot,
    refused: [Slot; Reason::ALL.len()],
    duration: Slot,
    responses: [Slot; CLASSES.len()],
    calls: [Slot; 4],
    transitions: [Slot; State::ALL.len()],
    states: [Slot; State::ALL.len()],
}

/// Classes of HTTP statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of one limit.
#[derive(Debug, Default)]
struct LimitSlots {
    outcomes: [Slot; LIMIT_OUTCOMES.len()],
    paused: Slot,
    bans: Slot,
}

/// The metrics without a label from outside.
#[derive(Debug, Default)]
struct PlainSlots {
    generation: Slot,
    reload: [Slot; 2],
    state_generation: Slot,
    state_number: Slot,
    connected: Slot,
    sync_age: Slot,
    unreadable: Slot,
    evicted: Slot,
    store_failed: Slot,
    bug: Slot,
}

/// All metrics of one VM. Clones share one table.
#[derive(Clone, Debug)]
pub(crate) struct Metrics<H> {
    host: H,
    table: Rc<RefCell<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    services: HashMap<String, ServiceSlots>,
    limits: HashMap<String, LimitSlots>,
    plain: PlainSlots,
    access: AccessSlots,
    bug_lines: u32,
}

impl<H: Host> Metrics<H> {
    pub(crate) fn new(host: H) -> Self {
        Self { host, table: Rc::default() }
    }

    /// Counts a policy that was received; one in force raises the generation as well.
    pub(crate) fn policy(&self, reload: Reload) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        let plain = &mut table.plain;
        if let Some(slot) = plain.reload.get_mut(reload as usize) {
            self.add(slot, Name::PolicyReload, &[("outcome", reload.label())], 1);
        }
        if reload == Reload::Ok {
            self.add(&mut plain.generation, Name::PolicyGeneration, &[], 1);
        }
    }

    /// The gauge that tells every VM that shared state has changed ([`crate::replica`]); `None` when
    /// the host will not define it.
    pub(crate) fn state_generation(&self) -> Option<u32> {
        let mut table = self.table.try_borrow_mut().ok()?;
        self.id(&mut table.plain.state_generation, Name::StateGeneration, &[])
    }

    /// Shows how far the copy of the sidecar's state has come. Set by the VM that copies.
    pub(crate) fn state_number(&self, number: u64) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        self.set(&mut table.plain.state_number, Name::StateNumber, number);
    }

    /// Shows whether the sidecar answers, and for how long it has not. Set, not added to: only the
    /// VM that holds the lease calls this.
    pub(crate) fn sidecar(&self, connected: bool, age: Nanos) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        let plain = &mut table.plain;
        self.set(&mut plain.connected, Name::SidecarConnected, u64::from(connected));
        self.set(&mut plain.sync_age, Name::SidecarSyncAge, age.as_secs());
    }

    /// Defines what a request of this policy may need, so that no request pays for it.
    pub(crate) fn prepare(&self, limits: &[Limit]) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        for limit in limits {
            let (name, slots) = table.limit(&limit.name);
            for (outcome, slot) in LIMIT_OUTCOMES.iter().zip(&mut slots.outcomes) {
                self.id(slot, Name::RateLimit, &[("limit", name), ("outcome", outcome.label())]);
            }
            if matches!(limit.algorithm, LimitAlgorithm::LeakyBucket(_)) {
                self.id(&mut slots.paused, Name::RateLimitPaused, &[("limit", name)]);
            }
            if limit.penalty.is_some() {
                self.id(&mut slots.bans, Name::Bans, &[("limit", name)]);
            }
        }
    }

    /// The metric's number; `None` when the host will not define it, and it is tried again next time.
    fn id(&self, slot: &mut Slot, name: Name, labels: &[(&str, &str)]) -> Slot {
        if slot.is_none() {
            *slot = self.host.define_metric(name.kind(), &full(name, labels)).ok();
        }
        *slot
    }

    fn add(&self, slot: &mut Slot, name: Name, labels: &[(&str, &str)], by: i64) {
        if let Some(id) = self.id(slot, name, labels) {
            // A metric that cannot be counted cannot be reported either.
            let _uncounted = self.host.increment_metric(id, by);
        }
    }

    fn set(&self, slot: &mut Slot, name: Name, value: u64) {
        if let Some(id) = self.id(slot, name, &[]) {
            let _unset = self.host.record_metric(id, value);
        }
    }

    fn finished(&self, service: &str, slots: &mut ServiceSlots, ended: &Ended) {
        match ended.refused {
            None => {
                let labels = [("service", service), ("decision", "allowed"), ("reason", "none")];
                self.add(&mut slots.allowed, Name::Requests, &labels, 1);
            }
            Some(reason) => {
                let labels =
                    [("service", service), ("decision", "refused"), ("reason", reason.code())];
                if let Some(slot) = slots.refused.get_mut(reason as usize) {
                    self.add(slot, Name::Requests, &labels, 1);
                }
            }
        }
        let labels = [("service", service)];
        if let Some(id) = self.id(&mut slots.duration, Name::RequestDuration, &labels) {
            let _unrecorded = self.host.record_metric(id, ended.duration.as_millis());
        }
        let class = usize::from(ended.status / 100).wrapping_sub(1);
        let found = CLASSES.get(class).zip(slots.responses.get_mut(class));
        if let Some((class, slot)) = found.filter(|_| ended.from_upstream) {
            let labels = [("service", service), ("class", class)];
            self.add(slot, Name::UpstreamResponses, &labels, 1);
        }
    }

    fn transition(&self, service: &str, slots: &mut ServiceSlots, from: Option<State>, to: State) {
        for state in State::ALL {
            let Some(slot) = slots.states.get_mut(state as usize) else { continue };
            let labels = [("service", service), ("state", state.label())];
            match from {
                // A new record, or one that was lost: whatever the gauges said is over.
                None => {
                    if let Some(id) = self.id(slot, Name::BreakerState, &labels) {
                        let _unrecorded = self.host.record_metric(id, u64::from(state == to));
                    }
                }
                // Adding commutes; setting would race with the next change by another worker.
                Some(from) => {
                    let by = i64::from(state == to) - i64::from(state == from);
                    if by != 0 {
                        self.add(slot, Name::BreakerState, &labels, by);
                    }
                }
            }
        }
        let Some(from) = from else { return };
        if let Some(slot) = slots.transitions.get_mut(to as usize) {
            let labels = [("service", service), ("to", to.label())];
            self.add(slot, Name::BreakerTransitions, &labels, 1);
        }
        let level = if to == State::Open { Level::Warn } else { Level::Info };
        let fields =
            [("service", service.into()), ("from", from.label().into()), ("to", to.label().into())];
        log::line(&self.host, level, "breaker changed its state", &fields);
    }

    fn bug(&self, table: &mut Table, what: &'static str) {
        self.add(&mut table.plain.bug, Name::Bug, &[], 1);
        if table.bug_lines < BUG_LINES_MAX {
            table.bug_lines += 1;
            log::line(&self.host, Level::Error, "bug in the gateway", &[("what", what.into())]);
        }
    }
}

/// What [`Event::Finished`] says beside the service.
struct Ended {
    refused: Option<Reason>,
    status: u16,
    from_upstream: bool,
    duration: Nanos,
}

/// All outcomes of a limit, in the order of their slots.
const LIMIT_OUTCOMES: [LimitOutcome; 6] = [
    LimitOutcome::Ok,
    LimitOutcome::Near,
    LimitOutcome::Over,
    LimitOutcome::ShadowOver,
    LimitOutcome::ErrorAllowed,
    LimitOutcome::ErrorRefused,
];

impl Table {
    /// A service's slots, and the name that they go by.
    fn service<'a>(&mut self, name: &'a str) -> (&'a str, &mut ServiceSlots) {
        let room = self.services.len() < SERVICES_MAX || self.services.contains_key(name);
        let name = if room { name } else { OTHER };
        (name, self.services.entry_ref(name).or_default())
    }

    /// A limit's slots, and the name that they go by.
    fn limit<'a>(&mut self, name: &'a str) -> (&'a str, &mut LimitSlots) {
        let room = self.limits.len() < LIMITS_MAX || self.limits.contains_key(name);
        let name = if room { name } else { OTHER };
        (name, self.limits.entry_ref(name).or_default())
    }
}

impl<H: Host> Events for Metrics<H> {
    fn on(&mut self, event: Event<'_>) {
        let table = Rc::clone(&self.table);
        let Ok(mut table) = table.try_borrow_mut() else { return };
        match event {
            Event::Finished { service, refused, status, from_upstream, duration } => {
                let (service, slots) = table.service(service);
                let ended = Ended { refused, status, from_upstream, duration };
                self.finished(service, slots, &ended);
            }
            Event::Authentication { method, outcome } => {
                self.authentication(&mut table.access, method, outcome);
            }
            Event::Authorization(outcome) => self.authorization(&mut table.access, outcome),
            Event::Csrf(outcome) => self.csrf(&mut table.access, outcome),
            Event::RateLimit { limit, outcome } => {
                let (limit, slots) = table.limit(limit);
                if let Some(slot) = slots.outcomes.get_mut(outcome as usize) {
                    let labels = [("limit", limit), ("outcome", outcome.label())];
                    self.add(slot, Name::RateLimit, &labels, 1);
                }
            }
            Event::Paused { limit } => {
                let (limit, slots) = table.limit(limit);
                self.add(&mut slots.paused, Name::RateLimitPaused, &[("limit", limit)], 1);
            }
            // For how long and whom goes to the sidecar, where an administrator sees it.
            Event::Banned { limit, span: _ } => {
                let (limit, slots) = table.limit(limit);
                self.add(&mut slots.bans, Name::Bans, &[("limit", limit)], 1);
            }
            Event::BreakerCall { service, kind } => {
                let (service, slots) = table.service(service);
                if let Some(slot) = slots.calls.get_mut(kind as usize) {
                    let labels = [("service", service), ("kind", CallKind::label(kind))];
                    self.add(slot, Name::BreakerCalls, &labels, 1);
                }
            }
            Event::BreakerTransition { service, from, to } => {
                let (service, slots) = table.service(service);
                self.transition(service, slots, from, to);
            }
            Event::RecordUnreadable => {
                self.add(&mut table.plain.unreadable, Name::RecordUnreadable, &[], 1);
            }
            Event::RecordEvicted => {
                self.add(&mut table.plain.evicted, Name::RecordEvicted, &[], 1);
            }
            Event::StoreFailed => {
                self.add(&mut table.plain.store_failed, Name::StoreFailed, &[], 1);
            }
            Event::Bug(what) => self.bug(&mut table, what),
        }
    }
}
