//! The order of the stages, written once (contract, section 4).
//!
//! [`judge`] takes a request through every stage once and ends in a [`Step`]: forwarded, answered,
//! or held until [`resume`]. What has to be settled later travels in the [`Passage`].

mod passage;
mod suspended;

use crate::event::{Event, Events};
use crate::facts::Facts;
use crate::kernel::breaker::Permit;
use crate::model::Policy;
pub use crate::outcome::Outcome;
use crate::path;
use crate::reason::Reason;
use crate::render::{self, Refused};
use crate::reply::{Edits, Reply};
pub use crate::stage::Means;
use crate::stage::authenticate::{Identity, Interrupt, authenticate};
use crate::stage::authorize::authorize;
use crate::stage::ban::{self, Somebody, Who};
use crate::stage::breaker::{self, Known};
use crate::stage::limit::{self, Admitted, Refusal, Subject, Turn};
use crate::stage::{csrf, https, ip};
use crate::store::{Store, StoreError};
use crate::time::Moment;
use alloc::string::String;
use alloc::vec::Vec;
pub use passage::Passage;
pub use suspended::Suspended;
use suspended::{Held, Notes};

/// What is to be done with a request.
#[derive(Debug)]
pub enum Step {
    /// Forward it, with these edits, made all at once and last.
    Forward(Edits, Passage),
    /// Answer it. There is no way from here to forwarding.
    Reply(Reply, Passage),
    /// Hold it, then [`resume`]: at [`Suspended::until`], or where that is `None`, when keys may
    /// have come.
    Wait(Suspended),
}

