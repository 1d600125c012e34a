//! Rate limits: which ones count a request, what they take, and how to give it back.
//!
//! Each limit has a table of its own in shared data (`table`), of the records that its algorithm
//! needs. A limit that refuses has taken nothing; what earlier limits took is given back by the
//! pipeline.

pub mod admin;
mod admitted;
mod key;
mod lease;
mod look;
mod record;
mod state;

pub use admin::memory;
pub use admitted::{Admitted, Detached, Nearest, Turn};
pub(crate) use key::may_ban;
pub use key::{KEY_TEXT_MAX, key_text};
pub use lease::Leases;

use crate::event::{Event, LimitOutcome};
use crate::facts::Facts;
use crate::kernel::Standing;
use crate::model::{Endpoint, Limit, LimitAlgorithm, LimitMode, Match, Unavailable};
use crate::path::Path;
use crate::pattern::PathPattern;
use crate::stage::authenticate::Identity;
use crate::stage::{Means, ban};
use crate::store::StoreError;
use crate::table::Place;
use crate::time::{Moment, Nanos};
use alloc::string::String;
use lease::{Answer, Lease, Leasing, Plan, numbers};
use look::{Look, look};
use record::{Ask, Judged, Took};

/// The endpoint of requests that match none.
pub const OTHER_ENDPOINT: &str = "other";

/// What a limit is judged by.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The request.
    pub facts: &'a Facts<'a>,
    /// Its path, in every way that it can be read.
    pub path: &'a Path<'a>,
    /// Its endpoint's name.
    pub endpoint: &'a str,
    /// Who it is; `None` before authentication, when only limits that need nobody are judged.
    pub identity: Option<&'a Identity<'a>>,
}

/// Why a limit did not admit.
#[derive(Clone, Copy, Debug)]
pub enum Refusal<'p> {
    /// It is exhausted.
    Over {
        /// How it stands.
        nearest: Nearest<'p>,
        /// When to come back; `None` when waiting does not help.
        retry: Option<Nanos>,
    },
    /// There was a place in its queue, but nobody more may wait. Nobody's fault.
    Full {
        /// How it stands.
        nearest: Nearest<'p>,
        /// When to come back; `None` when waiting does not help.
        retry: Option<Nanos>,
    },
    /// The load has lowered its rate; the full one would have admitted the request.
    Overloaded {
        /// How it stands.
        nearest: Nearest<'p>,
        /// When to come back; `None` when waiting does not help.
        retry: Option<Nanos>,
    },
    /// Shared state could not be had, and the limit says `refuse`.
    Unavailable,
}

impl Refusal<'_> {
    /// Who comes back must wait for this as well; `None` means that waiting does not help.
    fn prolong(&mut self, other: Option<Nanos>) {
        match self {
            Self::Over { retry, .. }
            | Self::Full { retry, .. }
            | Self::Overloaded { retry, .. } => {
                *retry = retry.zip(other).map(|(own, other)| own.max(other));
            }
            Self::Unavailable => {}
        }
    }
}

/// Judges a request by limits, each with its place in the policy, in their order.
///
/// # Errors
/// The first refusal, with what was taken before it (to be given back).
pub fn admit<'p>(
    limits: impl Iterator<Item = (usize, &'p Limit)>,
    subject: &Subject<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<Admitted<'p>, (Refusal<'p>, Admitted<'p>)> {
    let mut admitted = Admitted::default();
    let mut limits = limits.filter(|(_, limit)| counts(&limit.matches, subject));
    while let Some((index, limit)) = limits.next() {
        let place = place_of(index, limit, subject, means);
        let judged = judge(limit, &place, subject, means, now.monotonic);
        let (outcome, verdict) = verdict(limit, judged);
        tell(limit, &place, outcome, subject, means);
        match verdict {
            Verdict::Took(took, standing) => admitted.take(limit, place, took, standing),
            Verdict::Passed => {}
            Verdict::Refused(mut refusal) => {
                if let (Refusal::Over { .. }, Some(penalty)) = (&refusal, &limit.penalty)
                    && let Some(who) = key::culprit(limit, subject)
                    && let Some(ban) = ban::violated(limit, penalty, &who, means, now)
                {
                    refusal.prolong(Some(ban));
                }
                // Who comes back in time for this limit is to find no other one still exhausted.
                for (index, limit) in limits.filter(|(_, limit)| limit.mode == LimitMode::Enforce) {
                    let place = place_of(index, limit, subject, means);
                    if let Look::Refuses(retry) = look(limit, &place, means, now.monotonic) {
                        refusal.prolong(retry);
                    }
                }
                return Err((refusal, admitted));
            }
        }
    }
    Ok(admitted)
}

fn place_of(index: usize, limit: &Limit, subject: &Subject<'_>, means: &mut Means<'_>) -> Place {
    let table = means.leases.table(index, limit, means.seed);
    key::place(limit, table, subject, means.seed)
}

/// Tells what a limit says to a request, and whom it refuses.
fn tell(
    limit: &Limit,
    place: &Place,
    outcome: LimitOutcome,
    subject: &Subject<'_>,
    means: &mut Means<'_>,
) {
    means.events.on(Event::RateLimit { limit: &limit.name, outcome });
    if matches!(outcome, LimitOutcome::Over | LimitOutcome::ShadowOver) {
        // Limits may share a key's tag.
        let tag = place.tag ^ place.table;
        means.reports.limited(&limit.name, tag, &|| key_text(limit, subject));
    }
}

