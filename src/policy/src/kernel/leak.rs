//! The leaky bucket as a queue: requests pass at even distances, and what comes faster waits.
//!
//! One stamp is the whole queue: the next free turn, in the arithmetic of the token bucket (the
//! continuous-state leaky bucket of ITU-T I.371 annex A is the same algorithm). Turns lie
//! `per / requests` apart without drift; a turn is rounded up to a whole nanosecond. A request of
//! cost `n` takes `n` turns and passes at the first of them.

use super::token_bucket::{self, FullAt};
use super::{Judgement, Standing};
use crate::model::{Bucket, Leak};
use crate::time::Nanos;

/// A queue as it is kept. The default is an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// The next free turn; in the past, a request passes at once.
    pub next: FullAt,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// To be stored.
    pub turns: Turns,
    /// The request's turn; not after now means that it passes at once.
    pub at: Nanos,
    /// The next free turn after it, which tells its place from all others.
    pub end: FullAt,
}

/// Takes `cost` turns, if the wait for the last of them does not exceed the queue. A cost of zero
/// looks and takes nothing. `remaining` counts the places that are left.
///
/// A stamp far beyond a full queue (the limit's numbers have changed, or the clock was ahead) counts
/// as exactly full.
#[must_use]
pub fn take(old: Turns, leak: &Leak, cost: u32, now: Nanos) -> Judgement<Queued> {
    let queued =
        |next: FullAt, wait: Nanos| Queued { turns: Turns { next }, at: now + wait, end: next };
    match token_bucket::take(old.next, &bucket(leak), cost, now) {
        Judgement::Admitted { state, standing } => {
            let wait = wait(old, leak, now);
            Judgement::Admitted { state: queued(state, wait), standing }
        }
        Judgement::Refused { mended, standing, retry } => {
            let mended = mended.map(|next| queued(next, standing.reset));
            Judgement::Refused { mended, standing, retry }
        }
    }
}

/// Gives back the place that ends at `place.1`, if nobody has queued up behind it: only then can
/// another take the turn and nobody comes closer to his neighbour. `place.0` is its turn.
#[must_use]
pub fn give_back(old: Turns, place: (Nanos, FullAt)) -> Turns {
    let (at, end) = place;
    // The turn may be a fraction of a nanosecond later than it was before; it is so only once.
    if old.next == end { Turns { next: FullAt { ns: at.0, frac: 0 } } } else { old }
}

/// The queue as a bucket of places: those that may wait, and the one that passes at once.
fn bucket(leak: &Leak) -> Bucket {
    Bucket { requests: leak.requests, per: leak.per, burst: leak.queue.saturating_add(1) }
}

/// Until the next free turn, rounded up.
fn wait(turns: Turns, leak: &Leak, now: Nanos) -> Nanos {
    match token_bucket::take(turns.next, &bucket(leak), 0, now) {
        Judgement::Admitted { standing: Standing { reset, .. }, .. }
        | Judgement::Refused { standing: Standing { reset, .. }, .. } => reset,
    }
}

#[cfg(test)]
mod tests;
