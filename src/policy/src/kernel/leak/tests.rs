//! Even distances, whoever comes and goes.

use super::super::Standing;
use super::super::testing::{Dice, ORIGIN, ms};
use super::*;
use alloc::vec::Vec;

const fn leak(requests: u32, per: Nanos, queue: u32) -> Leak {
    Leak { requests, per, queue }
}

/// Takes, and stores what is to be stored, as the stage does.
fn ask(state: &mut Turns, leak: &Leak, cost: u32, now: Nanos) -> Judgement<Queued> {
    let judgement = take(*state, leak, cost, now);
    match judgement {
        Judgement::Admitted { state: queued, .. } => *state = queued.turns,
        Judgement::Refused { mended, .. } => *state = mended.map_or(*state, |new| new.turns),
    }
    judgement
}

fn queue_up(state: &mut Turns, leak: &Leak, cost: u32, now: Nanos) -> Option<Queued> {
    match ask(state, leak, cost, now) {
        Judgement::Admitted { state: queued, .. } => Some(queued),
        Judgement::Refused { .. } => None,
    }
}

#[test]
fn one_passes_at_once_the_next_ones_wait_and_the_queue_has_an_end() {
    let limit = leak(10, Nanos::SECOND, 3);
    let mut state = Turns::default();
    for (place, left) in [3, 2, 1, 0].into_iter().enumerate() {
        let Judgement::Admitted { state: queued, standing } = ask(&mut state, &limit, 1, ms(0))
        else {
            unreachable!("there is a place")
        };
        assert_eq!(queued.at, ms(100 * place as u64));
        assert_eq!(
            (standing.remaining, standing.reset),
            (left, ms(100 * (place as u64 + 1)) - ms(0))
        );
    }
    let refused = Judgement::Refused {
        mended: None,
        standing: Standing { remaining: 0, reset: Nanos::from_millis(400) },
        retry: Some(Nanos::from_millis(100)),
    };
    assert_eq!(ask(&mut state, &limit, 1, ms(0)), refused);
    assert_eq!(queue_up(&mut state, &limit, 1, ms(100)).unwrap().at, ms(400));
}

