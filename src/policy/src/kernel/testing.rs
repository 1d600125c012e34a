//! What the tests of the limits share: dice, and a log of what was admitted.

use crate::time::Nanos;
use alloc::vec::Vec;

/// An origin far from zero, as a real clock has.
pub(super) const ORIGIN: Nanos = Nanos::from_secs(1_000);

/// `n` milliseconds after [`ORIGIN`].
pub(super) fn ms(n: u64) -> Nanos {
    ORIGIN + Nanos::from_millis(n)
}

/// A linear congruential generator (Knuth's MMIX), of which the high bits are used.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 20) % n
    }

    /// The same as a number of tokens.
    pub(super) fn count(&mut self, n: u64) -> u32 {
        u32::try_from(self.below(n)).unwrap()
    }
}

/// When how much was admitted, in the order of time.
#[derive(Default)]
pub(super) struct Log(Vec<(u64, u32)>);

impl Log {
    pub(super) fn add(&mut self, at: Nanos, count: u32) {
        self.0.push((at.0, count));
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The most in any half-open span of that length.
    pub(super) fn worst(&self, span: Nanos) -> u64 {
        let (mut first, mut sum, mut worst) = (0, 0, 0);
        for (at, count) in &self.0 {
            sum += u64::from(*count);
            while at - self.0[first].0 >= span.0 {
                sum -= u64::from(self.0[first].1);
                first += 1;
            }
            worst = worst.max(sum);
        }
        worst
    }
}
