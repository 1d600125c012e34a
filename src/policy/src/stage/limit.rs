//! Rate limits: which ones count a request, what they take, and how to give it back.
//!
//! Each limit has a table of its own in shared data (`table`); a bucket's record is one time stamp.
//! A limit that refuses has taken nothing; what earlier limits took is given back by the pipeline.

use crate::event::{Event, Events, LimitOutcome};
use crate::facts::Facts;
use crate::fingerprint::{self, Fingerprint};
use crate::kernel::token_bucket::{FullAt, Judgement, Standing, give_back, take};
use crate::model::{Endpoint, KeyPart, Limit, LimitMode, Match, Unavailable};
use crate::stage::authenticate::Identity;
use crate::store::{Store, StoreError};
use crate::table::{Keep, Place, Reader, Record, amend};
use crate::time::Nanos;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// The endpoint of requests that match none.
pub const OTHER_ENDPOINT: &str = "other";
/// What a key part reads as when the request does not have it (contract, section 3, notes).
const MISSING: &str = "-";

/// What a limit is judged by.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The request.
    pub facts: &'a Facts<'a>,
    /// Its endpoint's name.
    pub endpoint: &'a str,
    /// Who it is; `None` before authentication, when only limits that need nobody are judged.
    pub identity: Option<&'a Identity<'a>>,
}

/// Tokens that were taken and can be given back.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'p> {
    limit: &'p Limit,
    place: Place,
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
    /// Of two limits the one nearer to exhaustion: the smaller share of its burst left; on a tie
    /// the longer window (as in Kong).
    #[must_use]
    pub fn nearer(self, other: Nearest<'p>) -> Nearest<'p> {
        let share = |of: &Nearest<'_>, by: &Nearest<'_>| {
            u64::from(of.standing.remaining) * u64::from(by.limit.bucket.burst)
        };
        let (own, theirs) = (share(&self, &other), share(&other, &self));
        let longer = other.limit.bucket.per > self.limit.bucket.per;
        if theirs < own || (theirs == own && longer) { other } else { self }
    }
}

/// The proof that every limit of one phase has admitted the request.
#[derive(Debug, Default)]
pub struct Admitted<'p> {
    taken: Vec<Taken<'p>>,
    nearest: Option<Nearest<'p>>,
}

impl<'p> Admitted<'p> {
    /// The enforced limit nearest to exhaustion.
    #[must_use]
    pub fn nearest(&self) -> Option<Nearest<'p>> {
        self.nearest
    }

    /// Both phases together.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.taken.extend(later.taken);
        self.nearest = match (self.nearest, later.nearest) {
            (Some(one), Some(other)) => Some(one.nearer(other)),
            (one, other) => one.or(other),
        };
        self
    }

    /// Gives everything back, for a request that was refused further on.
    pub fn give_back(self, store: &mut dyn Store, events: &mut dyn Events, now: Nanos) {
        for taken in self.taken {
            let bucket = &taken.limit.bucket;
            let done = amend::<Debt, _>(store, events, &taken.place, now, |old| match old {
                // Evicted since: a full bucket already, there is nothing to give back to.
                None => Keep::Same(()),
                Some(debt) => {
                    let full_at = give_back(debt.full_at, bucket, taken.limit.cost, now);
                    Keep::Put(Debt { full_at, ..debt }, ())
                }
            });
            if done.is_err() {
                events.on(Event::StoreFailed);
            }
        }
    }
}

/// [`Admitted`] without its policy, for a request that waits.
#[derive(Debug, Default)]
pub struct Detached {
    taken: Vec<(usize, Place)>,
    nearest: Option<(usize, Standing)>,
}

impl<'p> Admitted<'p> {
    /// Lets go of the policy, whose limits these are.
    #[must_use]
    pub fn detach(self, limits: &'p [Limit]) -> Detached {
        let index = |limit: &Limit| limits.iter().position(|one| core::ptr::eq(one, limit));
        let taken = self.taken.iter();
        let taken = taken.filter_map(|taken| Some((index(taken.limit)?, taken.place))).collect();
        let nearest = self.nearest.and_then(|near| Some((index(near.limit)?, near.standing)));
        Detached { taken, nearest }
    }
}

