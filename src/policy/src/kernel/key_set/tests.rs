//! One test per rule of fetching, and a simulation of several workers with holders that die.

use super::*;
use alloc::string::String;

const SECOND: u64 = Nanos::SECOND.0;

fn settings() -> RemoteKeys {
    RemoteKeys {
        cluster: String::from("issuer"),
        host: String::from("issuer.example"),
        path: String::from("/keys"),
        refresh: Nanos::from_secs(600),
        max_stale: Nanos::from_secs(3600),
        timeout: Nanos::from_secs(5),
        cooldown: Nanos::from_secs(30),
    }
}

/// A moment in tenths of a second, well after the beginning of time.
fn at(tenths: u64) -> Nanos {
    Nanos::from_secs(1000) + Nanos::from_millis(tenths * 100)
}

/// A set that came at `tenths`.
fn fetched(tenths: u64) -> KeySet {
    let (set, number) = KeySet::default().begin(&settings(), Why::Missing, at(tenths));
    set.succeed(number, at(tenths)).0
}

/// A set of which `failures` fetches in a row have failed, the last one at `tenths`.
fn failing(mut set: KeySet, failures: u32, tenths: u64) -> KeySet {
    for _ in 0..failures {
        let (next, number) = set.begin(&settings(), Why::Schedule, at(tenths));
        set = next.fail(number, at(tenths));
    }
    set
}

#[track_caller]
fn check(set: &KeySet, why: Why, tenths: u64, expected: Due) {
    assert_eq!(set.due(&settings(), why, at(tenths)), expected, "{why:?} at {tenths}: {set:?}");
    let read = KeySet::from_bytes(&set.to_bytes()).unwrap();
    assert_eq!(read, *set);
}

#[test]
fn nothing_there_is_fetched_whoever_asks() {
    for why in [Why::Schedule, Why::UnknownKey, Why::Missing] {
        check(&KeySet::default(), why, 0, Due::Now);
    }
}

#[test]
fn a_set_is_fetched_anew_five_seconds_before_it_expires() {
    let set = fetched(0);
    check(&set, Why::Schedule, 5949, Due::Later);
    check(&set, Why::Schedule, 5950, Due::Now);
}

#[test]
fn a_short_refresh_is_halved() {
    let short = RemoteKeys { refresh: Nanos::from_secs(4), ..settings() };
    let set = fetched(0);
    assert_eq!(set.due(&short, Why::Schedule, at(19)), Due::Later);
    assert_eq!(set.due(&short, Why::Schedule, at(20)), Due::Now);
}

#[test]
fn pauses_double_up_to_half_a_minute_and_end_with_success() {
    for (failures, pause) in [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (40, 300)] {
        let set = failing(KeySet::default(), failures, 0);
        for why in [Why::Schedule, Why::Missing, Why::UnknownKey] {
            check(&set, why, pause - 1, Due::Later);
            check(&set, why, pause, Due::Now);
        }
    }
    let (set, number) = failing(fetched(0), 9, 0).begin(&settings(), Why::Schedule, at(400));
    let (set, answer) = set.succeed(number, at(401));
    assert_eq!((set.failures, answer), (0, Answer::Taken));
}

#[test]
fn one_flight_at_a_time_and_a_dead_holder_loses_it() {
    let (set, number) = KeySet::default().begin(&settings(), Why::Missing, at(0));
    assert_eq!(number, 1);
    for why in [Why::Schedule, Why::UnknownKey, Why::Missing] {
        check(&set, why, 69, Due::UnderWay);
        // It counts as failed when the lease ran out.
        check(&set, why, 70, Due::Later);
        check(&set, why, 79, Due::Later);
        check(&set, why, 80, Due::Now);
    }
    let (next, number) = set.begin(&settings(), Why::Missing, at(80));
    assert_eq!((number, next.failures), (2, 1));
    // The first one's end says nothing about the second.
    assert_eq!(next.fail(1, at(81)).flight, next.flight);
    assert_eq!(next.fail(1, at(81)).failures, 1);
}

