//! What one worker holds of limits: tokens of hot keys taken in advance, and keys that were refused.
//! Both spare shared data; both can only admit less, never more
//! (`docs/decisions/0010-leases-that-only-under-admit.md`).
//!
//! A fixed number of slots, made once and then never again: nothing is allocated for a request.

use crate::kernel::{Standing, window};
use crate::model::{Bucket, KeyPart, Limit, LimitAlgorithm};
use crate::stage::limit::key::Table;
use crate::table::Place;
use crate::time::Nanos;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// How long tokens may be spent after they were taken. The bucket of a limit that is leased is
/// smaller by what comes back in this time, which pays for it.
const TERM: Nanos = Nanos::from_millis(10);
/// Most requests that tokens are taken for at once. At 100,000 requests a second a worker asks shared
/// data 400 times a second; more would save nothing worth having.
const SIZE_MAX: u32 = 256;
/// A lease that is used up within this part of [`TERM`] is too small, one that takes twice as long is
/// right: at an even rate a fraction of it is left over when it ends once in thousands of leases.
const HOT: u64 = 4;
/// Of what is left after a request a worker takes at most this part in advance, so that the last
/// tokens of a bucket are not idle at one worker while another refuses.
const SHARE: u32 = 8;
/// Requests per second from which on a limit is leased. Below it [`TERM`] is too short for a second
/// request.
const RATE_MIN: u64 = 1_000;
/// How many times [`TERM`]'s tokens a burst must have to be leased: what leasing costs of it is at
/// most one percent.
const BURST_MIN: u64 = 100;
/// Longest a refusal is remembered. What others give back meanwhile is not seen until then.
const MEMORY: Nanos = Nanos::SECOND;
/// Slots: [`SETS`] times [`WAYS`], a hundred and sixty kilobytes of a worker that needs them. A key
/// without a slot is asked for in shared data.
const SETS: usize = 512;
const WAYS: usize = 4;
/// The retry of a key that is refused for good.
const NEVER: Nanos = Nanos(u64::MAX);

/// What one worker holds. A fresh one holds nothing.
#[derive(Debug, Default)]
pub struct Leases {
    /// Empty until the first key is held.
    slots: Vec<Slot>,
    /// One for each limit of the policy.
    tables: Vec<Option<Known>>,
}

/// The table of a limit, which needs three hashes to find.
#[derive(Debug)]
struct Known {
    name: String,
    algorithm: LimitAlgorithm,
    key: Vec<KeyPart>,
    seed: [u64; 2],
    table: Table,
}

/// One key of one limit. A tag of zero is nobody's.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    table: u64,
    tag: u64,
    /// The lease: when it was taken, until when it may be spent, for how many requests it was and
    /// still is, and for how many it should have been.
    taken: Nanos,
    end: Nanos,
    granted: u32,
    left: u32,
    size: u32,
    /// The refusal: when the key was refused, when it will not be, until when that is remembered.
    refused: Nanos,
    retry: Nanos,
    until: Nanos,
    /// How the limit stood when it was asked last, tokens of the lease counted as used.
    remaining: u32,
    full: Nanos,
}

/// What a worker can say by itself.
pub(super) enum Answer {
    /// Admitted, by tokens that were taken then.
    Admitted { standing: Standing, taken: Nanos },
    /// Refused, as before.
    Refused { standing: Standing, retry: Option<Nanos> },
    /// Shared data must be asked.
    Ask(Plan),
}

/// What a worker holds of a key.
pub(super) enum Held {
    /// Tokens.
    Lease,
    /// A refusal, for so much longer; `None` for ever.
    Refusal(Option<Nanos>),
    /// Nothing that says anything now.
    Nothing,
}

/// What is to be done beside the request's own taking.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// For how many requests to take at most, this one included.
    pub(super) size: u32,
    /// For how many requests tokens were taken and not spent, and when.
    pub(super) rest: Option<(u32, Nanos)>,
}

impl Plan {
    /// For a key of which nothing is known.
    pub(super) const FIRST: Self = Self { size: 1, rest: None };

    /// For how many more requests to take, when so many tokens are left after this one.
    pub(super) fn extra(&self, remaining: u32, cost: u32) -> u32 {
        (self.size.saturating_sub(1)).min(remaining / SHARE / cost.max(1))
    }
}

/// Whether a worker may take tokens of a limit in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leasing {
    /// It may.
    Allowed,
    /// Each request asks.
    Not,
}