/// Where a walk begins.
enum From<'p> {
    Start,
    Authentication(Admitted<'p>),
    Turn(Admitted<'p>),
}

/// How a walk ends before its end.
enum Stop<'p> {
    Refuse(Refused<'p>),
    /// Until keys may have come.
    Keys(Admitted<'p>),
    /// Until the turn that a limit has given.
    Turn(Admitted<'p>, Turn<'p>),
}

/// Judges one request: every stage once, in this order.
pub fn judge(policy: &Policy, facts: &Facts<'_>, means: &mut Means<'_>, now: Moment) -> Step {
    step(policy, facts, means, (From::Start, Notes::default()), now)
}

/// Goes on with a request that waited where it stopped: what it took before is not taken again. The
/// policy must be the one that it was judged by before, but for numbers of limits. It may have to
/// wait again, so whoever holds it sets a bound.
pub fn resume(
    policy: &Policy,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    suspended: Suspended,
    now: Moment,
) -> Step {
    let admitted = suspended.admitted.attach(&policy.rate_limits, now.monotonic);
    let from = match suspended.held {
        Held::ForKeys => (From::Authentication(admitted), Notes::default()),
        Held::ForTurn(_, notes) => (From::Turn(admitted), notes),
    };
    step(policy, facts, means, from, now)
}

fn step<'p>(
    policy: &'p Policy,
    facts: &Facts<'p>,
    means: &mut Means<'_>,
    (from, mut notes): (From<'p>, Notes),
    now: Moment,
) -> Step {
    let walked = walk(policy, facts, means, from, &mut notes, now);
    let service = String::from(facts.service_name());
    let detach = |admitted: Admitted<'p>| admitted.detach(&policy.rate_limits, now.monotonic);
    match walked {
        Ok((admitted, permit)) => {
            let nearest = admitted.nearest();
            let headers = nearest.map(|near| render::rate_limit_headers(&near, None));
            let rate_limit = headers.unwrap_or_default();
            let Notes { edits, cookie, who: _ } = notes;
            Step::Forward(edits, Passage { service, refused: None, permit, rate_limit, cookie })
        }
        Err(Stop::Keys(early)) => {
            Step::Wait(Suspended { admitted: detach(early), service, held: Held::ForKeys })
        }
        Err(Stop::Turn(admitted, turn)) => {
            let held = Held::ForTurn(turn.at, notes);
            Step::Wait(Suspended { admitted: detach(admitted), service, held })
        }
        Err(Stop::Refuse(refused)) => {
            let reply = render::reply(&refused, policy, facts);
            let refused = Some(refused.reason());
            let (rate_limit, cookie) = (Vec::new(), notes.cookie);
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
    let exempt = ip::is_exempt(&policy.ip, facts.client);
    let limits = policy.rate_limits.iter().enumerate().filter(|_| !exempt);
    let path = path::read(facts.path());
    let endpoint = limit::endpoint(&policy.endpoints, facts, &path);
    let subject = Subject { facts, path: &path, endpoint, identity: None };
    let address = facts.client.map(Who::Ip).filter(|_| !exempt);
    let early = match from {
        From::Turn(admitted) => {
            // Nobody looks after him before his turn, which may be long after he was let in.
            let somebody = notes.who.as_ref().map(Somebody::who);
            let admitted = still_free(policy, [address, somebody], admitted, means, now)?;
            return last(policy, facts, means, admitted, now);
        }
        From::Authentication(early) => still_free(policy, [address, None], early, means, now)?,
        From::Start => {
            outside(policy, facts).map_err(Stop::Refuse)?;
            banned(policy, address, means, now)?;
            let early = limits.clone().filter(|(_, limit)| limit.is_early());
            limit::admit(early, &subject, means, now)
                .map_err(|(refusal, taken)| back(refusal, taken, means, now))?
        }
    };
    // A request that fails here keeps what it took, so that guessing is limited too.
    let identity = match authenticate(policy, facts, means, &mut notes.edits, now) {
        Ok(identity) => identity,
        Err(Interrupt::Refuse(reason)) => return Err(Stop::Refuse(Refused::For(reason))),
        Err(Interrupt::Wait) => return Err(Stop::Keys(early)),
    };
    banned(policy, Who::of(&identity).filter(|_| !exempt), means, now)?;
    trusted(policy, facts, &identity, means, notes, now).map_err(Stop::Refuse)?;
    let early = early
        .renew(&subject, means, now.monotonic)
        .map_err(|(refusal, taken)| back(refusal, taken, means, now))?;
    let subject = Subject { identity: Some(&identity), ..subject };
    let late = limits.filter(|(_, limit)| !limit.is_early());
    let admitted = match limit::admit(late, &subject, means, now) {
        Ok(late) => early.and(late),
        Err((refusal, taken)) => return Err(back(refusal, early.and(taken), means, now)),
    };
    if let Some(turn) = admitted.turn().filter(|turn| turn.at > now.monotonic) {
        means.events.on(Event::Paused { limit: &turn.limit.name });
        notes.who = Somebody::of(&identity).filter(|_| !exempt);
    }
    last(policy, facts, means, admitted, now)
}

/// Looks again whether somebody who waited was banned meanwhile. His turns are given back then, as those
/// of one who leaves.
fn still_free<'p>(
    policy: &Policy,
    all: [Option<Who<'_>>; 2],
    admitted: Admitted<'p>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<Admitted<'p>, Stop<'p>> {
    for who in all {
        if let Err(stop) = banned(policy, who, means, now) {
            admitted.leave(means.store, means.events, now.monotonic);
            return Err(stop);
        }
    }
    Ok(admitted)
}

/// What is left for one whom all limits have admitted: his turn, and the breaker, which must hear of
/// nobody who does not go to the service at once.
fn last<'p>(
    policy: &'p Policy,
    facts: &Facts<'p>,
    means: &mut Means<'_>,
    admitted: Admitted<'p>,
    now: Moment,
) -> Result<(Admitted<'p>, Option<Permit>), Stop<'p>> {
    if let Some(turn) = admitted.turn().filter(|turn| turn.at > now.monotonic) {
        return Err(Stop::Turn(admitted, turn));
    }
    match permit(policy, facts, means, now) {
        Ok(permit) => Ok((admitted, permit)),
        Err(refused) => {
            admitted.give_back(means, now.monotonic);
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

/// Whether somebody is kept out for a while. Who is keeps what he took.
fn banned<'p>(
    policy: &Policy,
    who: Option<Who<'_>>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<(), Stop<'p>> {
    let Some(who) = who else { return Ok(()) };
    match ban::look(policy, &who, means, now) {
        ban::Verdict::Free => Ok(()),
        ban::Verdict::Banned { wait } => Err(Stop::Refuse(Refused::Banned { wait })),
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

/// A limit refused: what the others had taken is given back.
fn back<'p>(
    refusal: Refusal<'p>,
    taken: Admitted<'p>,
    means: &mut Means<'_>,
    now: Moment,
) -> Stop<'p> {
    taken.give_back(means, now.monotonic);
    Stop::Refuse(match refusal {
        Refusal::Over { nearest, retry } | Refusal::Full { nearest, retry } => {
            Refused::Over { nearest, retry }
        }
        Refusal::Overloaded { nearest, retry } => Refused::Overloaded { nearest, retry },
        Refusal::Unavailable => Refused::For(Reason::StateUnavailable),
    })
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
