//! The tables of the field and the properties of the bucket.

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
            Judgement::Admitted { state: new, standing } => {
                assert!(!limited, "row {row}");
                assert_eq!(standing, expected, "row {row}");
                full_at = new;
            }
            Judgement::Refused { standing, retry: wait, .. } => {
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
                Judgement::Admitted { state: new, .. } => full_at = new,
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
            if let Judgement::Admitted { state: new, .. } = take(full_at, &limit, 1, Nanos(at)) {
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
        if let Judgement::Admitted { state: new, .. } = take(full_at, &limit, 1, Nanos(now)) {
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
    let Judgement::Admitted { state: full_at, .. } = take(FullAt::default(), &limit, 2, now) else {
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
    let Judgement::Admitted { state: full_at, .. } = take(FullAt::default(), &limit, 2, ms(5_000))
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
