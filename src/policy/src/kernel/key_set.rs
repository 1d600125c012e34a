//! A key set that is fetched from an issuer, as a pure state machine: when to fetch, who may, and how
//! long what was fetched may serve.
//!
//! One record for all workers. A fetch is a *flight* with a number and a lease: while a lease runs
//! nobody else fetches, and a holder that dies loses it. Numbers rise, so that a slow answer never
//! replaces a newer one. All times are on the monotonic clock; a stamp that lies in the future says
//! nothing.

#[cfg(test)]
mod tests;

use crate::model::RemoteKeys;
use crate::time::Nanos;
use alloc::vec::Vec;

/// How long before its expiry a set is fetched anew, so that no request waits for that.
const AHEAD: Nanos = Nanos::from_secs(5);
/// The pause after the first failed fetch; it doubles with each further one.
const PAUSE_MIN: Nanos = Nanos::SECOND;
/// The longest pause: an issuer that is back is noticed within half a minute.
const PAUSE_MAX: Nanos = Nanos::from_secs(30);
/// How much longer than the fetch itself a lease runs: the host tells of a timeout a little late.
const GRACE: Nanos = Nanos::from_secs(2);
/// No lease is longer: the policy's longest timeout, and grace twice over.
const LEASE_MAX: Nanos = Nanos::from_secs(34);
/// Workers read the clock one after the other; a stamp that is ahead by less is of now.
const SLACK: Nanos = Nanos::SECOND;
/// No flight has a higher number: at one per second that takes longer than there are processors.
pub const NUMBER_MAX: u64 = 1 << 48;
/// The format of the record; another one reads as absent.
const VERSION: u8 = 1;
/// Version, seven numbers, failures.
const SIZE: usize = 1 + 7 * 8 + 4;

/// A key set as all workers know it. The default is one that nobody has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// The number of the last flight that was begun.
    pub begun: u64,
    /// The flight that brought the present set; 0 when there is none.
    pub generation: u64,
    /// When that was.
    pub fetched: Nanos,
    /// When a token with an unknown key last caused a flight.
    pub asked: Option<Nanos>,
    /// When a flight last failed.
    pub failed: Option<Nanos>,
    /// Flights that failed since the last good one.
    pub failures: u32,
    /// The flight under way.
    pub flight: Option<Flight>,
}

/// A fetch under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Its number.
    pub number: u64,
    /// When its lease ends.
    pub until: Nanos,
}

/// Why somebody would have a set fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody waits: the set may be about to expire.
    Schedule,
    /// A token names a key that the set does not have.
    UnknownKey,
    /// A token is here and no set to judge it by.
    Missing,
}

/// Whether to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Yes: [`KeySet::begin`].
    Now,
    /// Somebody does.
    UnderWay,
    /// Not yet.
    Later,
}

/// Whether the set may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none, or it is too old.
    Gone,
    /// It may, until then.
    Serves(Nanos),
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is the present set.
    Taken,
    /// A newer one was there before.
    Outdated,
}

impl KeySet {
    /// Whether to fetch, for this reason.
    #[must_use]
    pub fn due(&self, settings: &RemoteKeys, why: Why, now: Nanos) -> Due {
        let settled = self.settle(now);
        if settled.flight.is_some() {
            return Due::UnderWay;
        }
        let paused = settled.failures > 0
            && age(settled.failed, now).is_some_and(|age| age < pause(settled.failures));
        let serves = matches!(settled.standing(settings, now), Standing::Serves(_));
        let due = match why {
            Why::Schedule => !serves || settled.is_expiring(settings, now),
            // Who cannot use a set that serves all others gets no further by fetching it faster.
            Why::Missing if !serves => true,
            Why::Missing | Why::UnknownKey => {
                age(settled.asked, now).is_none_or(|age| age >= settings.cooldown)
            }
        };
        if due && !paused { Due::Now } else { Due::Later }
    }

    /// Begins a flight and gives its number. For whoever was told [`Due::Now`] of this very record.
    #[must_use]
    pub fn begin(&self, settings: &RemoteKeys, why: Why, now: Nanos) -> (Self, u64) {
        let mut next = self.settle(now);
        let number = next.begun.saturating_add(1);
        let serves = matches!(next.standing(settings, now), Standing::Serves(_));
        if why == Why::UnknownKey || (why == Why::Missing && serves) {
            next.asked = Some(now);
        }
        next.begun = number;
        next.flight = Some(Flight { number, until: now + settings.timeout + GRACE });
        (next, number)
    }

