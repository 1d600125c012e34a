//! The bound in every window, wherever it begins, and what it costs.

use super::super::testing::{Dice, Log, ORIGIN, ms};
use super::*;
use alloc::vec::Vec;

const fn window(requests: u32, per: Nanos) -> Window {
    Window { requests, per }
}

/// Takes, and stores what is to be stored, as the stage does.
fn ask(state: &mut Counts, window: &Window, cost: u32, now: Nanos) -> Judgement<Counts> {
    let judgement = take(*state, window, cost, now);
    match judgement {
        Judgement::Admitted { state: new, .. } => *state = new,
        Judgement::Refused { mended, .. } => *state = mended.unwrap_or(*state),
    }
    judgement
}

fn admits(state: &mut Counts, window: &Window, cost: u32, now: Nanos) -> bool {
    matches!(ask(state, window, cost, now), Judgement::Admitted { .. })
}

fn remaining(state: Counts, window: &Window, now: Nanos) -> u32 {
    match take(state, window, 0, now) {
        Judgement::Admitted { standing, .. } | Judgement::Refused { standing, .. } => {
            standing.remaining
        }
    }
}

/// envoyproxy/ratelimit's and limitador's cases, as far as they do not rest on a fixed window:
/// limit, then what is asked for, whether it is admitted, and what remains.
#[test]
fn the_cases_of_envoyproxy_ratelimit_and_limitador_hold() {
    type Row = (u32, bool, u32);
    let cases: [(u32, &[Row]); 4] = [
        (15, &[(11, true, 4), (2, true, 2), (3, false, 2), (2, true, 0), (1, false, 0)]),
        (20, &[(2, true, 18), (3, true, 15), (14, true, 1), (3, false, 1), (7, false, 1)]),
        (10, &[(5, true, 5), (5, true, 0), (1, false, 0), (0, true, 0)]),
        (10, &[(11, false, 10), (10, true, 0)]),
    ];
    for (requests, rows) in cases {
        let limit = window(requests, Nanos::from_secs(3_600));
        let mut state = Counts::default();
        for (row, (cost, admitted, left)) in rows.iter().enumerate() {
            assert_eq!(admits(&mut state, &limit, *cost, ms(0)), *admitted, "{requests}, {row}");
            assert_eq!(remaining(state, &limit, ms(0)), *left, "{requests}, {row}");
        }
    }
}

/// The two attacks on fixed windows and on the estimate from two of them: all at the end of one
/// window and all at the start of the next, and all as soon as it goes.
#[test]
fn no_window_holds_more_than_the_limit_whoever_attacks() {
    let limit = window(100, Nanos::from_secs(60));
    for first in (0..60_000).step_by(487) {
        let mut state = Counts::default();
        let mut log = Log::default();
        for at in (first..first + 180_000).step_by(100) {
            while admits(&mut state, &limit, 1, ms(at)) {
                log.add(ms(at), 1);
            }
        }
        assert_eq!(log.worst(limit.per), 100);
    }
}

#[test]
fn no_window_holds_more_than_the_limit_at_random() {
    let mut dice = Dice(7);
    for round in 0..60 {
        let per = [1_000_000, 1_000_003, 60_000_000_007, 999_999_999][round % 4];
        let limit = window(1 + dice.count(200), Nanos(per));
        let mut state = Counts::default();
        let mut log = Log::default();
        let mut now = ORIGIN;
        for _ in 0..4_000 {
            // Mostly a part of a sub-window, sometimes to its very edge, sometimes far.
            let part = part(&limit).0;
            now = now
                + match dice.below(10) {
                    0..=6 => Nanos(dice.below(part / 2)),
                    7 => Nanos(part - now.0 % part),
                    8 => Nanos(part - 1 - now.0 % part),
                    _ => Nanos(dice.below(2 * per)),
                };
            let cost = 1 + dice.count(u64::from(limit.requests.min(9)));
            if admits(&mut state, &limit, cost, now) {
                log.add(now, cost);
            }
        }
        assert!(log.worst(limit.per) <= u64::from(limit.requests), "{limit:?}");
    }
}

