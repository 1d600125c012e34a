//! What administrators ask of limits: how a key stands, that it be forgotten, that all of somebody
//! be forgotten, and how much memory a policy may take.

use crate::event::{Event, Events};
use crate::fingerprint::Fingerprint;
use crate::kernel::adaptive::Levels;
use crate::kernel::breaker::Breaker;
use crate::kernel::leak::Turns;
use crate::kernel::token_bucket::FullAt;
use crate::kernel::window::Counts;
use crate::model::{KeyPart, Limit, LimitAlgorithm, Policy};
use crate::replica::bans::Kind;
use crate::stage::ban::{self, Violations, Who};
use crate::stage::breaker;
use crate::stage::limit::key::{MISSING, PROVIDER, Table, Value, half};
use crate::stage::limit::look::{Seen, see};
use crate::stage::limit::record::{Kept, State};
use crate::stage::limit::state::Ending;
use crate::store::{Store, StoreError};
use crate::sync::{KeyStanding, Named};
use crate::table::{self, Place, Set};
use crate::time::Nanos;
use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

/// What Envoy adds to a value of shared data: two hash table entries, a string and a vector with
/// their headers, and what an allocator rounds up. An estimate, on the safe side.
pub const VALUE_OVERHEAD: u64 = 200;
/// Bytes of a set's key in shared data.
const KEY_BYTES: u64 = 13;

/// The most bytes of Envoy's shared data that a policy's limits, penalties and breakers take, keys and
/// Envoy's own bookkeeping included, however many clients there are.
#[must_use]
pub fn memory(policy: &Policy) -> u64 {
    let limits = policy.rate_limits.iter().map(|limit| {
        let bytes = match limit.algorithm {
            LimitAlgorithm::TokenBucket(_) => table::set_bytes_max::<Kept<FullAt>>(),
            LimitAlgorithm::SlidingWindow(_) => table::set_bytes_max::<Kept<Ending<Counts>>>(),
            LimitAlgorithm::LeakyBucket(_) => table::set_bytes_max::<Kept<Turns>>(),
            LimitAlgorithm::Adaptive(_) => table::set_bytes_max::<Kept<Ending<Levels>>>(),
        };
        (u64::from(limit.table_sets), bytes as u64)
    });
    let has_penalty = policy.rate_limits.iter().any(|limit| limit.penalty.is_some());
    let bans = ban::memory().into_iter().filter(|_| has_penalty);
    let breakers = &policy.circuit_breakers;
    let has_breaker = breakers.default.is_some() || !breakers.services.is_empty();
    let breaker = (u64::from(breaker::SETS), table::set_bytes_max::<Breaker>() as u64);
    let breaker = has_breaker.then_some(breaker);
    let all = limits.chain(bans).chain(breaker);
    all.map(|(sets, bytes)| sets.saturating_mul(bytes + KEY_BYTES + VALUE_OVERHEAD)).sum()
}

/// Whether an administrator's words are a key of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// They are.
    Yes,
    /// A part is missing, is not one of the limit's, or makes no sense.
    No,
}

/// How a key of a limit stands. `key` has a value for each part, as in a key's text, and beside a
/// user perhaps his `provider`; without one there is an answer for each of `providers`, and one
/// without a provider for an API key of that id if the limit knows it. `None` for words that are no
/// key of this limit. An adaptive limit is shown at its full rate; tokens that workers hold count as
/// used.
///
/// # Errors
/// When shared data cannot be had.
pub fn read_key(
    limit: &Limit,
    providers: &[&str],
    key: &BTreeMap<String, String>,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Nanos,
) -> Result<Option<Vec<KeyStanding>>, StoreError> {
    let Some(meant) = meant(limit, providers, key) else { return Ok(None) };
    let mut standings = Vec::new();
    let optional = meant.len() > 1;
    for one in meant {
        let place = one.place(limit, key, seed);
        let standing = shown(see(limit, &place, 0, store, events, now)?);
        let known = standing.known;
        let provider = one.provider().map(ToString::to_string);
        if known || !optional || provider.is_some() {
            standings.push(KeyStanding { provider, ..standing });
        }
    }
    Ok(Some(standings))
}