#[test]
fn without_a_queue_whatever_comes_too_soon_is_refused() {
    let limit = leak(10, Nanos::SECOND, 0);
    let mut state = Turns::default();
    let mut passed = Vec::new();
    for at in 0..1_000 {
        if let Some(queued) = queue_up(&mut state, &limit, 1, ms(at)) {
            assert_eq!(queued.at, ms(at), "nobody waits");
            passed.push(at);
        }
    }
    assert_eq!(passed, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
}

#[test]
fn turns_keep_their_distance_and_the_queue_its_length_at_random() {
    let mut dice = Dice(3);
    for (requests, per) in
        [(10, 1_000_000_000), (7, 60_000_000_000), (3, 1_000_000), (1, 5_000_001)]
    {
        let limit = leak(requests, Nanos(per), dice.count(20));
        let distance = per / u64::from(requests);
        let mut state = Turns::default();
        let mut now = ORIGIN;
        let mut turns: Vec<Nanos> = Vec::new();
        for _ in 0..5_000 {
            now = now + Nanos(dice.below(2 * distance) / (1 + dice.below(4)));
            if let Some(queued) = queue_up(&mut state, &limit, 1, now) {
                assert!(queued.at >= now);
                assert!((queued.at - now).0 <= u64::from(limit.queue) * (distance + 1));
                if let Some(last) = turns.last() {
                    // Both turns are rounded up to whole nanoseconds.
                    assert!((queued.at - *last).0 >= distance, "{limit:?}");
                }
                turns.push(queued.at);
                let waiting = turns.iter().rev().take_while(|at| **at > now).count();
                assert!(waiting <= limit.queue as usize);
            }
        }
        // No drift: any thousand turns take a thousand distances at least.
        for pair in turns.windows(1_001) {
            let least = 1_000 * u128::from(per) / u128::from(requests);
            assert!(u128::from((pair[1_000] - pair[0]).0) + 1 >= least);
        }
    }
}

#[test]
fn turns_that_are_always_wanted_are_all_used() {
    let limit = leak(7, Nanos::from_secs(60), 2);
    let mut state = Turns::default();
    let mut passed = 0;
    for at in 0..600_000 {
        passed += u32::from(queue_up(&mut state, &limit, 1, ms(at)).is_some());
    }
    // 70 in ten minutes, and those that wait still.
    assert_eq!(passed, 70 + 2);
}

#[test]
fn only_the_last_place_comes_back() {
    let limit = leak(10, Nanos::SECOND, 9);
    let mut state = Turns::default();
    let mut places: Vec<Queued> = Vec::new();
    for _ in 0..5 {
        places.push(queue_up(&mut state, &limit, 1, ms(0)).unwrap());
    }
    let back = |state: Turns, place: &Queued| give_back(state, place.place);
    for place in places.iter().take(4) {
        assert_eq!(back(state, place), state, "others stand behind it: it passes unused");
    }
    let fewer = back(state, &places[4]);
    assert_eq!(queue_up(&mut fewer.clone(), &limit, 1, ms(0)).unwrap().at, places[4].at);
    assert_eq!(back(fewer, &places[4]), fewer, "it does so once");
    // The one before it is the last now.
    assert_eq!(back(fewer, &places[3]).next.ns, places[3].at.0);
}

#[test]
fn coming_and_going_for_ever_moves_nobody() {
    let limit = leak(7, Nanos::from_secs(60), 9);
    let mut state = Turns::default();
    let first = queue_up(&mut state, &limit, 1, ms(0)).unwrap();
    let second = queue_up(&mut state, &limit, 1, ms(0)).unwrap();
    for _ in 0..10_000 {
        let queued = queue_up(&mut state, &limit, 1, ms(0)).unwrap();
        state = give_back(state, queued.place);
    }
    let last = queue_up(&mut state, &limit, 1, ms(0)).unwrap();
    assert_eq!((last.at - first.at).0, 2 * (second.at - first.at).0 - 1, "two turns, rounded up");
}

/// A third of a second is no whole number of nanoseconds: each place must begin exactly where the one
/// before it ends.
#[test]
fn places_come_back_in_reverse_order_at_any_rate() {
    let limit = leak(3, Nanos::SECOND, 9);
    let mut state = Turns::default();
    let mut places: Vec<Queued> = Vec::new();
    for _ in 0..8 {
        places.push(queue_up(&mut state, &limit, 1, ms(0)).unwrap());
    }
    for place in places.iter().rev() {
        let fewer = give_back(state, place.place);
        assert_ne!(fewer, state, "it is the last");
        state = fewer;
        assert_eq!(queue_up(&mut state.clone(), &limit, 1, ms(0)), Some(*place));
    }
    assert_eq!(queue_up(&mut state, &limit, 1, ms(0)).unwrap().at, ms(0));
}

#[test]
fn waiting_exactly_the_retry_time_admits_and_a_nanosecond_less_does_not() {
    let mut dice = Dice(5);
    for limit in [
        leak(7, Nanos::from_secs(60), 3),
        leak(1, Nanos::from_secs(3), 0),
        leak(u32::MAX, Nanos::SECOND, 5),
        leak(3, Nanos::from_millis(1), 1),
    ] {
        let mut state = Turns::default();
        let mut now = ORIGIN;
        for _ in 0..300 {
            let cost = 1 + dice.count(u64::from(limit.queue) + 1);
            if let Judgement::Refused { retry, .. } = ask(&mut state, &limit, cost, now) {
                let wait = retry.unwrap();
                assert!(wait > Nanos::ZERO);
                let early = now + (wait - Nanos(1));
                assert!(queue_up(&mut state.clone(), &limit, cost, early).is_none());
                now = now + wait;
                assert!(queue_up(&mut state, &limit, cost, now).is_some());
            }
        }
    }
}

#[test]
fn a_cost_of_n_is_n_turns_and_more_than_all_places_is_refused_for_ever() {
    let limit = leak(10, Nanos::SECOND, 5);
    for cost in 0..=6 {
        let (mut once, mut often) = (Turns::default(), Turns::default());
        assert_eq!(queue_up(&mut once, &limit, cost, ms(0)).unwrap().at, ms(0));
        for _ in 0..cost {
            assert!(queue_up(&mut often, &limit, 1, ms(0)).is_some());
        }
        let next = |state: Turns| take(state, &limit, 1, ms(0));
        assert_eq!(next(once), next(often));
    }
    let judgement = take(Turns::default(), &limit, 7, ms(0));
    assert!(matches!(judgement, Judgement::Refused { retry: None, .. }), "{judgement:?}");
}

#[test]
fn a_stamp_beyond_a_full_queue_is_mended_and_the_wait_ends() {
    let slow = leak(1, Nanos::from_secs(3_600), 9);
    let mut state = Turns::default();
    for _ in 0..10 {
        assert!(queue_up(&mut state, &slow, 1, ms(0)).is_some());
    }
    let fast = leak(10, Nanos::SECOND, 9);
    let Judgement::Refused { mended, standing, retry } = ask(&mut state, &fast, 1, ms(0)) else {
        unreachable!("ten hours of turns are taken")
    };
    assert_eq!(mended.map(|queued| queued.turns), Some(state));
    assert_eq!((standing.remaining, standing.reset), (0, Nanos::SECOND));
    assert_eq!(retry, Some(Nanos::from_millis(100)));
    assert!(queue_up(&mut state, &fast, 1, ms(99)).is_none());
    assert_eq!(queue_up(&mut state, &fast, 1, ms(100)).unwrap().at, ms(1_000));
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let limit = leak(1, Nanos::from_secs(9), u32::MAX);
    let end = Nanos(u64::MAX);
    let mut state = Turns::default();
    for _ in 0..3 {
        assert!(queue_up(&mut state, &limit, 1, end).unwrap().at >= end);
    }
    let mut state = Turns { next: FullAt { ns: u64::MAX, frac: u32::MAX } };
    assert!(queue_up(&mut state, &limit, u32::MAX, Nanos::ZERO).is_none());
    assert_eq!(give_back(state, (state.next, state.next)).next.ns, u64::MAX);
}