#[test]
fn unknown_keys_cause_one_attempt_per_cooldown_whatever_became_of_it() {
    let set = fetched(0);
    check(&set, Why::UnknownKey, 10, Due::Now);
    let (set, number) = set.begin(&settings(), Why::UnknownKey, at(10));
    for after in [set.succeed(number, at(11)).0, set.fail(number, at(11))] {
        check(&after, Why::UnknownKey, 309, Due::Later);
        check(&after, Why::UnknownKey, 310, Due::Now);
    }
    // Also while there is no set at all.
    let (empty, number) = KeySet::default().begin(&settings(), Why::UnknownKey, at(10));
    check(&empty.fail(number, at(11)), Why::UnknownKey, 309, Due::Later);
}

#[test]
fn a_schedule_does_not_use_up_the_cooldown_of_a_rotation() {
    let (set, number) = fetched(0).begin(&settings(), Why::Schedule, at(5950));
    let (set, _) = set.succeed(number, at(5951));
    check(&set, Why::UnknownKey, 5952, Due::Now);
}

#[test]
fn a_slow_answer_never_replaces_a_newer_one() {
    let (set, slow) = KeySet::default().begin(&settings(), Why::Missing, at(0));
    let (set, fast) = set.begin(&settings(), Why::Missing, at(100));
    let (newer, answer) = set.succeed(fast, at(101));
    assert_eq!((newer.generation, answer), (fast, Answer::Taken));
    let (still, answer) = newer.succeed(slow, at(102));
    assert_eq!((still, answer), (newer, Answer::Outdated));
    assert_eq!(newer.succeed(fast, at(103)).1, Answer::Outdated);
    // The slow one first: it serves until the newer one comes, whose flight goes on.
    let (set, answer) = set.succeed(slow, at(101));
    assert_eq!((set.generation, answer), (slow, Answer::Taken));
    check(&set, Why::UnknownKey, 102, Due::UnderWay);
    assert_eq!(set.succeed(fast, at(103)).0.generation, fast);
}

#[test]
fn a_stale_set_serves_for_a_while_and_is_then_gone() {
    let set = failing(fetched(0), 3, 6100);
    assert_eq!(set.standing(&settings(), at(0)), Standing::Serves(at(42000)));
    assert_eq!(set.standing(&settings(), at(41999)), Standing::Serves(at(42000)));
    assert_eq!(set.standing(&settings(), at(42000)), Standing::Gone);
    assert_eq!(KeySet::default().standing(&settings(), at(0)), Standing::Gone);
    let strict = RemoteKeys { max_stale: Nanos::ZERO, ..settings() };
    assert_eq!(set.standing(&strict, at(6000)), Standing::Gone);
}

#[test]
fn who_cannot_use_a_set_that_serves_is_held_to_the_cooldown() {
    let (set, number) = fetched(0).begin(&settings(), Why::Missing, at(10));
    let (set, _) = set.succeed(number, at(11));
    check(&set, Why::Missing, 309, Due::Later);
    check(&set, Why::Missing, 310, Due::Now);
    // A set that is gone is missing for all.
    check(&set, Why::Missing, 50000, Due::Now);
}

#[test]
fn whoever_goes_away_leaves_the_way_free() {
    let (set, number) = fetched(0).begin(&settings(), Why::UnknownKey, at(10));
    assert_eq!(set.abandon(number + 1), set);
    check(&set.abandon(number), Why::UnknownKey, 10, Due::Now);
}

#[test]
fn stamps_from_the_future_say_nothing() {
    let far = Nanos(u64::MAX);
    let odd = KeySet {
        begun: NUMBER_MAX - 1,
        generation: 1,
        fetched: far,
        asked: Some(far),
        failed: Some(far),
        failures: 3,
        flight: Some(Flight { number: 2, until: far }),
    };
    // The lease was never given: it counts as failed now, and no more than that.
    check(&odd, Why::Schedule, 0, Due::Later);
    let odd = KeySet { flight: None, ..odd };
    for why in [Why::Schedule, Why::UnknownKey, Why::Missing] {
        check(&odd, why, 0, Due::Now);
    }
    let (next, number) = odd.begin(&settings(), Why::Schedule, at(0));
    assert_eq!(number, NUMBER_MAX);
    assert!(next.flight.is_some());
    assert_eq!(next.due(&settings(), Why::Schedule, Nanos::ZERO), Due::Later);
    // A little ahead is of now: another worker has read the clock later.
    check(&fetched(5), Why::Schedule, 0, Due::Later);
}

