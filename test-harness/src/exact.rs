//! Whether a limit keeps its bound in every span, judged from outside.
//!
//! The gateway decides on a request at some moment between the sending of its first byte and the
//! arrival of its answer. So for any two moments of ours: whatever was sent after the first and
//! answered before the second was decided between them. Where a limit lets at most so many pass in
//! any span of that length, no more of these may have been admitted. Nothing is assumed about delays
//! on the way, about the order of requests, or about what the gateway's clock shows: only that a
//! second is as long there as here.

use crate::pour::Exchange;
use std::time::{Duration, Instant};

/// The span that comes nearest to its bound, or breaks it by most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tightest {
    /// Requests that were certainly admitted in it.
    pub admitted: u64,
    /// What the bound allows.
    pub allowed: u64,
    /// How long it is.
    pub span: Duration,
}

impl Tightest {
    /// Whether the bound is kept, and so in every other span.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.admitted <= self.allowed
    }
}

/// Looks at every span that begins with the sending of a request and ends with an answer, of those
/// requests that were `admitted`. `None` when there are none. A longer span must not be allowed less.
pub fn tightest(
    admitted: &[(Instant, Instant)],
    allowed: impl Fn(Duration) -> u64,
) -> Option<Tightest> {
    let mut by_end = admitted.to_vec();
    by_end.sort_by_key(|(_, done)| *done);
    let mut begins: Vec<Instant> = admitted.iter().map(|(sent, _)| *sent).collect();
    begins.sort_unstable();
    begins.dedup();
    // The shortest span is allowed least: what is not more than that cannot be worse than what was found.
    let least = allowed(Duration::ZERO);
    let over = |admitted: u64, allowed: u64| i128::from(admitted) - i128::from(allowed);
    let mut found: Option<Tightest> = None;
    for begin in begins {
        let from = by_end.partition_point(|(_, done)| *done < begin);
        let within = by_end.iter().skip(from).filter(|(sent, _)| *sent >= begin);
        for ((_, done), admitted) in within.zip(1..) {
            let worse = |allowed: u64| {
                let before = found.map(|before| over(before.admitted, before.allowed));
                before.is_none_or(|before| over(admitted, allowed) > before)
            };
            if !worse(least) {
                continue;
            }
            let span = *done - begin;
            let allowed = allowed(span);
            if worse(allowed) {
                found = Some(Tightest { admitted, allowed, span });
            }
        }
    }
    found
}

/// A token bucket's bound: `burst`, and `requests` for every `per`. Requests are whole, so the
/// product is rounded down.
pub fn bucket(burst: u64, requests: u64, per: Duration) -> impl Fn(Duration) -> u64 {
    move |span| burst + share(requests, span, per)
}

/// A sliding window's bound: `requests` in every `per`. A span that is longer lies in so many
/// windows, one behind the other, as `per` fits into it, and one.
pub fn window(requests: u64, per: Duration) -> impl Fn(Duration) -> u64 {
    move |span| {
        let whole = span.as_nanos() / per.as_nanos().max(1);
        requests * (1 + u64::try_from(whole).unwrap_or(u64::MAX - 1))
    }
}

