//! The line: its order, its bounds, and nobody before his turn.

use super::*;
use crate::testing::FakeHost;

const KEYS: Awaited = Awaited { provider: 0, deadline: Nanos(500) };

fn waiter(context: u32) -> Waiter<FakeHost> {
    Waiter { stream: Weak::new(), context }
}

/// Streams in a line at these turns, numbered from 0.
fn line(turns: &[u64]) -> (Waiting<FakeHost>, Vec<Turn>) {
    let waiting = Waiting::default();
    let places = turns
        .iter()
        .zip(0..)
        .map(|(at, context)| waiting.line_up(waiter(context), Nanos(*at)).unwrap());
    let places = places.collect();
    (waiting, places)
}

fn taken(waiting: &Waiting<FakeHost>, now: u64) -> Vec<u32> {
    waiting.take_turns(Nanos(now)).iter().map(|waiter| waiter.context).collect()
}

#[test]
fn turns_come_in_their_order_and_never_early() {
    let (waiting, _) = line(&[300, 100, 200, 100]);
    for (now, expected) in
        [(99, &[][..]), (100, &[1, 3]), (199, &[]), (250, &[2]), (299, &[]), (1000, &[0])]
    {
        assert_eq!(taken(&waiting, now), expected, "{now}");
    }
    assert!(waiting.is_empty());
}

#[test]
fn who_leaves_the_line_is_forgotten_and_nobody_else() {
    let (waiting, places) = line(&[100, 100, 100]);
    waiting.remove(1, Some(places[1]));
    waiting.remove(1, Some(places[1]));
    waiting.remove(0, None);
    assert_eq!(taken(&waiting, 100), [0, 2]);
}

#[test]
fn the_next_look_is_at_the_nearest_turn_or_soon_for_keys() {
    let (waiting, _) = line(&[]);
    assert_eq!(waiting.next(Nanos(7)), None);
    waiting.line_up(waiter(0), Nanos::SECOND).unwrap();
    assert_eq!(waiting.next(Nanos(7)), Some(Nanos::SECOND));
    waiting.add(waiter(1), KEYS);
    assert_eq!(waiting.next(Nanos(7)), Some(TICK + Nanos(7)));
    waiting.line_up(waiter(2), Nanos(9)).unwrap();
    assert_eq!(waiting.next(Nanos(7)), Some(Nanos(9)));
}

#[test]
fn the_line_is_bounded_and_who_leaves_makes_room() {
    let (waiting, places) = line(&vec![100; PAUSED_MAX]);
    assert_eq!(waiting.pause(), Pause::Full);
    assert!(waiting.line_up(waiter(0), Nanos(100)).is_none());
    waiting.remove(7, Some(places[7]));
    assert_eq!(waiting.pause(), Pause::Room);
    assert!(waiting.line_up(waiter(0), Nanos(100)).is_some());
}

#[test]
fn both_lists_are_emptied_when_nobody_will_come() {
    let (waiting, _) = line(&[200, 100]);
    waiting.add(waiter(2), KEYS);
    let all: Vec<u32> = waiting.take_all().iter().map(|waiter| waiter.context).collect();
    assert_eq!(all, [1, 0, 2]);
    assert!(waiting.is_empty());
}
