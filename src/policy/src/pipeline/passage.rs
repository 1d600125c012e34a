//! What is left to do for a request that was judged: headers of the response, and the outcome.

use crate::event::{CallKind, Event, Events};
use crate::facts::NO_SERVICE;
use crate::kernel::breaker::{CallResult, Permit};
use crate::model::{Breaker, Policy};
use crate::outcome::{Outcome, classify};
use crate::reason::Reason;
use crate::reply::Header;
use crate::stage::breaker::{self, Settlement};
use crate::store::Store;
use crate::time::Moment;
use alloc::string::String;
use alloc::vec::Vec;

/// What a judged request carries until its log entry. Consumed by [`Passage::finish`], so that a
/// permit is returned at most once.
#[derive(Debug)]
pub struct Passage {
    pub(super) service: String,
    pub(super) refused: Option<Reason>,
    pub(super) permit: Option<Permit>,
    pub(super) rate_limit: Vec<Header>,
    /// A `Set-Cookie` of the gateway's own.
    pub(super) cookie: Option<String>,
}

impl Passage {
    /// For a stream whose request headers this filter never saw (Envoy answered first).
    #[must_use]
    pub fn unseen() -> Self {
        Self {
            service: String::from(NO_SERVICE),
            refused: None,
            permit: None,
            rate_limit: Vec::new(),
            cookie: None,
        }
    }

    /// The same passage for a request that the shell had to refuse after all, because it could not
    /// be read or changed as decided.
    #[must_use]
    pub fn refused(self, reason: Reason) -> Self {
        Self { refused: Some(reason), rate_limit: Vec::new(), ..self }
    }

    /// Whether this request is a probe of a half-open breaker.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.permit.is_some_and(|permit| permit.probe.is_some())
    }

    /// An upgrade (a WebSocket) was established. For a probe that is the service's answer: its log
    /// entry may come in hours, and a service that only serves WebSockets would stay half-open.
    pub fn upgraded(
        &mut self,
        policy: &Policy,
        store: &mut dyn Store,
        events: &mut dyn Events,
        seed: [u64; 2],
        now: Moment,
    ) {
        let Some(settings) = policy.circuit_breakers.of(&self.service) else { return };
        let Some(permit) = self.permit.take_if(|permit| permit.probe.is_some()) else { return };
        let result = CallResult::Success;
        let settlement = Settlement { service: &self.service, permit: Some(permit), result };
        breaker::settle(settings, &settlement, store, events, seed, now.monotonic);
        events.on(Event::BreakerCall { service: &self.service, kind: CallKind::Success });
    }

    /// Calls `add` for every header that the response is to have besides its own. `present` tells
    /// whether it has one already: what the upstream set itself is kept. `add` must add a header and
    /// never replace one: a response may set several cookies.
    pub fn response_headers(
        &self,
        policy: &Policy,
        present: &mut dyn FnMut(&str) -> bool,
        add: &mut dyn FnMut(&str, &str),
    ) {
        let security = policy.security_headers.iter().map(|(name, value)| (&**name, &**value));
        let limits = self.rate_limit.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in security.chain(limits) {
            if !present(name) {
                add(name, value);
            }
        }
        if let Some(cookie) = &self.cookie {
            add("set-cookie", cookie);
        }
    }

    /// Settles the request: the breaker learns the outcome, metrics learn everything. Called once,
    /// from the log phase.
    pub fn finish(
        self,
        policy: &Policy,
        outcome: &Outcome<'_>,
        store: &mut dyn Store,
        events: &mut dyn Events,
        seed: [u64; 2],
        now: Moment,
    ) {
        let reached = match (&self.refused, outcome.service) {
            (None, Some(service)) => service,
            _ => &self.service,
        };
        events.on(Event::Finished {
            service: reached,
            refused: self.refused,
            status: outcome.status,
            from_upstream: outcome.is_from_upstream(),
            duration: outcome.duration,
        });
        let mut settle = |service: &str, permit, how: &dyn Fn(&Breaker) -> CallResult| {
            let Some(settings) = policy.circuit_breakers.of(service) else { return };
            let result = how(settings);
            let kind = match result {
                CallResult::Success => CallKind::Success,
                CallResult::Failure => CallKind::Failure,
                CallResult::Ignored => CallKind::Ignored,
            };
            let settlement = Settlement { service, permit, result };
            breaker::settle(settings, &settlement, store, events, seed, now.monotonic);
            events.on(Event::BreakerCall { service, kind });
        };
        if self.refused.is_some() {
            if self.permit.is_some() {
                settle(&self.service, self.permit, &|_| CallResult::Ignored);
            }
            return;
        }
        let how = |settings: &Breaker| classify(outcome, settings);
        if reached == self.service {
            if self.permit.is_some() {
                settle(reached, self.permit, &how);
            }
            return;
        }
        // An edit changed the route: the permit goes back unused, and the service that was really
        // reached is told.
        if self.permit.is_some() {
            settle(&self.service, self.permit, &|_| CallResult::Ignored);
        }
        settle(reached, None, &how);
    }
}
