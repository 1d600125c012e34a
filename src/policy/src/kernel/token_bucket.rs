//! The token bucket, kept as one time stamp: GCRA, the generic cell rate algorithm
//! (ITU-T I.371 annex A; the same arithmetic as redis-cell and throttled).
//!
//! The stamp is the *theoretical arrival time*: when the bucket will be full again. All arithmetic
//! is in units of `1 / requests` nanoseconds, in which one token is exactly `per`, so that rates
//! such as 7 in 60 s neither drift nor round: no interval of length `t` admits more than
//! `burst + requests / per * t`.

use super::{Judgement, LATE, Standing};
use crate::model::Bucket;
use crate::time::Nanos;

/// When a bucket will be full again: `ns + frac / requests` nanoseconds. Zero, or anything in the
/// past, is a full bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FullAt {
    /// Whole nanoseconds on the monotonic clock.
    pub ns: u64,
    /// The rest, in `1 / requests` nanoseconds, below `requests`. Dropped when the limit's numbers
    /// change, which forgives less than a nanosecond.
    pub frac: u32,
}

/// Takes `cost` tokens if they are there. A cost of zero looks and takes nothing.
#[must_use]
pub fn take(old: FullAt, bucket: &Bucket, cost: u32, now: Nanos) -> Judgement<FullAt> {
    let scale = Scale::of(bucket);
    let lag = scale.lag(old, now);
    let room = scale.capacity.saturating_sub(lag);
    let wanted = u128::from(cost) * scale.token;
    if wanted <= room {
        let lag = lag + wanted;
        let state = scale.stamp(now, lag);
        return Judgement::Admitted { state, standing: scale.standing(lag) };
    }
    // Below its own first term: what is wanted is more than the room.
    let retry = (wanted <= scale.capacity).then(|| scale.span(wanted + lag - scale.capacity));
    let mended = (scale.debt(old, now) != lag).then(|| scale.stamp(now, lag));
    Judgement::Refused { mended, standing: scale.standing(lag), retry }
}

/// Gives `cost` tokens back, for a request that was refused elsewhere. Giving back more than was
/// taken only fills the bucket: a stamp in the past is a full one.
#[must_use]
pub fn give_back(old: FullAt, bucket: &Bucket, cost: u32, now: Nanos) -> FullAt {
    let scale = Scale::of(bucket);
    let lag = scale.lag(old, now).saturating_sub(u128::from(cost) * scale.token);
    scale.stamp(now, lag)
}

/// A bucket's numbers in units of `1 / requests` nanoseconds.
struct Scale {
    requests: u128,
    token: u128,
    capacity: u128,
}

impl Scale {
    fn of(bucket: &Bucket) -> Self {
        let token = u128::from(bucket.per.0.max(1));
        Self {
            requests: u128::from(bucket.requests.max(1)),
            token,
            capacity: u128::from(bucket.burst) * token,
        }
    }

    /// How far the bucket is from full. A stamp far beyond a whole empty bucket (the limit's numbers
    /// have changed, or the clock was ahead) counts as exactly empty. One a little beyond it is another
    /// worker's, whose clock was read later than ours: cut, it would forgive the time between.
    fn lag(&self, full_at: FullAt, now: Nanos) -> u128 {
        let debt = self.debt(full_at, now);
        let late = u128::from(LATE.0) * self.requests;
        if debt > self.capacity.saturating_add(late) { self.capacity } else { debt }
    }

    /// How far the stamp is ahead of now.
    fn debt(&self, full_at: FullAt, now: Nanos) -> u128 {
        let frac = u128::from(full_at.frac).min(self.requests - 1);
        let stamp = u128::from(full_at.ns) * self.requests + frac;
        stamp.saturating_sub(u128::from(now.0) * self.requests)
    }

    fn stamp(&self, now: Nanos, lag: u128) -> FullAt {
        let stamp = u128::from(now.0) * self.requests + lag;
        let ns = u64::try_from(stamp / self.requests).unwrap_or(u64::MAX);
        // The remainder is below `requests`, which is a u32.
        let frac = u32::try_from(stamp % self.requests).unwrap_or(0);
        FullAt { ns, frac }
    }

    fn standing(&self, lag: u128) -> Standing {
        let tokens = self.capacity.saturating_sub(lag) / self.token;
        let remaining = u32::try_from(tokens).unwrap_or(u32::MAX);
        Standing { remaining, reset: self.span(lag) }
    }

    /// Scaled units as a span, rounded up: who waits for it must find the token there.
    fn span(&self, units: u128) -> Nanos {
        Nanos(u64::try_from(units.div_ceil(self.requests)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
