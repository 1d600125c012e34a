//! The order of the stages, written once (contract, section 4).
//!
//! [`judge`] takes a request through every stage once and ends in a [`Step`]: forwarded or
//! answered, never both. What has to be settled later travels in the [`Passage`].

use crate::event::{CallKind, Event, Events};
use crate::facts::{Facts, NO_SERVICE};
use crate::kernel::breaker::{CallResult, Permit};
use crate::model::{Breaker, Limit, Policy};
pub use crate::outcome::Outcome;
use crate::outcome::classify;
use crate::reason::Reason;
use crate::render::{self, Refused};
use crate::reply::{Edits, Header, Reply};
use crate::stage::authenticate::{Interrupt, authenticate};
use crate::stage::breaker::{self, Known, Settlement};
use crate::stage::limit::{self, Admitted, Detached, Refusal, Subject};
use crate::stage::{https, ip};
use crate::store::{Store, StoreError};
use crate::time::Moment;
use crate::verify::{Digest, Secrets, Verify};
use alloc::string::String;
use alloc::vec::Vec;

/// What the stages may use beside the facts.
pub struct Means<'a> {
    /// Shared state.
    pub store: &'a mut dyn Store,
    /// Token verification.
    pub verify: &'a mut dyn Verify,
    /// Hashes of secrets.
    pub digest: &'a dyn Digest,
    /// Secrets from files.
    pub secrets: &'a dyn Secrets,
    /// Fills bytes at random. Called for few requests, so a call to the host is fine.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// Where events go.
    pub events: &'a mut dyn Events,
    /// The two random keys of this process's fingerprints, created once in shared state.
    pub seed: [u64; 2],
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Step {
    /// Forward it, with these edits, made all at once and last.
    Forward(Edits, Passage),
    /// Answer it. There is no way from here to forwarding.
    Reply(Reply, Passage),
    /// Hold it until keys may have come, then [`resume`]; nothing is decided.
    Wait(Suspended),
}

/// A request that waits in the middle of its judgement. What it took stays taken if it never comes
/// back, as for one whose token is refused.
#[derive(Debug)]
pub struct Suspended {
    early: Detached,
}

/// Where a walk begins.
enum From<'p> {
    Start,
    Authentication(Admitted<'p>),
}

/// How a walk ends before its end.
enum Stop<'p> {
    Refuse(Refused<'p>),
    Wait(Suspended),
}

/// What a judged request carries until its log entry. Consumed by [`Passage::finish`], so that a
/// permit is returned at most once.
#[derive(Debug)]
pub struct Passage {
    service: String,
    refused: Option<Reason>,
    permit: Option<Permit>,
    rate_limit: Vec<Header>,
}

/// Judges one request: every stage once, in this order.
pub fn judge(policy: &Policy, facts: &Facts<'_>, means: &mut Means<'_>, now: Moment) -> Step {
    step(policy, facts, means, From::Start, now)
}

/// Goes on with a request that waited. The policy must be the one that it was judged by before; it
/// may have to wait again, so whoever holds it sets a bound.
pub fn resume(
    policy: &Policy,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    suspended: Suspended,
    now: Moment,
) -> Step {
    let early = suspended.early.attach(&policy.rate_limits);
    step(policy, facts, means, From::Authentication(early), now)
}

fn step<'p>(
    policy: &'p Policy,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    from: From<'p>,
    now: Moment,
) -> Step {
    let mut edits = Edits::default();
    match walk(policy, facts, means, from, &mut edits, now) {
        Ok((admitted, permit)) => {
            let nearest = admitted.nearest();
            let headers = nearest.map(|near| render::rate_limit_headers(&near, None));
            let rate_limit = headers.unwrap_or_default();
            let service = String::from(facts.service_name());
            Step::Forward(edits, Passage { service, refused: None, permit, rate_limit })
        }
        Err(Stop::Wait(suspended)) => Step::Wait(suspended),
        Err(Stop::Refuse(refused)) => {
            let service = String::from(facts.service_name());
            let reply = render::reply(&refused, policy, facts);
            let refused = Some(refused.reason());
            Step::Reply(reply, Passage { service, refused, permit: None, rate_limit: Vec::new() })
        }
    }
}

