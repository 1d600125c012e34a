//! Time as a number that the shell hands in. Nothing here reads a clock.

use core::ops::{Add, Sub};

/// Nanoseconds: a span, or an instant since an origin that the context names.
///
/// Arithmetic saturates at both ends, so an `earlier` that lies in the future gives a zero span and
/// never a huge one (the host's clock may step back).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);

    /// `secs` whole seconds, saturating.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// `millis` whole milliseconds, saturating.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Whole seconds, rounded up: what `Retry-After` needs, where rounding down would invite a
    /// client back too early.
    #[must_use]
    pub const fn as_secs_ceil(self) -> u64 {
        self.0.div_ceil(1_000_000_000)
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// `self * times`, saturating.
    #[must_use]
    pub const fn times(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Both clocks, read once per event by the shell.
///
/// `monotonic` orders everything inside one process; `wall` (since the Unix epoch) is for token
/// times and for what leaves the process, and for nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since an origin that is the same for all workers of one process.
    pub monotonic: Nanos,
    /// Since 1970-01-01T00:00:00Z.
    pub wall: Nanos,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_that_lies_in_the_future_gives_a_zero_span() {
        assert_eq!(Nanos(5) - Nanos(9), Nanos::ZERO);
        assert_eq!(Nanos(u64::MAX) + Nanos(1), Nanos(u64::MAX));
        assert_eq!(Nanos::from_secs(u64::MAX).times(2), Nanos(u64::MAX));
    }

    #[test]
    fn seconds_round_up_for_those_who_wait() {
        assert_eq!(Nanos(0).as_secs_ceil(), 0);
        assert_eq!(Nanos(1).as_secs_ceil(), 1);
        assert_eq!(Nanos::SECOND.as_secs_ceil(), 1);
        assert_eq!((Nanos::SECOND + Nanos(1)).as_secs_ceil(), 2);
    }
}