impl Detached {
    /// The proof again; `limits` are those that it was detached from.
    #[must_use]
    pub fn attach(self, limits: &[Limit]) -> Admitted<'_> {
        let taken = self.taken.into_iter();
        let taken = taken
            .filter_map(|(index, place)| Some(Taken { limit: limits.get(index)?, place }))
            .collect();
        let nearest = self
            .nearest
            .and_then(|(index, standing)| Some(Nearest { limit: limits.get(index)?, standing }));
        Admitted { taken, nearest }
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
    /// Shared state could not be had, and the limit says `refuse`.
    Unavailable,
}

/// Judges a request by limits, in their order.
///
/// # Errors
/// The first refusal, with what was taken before it (to be given back).
pub fn admit<'p>(
    limits: impl Iterator<Item = &'p Limit>,
    subject: &Subject<'_>,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Nanos,
) -> Result<Admitted<'p>, (Refusal<'p>, Admitted<'p>)> {
    let mut admitted = Admitted::default();
    let identity = identity_print(subject, seed);
    for limit in limits.filter(|limit| counts(&limit.matches, subject)) {
        let place = place(limit, subject, seed);
        let judged = amend::<Debt, _>(store, events, &place, now, |old| {
            let full_at = old.map(|debt| debt.full_at).unwrap_or_default();
            let judgement = take(full_at, &limit.bucket, limit.cost, now);
            match judgement {
                Judgement::Admitted { full_at, .. } => {
                    Keep::Put(Debt { identity, full_at }, judgement)
                }
                Judgement::Refused { .. } => Keep::Same(judgement),
            }
        });
        match verdict(limit, judged, events) {
            Verdict::Took(standing) => {
                admitted.taken.push(Taken { limit, place });
                if limit.mode == LimitMode::Enforce {
                    let here = Nearest { limit, standing };
                    let nearest = admitted.nearest.map_or(here, |before| before.nearer(here));
                    admitted.nearest = Some(nearest);
                }
            }
            Verdict::Passed => {}
            Verdict::Refused(refusal) => return Err((refusal, admitted)),
        }
    }
    Ok(admitted)
}

enum Verdict<'p> {
    Took(Standing),
    Passed,
    Refused(Refusal<'p>),
}

fn verdict<'p>(
    limit: &'p Limit,
    judged: Result<Judgement, StoreError>,
    events: &mut dyn Events,
) -> Verdict<'p> {
    let (outcome, verdict) = match judged {
        Ok(Judgement::Admitted { standing, .. }) => {
            // Near from 80 % used, as in envoyproxy/ratelimit.
            let near = u64::from(standing.remaining) * 5 < u64::from(limit.bucket.burst);
            let outcome = if near { LimitOutcome::Near } else { LimitOutcome::Ok };
            (outcome, Verdict::Took(standing))
        }
        Ok(Judgement::Refused { standing, retry }) => match limit.mode {
            LimitMode::Shadow => (LimitOutcome::ShadowOver, Verdict::Passed),
            LimitMode::Enforce => {
                let nearest = Nearest { limit, standing };
                (LimitOutcome::Over, Verdict::Refused(Refusal::Over { nearest, retry }))
            }
        },
        Err(StoreError::Unavailable | StoreError::Contended) => {
            match (limit.on_unavailable, limit.mode) {
                (Unavailable::Refuse, LimitMode::Enforce) => {
                    (LimitOutcome::ErrorRefused, Verdict::Refused(Refusal::Unavailable))
                }
                _ => (LimitOutcome::ErrorAllowed, Verdict::Passed),
            }
        }
    };
    events.on(Event::RateLimit { limit: &limit.name, outcome });
    verdict
}

/// The name of the endpoint that a request belongs to: the first that matches.
#[must_use]
pub fn endpoint<'p>(endpoints: &'p [Endpoint], facts: &Facts<'_>) -> &'p str {
    let found = endpoints
        .iter()
        .find(|one| has_method(&one.methods, facts) && one.path.matches(facts.path()));
    found.map_or(OTHER_ENDPOINT, |endpoint| &endpoint.name)
}