/// Forgets what a limit knows of a key, as [`read_key`] finds it. One that it knows nothing of is
/// forgotten already. Workers still hold what they hold: [`crate::stage::limit::Leases::forget`].
///
/// # Errors
/// When shared data cannot be had.
pub fn reset_key(
    limit: &Limit,
    providers: &[&str],
    key: &BTreeMap<String, String>,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
) -> Result<Known, StoreError> {
    let Some(meant) = meant(limit, providers, key) else { return Ok(Known::No) };
    for one in meant {
        let place = one.place(limit, key, seed);
        match limit.algorithm {
            LimitAlgorithm::TokenBucket(_) => erase::<FullAt>(&place, store, events)?,
            LimitAlgorithm::SlidingWindow(_) => erase::<Ending<Counts>>(&place, store, events)?,
            LimitAlgorithm::LeakyBucket(_) => erase::<Turns>(&place, store, events)?,
            LimitAlgorithm::Adaptive(_) => erase::<Ending<Levels>>(&place, store, events)?,
        }
    }
    Ok(Known::Yes)
}

fn erase<S: State>(
    place: &Place,
    store: &mut dyn Store,
    events: &mut dyn Events,
) -> Result<(), StoreError> {
    table::erase::<Kept<S>>(store, events, place).map(|_| ())
}

/// One identity that an administrator's words may mean.
struct Meant<'a> {
    user: Option<Who<'a>>,
}

/// Everybody that the words may mean; `None` when they are no key of the limit.
fn meant<'a>(
    limit: &Limit,
    providers: &[&'a str],
    key: &'a BTreeMap<String, String>,
) -> Option<Vec<Meant<'a>>> {
    let provider = key.get(PROVIDER).map(String::as_str);
    let has_user = limit.key.contains(&KeyPart::User);
    let beside = usize::from(has_user && provider.is_some());
    if key.len() != limit.key.len() + beside {
        return None;
    }
    for part in &limit.key {
        let value = key.get(&part.to_string())?;
        if *part == KeyPart::Ip && value != MISSING {
            value.parse::<IpAddr>().ok()?;
        }
    }
    let user = key.get("user").map(String::as_str).filter(|_| has_user);
    Some(match (user, provider) {
        (None, _) | (Some(MISSING), None) => [Meant { user: None }].into(),
        (Some(name), Some(provider)) => [Meant { user: Some(Who::User { provider, name }) }].into(),
        (Some(name), None) => {
            let of = |provider: &&'a str| Meant { user: Some(Who::User { provider, name }) };
            let key = Meant { user: Some(Who::ApiKey(name)) };
            providers.iter().map(of).chain([key]).collect()
        }
    })
}

impl Meant<'_> {
    fn provider(&self) -> Option<&str> {
        match self.user {
            Some(Who::User { provider, .. }) => Some(provider),
            _ => None,
        }
    }

    fn place(&self, limit: &Limit, key: &BTreeMap<String, String>, seed: [u64; 2]) -> Place {
        let mut print = Fingerprint::new(seed, "limit");
        for part in &limit.key {
            let text = key.get(&part.to_string()).map_or(MISSING, String::as_str);
            let value = match part {
                KeyPart::User => self.user.map_or(Value::Missing, Value::Identity),
                KeyPart::Ip => text.parse().map_or(Value::Missing, Value::address),
                _ => Value::Bytes(Cow::Borrowed(text.as_bytes())),
            };
            value.feed(&mut print);
        }
        Table::of(limit, seed).place(limit, print)
    }
}

fn shown(seen: Seen) -> KeyStanding {
    let millis = |span: Nanos| span.0.div_ceil(1_000_000);
    KeyStanding {
        provider: None,
        known: seen.known,
        remaining: seen.standing.remaining,
        reset_ms: millis(seen.standing.reset),
        retry_ms: millis(seen.retry.unwrap_or(Nanos(u64::MAX))),
    }
}

/// Forgets what every limit knows of somebody, violations included, in bounded steps.
#[derive(Debug)]
pub struct Sweep {
    tables: Vec<Swept>,
    /// The table and the set that are next.
    at: (usize, u32),
    conducts: Vec<Place>,
    erased: u64,
}

/// Erases somebody's records from one set, of whatever kind they are.
type Erase = fn(&mut dyn Store, &mut dyn Events, &Set, [u32; 2]) -> Result<usize, StoreError>;

