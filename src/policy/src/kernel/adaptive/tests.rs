//! It is the token bucket without load, never more with load, and recovers.

use super::super::testing::{Dice, Log, ORIGIN, ms};
use super::super::{load, token_bucket};
use super::*;
use crate::model::Bucket;

/// A rate that the levels hold exactly: `requests` tokens in 2^30 ns.
const EXACT: Nanos = Nanos(1 << 30);

const fn adaptive(requests: u32, per: Nanos, burst: u32) -> Adaptive {
    Adaptive { bucket: Bucket { requests, per, burst }, threshold: 700, floor: 200 }
}

/// Takes, and stores what is to be stored, as the stage does.
fn ask(state: &mut Levels, limit: &Adaptive, cost: u32, load: u32, now: Nanos) -> Judgement {
    let judgement = take(*state, limit, cost, load, now);
    match judgement {
        Judgement::Admitted { state: new, .. } => *state = new,
        Judgement::Refused { mended, .. } | Judgement::Overloaded { mended, .. } => {
            *state = mended.unwrap_or(*state);
        }
    }
    judgement
}

fn admits(state: &mut Levels, limit: &Adaptive, cost: u32, load: u32, now: Nanos) -> bool {
    matches!(ask(state, limit, cost, load, now), Judgement::Admitted { .. })
}

fn parts(judgement: Judgement) -> (Standing, Option<Nanos>) {
    match judgement {
        Judgement::Admitted { standing, .. } => (standing, Some(Nanos::ZERO)),
        Judgement::Refused { standing, retry, .. }
        | Judgement::Overloaded { standing, retry, .. } => (standing, retry),
    }
}

#[test]
fn the_share_of_the_rate_falls_evenly_from_the_threshold_to_the_floor() {
    let limit = adaptive(1, EXACT, 1);
    let expected = [(0, 1_000), (700, 1_000), (701, 997), (850, 600), (1_000, 200), (9_999, 200)];
    for (load, share) in expected {
        assert_eq!(factor(&limit, load), share, "{load}");
    }
    let mut dice = Dice(1);
    for _ in 0..2_000 {
        let threshold = 1 + dice.count(999);
        let limit = Adaptive { threshold, floor: 1 + dice.count(1_000), ..limit };
        let shares = (0..=1_001).map(|load| factor(&limit, load));
        assert!(shares.clone().is_sorted_by(|a, b| a >= b), "{limit:?}");
        assert!(shares.clone().all(|share| (limit.floor..=1_000).contains(&share)));
        assert_eq!(factor(&limit, threshold), 1_000);
        assert_eq!(factor(&limit, 1_000), limit.floor);
    }
}

#[test]
fn without_load_it_is_the_token_bucket() {
    let mut dice = Dice(2);
    for requests in [1, 3, 100, 4_096] {
        let limit = adaptive(requests, EXACT, 1 + dice.count(40));
        let (mut levels, mut stamp) = (Levels::default(), token_bucket::FullAt::default());
        let mut now = ORIGIN;
        for step in 0..4_000 {
            now = now + Nanos(dice.below(3 * EXACT.0 / u64::from(requests)));
            let cost = dice.count(u64::from(limit.bucket.burst) + 2);
            let here = ask(&mut levels, &limit, cost, dice.count(701), now);
            match token_bucket::take(stamp, &limit.bucket, cost, now) {
                super::super::Judgement::Admitted { state, standing } => {
                    stamp = state;
                    assert_eq!(parts(here), (standing, Some(Nanos::ZERO)), "{step}");
                }
                super::super::Judgement::Refused { standing, retry, .. } => {
                    assert!(matches!(here, Judgement::Refused { .. }));
                    assert_eq!(parts(here), (standing, retry), "{step}");
                }
            }
        }
    }
}