fn has_method(methods: &[String], facts: &Facts<'_>) -> bool {
    methods.is_empty() || methods.iter().any(|method| method.as_bytes() == facts.method())
}

fn counts(matches: &Match, subject: &Subject<'_>) -> bool {
    let facts = subject.facts;
    let tier = subject.identity.and_then(Identity::tier);
    has_method(&matches.methods, facts)
        && (matches.services.is_empty()
            || matches.services.iter().any(|service| Some(service.as_str()) == facts.service))
        && (matches.tiers.is_empty()
            || matches.tiers.iter().any(|wanted| Some(wanted.as_str()) == tier))
        && (matches.paths.is_empty() || matches.paths.iter().any(|path| path.matches(facts.path())))
}

fn place(limit: &Limit, subject: &Subject<'_>, seed: [u64; 2]) -> Place {
    let mut print = Fingerprint::new(seed, "limit");
    for part in &limit.key {
        key_part(part, subject, &mut print);
    }
    let table = fingerprint::of(seed, "table of a limit", &limit.name);
    Place { table, sets: limit.table_sets, tag: print.finish() }
}

fn key_part(part: &KeyPart, subject: &Subject<'_>, print: &mut Fingerprint) {
    let facts = subject.facts;
    let or_missing = |value: Option<&str>, print: &mut Fingerprint| {
        print.part(value.unwrap_or(MISSING).as_bytes());
    };
    match part {
        KeyPart::Service => or_missing(facts.service, print),
        KeyPart::Endpoint => print.part(subject.endpoint.as_bytes()),
        KeyPart::User => {
            if subject.identity.is_some_and(|identity| identity.api_key().is_some()) {
                // One part more than a user has: no user's name can be the same parts.
                print.part(b"api key");
            }
            or_missing(subject.identity.and_then(Identity::user), print);
        }
        KeyPart::ApiKey => or_missing(subject.identity.and_then(Identity::api_key), print),
        KeyPart::Tier => or_missing(subject.identity.and_then(Identity::tier), print),
        KeyPart::Claim(name) => {
            let claim = subject.identity.and_then(|identity| identity.claim(name));
            or_missing(claim.as_deref(), print);
        }
        KeyPart::Header(name) => {
            print.part(facts.headers.first(name).unwrap_or(MISSING.as_bytes()));
        }
        KeyPart::Ip => match facts.client.map(|address| address.to_canonical()) {
            None => print.part(MISSING.as_bytes()),
            Some(IpAddr::V4(address)) => print.part(&address.octets()),
            Some(IpAddr::V6(address)) => print.part(&address.octets()),
        },
    }
}

/// Lets an administrator find every record of one user without keeping the name.
fn identity_print(subject: &Subject<'_>, seed: [u64; 2]) -> u64 {
    let Some(identity) = subject.identity else { return 0 };
    let domain = if identity.api_key().is_some() { "api key" } else { "user" };
    identity.user().map_or(0, |user| fingerprint::of(seed, domain, user))
}

/// A bucket's record: whose it is, and when it will be full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Debt {
    /// Fingerprint of the user; zero when nobody is known.
    identity: u64,
    full_at: FullAt,
}

impl Record for Debt {
    const KIND: u8 = b'l';
    const SIZE: usize = 8 + 8 + 4 + 4;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_le_bytes());
        out.extend_from_slice(&self.full_at.ns.to_le_bytes());
        out.extend_from_slice(&self.full_at.frac.to_le_bytes());
        // Spare, to keep the records aligned.
        out.extend_from_slice(&[0; 4]);
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut read = Reader(body);
        let identity = read.u64()?;
        Some(Self { identity, full_at: FullAt { ns: read.u64()?, frac: read.u32()? } })
    }

    fn weight(&self, now: Nanos) -> u64 {
        // The fuller the bucket, the less its loss forgives; a full one forgives nothing.
        self.full_at.ns.saturating_sub(now.0)
    }
}