fn walk<'p>(
    policy: &'p Policy,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    from: From<'p>,
    edits: &mut Edits,
    now: Moment,
) -> Result<(Admitted<'p>, Option<Permit>), Stop<'p>> {
    let limited = !ip::is_exempt(&policy.ip, facts.client);
    let limits = policy.rate_limits.iter().filter(|_| limited);
    let endpoint = limit::endpoint(&policy.endpoints, facts);
    let subject = Subject { facts, endpoint, identity: None };
    let early = match from {
        From::Authentication(early) => early,
        From::Start => {
            outside(policy, facts).map_err(Stop::Refuse)?;
            limit_by(limits.clone().filter(|limit| limit.is_early()), &subject, means, now)
                .map_err(|(refusal, taken)| Stop::Refuse(back(refusal, taken, means, now)))?
        }
    };
    // A request that fails here keeps what it took, so that guessing is limited too.
    let settings = policy.authentication.as_ref();
    let identity = match authenticate(settings, facts, means.verify, means.events, edits, now) {
        Ok(identity) => identity,
        Err(Interrupt::Refuse(reason)) => return Err(Stop::Refuse(Refused::For(reason))),
        Err(Interrupt::Wait) => {
            return Err(Stop::Wait(Suspended { early: early.detach(&policy.rate_limits) }));
        }
    };
    let subject = Subject { identity: Some(&identity), ..subject };
    let late = limit_by(limits.filter(|limit| !limit.is_early()), &subject, means, now);
    let admitted = match late {
        Ok(late) => early.and(late),
        Err((refusal, taken)) => {
            return Err(Stop::Refuse(back(refusal, early.and(taken), means, now)));
        }
    };
    match permit(policy, facts, means, now) {
        Ok(permit) => Ok((admitted, permit)),
        Err(refused) => {
            admitted.give_back(means.store, means.events, now.monotonic);
            Err(Stop::Refuse(refused))
        }
    }
}

/// What is judged before anything is counted or known.
fn outside(policy: &Policy, facts: &Facts<'_>) -> Result<(), Refused<'static>> {
    match https::check(policy.https, facts) {
        https::Verdict::Pass => {}
        https::Verdict::Redirect(location) => return Err(Refused::Redirect(location)),
        https::Verdict::Refuse => return Err(Refused::For(Reason::HttpsRequired)),
    }
    match ip::check(&policy.ip, facts.client) {
        ip::Verdict::Deny => Err(Refused::For(Reason::IpDenied)),
        _ => Ok(()),
    }
}

fn limit_by<'p>(
    limits: impl Iterator<Item = &'p Limit>,
    subject: &Subject<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<Admitted<'p>, (Refusal<'p>, Admitted<'p>)> {
    limit::admit(limits, subject, means.store, means.events, means.seed, now.monotonic)
}

/// A limit refused: what the others had taken is given back.
fn back<'p>(
    refusal: Refusal<'p>,
    taken: Admitted<'p>,
    means: &mut Means<'_>,
    now: Moment,
) -> Refused<'p> {
    taken.give_back(means.store, means.events, now.monotonic);
    match refusal {
        Refusal::Over { nearest, retry } => Refused::Over { nearest, retry },
        Refusal::Unavailable => Refused::For(Reason::StateUnavailable),
    }
}

fn permit<'p>(
    policy: &'p Policy,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<Option<Permit>, Refused<'p>> {
    let Some(service) = facts.service else { return Ok(None) };
    let Some(settings) = policy.circuit_breakers.of(service) else { return Ok(None) };
    breaker::admit(settings, service, means.store, means.events, means.seed, now.monotonic)
        .map_err(|wait| Refused::Open { wait, fallback: settings.fallback.as_ref() })
}

impl Suspended {
    /// For a request that ends while it waits.
    #[must_use]
    pub fn passage(self, facts_service: Option<&str>) -> Passage {
        let service = String::from(facts_service.unwrap_or(NO_SERVICE));
        Passage { service, ..Passage::unseen() }
    }
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
    /// whether it has one already: what the upstream set itself is kept.
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

/// Closes a service's breaker by an operator's order.
///
/// # Errors
/// When shared state cannot be had.
pub fn reset_breaker(
    service: &str,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Moment,
) -> Result<ResetOutcome, StoreError> {
    Ok(match breaker::reset(service, store, events, seed, now.monotonic)? {
        Known::Yes => ResetOutcome::Closed,
        Known::No => ResetOutcome::Unknown,
    })
}

/// What a reset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetOutcome {
    /// The breaker is closed now.
    Closed,
    /// Nobody has called the service yet, or it has no breaker.
    Unknown,
}

#[cfg(test)]
mod tests;