#[test]
fn bytes_that_make_no_sense_are_no_record() {
    let bytes = fetched(0).to_bytes();
    assert!(KeySet::from_bytes(&bytes[..bytes.len() - 1]).is_none());
    assert!(KeySet::from_bytes(&[]).is_none());
    let mut other = bytes.clone();
    other[0] = 2;
    assert!(KeySet::from_bytes(&other).is_none());
    let ahead = KeySet { generation: 7, ..fetched(0) };
    assert!(KeySet::from_bytes(&ahead.to_bytes()).is_none());
    let endless = KeySet { begun: NUMBER_MAX + 1, ..fetched(0) };
    assert!(KeySet::from_bytes(&endless.to_bytes()).is_none());
}

#[test]
fn numbers_go_on_from_a_set_that_outlived_its_record() {
    let (set, number) = KeySet::default().begin(&settings(), Why::Missing, at(0));
    let set = set.outdone(number, 41);
    check(&set, Why::Missing, 1, Due::Now);
    assert_eq!(set.begin(&settings(), Why::Missing, at(1)).1, 42);
}

/// Numbers that depend on the seed alone (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Four workers ask at random; answers come late, in any order, good, bad or never. Each worker's
/// clock reading may lag a little behind the others'.
#[test]
fn many_workers_keep_the_rules_on_every_schedule() {
    let settings = RemoteKeys { refresh: Nanos::from_secs(60), ..settings() };
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut set = KeySet::default();
        let mut flights: Vec<(u64, Nanos)> = Vec::new();
        let (mut last_asked, mut newest) = (None::<Nanos>, 0);
        let mut clock = at(0);
        for _ in 0..400 {
            clock = clock + Nanos(dice.below(3 * SECOND));
            let now = clock - Nanos(dice.below(SECOND / 1000));
            if dice.below(3) > 0 {
                let why = [Why::Schedule, Why::UnknownKey, Why::Missing][dice.below(3) as usize];
                if set.due(&settings, why, now) == Due::Now {
                    let live = |flight: &Flight| flight.until > now;
                    assert!(!set.flight.as_ref().is_some_and(live), "seed {seed}: two flights");
                    let (next, number) = set.begin(&settings, why, now);
                    assert!(number > set.begun, "seed {seed}: a number twice");
                    if next.asked != set.asked {
                        let early = last_asked.is_some_and(|last| now - last < settings.cooldown);
                        assert!(!early, "seed {seed}: cooldown");
                        last_asked = Some(now);
                    }
                    set = next;
                    flights.push((number, now));
                }
            } else if !flights.is_empty() {
                let (number, _) = flights.swap_remove(dice.below(flights.len() as u64) as usize);
                match dice.below(4) {
                    0 | 1 => {
                        let (next, answer) = set.succeed(number, now);
                        assert_eq!(answer == Answer::Taken, number > newest, "seed {seed}");
                        newest = newest.max(number);
                        set = next;
                    }
                    2 => set = set.fail(number, now),
                    // The holder died; nothing is heard of it again.
                    _ => {}
                }
            }
            assert_eq!(set.generation, newest, "seed {seed}");
        }
        // An issuer that answers is served by: whatever happened, half a minute and a lease are the
        // longest that anybody waits.
        clock = clock + PAUSE_MAX + LEASE_MAX + settings.refresh;
        assert_eq!(set.due(&settings, Why::Schedule, clock), Due::Now, "seed {seed}: {set:?}");
        assert_eq!(set.due(&settings, Why::UnknownKey, clock), Due::Now, "seed {seed}: {set:?}");
    }
}