/// Judges a request by one limit: by what this worker holds of it, else by shared data.
fn judge(
    limit: &Limit,
    place: &Place,
    subject: &Subject<'_>,
    means: &mut Means<'_>,
    now: Nanos,
) -> Result<Judged, StoreError> {
    let (algorithm, leasing) = numbers(limit);
    // Each refusal of a limit with a penalty is a violation, which shared data must hear of.
    let remembers = limit.penalty.is_none()
        && matches!(algorithm, LimitAlgorithm::TokenBucket(_) | LimitAlgorithm::SlidingWindow(_));
    let plan = if remembers || leasing == Leasing::Allowed {
        match means.leases.ask(place, limit.cost, now) {
            Answer::Admitted { standing, taken } => {
                return Ok(Judged::Admitted { standing, took: Took::Tokens(taken) });
            }
            Answer::Refused { standing, retry } => {
                return Ok(Judged::Refused { standing, retry });
            }
            Answer::Ask(plan) => plan,
        }
    } else {
        Plan::FIRST
    };
    let who = key::whose(limit, subject, means.seed);
    let ask = Ask { limit, place, who, load: means.load, pause: means.pause, now };
    let (mut judged, extra) = ask.judge(&algorithm, plan, means.store, means.events)?;
    match &mut judged {
        Judged::Admitted { standing, .. } if leasing == Leasing::Allowed => {
            let lease = Lease { size: plan.size, left: extra, end: lease::end(&algorithm, now) };
            means.leases.grant(place, &lease, *standing, now);
            // What is held of the limit is left of it.
            let held = extra.saturating_mul(limit.cost);
            standing.remaining = standing.remaining.saturating_add(held);
        }
        Judged::Refused { standing, retry } if remembers || leasing == Leasing::Allowed => {
            means.leases.remember(place, *standing, *retry, now);
            if !remembers {
                means.leases.relent(place);
            }
        }
        _ => {}
    }
    Ok(judged)
}

enum Verdict<'p> {
    Took(Took, Standing),
    Passed,
    Refused(Refusal<'p>),
}

fn verdict(limit: &Limit, judged: Result<Judged, StoreError>) -> (LimitOutcome, Verdict<'_>) {
    let refused = |refusal| match limit.mode {
        LimitMode::Shadow => (LimitOutcome::ShadowOver, Verdict::Passed),
        LimitMode::Enforce => (LimitOutcome::Over, Verdict::Refused(refusal)),
    };
    match judged {
        Ok(Judged::Admitted { standing, took }) => {
            // Near from 80 % used, as in envoyproxy/ratelimit.
            let size = u64::from(limit.algorithm.size());
            let near = u64::from(standing.remaining) * 5 < size;
            let outcome = if near { LimitOutcome::Near } else { LimitOutcome::Ok };
            (outcome, Verdict::Took(took, standing))
        }
        Ok(Judged::Refused { standing, retry }) => {
            refused(Refusal::Over { nearest: Nearest { limit, standing }, retry })
        }
        Ok(Judged::Full { standing, retry }) => {
            refused(Refusal::Full { nearest: Nearest { limit, standing }, retry })
        }
        Ok(Judged::Overloaded { standing, retry }) => {
            refused(Refusal::Overloaded { nearest: Nearest { limit, standing }, retry })
        }
        Err(StoreError::Unavailable | StoreError::Contended) => {
            match (limit.on_unavailable, limit.mode) {
                (Unavailable::Refuse, LimitMode::Enforce) => {
                    (LimitOutcome::ErrorRefused, Verdict::Refused(Refusal::Unavailable))
                }
                _ => (LimitOutcome::ErrorAllowed, Verdict::Passed),
            }
        }
    }
}

/// The name of the endpoint that a request belongs to: the first that any reading of its path
/// matches, so that no spelling of it is another endpoint.
#[must_use]
pub fn endpoint<'p>(endpoints: &'p [Endpoint], facts: &Facts<'_>, path: &Path<'_>) -> &'p str {
    let found = endpoints
        .iter()
        .find(|one| has_method(&one.methods, facts) && fits(&one.path, facts, path));
    found.map_or(OTHER_ENDPOINT, |endpoint| &endpoint.name)
}

/// Case does not count, because some servers fold it.
fn has_method(methods: &[String], facts: &Facts<'_>) -> bool {
    let is = |method: &String| method.as_bytes().eq_ignore_ascii_case(facts.method());
    methods.is_empty() || methods.iter().any(is)
}

/// Whether any reading of a path matches; one that no server should read is taken as it is.
fn fits(pattern: &PathPattern, facts: &Facts<'_>, path: &Path<'_>) -> bool {
    match path {
        Path::Unreadable => pattern.matches(facts.path()),
        readable => readable.readings().any(|reading| pattern.fits(reading)),
    }
}

fn counts(matches: &Match, subject: &Subject<'_>) -> bool {
    let Subject { facts, path, .. } = subject;
    let tier = || subject.identity.and_then(Identity::tier);
    has_method(&matches.methods, facts)
        && (matches.services.is_empty()
            || matches.services.iter().any(|service| Some(service.as_str()) == facts.service))
        && (matches.tiers.is_empty()
            || matches.tiers.iter().any(|wanted| Some(wanted.as_str()) == tier()))
        && (matches.paths.is_empty()
            // What no server should read counts everywhere: it must not be a way past a limit.
            || **path == Path::Unreadable
            || matches.paths.iter().any(|pattern| fits(pattern, facts, path)))
}
