//! What must hold between the numbers of a limit, for policies and for run-time overrides alike.

use super::text::show_span;
use crate::kernel::window::PARTS;
use crate::model::LimitAlgorithm;
use crate::time::Nanos;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Longest time to fill an empty bucket, or to work off a full queue. Stamps must fit into 64-bit
/// nanoseconds (584 years) at all times, and nobody waits that long.
const FILL_MAX: Nanos = Nanos::from_secs(86_400 * 3_650);

/// Shortest part of a sliding window: the host's clock is not finer in practice.
const PART_MIN: Nanos = Nanos::from_millis(1);

/// Shortest distance between two requests of a leaky bucket. Below it nothing could tell that they
/// come one by one: 1,000,000 requests a second is more than one gateway serves.
const DISTANCE_MIN: Nanos = Nanos(1_000);

/// Keys that only some algorithms know.
const OWN: [(&str, &[&str]); 3] = [
    ("burst", &["token_bucket", "adaptive"]),
    ("queue", &["leaky_bucket"]),
    ("adaptive", &["adaptive"]),
];

/// A key that an algorithm does not know.
#[derive(Debug)]
pub(super) struct Foreign {
    /// The key.
    pub(super) key: &'static str,
    /// What is wrong where it is given.
    pub(super) wrong: String,
    /// Where it would be right.
    pub(super) allowed: String,
}

/// The keys that an algorithm, by its word, does not know: what is ignored must not be said.
pub(super) fn foreign_keys(algorithm: &str) -> Vec<Foreign> {
    let foreign = OWN.iter().filter(|(_, of)| !of.contains(&algorithm));
    let told = foreign.map(|(key, of)| Foreign {
        key,
        wrong: format!("means nothing to a limit with algorithm {algorithm}"),
        allowed: format!("only with algorithm {}", of.join(" or ")),
    });
    told.collect()
}

/// Numbers that are good one by one, and no limit together.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The keys that it is about; the first is the one to blame.
    pub(super) keys: &'static [&'static str],
    /// What is wrong.
    pub(super) wrong: String,
    /// What is allowed.
    pub(super) allowed: String,
}

/// Everything that does not fit together.
pub(super) fn misfits(algorithm: &LimitAlgorithm, cost: u32) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    misfits.extend(price(algorithm, cost));
    misfits.extend(fill(algorithm));
    misfits.extend(fineness(algorithm));
    misfits
}

/// A request that takes more than there ever is would always be refused.
fn price(algorithm: &LimitAlgorithm, cost: u32) -> Option<Misfit> {
    let size = algorithm.size();
    if cost <= size {
        return None;
    }
    let (keys, most, more): (&[&str], _, _) = match algorithm {
        LimitAlgorithm::TokenBucket(_) | LimitAlgorithm::Adaptive(_) => {
            (&["cost", "burst"], "the bucket ever holds", "a larger burst")
        }
        LimitAlgorithm::SlidingWindow(_) => {
            (&["cost", "requests"], "a window ever admits", "more `requests`")
        }
        LimitAlgorithm::LeakyBucket(_) => {
            (&["cost", "queue"], "ever fits into the queue and beside it", "a longer queue")
        }
    };
    Some(Misfit {
        keys,
        wrong: format!("{cost} is more than {most}, which is {size}"),
        allowed: format!("at most {size}, or {more}"),
    })
}

/// How long it takes until an empty bucket is full, or a full queue empty.
fn fill(algorithm: &LimitAlgorithm) -> Option<Misfit> {
    let (keys, what): (&[&str], _) = match algorithm {
        LimitAlgorithm::TokenBucket(bucket) => {
            (&["burst", "requests", "per"], format!("a bucket of {}", bucket.burst))
        }
        LimitAlgorithm::Adaptive(adaptive) => {
            (&["burst", "requests", "per"], format!("a bucket of {}", adaptive.bucket.burst))
        }
        LimitAlgorithm::LeakyBucket(leak) => {
            (&["queue", "requests", "per"], format!("a queue of {}", leak.queue))
        }
        // It is never longer than `per`.
        LimitAlgorithm::SlidingWindow(_) => return None,
    };
    let verb = if matches!(algorithm, LimitAlgorithm::LeakyBucket(_)) { "empty" } else { "fill" };
    (spacing(algorithm, algorithm.size()) > FILL_MAX).then(|| Misfit {
        keys,
        wrong: format!("{what} takes more than ten years to {verb}"),
        allowed: format!("at most {} to {verb} it", show_span(FILL_MAX)),
    })
}

/// Spans that no clock can tell apart.
fn fineness(algorithm: &LimitAlgorithm) -> Option<Misfit> {
    let shortest = PART_MIN.times(PARTS as u64);
    match algorithm {
        LimitAlgorithm::SlidingWindow(window) if window.per < shortest => Some(Misfit {
            keys: &["per"],
            wrong: format!(
                "{} is too short for a sliding_window, which counts in {PARTS} parts of it",
                show_span(window.per)
            ),
            allowed: format!("at least {}", show_span(shortest)),
        }),
        LimitAlgorithm::LeakyBucket(leak) if spacing(algorithm, 1) < DISTANCE_MIN => Some(Misfit {
            keys: &["requests", "per"],
            wrong: format!(
                "{} in {} are less than a microsecond apart",
                leak.requests,
                show_span(leak.per)
            ),
            allowed: format!("at most {}, or a longer `per`", leak.per.0 / DISTANCE_MIN.0),
        }),
        _ => None,
    }
}

/// In what time that many tokens come back, rounded down; too long for the clock is its end.
pub(super) fn spacing(algorithm: &LimitAlgorithm, tokens: u32) -> Nanos {
    let whole = u128::from(algorithm.per().0) * u128::from(tokens);
    let span = whole / u128::from(algorithm.requests().max(1));
    Nanos(u64::try_from(span).unwrap_or(u64::MAX))
}
