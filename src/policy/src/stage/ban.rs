//! Bans: who is kept out for a while, and how penalties get somebody there.
//!
//! A ban has two records (`docs/decisions/0011-two-records-of-a-ban.md`): the worker's own in a fixed
//! table of shared data, in force at once, and the sidecar's ([`crate::replica::bans`]), which an
//! administrator sees, and which outlives Envoy. Where shared data cannot be had nobody is banned: the
//! limits behind have a failure mode of their own.

mod somebody;

pub use somebody::Somebody;

use crate::event::Event;
use crate::fingerprint::{self, Fingerprint};
use crate::kernel::penalty::{Conduct, violate};
use crate::model::{Limit, Penalty, Policy};
use crate::replica::bans::{self, Kind, Name, Verdict as Said};
use crate::stage::authenticate::Identity;
use crate::stage::{Means, limit};
use crate::store::{Store, StoreError};
use crate::sync::{BanMade, Named};
use crate::table::{self, Keep, Place, Reader, Record, amend};
use crate::time::{Moment, Nanos};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Sets of the table of bans, and of that of violations: 32,768 records each, about a megabyte. Under
/// more offenders at once those are forgotten that are closest to being forgiven anyway.
pub(crate) const SETS: u32 = 4096;
/// What the records of both tables mean has never changed.
const SHAPE: u32 = 0;

/// Somebody who can be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// An address.
    Ip(IpAddr),
    /// A user of a provider.
    User {
        /// The provider.
        provider: &'a str,
        /// The user's name there.
        name: &'a str,
    },
    /// An API key, by its id.
    ApiKey(&'a str),
}

impl<'a> Who<'a> {
    /// The one behind an identity; `None` for an anonymous request.
    #[must_use]
    pub fn of(identity: &'a Identity<'_>) -> Option<Self> {
        let name = identity.user()?;
        Some(match identity.provider() {
            Some(provider) => Self::User { provider, name },
            None => Self::ApiKey(name),
        })
    }

    /// Adds whoever it is to a fingerprint, the kind first, so that no user is named as a key.
    pub(crate) fn feed(&self, print: &mut Fingerprint) {
        match self {
            Self::Ip(address) => {
                print.part(b"ip");
                match address.to_canonical() {
                    IpAddr::V4(address) => print.part(&address.octets()),
                    IpAddr::V6(address) => print.part(&address.octets()),
                }
            }
            Self::User { provider, name } => {
                print.part(b"user");
                print.part(provider.as_bytes());
                print.part(name.as_bytes());
            }
            Self::ApiKey(id) => {
                print.part(b"api key");
                print.part(id.as_bytes());
            }
        }
    }

    /// The fingerprint in the records of this process.
    #[must_use]
    pub fn print(&self, seed: [u64; 2]) -> u64 {
        let mut print = Fingerprint::new(seed, "who");
        self.feed(&mut print);
        print.finish()
    }

    /// By name, for administrators.
    #[must_use]
    pub fn named(&self) -> Named {
        let (kind, provider, name) = match self {
            Self::Ip(address) => (Kind::Ip, None, address.to_canonical().to_string()),
            Self::User { provider, name } => {
                (Kind::User, Some((*provider).to_string()), (*name).to_string())
            }
            Self::ApiKey(id) => (Kind::ApiKey, None, (*id).to_string()),
        };
        Named { kind: kind.name().to_string(), provider, name }
    }

    fn place(&self, seed: [u64; 2]) -> Place {
        let table = fingerprint::of(seed, "table of all", "bans");
        Place { table, sets: SETS, shape: SHAPE, tag: self.print(seed) }
    }

    /// Where a limit's penalty keeps count of his violations.
    pub(crate) fn conduct(&self, limit: &str, seed: [u64; 2]) -> Place {
        let table = fingerprint::of(seed, "table of all", "violations");
        let mut print = Fingerprint::new(seed, "violations");
        print.part(limit.as_bytes());
        self.feed(&mut print);
        Place { table, sets: SETS, shape: SHAPE, tag: print.finish() }
    }
}

/// What is known of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that keeps him out.
    Free,
    /// He is banned.
    Banned {
        /// For so much longer; `None` until somebody lifts it.
        wait: Option<Nanos>,
    },
}