#[test]
fn no_interval_admits_more_than_the_burst_and_the_full_rate() {
    let mut dice = Dice(3);
    for (requests, per) in [(100, 60_000_000_000), (7, 60_000_000_000), (1, 3_000_000_000)] {
        let limit = adaptive(requests, Nanos(per), 1 + dice.count(100));
        let mut state = Levels::default();
        let mut log = Log::default();
        let mut now = ORIGIN;
        let mut load = 0;
        for _ in 0..20_000 {
            now = now + Nanos(dice.below(2 * per / u64::from(requests)));
            if dice.below(20) == 0 {
                load = dice.count(1_001);
            }
            if admits(&mut state, &limit, 1, load, now) {
                log.add(now, 1);
            }
        }
        for tokens in [1, 5, 50, 1_000] {
            let span = Nanos(tokens * per / u64::from(requests));
            assert!(log.worst(span) <= u64::from(limit.bucket.burst) + tokens, "{limit:?}");
        }
    }
}

#[test]
fn under_a_steady_load_it_admits_its_share_and_no_more() {
    let limit = adaptive(1_000, Nanos::SECOND, 10);
    for load in [0, 700, 800, 900, 1_000] {
        let mut state = Levels::default();
        let mut admitted = 0;
        for at in 0..100_000 {
            while admits(&mut state, &limit, 1, load, ORIGIN + Nanos(at * 200_000)) {
                admitted += 1;
            }
        }
        let most = 20 * factor(&limit, load) + 10;
        assert!(admitted <= most && admitted * 100 >= most * 99, "{admitted} of {most} at {load}");
    }
}

#[test]
fn more_load_never_admits_more_and_never_tells_a_shorter_wait() {
    let mut dice = Dice(4);
    let limit = adaptive(50, Nanos::SECOND, 20);
    for _ in 0..20_000 {
        let full = dice.below(20 << FRACTION);
        let scaled = full + dice.below((20 << FRACTION) - full);
        let old = Levels { at: ORIGIN.0, scaled, full };
        let now = ORIGIN + Nanos(dice.below(500_000_000));
        let (low, cost) = (dice.count(1_001), 1 + dice.count(20));
        let high = low + dice.count(1_001 - u64::from(low));
        let (less, more) = (take(old, &limit, cost, low, now), take(old, &limit, cost, high, now));
        let admitted = |judgement| matches!(judgement, Judgement::Admitted { .. });
        assert!(admitted(less) || !admitted(more));
        let left = |load| parts(take(old, &limit, 0, load, now)).0.remaining;
        assert!(left(low) >= left(high));
        assert!(parts(less).1 <= parts(more).1);
        // Whether it is the load's doing does not depend on the load, where there is some.
        let overloaded = |judgement| matches!(judgement, Judgement::Overloaded { .. });
        if factor(&limit, low) == 1_000 {
            assert!(!overloaded(less));
        } else if !admitted(less) {
            assert_eq!(overloaded(less), overloaded(more));
        }
    }
}

#[test]
fn a_refusal_is_the_loads_doing_if_the_full_rate_would_have_admitted() {
    let limit = adaptive(10, Nanos::SECOND, 10);
    let mut state = Levels::default();
    assert!(admits(&mut state, &limit, 10, 1_000, ms(0)));
    assert!(matches!(ask(&mut state, &limit, 1, 1_000, ms(99)), Judgement::Refused { .. }));
    let judgement = ask(&mut state, &limit, 1, 1_000, ms(100));
    let Judgement::Overloaded { standing, retry, .. } = judgement else {
        unreachable!("{judgement:?}")
    };
    // A fifth of the rate: the token comes after 500 ms.
    assert_eq!((standing.remaining, retry), (0, Some(Nanos::from_millis(400))));
    assert!(admits(&mut state, &limit, 1, 1_000, ms(500)));
    // And without load at once what the full rate has earned: nothing is owed for the load.
    assert!(admits(&mut state, &limit, 5, 0, ms(1_000)));
}

/// Under steady demand the level that decides stays where the load has left it, and the other one never
/// catches up: clients were told for ever that the service is overloaded.
#[test]
fn when_the_load_is_gone_a_refusal_is_the_clients_doing_again() {
    let limit = adaptive(10, Nanos::SECOND, 10);
    let mut state = Levels::default();
    assert!(admits(&mut state, &limit, 10, 1_000, ms(0)));
    assert!(admits(&mut state, &limit, 1, 1_000, ms(500)));
    assert!(matches!(ask(&mut state, &limit, 1, 1_000, ms(500)), Judgement::Overloaded { .. }));
    assert!(matches!(ask(&mut state, &limit, 1, 0, ms(500)), Judgement::Refused { .. }));
}

