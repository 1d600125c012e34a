//! The tables of the field and the properties of the bucket.

use super::super::testing::{Dice, Log, ms};
use super::*;

const fn bucket(requests: u32, per: Nanos, burst: u32) -> Bucket {
    Bucket { requests, per, burst }
}

/// Takes, and stores what is to be stored, as the stage does.
fn ask(state: &mut FullAt, bucket: &Bucket, cost: u32, now: Nanos) -> Judgement<FullAt> {
    let judgement = take(*state, bucket, cost, now);
    match judgement {
        Judgement::Admitted { state: new, .. } => *state = new,
        Judgement::Refused { mended, .. } => *state = mended.unwrap_or(*state),
    }
    judgement
}

fn admits(state: &mut FullAt, bucket: &Bucket, cost: u32, now: Nanos) -> bool {
    matches!(ask(state, bucket, cost, now), Judgement::Admitted { .. })
}

fn remaining(state: FullAt, bucket: &Bucket, now: Nanos) -> u32 {
    match take(state, bucket, 0, now) {
        Judgement::Admitted { standing, .. } | Judgement::Refused { standing, .. } => {
            standing.remaining
        }
    }
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

/// governor's cases: requests per second, then when and how many are asked for, and the answer.
#[test]
fn the_cases_of_governor_hold() {
    type Row = (u64, u32, bool);
    let twenty: std::vec::Vec<Row> =
        (0..20).map(|_| (0, 1, true)).chain([(2, 1, false), (1_000, 1, true)]).collect();
    let cases: [(u32, &[Row]); 4] = [
        (
            2,
            &[
                (0, 1, true),
                (1, 1, true),
                (2, 1, false),
                (1_002, 1, true),
                (1_003, 1, true),
                (1_004, 1, false),
            ],
        ),
        (5, &[(0, 5, true), (0, 1, false), (2_000, 5, true), (2_000, 1, false)]),
        (5, &[(0, 6, false), (0, 15, false), (0, 5, true)]),
        (20, &twenty),
    ];
    for (rate, rows) in cases {
        let limit = bucket(rate, Nanos::SECOND, rate);
        let mut state = FullAt::default();
        for (at, cost, admitted) in rows {
            assert_eq!(admits(&mut state, &limit, *cost, ms(*at)), *admitted, "{rate}/s at {at}");
        }
    }
}

/// limitador: 5 twice on 10, then one more; and more than there can ever be.
#[test]
fn the_cases_of_limitador_hold() {
    let limit = bucket(10, Nanos::from_secs(60), 10);
    let mut state = FullAt::default();
    assert!(admits(&mut state, &limit, 5, ms(0)) && admits(&mut state, &limit, 5, ms(0)));
    assert!(!admits(&mut state, &limit, 1, ms(0)));
    let judgement = take(FullAt::default(), &limit, 11, ms(0));
    assert!(matches!(judgement, Judgement::Refused { retry: None, .. }));
}

/// governor's property of exact waits: refused at every fraction of the time, admitted at its end.
#[test]
fn a_wait_is_exact_at_every_capacity() {
    for capacity in 1..=10_000 {
        let limit = bucket(capacity, Nanos::SECOND, capacity);
        let mut state = FullAt::default();
        assert!(admits(&mut state, &limit, capacity, ms(0)));
        for cost in [1, capacity.div_ceil(3), capacity] {
            let judgement = take(state, &limit, cost, ms(0));
            let Judgement::Refused { retry: Some(wait), .. } = judgement else {
                unreachable!("{judgement:?}")
            };
            let early = (0..8).map(|eighth| Nanos(wait.0 / 8 * eighth)).chain([wait - Nanos(1)]);
            for before in early {
                assert!(!admits(&mut state.clone(), &limit, cost, ms(0) + before), "{capacity}");
            }
            assert!(admits(&mut state.clone(), &limit, cost, ms(0) + wait), "{capacity}");
        }
    }
}

/// The worst that anybody can get: 199 in a window of which the limit is 100.
#[test]
fn the_adversary_gets_the_burst_and_the_rate_and_no_more() {
    let limit = bucket(100, Nanos::from_secs(60), 100);
    let mut state = FullAt::default();
    let mut log = Log::default();
    for at in (0..300_000).step_by(100) {
        while admits(&mut state, &limit, 1, ms(at)) {
            log.add(ms(at), 1);
        }
    }
    assert_eq!(log.worst(Nanos::from_secs(60)), 199);
    assert_eq!(log.total(), 100 + 499);
}

#[test]
fn what_remains_is_never_more_than_the_burst_and_none_means_refused() {
    let mut dice = Dice(1);
    let limit = bucket(7, Nanos::from_secs(60), 9);
    let mut state = FullAt::default();
    let mut now = ms(0);
    for _ in 0..10_000 {
        now = now + Nanos(dice.below(20_000_000_000));
        let left = remaining(state, &limit, now);
        assert!(left <= 9);
        assert_eq!(left == 0, !admits(&mut state.clone(), &limit, 1, now));
        let before = state;
        match ask(&mut state, &limit, 1 + dice.count(4), now) {
            Judgement::Admitted { standing, .. } => {
                assert_eq!(standing.remaining, remaining(state, &limit, now));
                let full = now + standing.reset;
                assert!(admits(&mut state.clone(), &limit, 9, full));
                assert!(!admits(&mut state.clone(), &limit, 9, full - Nanos(1)));
            }
            Judgement::Refused { .. } => assert_eq!(state, before, "a refusal changes nothing"),
        }
    }
}

#[test]
fn a_weight_of_n_is_n_times_one() {
    let limit = bucket(7, Nanos::from_secs(60), 30);
    for weight in 0..=30 {
        let (mut once, mut often) = (FullAt::default(), FullAt::default());
        assert!(admits(&mut once, &limit, weight, ms(1)));
        for _ in 0..weight {
            assert!(admits(&mut often, &limit, 1, ms(1)));
        }
        let look = |state| take(state, &limit, 0, ms(1));
        assert_eq!(look(once), look(often));
    }
}

#[test]
fn odd_rates_neither_lose_nor_gain_a_token() {
    for (requests, per) in [(1, 3_000_000_000), (7, 60_000_000_000), (u32::MAX, 1_000_000_000)] {
        let limit = bucket(requests, Nanos(per), 1_000);
        let mut state = FullAt::default();
        assert!(admits(&mut state, &limit, 1_000, ms(0)));
        let mut dice = Dice(u64::from(requests));
        let (mut now, mut taken) = (ms(0), 0_u128);
        for _ in 0..50_000 {
            now = now + Nanos(dice.below(100 * per / u64::from(requests) + 2));
            let left = remaining(state, &limit, now);
            assert!(admits(&mut state, &limit, left, now));
            taken += u128::from(left);
            // The bucket was never full: all that came is taken, but for a part of one token.
            let came = u128::from((now - ms(0)).0) * u128::from(requests) / u128::from(per);
            assert_eq!(taken, came);
        }
    }
}

#[test]
fn numbers_that_changed_clamp_the_debt_once_and_the_wait_ends() {
    let slow = bucket(1, Nanos::from_secs(86_400), 100);
    let mut state = FullAt::default();
    assert!(admits(&mut state, &slow, 100, ms(0)));
    // A hundred days of debt; the new limit is full again after a second.
    let fast = bucket(100, Nanos::SECOND, 100);
    let judgement = ask(&mut state, &fast, 1, ms(0));
    let Judgement::Refused { mended: Some(_), retry: Some(wait), .. } = judgement else {
        unreachable!("{judgement:?}")
    };
    assert_eq!(wait, Nanos::from_millis(10));
    assert!(!admits(&mut state, &fast, 1, ms(0) + (wait - Nanos(1))));
    assert!(admits(&mut state, &fast, 1, ms(0) + wait));
    let again = take(state, &fast, 100, ms(0) + wait);
    assert!(matches!(again, Judgement::Refused { mended: None, .. }), "once");
}

/// A worker that was held up between reading its clock and asking found the bucket "more than empty",
/// wrote it back as just empty, and so forgave the time for which it was held up: a real Envoy with more
/// workers than processors admitted a few requests too many each second.
#[test]
fn a_worker_whose_clock_was_read_too_early_forgives_nothing() {
    let limit = bucket(200, Nanos::SECOND, 50);
    let mut state = FullAt::default();
    assert!(admits(&mut state, &limit, 50, ms(20)));
    let judgement = take(state, &limit, 1, ms(0));
    let Judgement::Refused { mended: None, retry: Some(wait), .. } = judgement else {
        unreachable!("{judgement:?}")
    };
    assert_eq!(ms(0) + wait, ms(25), "when it really is there");
    assert_eq!(give_back(state, &limit, 1, ms(0)), give_back(state, &limit, 1, ms(20)));
    assert!(!admits(&mut state, &limit, 1, ms(24)));
    assert!(admits(&mut state, &limit, 1, ms(25)));
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let end = Nanos(u64::MAX);
    for limit in
        [bucket(u32::MAX, Nanos(1), u32::MAX), bucket(1, end, 1), bucket(u32::MAX, end, u32::MAX)]
    {
        let mut state = FullAt::default();
        assert!(admits(&mut state, &limit, limit.burst, Nanos::ZERO));
        assert!(!admits(&mut state, &limit, 1, Nanos::ZERO));
        let stamp = FullAt { ns: u64::MAX, frac: u32::MAX };
        for now in [Nanos::ZERO, end] {
            let left = remaining(stamp, &limit, now);
            assert_eq!(left == 0, !admits(&mut stamp.clone(), &limit, 1, now));
            assert!(remaining(give_back(stamp, &limit, u32::MAX, now), &limit, now) >= left);
        }
    }
}