/// The numbers that a limit's records are judged by, which are its own but for the burst of one that
/// is leased.
pub(super) fn numbers(limit: &Limit) -> (LimitAlgorithm, Leasing) {
    match limit.algorithm {
        LimitAlgorithm::TokenBucket(bucket) => {
            if !is_fast(bucket.requests, bucket.per, bucket.burst, limit.cost) {
                return (limit.algorithm, Leasing::Not);
            }
            // At most 2^32 times 10^7. Up: what is held back must not be less than what comes back.
            let reserve = u64::from(bucket.requests) * TERM.0;
            let reserve = u32::try_from(reserve.div_ceil(bucket.per.0.max(1))).unwrap_or(u32::MAX);
            let burst = bucket.burst.saturating_sub(reserve);
            (LimitAlgorithm::TokenBucket(Bucket { burst, ..bucket }), Leasing::Allowed)
        }
        LimitAlgorithm::SlidingWindow(window) => {
            let fast = is_fast(window.requests, window.per, window.requests, limit.cost);
            (limit.algorithm, if fast { Leasing::Allowed } else { Leasing::Not })
        }
        LimitAlgorithm::LeakyBucket(_) | LimitAlgorithm::Adaptive(_) => {
            (limit.algorithm, Leasing::Not)
        }
    }
}

fn is_fast(requests: u32, per: Nanos, burst: u32, cost: u32) -> bool {
    // At most 2^32 times 10^9. A product that saturates is one of a slow limit, or of a huge burst.
    let rate = u64::from(requests) * Nanos::SECOND.0;
    rate >= per.0.saturating_mul(RATE_MIN)
        && u64::from(burst).saturating_mul(per.0) >= u64::from(requests) * TERM.0 * BURST_MIN
        // One request must fit into what is left of the burst, and a lease must be worth it.
        && u64::from(cost) * BURST_MIN <= u64::from(burst)
}

/// When tokens that are taken now can be spent no longer.
pub(super) fn end(algorithm: &LimitAlgorithm, now: Nanos) -> Nanos {
    let end = now + TERM;
    match algorithm {
        LimitAlgorithm::SlidingWindow(window) => {
            // They count in this sub-window and must not be spent in the next one.
            let part = window::part(window);
            end.min(part.times((now.0 / part.0.max(1)).saturating_add(1)))
        }
        _ => end,
    }
}

impl Slot {
    fn is_of(&self, place: &Place) -> bool {
        self.tag == place.tag && self.table == place.table
    }

    /// A clock that stepped back has seen neither the lease nor the refusal yet.
    fn has_lease(&self, now: Nanos) -> bool {
        self.left > 0 && self.taken <= now && now < self.end
    }

    fn has_refusal(&self, now: Nanos) -> bool {
        self.refused <= now && now < self.until
    }

    fn retry(&self, now: Nanos) -> Option<Nanos> {
        Some(self.retry - now).filter(|_| self.retry != NEVER)
    }

    fn standing(&self, cost: u32, now: Nanos) -> Standing {
        let held = self.left.saturating_mul(cost);
        Standing { remaining: self.remaining.saturating_add(held), reset: self.full - now }
    }

    fn plan(&self, now: Nanos) -> Plan {
        let took = (now - self.taken).0;
        let size = match self.left {
            // Used up so soon that twice as much would be: the key is hot.
            0 if took.saturating_mul(HOT) <= TERM.0 => self.size.saturating_mul(2).min(SIZE_MAX),
            0 if took.saturating_mul(HOT) <= 2 * TERM.0 => self.size,
            0 => self.size / 2,
            // Next time as much as was wanted this time.
            left => self.granted.saturating_sub(left),
        };
        Plan { size: size.max(1), rest: (self.left > 0).then_some((self.left, self.taken)) }
    }

    /// From when on nothing is lost with the slot.
    fn idle(&self) -> Nanos {
        self.end.max(self.until)
    }
}

impl Leases {
    /// Forgets everything: shared data may say something else now. Tokens that were held are lost,
    /// which admits less for a moment.
    pub fn forget(&mut self) {
        self.slots.fill(Slot::default());
        self.tables.clear();
    }

    /// The table of the limit that is the `index`-th of its policy.
    pub(super) fn table(&mut self, index: usize, limit: &Limit, seed: [u64; 2]) -> Table {
        let known = self.tables.get(index).and_then(Option::as_ref).filter(|known| {
            known.seed == seed
                && known.name == limit.name
                && known.algorithm == limit.algorithm
                && known.key == limit.key
        });
        if let Some(known) = known {
            return known.table;
        }
        let table = Table::of(limit, seed);
        let known = Known {
            name: limit.name.clone(),
            algorithm: limit.algorithm,
            key: limit.key.clone(),
            seed,
            table,
        };
        if index >= self.tables.len() {
            self.tables.resize_with(index + 1, || None);
        }
        if let Some(place) = self.tables.get_mut(index) {
            *place = Some(known);
        }
        table
    }

