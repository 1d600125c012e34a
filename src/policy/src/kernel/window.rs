//! The sliding window, kept as counts of sub-windows on a fixed grid.
//!
//! A window is [`PARTS`] sub-windows long. A judgement counts the one that now lies in and the whole
//! [`PARTS`] before it: together they cover every window that ends now, so no span of `per`, wherever
//! it begins, holds more than `requests`. The price is one sub-window: what was admitted at the
//! start of the oldest one is remembered for up to `per / PARTS` longer than needed, so whoever keeps
//! asking gets at least `PARTS / (PARTS + 1)` of the limit. The usual estimate from two fixed windows
//! (`previous * share + current`) admits nearly twice the limit in the worst window instead.

use super::{Judgement, Standing};
use crate::model::Window;
use crate::time::Nanos;

/// Sub-windows of a window. Ten refuse at most a tenth of the window early, and a record stays below
/// sixty bytes.
pub const PARTS: usize = 10;

/// Sub-windows that are held: those of a window, and the one that now lies in.
const HELD: usize = PARTS + 1;

/// What a window holds. The default is an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of the newest sub-window, counted from the clock's origin.
    pub epoch: u64,
    /// What was taken in each sub-window, the newest first.
    pub counts: [u32; HELD],
}

/// The length of a sub-window; rounded up, so that [`PARTS`] of them are never shorter than the
/// window.
#[must_use]
pub fn part(window: &Window) -> Nanos {
    Nanos(window.per.0.div_ceil(PARTS as u64).max(1))
}

/// Takes `cost` tokens if the window has room. A cost of zero looks and takes nothing.
#[must_use]
pub fn take(old: Counts, window: &Window, cost: u32, now: Nanos) -> Judgement<Counts> {
    let part = part(window);
    let (mut state, grid) = old.slide(now.0 / part.0);
    let taken = state.total();
    if taken + u64::from(cost) <= u64::from(window.requests) {
        if let Some(newest) = state.counts.first_mut() {
            // Below `requests`, which is a u32.
            *newest = newest.saturating_add(cost);
        }
        return Judgement::Admitted { state, standing: state.standing(window, now) };
    }
    let excess = (taken + u64::from(cost)).saturating_sub(u64::from(window.requests));
    let retry = (cost <= window.requests).then(|| state.wait(excess, part, now));
    let mended = match grid {
        Grid::Fits => None,
        Grid::Beyond => Some(state),
    };
    Judgement::Refused { mended, standing: state.standing(window, now), retry }
}

/// Gives back `cost` tokens that were taken at `taken`, if their sub-window is still held; one that
/// has been left counts for nothing any more.
#[must_use]
pub fn give_back(old: Counts, window: &Window, cost: u32, taken: Nanos, now: Nanos) -> Counts {
    let part = part(window);
    let (mut state, _) = old.slide(now.0 / part.0);
    // Who took while the clock was behind was counted in a newer sub-window than the one that loses
    // it here: what is held is then forgotten later than it might be, never earlier.
    let age = state.epoch.saturating_sub(taken.0 / part.0);
    let held = usize::try_from(age).ok().and_then(|age| state.counts.get_mut(age));
    if let Some(count) = held {
        *count = count.saturating_sub(cost);
    }
    state
}

/// Where a record's newest sub-window lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grid {
    /// At now, before it, or so little ahead that a clock which steps back explains it.
    Fits,
    /// Farther ahead than a window is long.
    Beyond,
}

impl Counts {
    /// All that is held.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The counts as they are in sub-window `epoch`. A clock that is behind stands still; a record
    /// from beyond a whole window ahead is pulled back with its counts.
    fn slide(mut self, epoch: u64) -> (Self, Grid) {
        if self.epoch > epoch {
            if self.epoch - epoch <= PARTS as u64 {
                return (self, Grid::Fits);
            }
            return (Self { epoch, ..self }, Grid::Beyond);
        }
        let steps = usize::try_from(epoch - self.epoch).unwrap_or(HELD).min(HELD);
        self.counts.rotate_right(steps);
        self.counts.iter_mut().take(steps).for_each(|count| *count = 0);
        (Self { epoch, ..self }, Grid::Fits)
    }

    /// Until at least `excess` has left the window: the oldest leave first, whole sub-windows at a
    /// time.
    fn wait(&self, excess: u64, part: Nanos, now: Nanos) -> Nanos {
        let mut left = 0;
        let mut steps = 0_u64;
        for count in self.counts.iter().rev() {
            if left >= excess {
                break;
            }
            left += u64::from(*count);
            steps += 1;
        }
        part.times(self.epoch.saturating_add(steps)) - now
    }

    fn standing(&self, window: &Window, now: Nanos) -> Standing {
        let taken = self.total();
        let remaining = u64::from(window.requests).saturating_sub(taken);
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        Standing { remaining, reset: self.wait(taken, part(window), now) }
    }
}

#[cfg(test)]
mod tests;
