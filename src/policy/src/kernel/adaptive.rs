//! The adaptive limit: a token bucket whose rate follows the load of the machine.
//!
//! Two levels of used tokens are kept: one drains at the rate that the load leaves, and decides; the
//! other drains at the full rate, and tells whether a refusal is the client's doing or the load's.
//! A level cannot be a time stamp, because its rate changes. Levels have 32 fractional bits; draining
//! rounds down, so that no more is forgiven than time has earned: less than 2^-32 token is lost with
//! each request that is admitted, and nothing by looking.

use super::{LATE, Standing};
use crate::model::Adaptive;
use crate::time::Nanos;

/// Fractional bits of a level.
const FRACTION: u32 = 32;
/// What a rate is scaled by: thousandths.
const WHOLE: u32 = 1_000;

/// Used tokens. The default is a full bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Up to when both have been drained, in nanoseconds on the monotonic clock.
    pub at: u64,
    /// Used tokens, drained at the scaled rate; never below `full`.
    pub scaled: u64,
    /// Used tokens, drained at the full rate.
    pub full: u64,
}

/// What an adaptive limit says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The tokens were there.
    Admitted {
        /// To be stored.
        state: Levels,
        /// After the taking.
        standing: Standing,
    },
    /// They would not be there without any load either.
    Refused {
        /// To be stored in place of what was there ([`super::Judgement::Refused`]).
        mended: Option<Levels>,
        /// Unchanged by the request.
        standing: Standing,
        /// After exactly this wait the same request is admitted if nobody else comes and the load
        /// stays; `None` when it never can be.
        retry: Option<Nanos>,
    },
    /// The load takes some of the rate, and without it they would be there.
    Overloaded {
        /// To be stored in place of what was there ([`super::Judgement::Refused`]).
        mended: Option<Levels>,
        /// Unchanged by the request.
        standing: Standing,
        /// As of a refusal.
        retry: Option<Nanos>,
    },
}

/// Takes `cost` tokens if they are there at the rate that `load` (thousandths) leaves. A cost of zero
/// looks and takes nothing.
#[must_use]
pub fn take(old: Levels, adaptive: &Adaptive, cost: u32, load: u32, now: Nanos) -> Judgement {
    let scale = Scale::of(adaptive, load);
    let kept = scale.clamp(old, now);
    let drained = scale.drain(kept, now);
    let wanted = u64::from(cost) << FRACTION;
    if scale.has(drained.scaled, wanted) {
        let scaled = drained.scaled.saturating_add(wanted);
        let full = drained.full.saturating_add(wanted);
        let state = Levels { scaled, full, ..drained };
        return Judgement::Admitted { state, standing: scale.standing(state, now) };
    }
    let mended = (kept != old).then_some(kept);
    let standing = scale.standing(kept, now);
    let retry = (wanted <= scale.capacity).then(|| {
        // The two together are more than the capacity here, and each of them is not.
        scale.until(kept.at, kept.scaled - (scale.capacity - wanted), now)
    });
    // At the full rate nobody is refused for the load's sake, whatever an earlier load has left in the
    // level that decides: under steady demand that would stay for ever.
    if scale.is_down() && scale.has(drained.full, wanted) {
        Judgement::Overloaded { mended, standing, retry }
    } else {
        Judgement::Refused { mended, standing, retry }
    }
}

/// Gives `cost` tokens back, for a request that was refused elsewhere. Giving back more than was
/// taken only fills the bucket.
#[must_use]
pub fn give_back(old: Levels, cost: u32) -> Levels {
    // What is taken from a level before it drains is missing after it as well.
    let tokens = u64::from(cost) << FRACTION;
    let (scaled, full) = (old.scaled.saturating_sub(tokens), old.full.saturating_sub(tokens));
    Levels { scaled, full, ..old }
}

/// The share of the rate that a load leaves, both in thousandths: all of it up to the threshold, then
/// falling evenly to the floor at a load of 1000. Never rises with the load; rounded down.
#[must_use]
pub fn factor(adaptive: &Adaptive, load: u32) -> u32 {
    let threshold = adaptive.threshold.min(WHOLE - 1);
    let floor = adaptive.floor.clamp(1, WHOLE);
    let above = load.min(WHOLE).saturating_sub(threshold);
    // At most a thousand times a thousand, and the last quotient is at most `WHOLE - floor`.
    WHOLE - (above * (WHOLE - floor)).div_ceil(WHOLE - threshold)
}

/// The limit's numbers at one load.
struct Scale {
    requests: u128,
    per: u128,
    factor: u128,
    capacity: u64,
}

impl Scale {
    fn of(adaptive: &Adaptive, load: u32) -> Self {
        let bucket = &adaptive.bucket;
        Self {
            requests: u128::from(bucket.requests.max(1)),
            per: u128::from(bucket.per.0.max(1)),
            factor: u128::from(factor(adaptive, load)),
            capacity: u64::from(bucket.burst) << FRACTION,
        }
    }

    /// Whether the load takes some of the rate.
    fn is_down(&self) -> bool {
        self.factor < u128::from(WHOLE)
    }

    fn has(&self, used: u64, wanted: u64) -> bool {
        used.checked_add(wanted).is_some_and(|used| used <= self.capacity)
    }

    /// No level above an empty bucket; a time beyond what filling it takes is pulled back to now.
    /// A clock that is a little behind stands still: pulled back, it would drain the same span twice.
    fn clamp(&self, levels: Levels, now: Nanos) -> Levels {
        let scaled = levels.scaled.min(self.capacity);
        let full = levels.full.min(scaled);
        let ahead = Nanos(levels.at) - now;
        let beyond = ahead > self.span(self.capacity).max(LATE);
        let at = if beyond { now.0 } else { levels.at };
        Levels { at, scaled, full }
    }

    fn drain(&self, levels: Levels, now: Nanos) -> Levels {
        let elapsed = u128::from(now.0.saturating_sub(levels.at));
        // At most 64 + 32 + 32 bits.
        let full = (elapsed * (self.requests << FRACTION)) / self.per;
        let full = u64::try_from(full).unwrap_or(u64::MAX);
        let scaled = u128::from(full) * self.factor / u128::from(WHOLE);
        let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
        Levels {
            at: levels.at.max(now.0),
            scaled: levels.scaled.saturating_sub(scaled),
            full: levels.full.saturating_sub(full),
        }
    }

    /// The least time in which at least `level` drains: the two roundings of [`Self::drain`], undone.
    fn span(&self, level: u64) -> Nanos {
        let at_full = (u128::from(level) * u128::from(WHOLE)).div_ceil(self.factor);
        let exact = at_full.checked_mul(self.per);
        let nanos = match exact {
            Some(product) => product.div_ceil(self.requests << FRACTION),
            // Numbers that no clock lives through: whole tokens, rounded up, will do.
            None => ((at_full >> FRACTION) + 1).saturating_mul(self.per).div_ceil(self.requests),
        };
        Nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn until(&self, at: u64, level: u64, now: Nanos) -> Nanos {
        Nanos(at) + self.span(level) - now
    }

    fn standing(&self, levels: Levels, now: Nanos) -> Standing {
        let free = self.capacity.saturating_sub(self.drain(levels, now).scaled);
        let remaining = u32::try_from(free >> FRACTION).unwrap_or(u32::MAX);
        let reset = self.until(levels.at, levels.scaled, now);
        Standing { remaining, reset }
    }
}

#[cfg(test)]
mod tests;