/// Looks somebody up: at most two reads, and none that the policy has no use for.
pub fn look(policy: &Policy, who: &Who<'_>, means: &mut Means<'_>, now: Moment) -> Verdict {
    look_up(policy, who, means, now).unwrap_or_else(|_| {
        means.events.on(Event::StoreFailed);
        Verdict::Free
    })
}

fn look_up(
    policy: &Policy,
    who: &Who<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<Verdict, StoreError> {
    let may_ban = |limit: &Limit| limit.penalty.is_some() && limit::may_ban(limit, who);
    let own = if policy.rate_limits.iter().any(may_ban) {
        table::read::<Ban>(means.store, means.events, &who.place(means.seed))?
    } else {
        None
    };
    let own = own.filter(|ban| now.monotonic < ban.until);
    let kept = match means.state_keys.filter(|_| policy.sidecar.is_some()) {
        Some(keys) => kept(who, keys, own, means.store, now)?,
        None => Kept::default(),
    };
    let own = own.filter(|_| !kept.is_lifted).map(|ban| ban.until - now.monotonic);
    Ok(match (kept.ends, own) {
        (None, None) => Verdict::Free,
        (Some(u64::MAX), _) => Verdict::Banned { wait: None },
        (Some(end), own) => {
            let kept = Nanos::from_millis(end) - now.wall;
            Verdict::Banned { wait: Some(own.map_or(kept, |own| own.max(kept))) }
        }
        (None, own) => Verdict::Banned { wait: own },
    })
}

/// What the sidecar's records say of somebody.
#[derive(Default)]
struct Kept {
    /// The end of the ban that lasts longest, in milliseconds since 1970.
    ends: Option<u64>,
    /// Whether the worker's own ban was lifted.
    is_lifted: bool,
}

fn kept(
    who: &Who<'_>,
    keys: [u64; 2],
    own: Option<Ban>,
    store: &mut dyn Store,
    now: Moment,
) -> Result<Kept, StoreError> {
    let text = match who {
        Who::Ip(address) => address.to_canonical().to_string(),
        Who::User { .. } | Who::ApiKey(_) => String::new(),
    };
    let name = match who {
        Who::Ip(_) => Name { kind: Kind::Ip, provider: None, name: &text },
        Who::User { provider, name } => Name { kind: Kind::User, provider: Some(provider), name },
        Who::ApiKey(id) => Name { kind: Kind::ApiKey, provider: None, name: id },
    };
    let print = name.print(keys);
    let bytes = bans::bucket(&print).read(store)?;
    let mut kept = Kept::default();
    if bytes.is_empty() {
        return Ok(kept);
    }
    let provider = name.provider_print(keys);
    for record in bans::decode(&bytes) {
        let is_his = record.print == print && (record.provider == 0 || record.provider == provider);
        if !is_his {
            continue;
        }
        match record.verdict {
            Said::Banned if record.until_ms <= now.wall.as_millis() => {}
            Said::Banned => kept.ends = kept.ends.max(Some(record.until_ms)),
            // Its end is by the clock on the wall, which may run ahead of the ban's own.
            Said::Lifted => kept.is_lifted |= own.is_some_and(|own| own.serial == record.serial),
        }
    }
    Ok(kept)
}

/// Counts a violation of a limit; bans whoever it was when he has made too many, and tells for how long
/// he is banned.
pub(crate) fn violated(
    limit: &Limit,
    penalty: &Penalty,
    who: &Who<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Option<Nanos> {
    let place = who.conduct(&limit.name, means.seed);
    let at = now.monotonic;
    let told = amend::<Violations, _>(means.store, means.events, &place, at, |old| {
        let old = old.map(|found| found.0).unwrap_or_default();
        let (conduct, ban) = violate(old, penalty, at);
        Keep::Put(Violations::new(conduct, penalty), (conduct, ban))
    });
    match told {
        Err(StoreError::Unavailable | StoreError::Contended) => {
            means.events.on(Event::StoreFailed);
            None
        }
        Ok((_, None)) => None,
        // The level has risen by this ban.
        Ok((conduct, Some(span))) => {
            Some(make(limit, who, span, conduct.level.saturating_sub(1), means, now))
        }
    }
}

/// Bans somebody; for how long he is kept out, which another ban may prolong.
fn make(
    limit: &Limit,
    who: &Who<'_>,
    span: Nanos,
    level: u32,
    means: &mut Means<'_>,
    now: Moment,
) -> Nanos {
    let mut bytes = [0; 8];
    (means.random)(&mut bytes);
    // Zero stands for a ban that an administrator made.
    let serial = u64::from_le_bytes(bytes).max(1);
    let ban = Ban { until: now.monotonic + span, serial };
    let place = who.place(means.seed);
    // One that was lifted must not come back with its number.
    let lifted = lifted(who, means, now).unwrap_or_default();
    let kept = amend::<Ban, _>(means.store, means.events, &place, now.monotonic, |old| match old {
        // Another limit has banned him for longer: that ban stays, and its number with it.
        Some(old) if old.until > ban.until && Some(old) != lifted => Keep::Same(old),
        _ => Keep::Put(ban, ban),
    });
    if kept.is_err() {
        // The sidecar's record will do it as soon as it is here.
        means.events.on(Event::StoreFailed);
    }
    means.events.on(Event::Banned { limit: &limit.name, span });
    means.reports.banned(BanMade {
        who: who.named(),
        limit: limit.name.clone(),
        serial: format!("{serial:016x}"),
        made_ms: now.wall.as_millis(),
        until_ms: (now.wall + span).0.div_ceil(1_000_000),
        level,
    });
    kept.map_or(span, |kept| kept.until - now.monotonic)
}

/// Somebody's own record, if an administrator has lifted that ban.
fn lifted(who: &Who<'_>, means: &mut Means<'_>, now: Moment) -> Result<Option<Ban>, StoreError> {
    let Some(keys) = means.state_keys else { return Ok(None) };
    let own = table::read::<Ban>(means.store, means.events, &who.place(means.seed))?;
    let is_lifted = own.is_some() && kept(who, keys, own, means.store, now)?.is_lifted;
    Ok(own.filter(|_| is_lifted))
}

/// A ban that a penalty made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ban {
    /// On the monotonic clock.
    until: Nanos,
    /// What it is called when it is lifted.
    serial: u64,
}

impl Record for Ban {
    const KIND: u8 = b'x';
    const SIZE: usize = 8 + 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.until.0.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut read = Reader(body);
        Some(Self { until: Nanos(read.u64()?), serial: read.u64()? })
    }

    fn weight(&self, now: Nanos) -> u64 {
        (self.until - now).0
    }

    fn who(&self) -> [u32; 2] {
        // Found by its fingerprint, never by a sweep.
        [0; 2]
    }
}

