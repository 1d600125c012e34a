//! Rate limits: which ones count a request, what they take, and how to give it back.
//!
//! Each limit has a table of its own in shared data (`table`), of the records that its algorithm
//! needs. A limit that refuses has taken nothing; what earlier limits took is given back by the
//! pipeline.

pub mod admin;
mod key;
mod lease;
mod record;
mod state;

pub use admin::memory;
pub use key::{KEY_TEXT_MAX, key_text};
pub use lease::Leases;

use crate::event::{Event, Events, LimitOutcome};
use crate::facts::Facts;
use crate::kernel::Standing;
use crate::model::{Endpoint, Limit, LimitAlgorithm, LimitMode, Match, Unavailable};
use crate::path::Path;
use crate::pattern::PathPattern;
use crate::stage::authenticate::Identity;
use crate::stage::{Means, ban};
use crate::store::{Store, StoreError};
use crate::table::Place;
use crate::time::{Moment, Nanos};
use alloc::string::String;
use alloc::vec::Vec;
use lease::{Answer, Lease, Leasing, Plan, numbers};
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

/// Something that was taken and can be given back.
#[derive(Clone, Copy, Debug)]
struct Taken<'p> {
    limit: &'p Limit,
    place: Place,
    took: Took,
}

/// How a limit stands, for the client's headers.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'p> {
    /// The limit.
    pub limit: &'p Limit,
    /// Its standing.
    pub standing: Standing,
}

impl<'p> Nearest<'p> {
    /// Of two limits the one nearer to exhaustion: the smaller share of its size left; on a tie
    /// the longer window (as in Kong).
    #[must_use]
    pub fn nearer(self, other: Nearest<'p>) -> Nearest<'p> {
        let share = |of: &Nearest<'_>, by: &Nearest<'_>| {
            u64::from(of.standing.remaining) * u64::from(by.limit.algorithm.size())
        };
        let (own, theirs) = (share(&self, &other), share(&other, &self));
        let longer = other.limit.algorithm.per() > self.limit.algorithm.per();
        if theirs < own || (theirs == own && longer) { other } else { self }
    }
}

/// A turn that a limit has given to a request.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'p> {
    /// The limit.
    pub limit: &'p Limit,
    /// When it is the request's turn; not after now means that it was at once.
    pub at: Nanos,
}

impl<'p> Turn<'p> {
    fn later(self, other: Turn<'p>) -> Turn<'p> {
        if other.at > self.at { other } else { self }
    }
}

/// The proof that every limit of one phase has admitted the request.
#[derive(Debug, Default)]
pub struct Admitted<'p> {
    taken: Vec<Taken<'p>>,
    nearest: Option<Nearest<'p>>,
    turn: Option<Turn<'p>>,
}

impl<'p> Admitted<'p> {
    /// The enforced limit nearest to exhaustion.
    #[must_use]
    pub const fn nearest(&self) -> Option<Nearest<'p>> {
        self.nearest
    }

    /// The latest turn that an enforced limit has given.
    #[must_use]
    pub const fn turn(&self) -> Option<Turn<'p>> {
        self.turn
    }

    /// Both phases together.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.taken.extend(later.taken);
        self.nearest = match (self.nearest, later.nearest) {
            (Some(one), Some(other)) => Some(one.nearer(other)),
            (one, other) => one.or(other),
        };
        self.turn = match (self.turn, later.turn) {
            (Some(one), Some(other)) => Some(one.later(other)),
            (one, other) => one.or(other),
        };
        self
    }

    /// Gives everything back, for a request that was refused further on. Of turns only the last in
    /// a queue is given back: the distance to the others must stay.
    pub fn give_back(self, means: &mut Means<'_>, now: Nanos) {
        let Means { leases, store, events, .. } = means;
        for Taken { limit, place, took } in self.taken {
            record::give_back(limit, &place, took, leases, *store, *events, now);
        }
    }

    /// Gives turns back, for a request that ends while it waits. What else was taken stays taken:
    /// hanging up is not free.
    pub fn leave(self, store: &mut dyn Store, events: &mut dyn Events, now: Nanos) {
        let mut leases = Leases::default();
        for Taken { limit, place, took } in self.taken {
            if matches!(took, Took::Turn(..)) {
                record::give_back(limit, &place, took, &mut leases, store, events, now);
            }
        }
    }

    fn take(&mut self, limit: &'p Limit, place: Place, took: Took, standing: Standing) {
        self.taken.push(Taken { limit, place, took });
        if limit.mode == LimitMode::Shadow {
            return;
        }
        let here = Nearest { limit, standing };
        self.nearest = Some(self.nearest.map_or(here, |before| before.nearer(here)));
        if let Took::Turn(at, _) = took {
            let turn = Turn { limit, at };
            self.turn = Some(self.turn.map_or(turn, |before| before.later(turn)));
        }
    }
}