    /// A flight brought a good set, which has been stored under the flight's number.
    #[must_use]
    pub fn succeed(&self, number: u64, now: Nanos) -> (Self, Answer) {
        let mut next = *self;
        next.flight = next.flight.filter(|flight| flight.number != number);
        if number <= next.generation {
            return (next, Answer::Outdated);
        }
        next.begun = next.begun.max(number);
        next.generation = number;
        next.fetched = now;
        next.failures = 0;
        next.failed = None;
        (next, Answer::Taken)
    }

    /// A flight brought a good set, but a set of that higher number was stored already.
    #[must_use]
    pub fn outdone(&self, number: u64, by: u64) -> Self {
        let mut next = *self;
        next.flight = next.flight.filter(|flight| flight.number != number);
        // Numbers go on from there, also when this record has been lost in between.
        next.begun = next.begun.max(by);
        next
    }

    /// A flight brought nothing, or nothing good. One whose lease has run out is known to have
    /// failed already.
    #[must_use]
    pub fn fail(&self, number: u64, now: Nanos) -> Self {
        let mut next = self.settle(now);
        if next.flight.take_if(|flight| flight.number == number).is_some() {
            next.failures = next.failures.saturating_add(1);
            next.failed = Some(now);
        }
        next
    }

    /// Whoever had begun a flight goes away; somebody else may begin at once.
    #[must_use]
    pub fn abandon(&self, number: u64) -> Self {
        let mut next = *self;
        if next.flight.take_if(|flight| flight.number == number).is_some() {
            next.asked = None;
        }
        next
    }

    /// Whether the set may serve.
    #[must_use]
    pub fn standing(&self, settings: &RemoteKeys, now: Nanos) -> Standing {
        if self.generation == 0 {
            return Standing::Gone;
        }
        let until = self.fetched.min(now) + settings.refresh + settings.max_stale;
        if now < until { Standing::Serves(until) } else { Standing::Gone }
    }

    /// A lease that has run out is a flight that failed when it did. One that runs longer than any
    /// may was never given.
    fn settle(mut self, now: Nanos) -> Self {
        let over = |flight: &mut Flight| flight.until <= now || flight.until > now + LEASE_MAX;
        if let Some(flight) = self.flight.take_if(over) {
            self.failures = self.failures.saturating_add(1);
            self.failed = Some(flight.until.min(now));
        }
        self
    }

    fn is_expiring(&self, settings: &RemoteKeys, now: Nanos) -> bool {
        let ahead = AHEAD.min(Nanos(settings.refresh.0 / 2));
        age(Some(self.fetched), now).is_none_or(|age| age + ahead >= settings.refresh)
    }

    /// Reads a record; `None` when it makes no sense.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if bytes.len() != SIZE || *version != VERSION {
            return None;
        }
        let mut numbers = rest.chunks_exact(8).filter_map(|eight| eight.try_into().ok());
        let mut number = || numbers.next().map(u64::from_le_bytes);
        let stamp = |number: u64| Some(Nanos(number)).filter(|_| number > 0);
        let (begun, generation) = (number()?, number()?);
        if begun > NUMBER_MAX || generation > begun {
            return None;
        }
        Some(Self {
            begun,
            generation,
            fetched: Nanos(number()?),
            asked: stamp(number()?),
            failed: stamp(number()?),
            flight: Some(Flight { number: number()?, until: Nanos(number()?) })
                .filter(|flight| flight.number > 0),
            failures: u32::from_le_bytes(bytes.get(SIZE - 4..)?.try_into().ok()?),
        })
    }

    /// The record's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let stamp = |stamp: Option<Nanos>| stamp.map_or(0, |stamp| stamp.0.max(1));
        let Flight { number, until } = self.flight.unwrap_or(Flight { number: 0, until: Nanos(0) });
        let mut out = Vec::with_capacity(SIZE);
        out.push(VERSION);
        let numbers = [self.begun, self.generation, self.fetched.0, stamp(self.asked)];
        for number in numbers.into_iter().chain([stamp(self.failed), number, until.0]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.failures.to_le_bytes());
        out
    }
}

/// How long ago a stamp was made; `None` for none, and for one from the future.
fn age(stamp: Option<Nanos>, now: Nanos) -> Option<Nanos> {
    stamp.filter(|stamp| *stamp <= now + SLACK).map(|stamp| now - stamp)
}

/// How long to rest after so many failures in a row: 1 s, 2 s, 4 s, ... 30 s.
fn pause(failures: u32) -> Nanos {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MIN.times(1 << doublings).min(PAUSE_MAX)
}