#[test]
fn who_keeps_asking_gets_ten_elevenths_of_the_limit_at_least() {
    for requests in [1, 7, 100, 5_000] {
        let limit = window(requests, Nanos::SECOND);
        let mut state = Counts::default();
        let mut admitted = 0_u64;
        for at in 0..110_000 {
            while admits(&mut state, &limit, 1, ms(at)) {
                admitted += 1;
            }
        }
        let most = u64::from(requests) * 110;
        assert!(admitted * (PARTS as u64 + 1) >= most * PARTS as u64, "{admitted} of {most}");
        assert!(admitted <= most);
    }
}

#[test]
fn waiting_exactly_the_retry_time_admits_and_a_nanosecond_less_does_not() {
    let mut dice = Dice(11);
    for per in [1_000_000, 1_000_003, 7_000_000_000] {
        for requests in [1, 2, 9, 1_000] {
            let limit = window(requests, Nanos(per));
            let mut state = Counts::default();
            let mut now = ORIGIN;
            for _ in 0..400 {
                let cost = 1 + dice.count(u64::from(requests));
                if let Judgement::Refused { retry, .. } = ask(&mut state, &limit, cost, now) {
                    let wait = retry.unwrap();
                    assert!(wait > Nanos::ZERO);
                    let early = now + (wait - Nanos(1));
                    assert!(!admits(&mut state.clone(), &limit, cost, early), "{limit:?}");
                    now = now + wait;
                    assert!(admits(&mut state, &limit, cost, now), "{limit:?}");
                }
                now = now + Nanos(dice.below(per / 3));
            }
        }
    }
}

#[test]
fn what_remains_is_never_more_than_the_limit_and_none_means_refused() {
    let mut dice = Dice(13);
    let limit = window(12, Nanos::SECOND);
    let mut state = Counts::default();
    let mut now = ORIGIN;
    for _ in 0..5_000 {
        now = now + Nanos::from_millis(dice.below(90));
        let left = remaining(state, &limit, now);
        assert!(left <= 12);
        assert_eq!(left == 0, !admits(&mut state.clone(), &limit, 1, now));
        let before = state;
        match ask(&mut state, &limit, 1 + dice.count(5), now) {
            Judgement::Admitted { standing, .. } => {
                assert_eq!(standing.remaining, remaining(state, &limit, now));
                let full = now + standing.reset;
                assert_eq!(remaining(state, &limit, full), 12);
                assert!(remaining(state, &limit, full - Nanos(1)) < 12);
            }
            Judgement::Refused { .. } => assert_eq!(state, before, "a refusal changes nothing"),
        }
    }
}

#[test]
fn a_weight_of_n_is_n_times_one_and_more_than_the_limit_is_refused_for_ever() {
    let limit = window(9, Nanos::from_secs(5));
    for weight in 0..=9 {
        let (mut once, mut often) = (Counts::default(), Counts::default());
        assert!(admits(&mut once, &limit, weight, ms(3)));
        for _ in 0..weight {
            assert!(admits(&mut often, &limit, 1, ms(3)));
        }
        assert_eq!(once.total(), often.total());
        assert_eq!(remaining(once, &limit, ms(3)), remaining(often, &limit, ms(3)));
    }
    let judgement = take(Counts::default(), &limit, 10, ms(3));
    assert!(matches!(judgement, Judgement::Refused { retry: None, .. }), "{judgement:?}");
}

#[test]
fn idle_time_in_many_pieces_is_worth_what_it_is_in_one() {
    let limit = window(50, Nanos::SECOND);
    let mut state = Counts::default();
    assert!(admits(&mut state, &limit, 50, ms(7)));
    let mut polled = state;
    for at in 7..1_500 {
        let whole = remaining(state, &limit, ms(at));
        let Judgement::Admitted { state: looked, standing } = take(polled, &limit, 0, ms(at))
        else {
            unreachable!("looking is always admitted")
        };
        polled = looked;
        assert_eq!(standing.remaining, whole);
    }
    assert_eq!(polled.total(), 0);
}