/// [`Admitted`] without its policy, for a request that waits.
#[derive(Debug, Default)]
pub struct Detached {
    taken: Vec<(usize, Place, Took)>,
    nearest: Option<(usize, Standing)>,
    turn: Option<(usize, Nanos)>,
    at: Nanos,
}

impl<'p> Admitted<'p> {
    /// Lets go of the policy, whose limits these are.
    #[must_use]
    pub fn detach(self, limits: &'p [Limit], now: Nanos) -> Detached {
        let index = |limit: &Limit| limits.iter().position(|one| core::ptr::eq(one, limit));
        let taken = self.taken.iter();
        let taken = taken
            .filter_map(|taken| Some((index(taken.limit)?, taken.place, taken.took)))
            .collect();
        let nearest = self.nearest.and_then(|near| Some((index(near.limit)?, near.standing)));
        let turn = self.turn.and_then(|turn| Some((index(turn.limit)?, turn.at)));
        Detached { taken, nearest, turn, at: now }
    }
}

impl Detached {
    /// The proof again; `limits` are those that it was detached from, in the same order, whatever
    /// has become of their numbers.
    #[must_use]
    pub fn attach(self, limits: &[Limit], now: Nanos) -> Admitted<'_> {
        let waited = now - self.at;
        let taken = self.taken.into_iter();
        let taken = taken
            .filter_map(|(index, place, took)| {
                Some(Taken { limit: limits.get(index)?, place, took })
            })
            .collect();
        let nearest = self.nearest.and_then(|(index, standing)| {
            let standing = Standing { reset: standing.reset - waited, ..standing };
            Some(Nearest { limit: limits.get(index)?, standing })
        });
        let turn = self.turn.and_then(|(index, at)| Some(Turn { limit: limits.get(index)?, at }));
        Admitted { taken, nearest, turn }
    }
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
    for (index, limit) in limits.filter(|(_, limit)| counts(&limit.matches, subject)) {
        let table = means.leases.table(index, limit, means.seed);
        let place = key::place(limit, table, subject, means.seed);
        let judged = judge(limit, &place, subject, means, now.monotonic);
        let (outcome, verdict) = verdict(limit, judged);
        means.events.on(Event::RateLimit { limit: &limit.name, outcome });
        if matches!(outcome, LimitOutcome::Over | LimitOutcome::ShadowOver) {
            // Limits may share a key's tag.
            let tag = place.tag ^ place.table;
            means.reports.limited(&limit.name, tag, &|| key_text(limit, subject));
        }
        match verdict {
            Verdict::Took(took, standing) => admitted.take(limit, place, took, standing),
            Verdict::Passed => {}
            Verdict::Refused(refusal) => {
                if let (Refusal::Over { .. }, Some(penalty)) = (&refusal, &limit.penalty)
                    && let Some(who) = key::culprit(limit, subject)
                {
                    ban::violated(limit, penalty, &who, means, now);
                }
                return Err((refusal, admitted));
            }
        }
    }
    Ok(admitted)
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
            Answer::Refused { standing, retry } => return Ok(Judged::Refused { standing, retry }),
            Answer::Ask(plan) => plan,
        }
    } else {
        Plan::FIRST
    };
    let who = key::whose(limit, subject, means.seed);
    let ask = Ask { limit, place, who, load: means.load, pause: means.pause, now };
    let (judged, extra) = ask.judge(&algorithm, plan, means.store, means.events)?;
    match judged {
        Judged::Admitted { standing, took } if leasing == Leasing::Allowed => {
            let lease = Lease { size: plan.size, left: extra, end: lease::end(&algorithm, now) };
            means.leases.grant(place, &lease, standing, now);
            // What is held of the limit is left of it.
            let held = extra.saturating_mul(limit.cost);
            let remaining = standing.remaining.saturating_add(held);
            return Ok(Judged::Admitted { standing: Standing { remaining, ..standing }, took });
        }
        Judged::Refused { standing, retry } if remembers || leasing == Leasing::Allowed => {
            means.leases.remember(place, standing, retry, now);
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