/// The violations of one limit by somebody, and when they are all forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violations(Conduct, Nanos);

impl Violations {
    fn new(conduct: Conduct, penalty: &Penalty) -> Self {
        let counted = conduct.since + penalty.within;
        // One step is forgotten for each longest ban without another.
        let risen = conduct.ban_end + penalty.max_ban.times(u64::from(conduct.level));
        Self(conduct, counted.max(risen))
    }
}

impl Record for Violations {
    const KIND: u8 = b'c';
    const SIZE: usize = 4 * 8;

    fn encode(&self, out: &mut Vec<u8>) {
        let Self(Conduct { since, count, level, ban_end }, end) = self;
        for time in [since, ban_end, end] {
            out.extend_from_slice(&time.0.to_le_bytes());
        }
        for number in [count, level] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut read = Reader(body);
        let (since, ban_end) = (Nanos(read.u64()?), Nanos(read.u64()?));
        let end = Nanos(read.u64()?);
        let conduct = Conduct { since, count: read.u32()?, level: read.u32()?, ban_end };
        Some(Self(conduct, end))
    }

    fn weight(&self, now: Nanos) -> u64 {
        let Self(Conduct { count, level, .. }, end) = self;
        // Bans weigh more than any number of violations.
        if now < *end { (u64::from(*level) << 32) + u64::from(*count) } else { 0 }
    }

    fn who(&self) -> [u32; 2] {
        [0; 2]
    }
}

/// The most bytes of shared data that bans and violations take, and how many values that is.
pub(crate) const fn memory() -> [(u64, u64); 2] {
    let sets = SETS as u64;
    [
        (sets, table::set_bytes_max::<Ban>() as u64),
        (sets, table::set_bytes_max::<Violations>() as u64),
    ]
}

#[cfg(test)]
mod tests;