#[test]
fn waiting_exactly_the_retry_time_admits_and_a_nanosecond_less_does_not() {
    let mut dice = Dice(5);
    for (requests, per, burst) in [
        (7, 60_000_000_000, 3),
        (1, 3_000_000_000, 1),
        (u32::MAX, 1_000_000_000, 5),
        (3, 1_000_000, 2),
        (4_999, 77_777_777_777, 900),
    ] {
        let limit = adaptive(requests, Nanos(per), burst);
        let mut state = Levels::default();
        let mut now = ORIGIN;
        for _ in 0..400 {
            let (load, cost) = (dice.count(1_001), 1 + dice.count(u64::from(burst)));
            let judgement = ask(&mut state, &limit, cost, load, now);
            if !matches!(judgement, Judgement::Admitted { .. }) {
                let wait = parts(judgement).1.unwrap();
                assert!(wait > Nanos::ZERO);
                let early = now + (wait - Nanos(1));
                assert!(!admits(&mut state.clone(), &limit, cost, load, early), "{limit:?}");
                now = now + wait;
                assert!(admits(&mut state, &limit, cost, load, now), "{limit:?}");
            }
            let standing = parts(take(state, &limit, 0, load, now)).0;
            let full = take(state, &limit, burst, load, now + standing.reset);
            assert!(matches!(full, Judgement::Admitted { .. }), "it is full when it says so");
        }
    }
}

#[test]
fn none_remaining_means_refused_and_a_refusal_changes_nothing() {
    let mut dice = Dice(6);
    let limit = adaptive(20, Nanos::SECOND, 8);
    let mut state = Levels::default();
    let mut now = ORIGIN;
    for _ in 0..10_000 {
        now = now + Nanos::from_millis(dice.below(120));
        let load = dice.count(1_001);
        let left = parts(take(state, &limit, 0, load, now)).0.remaining;
        assert!(left <= 8);
        assert_eq!(left == 0, !admits(&mut state.clone(), &limit, 1, load, now));
        let before = state;
        let judgement = ask(&mut state, &limit, 1 + dice.count(4), load, now);
        if !matches!(judgement, Judgement::Admitted { .. }) {
            assert_eq!(state, before);
        }
        assert!(state.full <= state.scaled);
    }
    let never = take(Levels::default(), &limit, 9, 0, now);
    assert_eq!(parts(never).1, None, "{never:?}");
}

#[test]
fn a_weight_of_n_is_n_times_one() {
    let limit = adaptive(3, Nanos::SECOND, 9);
    for weight in 0..=9 {
        let (mut once, mut often) = (Levels::default(), Levels::default());
        assert!(admits(&mut once, &limit, weight, 900, ms(1)));
        for _ in 0..weight {
            assert!(admits(&mut often, &limit, 1, 900, ms(1)));
        }
        if weight > 0 {
            assert_eq!(once, often);
        }
    }
}

#[test]
fn a_million_looks_lose_nothing_and_as_many_admissions_hardly_more() {
    let limit = adaptive(7, Nanos::from_secs(60), 7);
    let mut state = Levels::default();
    let mut admitted = 0;
    for at in 0..1_000_000 {
        admitted += u32::from(admits(&mut state, &limit, 1, 0, ORIGIN + Nanos(at * 60_000)));
    }
    // 7 at once and 7 more in one minute, of which the last comes with the minute's end.
    assert_eq!(admitted, 13);
    assert!(admits(&mut state, &limit, 1, 0, ORIGIN + Nanos::from_secs(60) + Nanos(10)));
}