#[test]
fn what_is_given_back_leaves_its_own_sub_window_and_no_other() {
    let limit = window(10, Nanos::SECOND);
    let mut state = Counts::default();
    assert!(admits(&mut state, &limit, 4, ms(0)));
    assert!(admits(&mut state, &limit, 6, ms(350)));
    let back = give_back(state, &limit, 4, ms(0), ms(360));
    assert_eq!(remaining(back, &limit, ms(360)), 4);
    // The six leave as if the four had never been.
    assert_eq!(remaining(back, &limit, ms(1_100)), 4);
    assert_eq!(remaining(back, &limit, ms(1_400)), 10);
    // More than was taken, from the future, or from long ago: nothing comes of it.
    assert_eq!(give_back(state, &limit, 99, ms(0), ms(360)), back);
    assert_eq!(give_back(state, &limit, 4, ms(9_000), ms(360)).total(), 6);
    assert_eq!(give_back(state, &limit, 4, ms(0), ms(1_360)).total(), 6);
    assert_eq!(give_back(Counts::default(), &limit, 4, ms(0), ms(0)).total(), 0);
}

#[test]
fn giving_back_never_lets_a_window_hold_more() {
    let mut dice = Dice(17);
    let limit = window(20, Nanos::SECOND);
    let mut state = Counts::default();
    let mut held: Vec<(Nanos, u32)> = Vec::new();
    let mut kept: Vec<(Nanos, u32)> = Vec::new();
    let mut now = ORIGIN;
    for _ in 0..20_000 {
        now = now + Nanos::from_millis(dice.below(60));
        let cost = 1 + dice.count(4);
        if admits(&mut state, &limit, cost, now) {
            held.push((now, cost));
        }
        while held.len() > 3 {
            let index = usize::try_from(dice.below(held.len() as u64)).unwrap();
            let (at, cost) = held.remove(index);
            if dice.below(2) == 0 {
                state = give_back(state, &limit, cost, at, now);
            } else {
                kept.push((at, cost));
            }
        }
    }
    kept.sort_unstable();
    let mut log = Log::default();
    kept.iter().for_each(|(at, cost)| log.add(*at, *cost));
    assert!(log.worst(limit.per) <= 20 && log.total() > 1_000);
}

#[test]
fn a_clock_that_steps_back_stands_still_and_one_that_was_far_ahead_is_pulled_back() {
    let limit = window(3, Nanos::SECOND);
    let mut state = Counts::default();
    assert!(admits(&mut state, &limit, 2, ms(5_000)));
    assert!(admits(&mut state, &limit, 1, ms(4_500)));
    assert!(!admits(&mut state, &limit, 1, ms(4_400)));
    assert_eq!(state.epoch, ms(5_000).0 / part(&limit).0);
    // Farther back than a window: refused for no longer than if it had just been used up.
    let Judgement::Refused { retry: Some(retry), .. } = ask(&mut state, &limit, 1, ms(0)) else {
        unreachable!("nothing has left the window")
    };
    assert!(retry <= limit.per + part(&limit));
    assert!(!admits(&mut state, &limit, 1, ms(0) + (retry - Nanos(1))));
    assert!(admits(&mut state, &limit, 1, ms(0) + retry));
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let limit = window(u32::MAX, Nanos(u64::MAX));
    let end = Nanos(u64::MAX);
    let mut state = Counts::default();
    assert!(admits(&mut state, &limit, u32::MAX, end));
    assert!(!admits(&mut state, &limit, 1, end));
    assert!(!admits(&mut state, &limit, u32::MAX, Nanos::ZERO));
    let short = window(1, Nanos(1));
    let mut state = Counts::default();
    assert!(admits(&mut state, &short, 1, end));
    assert!(!admits(&mut state, &short, 1, end));
    assert_eq!(give_back(state, &short, 1, end, end).total(), 0);
}

#[test]
fn other_numbers_keep_what_was_counted() {
    let wide = window(100, Nanos::SECOND);
    let mut state = Counts::default();
    assert!(admits(&mut state, &wide, 80, ms(0)));
    let narrow = window(50, Nanos::SECOND);
    assert!(!admits(&mut state, &narrow, 1, ms(10)));
    assert_eq!(remaining(state, &narrow, ms(10)), 0);
    assert_eq!(remaining(state, &wide, ms(10)), 20);
    assert!(admits(&mut state, &narrow, 50, ms(1_100)));
}