/// `requests × span / per`, rounded down.
#[must_use]
pub fn share(requests: u64, span: Duration, per: Duration) -> u64 {
    let share = u128::from(requests) * span.as_nanos() / per.as_nanos().max(1);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// For how long at least the limit had nothing left: from its first refusal, which was made before
/// that request was answered, to its last, which was made after that request was sent. `None` when
/// nothing was refused.
#[must_use]
pub fn exhausted(all: &[Exchange], refused: u16) -> Option<Duration> {
    let refusals = || all.iter().filter(|e| e.status == refused);
    let first = refusals().map(|e| e.done).min()?;
    let last = refusals().map(|e| e.sent).max()?;
    Some(last.saturating_duration_since(first))
}

/// As [`exhausted`], for a limit that saves what nobody asks for until it is full, which takes it
/// `full`: without the time in which it may have been full, because nobody asked.
///
/// Takes refusals of which each was sent after the one before was answered. What came back between
/// two of them was given, unless they may lie further apart than `full`.
#[must_use]
pub fn exhausted_without_pauses(
    all: &[Exchange],
    refused: u16,
    full: Duration,
) -> Option<Duration> {
    let chain = one_after_another(all, refused, Duration::ZERO);
    let lost = chain.windows(2).map(|pair| match pair {
        [before, after] => (after.done - before.sent).saturating_sub(full),
        _ => Duration::ZERO,
    });
    let lost: Duration = lost.sum();
    let (first, last) = (chain.first()?, chain.last()?);
    Some(last.sent.saturating_duration_since(first.done).saturating_sub(lost))
}

/// How many refusals certainly were made at least `distance` apart from each other.
#[must_use]
pub fn refusals_apart(all: &[Exchange], refused: u16, distance: Duration) -> u64 {
    u64::try_from(one_after_another(all, refused, distance).len()).unwrap_or(u64::MAX)
}

/// The longest row of refusals of which each was sent so long after the one before was answered.
fn one_after_another(all: &[Exchange], refused: u16, distance: Duration) -> Vec<Exchange> {
    let mut refusals: Vec<_> = all.iter().filter(|e| e.status == refused).copied().collect();
    refusals.sort_by_key(|e| e.done);
    let mut row: Vec<Exchange> = Vec::new();
    for next in refusals {
        if row.last().is_none_or(|last| next.sent >= last.done + distance) {
            row.push(next);
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Requests by when they were sent and answered, in milliseconds.
    fn judge(requests: &[(u64, u64)], allowed: impl Fn(Duration) -> u64) -> Tightest {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let admitted: Vec<_> = requests.iter().map(|(from, to)| (at(*from), at(*to))).collect();
        tightest(&admitted, allowed).unwrap()
    }

    #[test]
    fn one_too_many_in_a_short_span_is_found() {
        let good = [(0, 1), (2, 3), (500, 501), (1000, 1001)];
        assert!(judge(&good, bucket(2, 2, SECOND)).is_kept());
        let bad = judge(&[(0, 1), (2, 3), (490, 499), (1000, 1001)], bucket(2, 2, SECOND));
        let span = Duration::from_millis(499);
        assert_eq!(bad, Tightest { admitted: 3, allowed: 2, span });
    }

    #[test]
    fn what_may_have_been_decided_outside_of_the_span_does_not_count() {
        // The third may have been decided as late as at 600.
        assert!(judge(&[(0, 1), (2, 3), (4, 600)], bucket(2, 2, SECOND)).is_kept());
    }

    /// Refusals by when they were sent and answered, in milliseconds.
    fn refusals(requests: &[(u64, u64)]) -> Vec<Exchange> {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let refusal = |(sent, done): &(u64, u64)| Exchange {
            sent: at(*sent),
            done: at(*done),
            status: 429,
            connection: 0,
        };
        requests.iter().map(refusal).collect()
    }

    #[test]
    fn what_a_full_bucket_could_not_save_is_not_asked_for() {
        let of = |requests: &[(u64, u64)], full| {
            let full = Duration::from_millis(full);
            exhausted_without_pauses(&refusals(requests), 429, full).map(|span| span.as_millis())
        };
        let busy = [(0, 10), (20, 30), (5, 35), (40, 50), (60, 70)];
        assert_eq!(of(&busy, 50), Some(50), "from 10 to 60");
        // From 40 to 270 may be 230, of which it was full for 180.
        let stalled = [(0, 10), (20, 30), (40, 50), (260, 270), (280, 290), (300, 310)];
        assert_eq!(of(&stalled, 50), Some(290 - 180));
        assert_eq!(of(&stalled, 230), Some(290));
        assert_eq!(of(&[], 50), None);
    }

    #[test]
    fn refusals_count_as_apart_only_when_they_certainly_were() {
        let apart = |requests: &[(u64, u64)]| {
            refusals_apart(&refusals(requests), 429, Duration::from_millis(100))
        };
        assert_eq!(apart(&[]), 0);
        assert_eq!(apart(&[(0, 10), (109, 120)]), 1);
        assert_eq!(apart(&[(0, 10), (50, 60), (110, 120), (120, 130), (215, 225), (220, 221)]), 3);
    }

    #[test]
    fn no_window_holds_more_wherever_it_begins() {
        let good = [(0, 1), (900, 901), (1001, 1002), (1901, 1902)];
        assert!(judge(&good, window(2, SECOND)).is_kept());
        let bad = judge(&[(0, 1), (900, 901), (1001, 1002), (1800, 1801)], window(2, SECOND));
        assert_eq!((bad.admitted, bad.allowed), (3, 2));
    }
}