#[test]
fn what_is_given_back_can_be_taken_again_and_never_more_than_a_full_bucket() {
    let limit = adaptive(1, Nanos::from_secs(60), 4);
    let mut state = Levels::default();
    assert!(admits(&mut state, &limit, 4, 1_000, ms(0)));
    let mut back = give_back(state, 3);
    assert!(admits(&mut back.clone(), &limit, 3, 1_000, ms(0)));
    assert!(!admits(&mut back, &limit, 4, 1_000, ms(0)));
    let mut over = give_back(give_back(state, 4), u32::MAX);
    assert_eq!((over.scaled, over.full), (0, 0));
    assert!(!admits(&mut over, &limit, 5, 0, ms(0)));
}

#[test]
fn a_clock_that_steps_back_drains_no_time_twice() {
    let limit = adaptive(10, Nanos::SECOND, 10);
    let mut state = Levels::default();
    let mut admitted = 0;
    for second in 0..100 {
        // Two workers, of which one reads a clock that is half a second behind.
        for at in [second * 1_000, second * 1_000 - 500.min(second * 1_000)] {
            while admits(&mut state, &limit, 1, 0, ms(at)) {
                admitted += 1;
            }
        }
    }
    assert_eq!(admitted, 10 + 990);
}

#[test]
fn levels_and_times_beyond_all_bounds_are_mended_and_the_wait_ends() {
    let limit = adaptive(10, Nanos::SECOND, 10);
    let beyond = Levels { at: u64::MAX, scaled: u64::MAX, full: u64::MAX };
    for load in [0, 1_000] {
        let mut state = beyond;
        let judgement = ask(&mut state, &limit, 1, load, ms(0));
        assert!(matches!(judgement, Judgement::Refused { mended: Some(_), .. }));
        let wait = parts(judgement).1.unwrap();
        assert_eq!(wait, Nanos::from_millis(if load == 0 { 100 } else { 500 }));
        assert!(!admits(&mut state, &limit, 1, load, ms(0) + (wait - Nanos(1))));
        assert!(admits(&mut state, &limit, 1, load, ms(0) + wait));
    }
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let end = Nanos(u64::MAX);
    for (requests, per, burst) in
        [(u32::MAX, 1, u32::MAX), (1, u64::MAX, u32::MAX), (u32::MAX, u64::MAX, 1), (1, 1, 1)]
    {
        let limit = adaptive(requests, Nanos(per), burst);
        for now in [Nanos::ZERO, end] {
            for load in [0, 1_000] {
                let mut state = Levels::default();
                assert!(admits(&mut state, &limit, burst, load, now), "{limit:?}");
                assert!(!admits(&mut state, &limit, 1, load, now), "{limit:?}");
                let retry = parts(take(state, &limit, 1, load, now)).1;
                assert!(retry.is_some_and(|wait| wait > Nanos::ZERO) || now == end);
            }
        }
    }
}

/// The whole loop: what is admitted makes the load, and the load rules what is admitted.
#[test]
fn the_loop_of_load_and_rate_settles_and_recovers() {
    let limit = Adaptive { floor: 500, ..adaptive(1_000, Nanos::SECOND, 10) };
    let mut state = Levels::default();
    let mut held = None;
    let mut served = std::vec::Vec::new();
    for second in 0..120_u64 {
        let mut count = 0;
        for at in 0..5_000_u64 {
            let now = ORIGIN + Nanos::from_secs(second) + Nanos(at * 200_000);
            let load = held.map_or(0, |held: load::Held| held.load(now));
            // For a minute, the machine is full with a thousand requests a second.
            count += u32::from(admits(&mut state, &limit, 1, load, now));
        }
        served.push(count);
        let sample = if second < 60 { count } else { count / 3 };
        held = Some(load::hear(held, sample, ORIGIN + Nanos::from_secs(second + 1)));
    }
    // Where the rate's line meets the load's: 812 a second.
    let settled = &served[20..60];
    assert!(settled.iter().all(|count| (650..=950).contains(count)), "{settled:?}");
    let mean = settled.iter().sum::<u32>() / 40;
    assert!((750..=860).contains(&mean), "{mean}");
    assert!(served[70..].iter().all(|count| *count >= 995), "{:?}", &served[60..]);
}
