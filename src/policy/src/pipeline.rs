//! The order of the stages, written once (contract, section 4).
//!
//! [`judge`] takes a request through every stage once and ends in a [`Step`]: forwarded, answered,
//! or held until [`resume`]. What has to be settled later travels in the [`Passage`].

mod passage;

use crate::event::Events;
use crate::facts::Facts;
use crate::kernel::breaker::Permit;
use crate::model::{Limit, Policy};
pub use crate::outcome::Outcome;
use crate::reason::Reason;
use crate::render::{self, Refused};
use crate::reply::{Edits, Reply};
pub use crate::stage::Means;
use crate::stage::authenticate::{Identity, Interrupt, authenticate};
use crate::stage::authorize::authorize;
use crate::stage::breaker::{self, Known};
use crate::stage::limit::{self, Admitted, Detached, Refusal, Subject};
use crate::stage::{csrf, https, ip};
use crate::store::{Store, StoreError};
use crate::time::Moment;
use alloc::string::String;
use alloc::vec::Vec;
pub use passage::Passage;

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

/// A request that waits in the middle of its judgement, the stages before authentication behind it.
/// Consumed by [`resume`], so that it goes on at most once. What it took stays taken if it never
/// comes back, as for one whose token is refused.
#[derive(Debug)]
#[must_use = "the request waits for it"]
pub struct Suspended {
    early: Detached,
    service: String,
}

impl Suspended {
    /// For a request that ends while it waits: the client left, or its time is up.
    #[must_use]
    pub fn passage(self) -> Passage {
        // Nothing let it pass.
        let passage = Passage { service: self.service, ..Passage::unseen() };
        passage.refused(Reason::KeysUnavailable)
    }
}

/// Where a walk begins.
enum From<'p> {
    Start,
    Authentication(Admitted<'p>),
}

/// What a walk writes down on its way.
#[derive(Default)]
struct Notes {
    edits: Edits,
    cookie: Option<String>,
}

/// How a walk ends before its end.
enum Stop<'p> {
    Refuse(Refused<'p>),
    Wait(Detached),
}

/// Judges one request: every stage once, in this order.
pub fn judge(policy: &Policy, facts: &Facts<'_>, means: &mut Means<'_>, now: Moment) -> Step {
    step(policy, facts, means, From::Start, now)
}

/// Goes on with a request that waited, from authentication on: what it took before is not taken
/// again. The policy must be the one that it was judged by before. It may have to wait again, so
/// whoever holds it sets a bound.
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
    facts: &Facts<'p>,
    means: &mut Means<'_>,
    from: From<'p>,
    now: Moment,
) -> Step {
    let mut notes = Notes::default();
    let walked = walk(policy, facts, means, from, &mut notes, now);
    let Notes { edits, cookie } = notes;
    let service = String::from(facts.service_name());
    match walked {
        Ok((admitted, permit)) => {
            let nearest = admitted.nearest();
            let headers = nearest.map(|near| render::rate_limit_headers(&near, None));
            let rate_limit = headers.unwrap_or_default();
            Step::Forward(edits, Passage { service, refused: None, permit, rate_limit, cookie })
        }
        Err(Stop::Wait(early)) => Step::Wait(Suspended { early, service }),
        Err(Stop::Refuse(refused)) => {
            let reply = render::reply(&refused, policy, facts);
            let refused = Some(refused.reason());
            let rate_limit = Vec::new();
            Step::Reply(reply, Passage { service, refused, permit: None, rate_limit, cookie })
        }
    }
}

fn walk<'p>(
    policy: &'p Policy,
    facts: &Facts<'p>,
    means: &mut Means<'_>,
    from: From<'p>,
    notes: &mut Notes,
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
    let identity = match authenticate(policy, facts, means, &mut notes.edits, now) {
        Ok(identity) => identity,
        Err(Interrupt::Refuse(reason)) => return Err(Stop::Refuse(Refused::For(reason))),
        Err(Interrupt::Wait) => return Err(Stop::Wait(early.detach(&policy.rate_limits))),
    };
    trusted(policy, facts, &identity, means, notes, now).map_err(Stop::Refuse)?;
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

/// What is judged of one who is known: whether his browser was tricked, and what he may do.
fn trusted<'p>(
    policy: &'p Policy,
    facts: &Facts<'_>,
    identity: &Identity<'_>,
    means: &mut Means<'_>,
    notes: &mut Notes,
    now: Moment,
) -> Result<(), Refused<'p>> {
    if let Some(settings) = &policy.csrf {
        let session = csrf::session(settings, identity, facts);
        notes.cookie = csrf::issue(settings, session, facts, means, now);
        csrf::check(settings, session, facts, means, now).map_err(Refused::For)?;
    }
    authorize(policy.authorization.as_ref(), identity, facts, means.events)
        .map_err(|denied| Refused::Denied { denied, method: identity.method() })
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
