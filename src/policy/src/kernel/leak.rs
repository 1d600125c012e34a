//! The leaky bucket as a queue: requests pass at even distances, and what comes faster waits.
//!
//! One stamp is the whole queue: the next free turn, in the arithmetic of the token bucket (the
//! continuous-state leaky bucket of ITU-T I.371 annex A is the same algorithm). Turns lie
//! `per / requests` apart without drift; a turn is rounded up to a whole nanosecond. A request of
//! cost `n` takes `n` turns and passes at the first of them.

use super::Judgement;
use super::token_bucket::{self, FullAt};
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
    /// Its turn to the fraction of a nanosecond, and the next free one after it: its place in the queue,
    /// which is nobody else's.
    pub place: Stretch,
}

/// A stretch of the queue, from one turn to another.
pub type Stretch = (FullAt, FullAt);

/// Takes `cost` turns, if the wait for the last of them does not exceed the queue. A cost of zero
/// looks and takes nothing. `remaining` counts the places that are left.
///
/// A stamp far beyond a full queue (the limit's numbers have changed, or the clock was ahead) counts
/// as exactly full.
#[must_use]
pub fn take(old: Turns, leak: &Leak, cost: u32, now: Nanos) -> Judgement<Queued> {
    let (start, wait) = turn(old, leak, now);
    let queued = |next: FullAt, wait: Nanos| Queued {
        turns: Turns { next },
        at: now + wait,
        place: (start, next),
    };
    match token_bucket::take(old.next, &bucket(leak), cost, now) {
        Judgement::Admitted { state, standing } => {
            Judgement::Admitted { state: queued(state, wait), standing }
        }
        Judgement::Refused { mended, standing, retry } => {
            let mended = mended.map(|next| queued(next, standing.reset));
            Judgement::Refused { mended, standing, retry }
        }
    }
}

/// Gives back a place, if nobody has queued up behind it: only then can another take the turn and
/// nobody comes closer to his neighbour. The one before it is the last then.
#[must_use]
pub fn give_back(old: Turns, (start, end): Stretch) -> Turns {
    if old.next == end { Turns { next: start } } else { old }
}

/// The queue as a bucket of places: those that may wait, and the one that passes at once.
fn bucket(leak: &Leak) -> Bucket {
    Bucket { requests: leak.requests, per: leak.per, burst: leak.queue.saturating_add(1) }
}

/// The next free turn, and until then, rounded up.
fn turn(turns: Turns, leak: &Leak, now: Nanos) -> (FullAt, Nanos) {
    match token_bucket::take(turns.next, &bucket(leak), 0, now) {
        Judgement::Admitted { state, standing } => (state, standing.reset),
        // Who asks for nothing is not refused.
        Judgement::Refused { standing, .. } => (turns.next, standing.reset),
    }
}

#[cfg(test)]
mod tests;