/// The table of a limit that may have records of him.
#[derive(Debug)]
struct Swept {
    erase: Erase,
    table: Table,
    sets: u32,
    /// Under whatever providers there are.
    who: Vec<[u32; 2]>,
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// Everything was looked through.
    Done {
        /// Records that are gone.
        erased: u64,
    },
}

impl Sweep {
    /// A sweep that has not begun. `None` when nobody can be called that: an unknown kind, or an
    /// address that is none.
    #[must_use]
    pub fn new(policy: &Policy, named: &Named, seed: [u64; 2]) -> Option<Self> {
        let all: Vec<Who<'_>> = everybody(policy, named)?;
        let by_address = named.kind == Kind::Ip.name();
        let print = |who: &Who<'_>| {
            let print = half(who.print(seed));
            if by_address { [0, print] } else { [print, 0] }
        };
        let tells_apart = |part: &KeyPart| match part {
            KeyPart::User | KeyPart::ApiKey => !by_address,
            KeyPart::Ip => by_address,
            _ => false,
        };
        let limits = policy.rate_limits.iter();
        let tables = limits.filter(|limit| limit.key.iter().any(tells_apart)).map(|limit| Swept {
            erase: match limit.algorithm {
                LimitAlgorithm::TokenBucket(_) => table::erase_of::<Kept<FullAt>>,
                LimitAlgorithm::SlidingWindow(_) => table::erase_of::<Kept<Ending<Counts>>>,
                LimitAlgorithm::LeakyBucket(_) => table::erase_of::<Kept<Turns>>,
                LimitAlgorithm::Adaptive(_) => table::erase_of::<Kept<Ending<Levels>>>,
            },
            table: Table::of(limit, seed),
            sets: limit.table_sets,
            who: all.iter().map(print).collect(),
        });
        let penal = policy.rate_limits.iter().filter(|limit| limit.penalty.is_some());
        let conducts = penal.flat_map(|limit| all.iter().map(|who| who.conduct(&limit.name, seed)));
        Some(Self { tables: tables.collect(), at: (0, 0), conducts: conducts.collect(), erased: 0 })
    }

    /// Looks through so many sets more. What fails is tried again by the next step.
    ///
    /// # Errors
    /// When shared data cannot be had.
    pub fn step(&mut self, sets: usize, store: &mut dyn Store) -> Result<Progress, StoreError> {
        // A set that cannot be read is counted by the request that finds it so.
        let events: &mut dyn Events = &mut |_: Event<'_>| {};
        for _ in 0..sets {
            let (index, number) = self.at;
            let Some(swept) = self.tables.get(index) else {
                return self.forgive(store, events);
            };
            let Table { print: table, shape } = swept.table;
            let set = Set { table, number, shape };
            for who in &swept.who {
                let erased = (swept.erase)(store, events, &set, *who)?;
                self.erased += u64::try_from(erased).unwrap_or(0);
            }
            let next = number + 1;
            self.at = if next < swept.sets { (index, next) } else { (index + 1, 0) };
        }
        Ok(Progress::More)
    }

    fn forgive(
        &mut self,
        store: &mut dyn Store,
        events: &mut dyn Events,
    ) -> Result<Progress, StoreError> {
        while let Some(place) = self.conducts.last() {
            let found = table::erase::<Violations>(store, events, place)?;
            self.erased += u64::from(found.is_some());
            self.conducts.pop();
        }
        Ok(Progress::Done { erased: self.erased })
    }
}

/// Everybody of that name: of a user without a provider one for each provider there is.
fn everybody<'a>(policy: &'a Policy, named: &'a Named) -> Option<Vec<Who<'a>>> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == named.kind)?;
    let name = named.name.as_str();
    Some(match (kind, &named.provider) {
        (Kind::Ip, _) => [Who::Ip(name.parse().ok()?)].into(),
        (Kind::ApiKey, _) => [Who::ApiKey(name)].into(),
        (Kind::User, Some(provider)) => [Who::User { provider, name }].into(),
        (Kind::User, None) => {
            let providers = policy.authentication.iter().flat_map(|section| &section.providers);
            providers.map(|provider| Who::User { provider: &provider.name, name }).collect()
        }
    })
}
