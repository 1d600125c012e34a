//! The token bucket, kept as one time stamp: GCRA, the generic cell rate algorithm
//! (ITU-T I.371 annex A; the same arithmetic as redis-cell and throttled).
//!
//! The stamp is the *theoretical arrival time*: when the bucket will be full again. All arithmetic
//! is in units of `1 / requests` nanoseconds, in which one token is exactly `per`, so that rates
//! such as 7 in 60 s neither drift nor round: no interval of length `t` admits more than
//! `burst + requests / per * t`.

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

/// How a bucket stands after a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whole tokens left, rounded down: half a token admits nobody.
    pub remaining: u32,
    /// Until the bucket is full, rounded up.
    pub reset: Nanos,
}

/// What the bucket says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The tokens were there; `full_at` is the new stamp.
    Admitted {
        /// To be stored.
        full_at: FullAt,
        /// After the taking.
        standing: Standing,
    },
    /// They were not; nothing changes.
    Refused {
        /// Unchanged by the request.
        standing: Standing,
        /// After exactly this wait the same request is admitted; `None` when it never can be.
        retry: Option<Nanos>,
    },
}

/// Takes `cost` tokens if they are there. A cost of zero looks and takes nothing.
#[must_use]
pub fn take(old: FullAt, bucket: &Bucket, cost: u32, now: Nanos) -> Judgement {
    let scale = Scale::of(bucket);
    let lag = scale.lag(old, now);
    let room = scale.capacity.saturating_sub(lag);
    let wanted = u128::from(cost) * scale.token;
    if wanted <= room {
        let lag = lag + wanted;
        let full_at = scale.stamp(now, lag);
        return Judgement::Admitted { full_at, standing: scale.standing(lag) };
    }
    let retry = (wanted <= scale.capacity).then(|| scale.span(wanted - room));
    Judgement::Refused { standing: scale.standing(lag), retry }
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

    /// How far the bucket is from full. A stamp beyond a whole empty bucket (the limit's numbers
    /// have changed, or the clock was ahead) counts as exactly empty.
    fn lag(&self, full_at: FullAt, now: Nanos) -> u128 {
        let frac = u128::from(full_at.frac).min(self.requests - 1);
        let stamp = u128::from(full_at.ns) * self.requests + frac;
        stamp.saturating_sub(u128::from(now.0) * self.requests).min(self.capacity)
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
mod tests {
    use super::*;

    const fn bucket(requests: u32, per: Nanos, burst: u32) -> Bucket {
        Bucket { requests, per, burst }
    }

    fn ms(n: u64) -> Nanos {
        // An origin far from zero, as a real clock has.
        Nanos::from_secs(1_000) + Nanos::from_millis(n)
    }

    /// The table of throttled and redis-cell: limit 5, one per second; columns are time, volume ->
    /// remaining, reset, retry (`None` and refused means never), limited.
    #[test]
    fn the_table_of_throttled_and_redis_cell_holds() {
        let limit = bucket(1, Nanos::SECOND, 5);
        let mut full_at = FullAt::default();
        type Row = (u64, u32, u32, u64, Option<u64>, bool);
        let rows: &[Row] = &[
            (0, 6, 5, 0, None, true),
            (0, 1, 4, 1000, None, false),
            (0, 1, 3, 2000, None, false),
            (0, 1, 2, 3000, None, false),
            (0, 1, 1, 4000, None, false),
            (0, 1, 0, 5000, None, false),
            (0, 1, 0, 5000, Some(1000), true),
            (3000, 1, 2, 3000, None, false),
            (3100, 1, 1, 3900, None, false),
            (4000, 1, 1, 4000, None, false),
            (8000, 1, 4, 1000, None, false),
            (9500, 1, 4, 1000, None, false),
            (9500, 0, 4, 1000, None, false),
            (9500, 2, 2, 3000, None, false),
            (9500, 5, 2, 3000, Some(3000), true),
            (15000, 6, 5, 0, None, true),
        ];
        for (row, (at, volume, remaining, reset, retry, limited)) in rows.iter().enumerate() {
            let judgement = take(full_at, &limit, *volume, ms(*at));
            let expected = Standing { remaining: *remaining, reset: Nanos::from_millis(*reset) };
            match judgement {
                Judgement::Admitted { full_at: new, standing } => {
                    assert!(!limited, "row {row}");
                    assert_eq!(standing, expected, "row {row}");
                    full_at = new;
                }
                Judgement::Refused { standing, retry: wait } => {
                    assert!(limited, "row {row}");
                    assert_eq!(standing, expected, "row {row}");
                    assert_eq!(wait, retry.map(Nanos::from_millis), "row {row}");
                }
            }
        }
    }

    #[test]
    fn waiting_exactly_the_retry_time_admits_and_a_nanosecond_less_does_not() {
        for limit in [
            bucket(7, Nanos::from_secs(60), 3),
            bucket(1, Nanos::from_secs(3), 1),
            bucket(u32::MAX, Nanos::SECOND, 1),
            bucket(3, Nanos::from_millis(1), 2),
        ] {
            let mut full_at = FullAt::default();
            let mut now = ms(0);
            for _ in 0..200 {
                match take(full_at, &limit, 1, now) {
                    Judgement::Admitted { full_at: new, .. } => full_at = new,
                    Judgement::Refused { retry, .. } => {
                        let wait = retry.unwrap();
                        assert!(wait > Nanos::ZERO);
                        let early = take(full_at, &limit, 1, now + (wait - Nanos(1)));
                        assert!(matches!(early, Judgement::Refused { .. }), "{limit:?}");
                        now = now + wait;
                        let due = take(full_at, &limit, 1, now);
                        assert!(matches!(due, Judgement::Admitted { .. }), "{limit:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn polling_a_million_times_gives_the_same_tokens_as_one_jump() {
        let limit = bucket(7, Nanos::from_secs(60), 7);
        let admitted = |step: u64, end: u64| {
            let mut full_at = FullAt::default();
            let mut count = 0;
            let mut at = 0;
            while at <= end {
                if let Judgement::Admitted { full_at: new, .. } =
                    take(full_at, &limit, 1, Nanos(at))
                {
                    full_at = new;
                    count += 1;
                }
                at += step;
            }
            count
        };
        let minute = Nanos::from_secs(60).0;
        // 7 at once, then one every 60/7 s: 7 more in one minute, neither lost nor gained.
        assert_eq!(admitted(60_000_000, minute), 14);
        assert_eq!(admitted(60_000, minute), 14);
    }

    #[test]
    fn no_window_admits_more_than_the_bound() {
        let limit = bucket(10, Nanos::SECOND, 4);
        let mut full_at = FullAt::default();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut now = 0_u64;
        let mut taken = std::vec::Vec::new();
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += (state >> 33) % 120_000_000;
            if let Judgement::Admitted { full_at: new, .. } = take(full_at, &limit, 1, Nanos(now)) {
                full_at = new;
                taken.push(now);
            }
        }
        for (index, start) in taken.iter().enumerate() {
            for (count, end) in taken.iter().skip(index).take(100).enumerate() {
                let bound = 4 + (end - start) / 100_000_000;
                assert!((count as u64) < bound, "{} in {} ns", count + 1, end - start);
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_never_more_than_a_full_bucket() {
        let limit = bucket(1, Nanos::from_secs(60), 2);
        let now = ms(0);
        let Judgement::Admitted { full_at, .. } = take(FullAt::default(), &limit, 2, now) else {
            unreachable!("a full bucket admits its burst")
        };
        let back = give_back(full_at, &limit, 1, now);
        assert!(matches!(take(back, &limit, 1, now), Judgement::Admitted { .. }));
        assert!(matches!(take(back, &limit, 2, now), Judgement::Refused { .. }));
        let over = give_back(give_back(full_at, &limit, 2, now), &limit, 2, now);
        assert!(matches!(take(over, &limit, 3, now), Judgement::Refused { retry: None, .. }));
        assert!(matches!(take(over, &limit, 2, now), Judgement::Admitted { .. }));
    }

    #[test]
    fn a_clock_that_steps_back_admits_no_more_than_one_that_stands_still() {
        let limit = bucket(1, Nanos::SECOND, 2);
        let Judgement::Admitted { full_at, .. } = take(FullAt::default(), &limit, 2, ms(5_000))
        else {
            unreachable!("a full bucket admits its burst")
        };
        assert!(matches!(take(full_at, &limit, 1, ms(0)), Judgement::Refused { .. }));
        // And it recovers within one empty bucket of the step, however far the clock was ahead.
        let Judgement::Refused { retry, .. } = take(full_at, &limit, 1, Nanos(0)) else {
            unreachable!("nothing was given back")
        };
        assert_eq!(retry, Some(Nanos::SECOND));
    }
}