    /// Judges a request by what is held.
    pub(super) fn ask(&mut self, place: &Place, cost: u32, now: Nanos) -> Answer {
        let Some(slot) = self.find(place) else { return Answer::Ask(Plan::FIRST) };
        if slot.has_lease(now) {
            slot.left -= 1;
            return Answer::Admitted { standing: slot.standing(cost, now), taken: slot.taken };
        }
        if slot.has_refusal(now) {
            return Answer::Refused { standing: slot.standing(0, now), retry: slot.retry(now) };
        }
        Answer::Ask(slot.plan(now))
    }

    /// Holds what was taken for `left` more requests.
    pub(super) fn grant(&mut self, place: &Place, lease: &Lease, standing: Standing, now: Nanos) {
        let slot = self.make_room(place, now);
        let Some(slot) = slot else { return };
        slot.taken = now;
        slot.end = lease.end;
        slot.granted = lease.left.saturating_add(1);
        slot.left = lease.left;
        slot.size = lease.size;
        slot.until = Nanos::ZERO;
        slot.remaining = standing.remaining;
        slot.full = now + standing.reset;
    }

    /// Remembers a refusal.
    pub(super) fn remember(
        &mut self,
        place: &Place,
        standing: Standing,
        retry: Option<Nanos>,
        now: Nanos,
    ) {
        let Some(slot) = self.make_room(place, now) else { return };
        // Nothing of a lease is left: it went back when shared data was asked.
        slot.left = 0;
        slot.refused = now;
        slot.retry = retry.map_or(NEVER, |retry| now + retry);
        slot.until = slot.retry.min(now + MEMORY);
        slot.remaining = standing.remaining;
        slot.full = now + standing.reset;
    }

    /// What is held of a key, left as it is.
    pub(super) fn held(&mut self, place: &Place, now: Nanos) -> Held {
        match self.find(place) {
            Some(slot) if slot.has_lease(now) => Held::Lease,
            Some(slot) if slot.has_refusal(now) => Held::Refusal(slot.retry(now)),
            _ => Held::Nothing,
        }
    }

    /// Remembers a refusal that was only looked at: tokens that are to go back are not forgotten for it.
    pub(super) fn note(
        &mut self,
        place: &Place,
        standing: Standing,
        retry: Option<Nanos>,
        now: Nanos,
    ) {
        if self.find(place).is_none_or(|slot| slot.left == 0) {
            self.remember(place, standing, retry, now);
        }
    }

    /// Takes back a token of the lease that was taken then, if it is still held.
    pub(super) fn put_back(&mut self, place: &Place, taken: Nanos, now: Nanos) -> Back {
        match self.find(place) {
            Some(slot) if slot.taken == taken && now < slot.end => {
                slot.left = slot.left.saturating_add(1);
                Back::Held
            }
            _ => Back::Gone,
        }
    }

    /// Forgets that a key was refused: tokens of it have been given back.
    pub(super) fn relent(&mut self, place: &Place) {
        if let Some(slot) = self.find(place) {
            slot.until = Nanos::ZERO;
        }
    }

    fn set(&mut self, place: &Place) -> &mut [Slot] {
        // Fingerprints are uniform; the table is mixed in, because limits may share a key's tag.
        let hash = place.tag ^ place.table;
        let set = usize::try_from(hash & (SETS as u64 - 1)).unwrap_or(0);
        let from = set * WAYS;
        self.slots.get_mut(from..from + WAYS).unwrap_or_default()
    }

    fn find(&mut self, place: &Place) -> Option<&mut Slot> {
        self.set(place).iter_mut().find(|slot| slot.is_of(place))
    }

    /// The key's slot, or one that is made its own: the idlest.
    fn make_room(&mut self, place: &Place, now: Nanos) -> Option<&mut Slot> {
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); SETS * WAYS];
        }
        let set = self.set(place);
        let idlest = |set: &[Slot]| {
            let idle = set.iter().enumerate().min_by_key(|(_, slot)| slot.idle());
            idle.map(|(number, _)| number)
        };
        let at = set.iter().position(|slot| slot.is_of(place)).or_else(|| idlest(set))?;
        let slot = set.get_mut(at)?;
        if !slot.is_of(place) {
            *slot =
                Slot { table: place.table, tag: place.tag, size: 1, end: now, ..Slot::default() };
        }
        Some(slot)
    }
}

/// A lease to be held.
pub(super) struct Lease {
    pub(super) size: u32,
    pub(super) left: u32,
    pub(super) end: Nanos,
}

/// What became of a token that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// Its lease has it again.
    Held,
    /// Its lease is over: shared data must have it.
    Gone,
}
