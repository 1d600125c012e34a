//! Stories of the algorithms as stages: what a client is told, what a change of the policy leaves,
//! and what becomes of requests when shared state is in trouble.

use super::gateway::{Gateway, bucket, empty, header, limit_of};
use crate::model::{
    Adaptive, Bucket, KeyPart, Leak, Limit, LimitAlgorithm, LimitMode, Unavailable, Window,
};
use crate::pipeline::Step;
use crate::reason::Reason;
use crate::stage::Pause;
use crate::store::ATTEMPTS_MAX;
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::vec;
use serde_json::{Value, json};

const MINUTE: Nanos = Nanos::from_secs(60);

fn with(algorithm: LimitAlgorithm) -> Gateway {
    let mut policy = empty();
    policy.rate_limits = vec![Limit { algorithm, ..limit_of("one", vec![KeyPart::Ip], 1) }];
    Gateway::new(policy)
}

const fn window(requests: u32, per: Nanos) -> LimitAlgorithm {
    LimitAlgorithm::SlidingWindow(Window { requests, per })
}

const fn adaptive(requests: u32) -> LimitAlgorithm {
    let bucket = Bucket { requests, per: MINUTE, burst: requests };
    LimitAlgorithm::Adaptive(Adaptive { bucket, threshold: 500, floor: 100 })
}

const fn leaky(requests: u32, queue: u32) -> LimitAlgorithm {
    LimitAlgorithm::LeakyBucket(Leak { requests, per: MINUTE, queue })
}

/// How many of so many requests at once are not refused.
fn admitted(gateway: &mut Gateway, requests: u32) -> usize {
    (0..requests).filter(|_| gateway.reason("/a", &[]).is_none()).count()
}

#[test]
fn each_algorithm_admits_what_its_numbers_say() {
    for (algorithm, expected) in
        [(bucket(60, MINUTE, 5), 5), (window(7, MINUTE), 7), (leaky(60, 3), 4), (adaptive(6), 6)]
    {
        let mut gateway = with(algorithm);
        assert_eq!(admitted(&mut gateway, 20), expected, "{algorithm:?}");
        gateway.client = "192.0.2.2".parse().ok();
        assert_eq!(admitted(&mut gateway, 20), expected, "another key of {algorithm:?}");
    }
}

#[test]
fn a_sliding_window_says_when_its_oldest_part_leaves() {
    let mut gateway = with(window(10, MINUTE));
    // 1,000 s lie 4 s inside a part of 6 s, which counts until 66 s after its beginning.
    assert_eq!(admitted(&mut gateway, 11), 10);
    let reply = gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(header(&reply, "retry-after"), Some("62"));
    assert_eq!(header(&reply, "ratelimit"), Some("\"one\";r=0;t=62"));
    assert_eq!(header(&reply, "ratelimit-policy"), Some("\"one\";q=10;w=60"));
    assert_eq!(header(&reply, "x-ratelimit-limit"), Some("10"));
    gateway.now += 61;
    gateway.ms = 999;
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.now += 1;
    gateway.ms = 0;
    gateway.forwarded("/a", &[]);
}

#[test]
fn near_counts_those_who_leave_less_than_a_fifth() {
    let mut gateway = with(bucket(60, MINUTE, 10));
    admitted(&mut gateway, 11);
    assert_eq!((gateway.heard("outcome: Ok"), gateway.heard("outcome: Near")), (8, 2));
    assert_eq!(gateway.heard("outcome: Over"), 1);
}

#[test]
fn a_cost_is_taken_at_once_or_not_at_all() {
    for algorithm in [bucket(60, MINUTE, 7), window(7, MINUTE), leaky(60, 6), adaptive(7)] {
        let mut gateway = with(algorithm);
        gateway.policy.rate_limits[0].cost = 3;
        assert_eq!(admitted(&mut gateway, 9), 2, "{algorithm:?}");
        gateway.policy.rate_limits[0].cost = 1;
        gateway.leases.forget();
        assert_eq!(admitted(&mut gateway, 9), 1, "{algorithm:?}");
    }
}

#[test]
fn what_only_the_load_refuses_is_overloaded() {
    let mut gateway = with(adaptive(60));
    assert_eq!(admitted(&mut gateway, 60), 60);
    gateway.now += 30;
    gateway.load = 1_000;
    // Half has come back at the full rate, a tenth of that at the floor.
    assert_eq!(admitted(&mut gateway, 3), 3);
    let reply = gateway.refused("/a", &[], Reason::Overloaded);
    assert_eq!((reply.status, header(&reply, "retry-after")), (503, Some("10")));
    assert_eq!(header(&reply, "ratelimit"), Some("\"one\";r=0;t=10"));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let kind = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
    assert_eq!((&body["type"], &body["code"]), (&Value::from(kind), &Value::from("overloaded")));
    assert_eq!((&body["violated-policies"], &body["retry_after"]), (&json!(["one"]), &json!(10)));
    let mut gateway = with(adaptive(60));
    gateway.load = 1_000;
    assert_eq!(admitted(&mut gateway, 60), 60, "the burst is the same");
    gateway.refused("/a", &[], Reason::RateLimited);
}

#[test]
fn whoever_waits_as_long_as_he_is_told_is_let_in() {
    let mut dice = 11_u64;
    let mut roll = |n: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (dice >> 33) % n
    };
    let odd = Nanos::from_millis(7_301);
    let numbers = Bucket { requests: 7, per: odd, burst: 4 };
    for (algorithm, pause) in [
        (LimitAlgorithm::TokenBucket(numbers), Pause::Room),
        (window(7, odd), Pause::Room),
        (LimitAlgorithm::LeakyBucket(Leak { requests: 7, per: odd, queue: 2 }), Pause::Room),
        (LimitAlgorithm::LeakyBucket(Leak { requests: 7, per: odd, queue: 2 }), Pause::Full),
        (
            LimitAlgorithm::Adaptive(Adaptive { bucket: numbers, threshold: 500, floor: 100 }),
            Pause::Room,
        ),
    ] {
        let mut gateway = with(algorithm);
        gateway.pause = pause;
        let mut refused = 0;
        for _ in 0..500 {
            gateway.ms += roll(900);
            gateway.load = u32::try_from(roll(1_000)).unwrap();
            let Step::Reply(reply, _) = gateway.send("/a", &[]) else { continue };
            refused += 1;
            let wait: u64 = header(&reply, "retry-after").unwrap().parse().unwrap();
            assert!(wait >= 1);
            gateway.ms += wait * 1_000;
            assert_eq!(gateway.reason("/a", &[]), None, "{algorithm:?} after {wait} s");
        }
        assert!(refused > 20, "{refused} of {algorithm:?}");
    }
}

#[test]
fn the_limit_nearest_to_exhaustion_is_found_across_algorithms() {
    let mut policy = empty();
    policy.rate_limits = vec![
        limit_of("bucket", vec![], 10),
        Limit { algorithm: window(4, MINUTE), ..limit_of("window", vec![], 1) },
        Limit { algorithm: leaky(6_000, 99), ..limit_of("queue", vec![], 1) },
    ];
    let mut gateway = Gateway::new(policy);
    let (_, passage) = gateway.forwarded("/a", &[]);
    let added = gateway.added(&passage, &[]);
    assert!(added.contains(&"ratelimit-policy: \"window\";q=4;w=60".to_string()), "{added:?}");
    gateway.policy.rate_limits[1].mode = LimitMode::Shadow;
    gateway.ms = 100;
    let (_, passage) = gateway.forwarded("/a", &[]);
    let added = gateway.added(&passage, &[]);
    assert!(added.contains(&"ratelimit-policy: \"bucket\";q=10;w=60".to_string()), "{added:?}");
}

#[test]
fn a_window_of_no_whole_seconds_leaves_its_length_out() {
    let mut gateway = with(window(1, Nanos::from_millis(1_500)));
    gateway.forwarded("/a", &[]);
    let reply = gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(header(&reply, "ratelimit-policy"), Some("\"one\";q=1"));
}

/// What a new policy leaves of a limit that was used up.
#[track_caller]
fn changed(from: LimitAlgorithm, to: LimitAlgorithm, expected: usize) {
    let mut gateway = with(from);
    admitted(&mut gateway, 100);
    gateway.leases.forget();
    gateway.policy.rate_limits[0].algorithm = to;
    assert_eq!(admitted(&mut gateway, 100), expected, "{from:?} to {to:?}");
    assert_eq!(gateway.heard("RecordUnreadable"), 0);
}

#[test]
fn other_numbers_apply_to_what_was_counted_and_another_meaning_begins_anew() {
    // The same numbers: the same counts.
    changed(window(10, MINUTE), window(10, MINUTE), 0);
    // More requests in the same window: as many more.
    changed(window(10, MINUTE), window(25, MINUTE), 15);
    changed(window(25, MINUTE), window(10, MINUTE), 0);
    // Ten seconds until full, by other numbers: ten of twenty tokens at one a second.
    changed(bucket(60, MINUTE, 10), bucket(60, MINUTE, 20), 10);
    // An empty bucket is the emptiest that the new numbers allow.
    changed(bucket(1, MINUTE, 10), bucket(60, MINUTE, 20), 0);
    changed(bucket(60, MINUTE, 10), bucket(600, MINUTE, 10), 0);
    changed(leaky(60, 3), leaky(60, 5), 2);
    changed(adaptive(10), adaptive(15), 5);
    // Another window or algorithm.
    changed(window(10, MINUTE), window(10, Nanos::from_secs(30)), 10);
    changed(window(10, MINUTE), bucket(10, MINUTE, 10), 10);
    changed(bucket(10, MINUTE, 10), leaky(10, 9), 10);
    changed(leaky(10, 9), adaptive(10), 10);
    changed(adaptive(10), window(10, MINUTE), 10);
}

#[test]
fn another_key_begins_anew() {
    let mut gateway = with(window(2, MINUTE));
    assert_eq!(admitted(&mut gateway, 9), 2);
    gateway.leases.forget();
    let header = KeyPart::Header("x-a".to_string());
    gateway.policy.rate_limits[0].key = vec![KeyPart::Ip, header];
    assert_eq!(admitted(&mut gateway, 9), 2);
}

#[test]
fn a_store_that_loses_every_write_leaves_the_decision_to_the_policy() {
    for algorithm in [bucket(60, MINUTE, 9), window(9, MINUTE), leaky(60, 9), adaptive(9)] {
        let mut gateway = with(algorithm);
        gateway.store.rivals = ATTEMPTS_MAX;
        gateway.refused("/a", &[], Reason::StateUnavailable);
        assert_eq!(gateway.heard("ErrorRefused"), 1);
        assert_eq!(gateway.store.swaps, ATTEMPTS_MAX);
        gateway.policy.rate_limits[0].on_unavailable = Unavailable::Allow;
        gateway.store.rivals = ATTEMPTS_MAX;
        gateway.forwarded("/a", &[]);
        assert_eq!(gateway.heard("ErrorAllowed"), 1);
        gateway.store.rivals = ATTEMPTS_MAX - 1;
        gateway.forwarded("/a", &[]);
        assert_eq!(gateway.heard("outcome: Ok"), 1, "one write of eight is enough");
    }
}

#[test]
fn a_store_that_is_down_leaves_the_decision_to_the_policy() {
    for algorithm in [bucket(60, MINUTE, 9), window(9, MINUTE), leaky(60, 9), adaptive(9)] {
        let mut gateway = with(algorithm);
        gateway.store.down = true;
        let reply = gateway.refused("/a", &[], Reason::StateUnavailable);
        assert_eq!((reply.status, header(&reply, "retry-after")), (503, Some("2")));
        gateway.policy.rate_limits[0].mode = LimitMode::Shadow;
        gateway.forwarded("/a", &[]);
        gateway.policy.rate_limits[0].mode = LimitMode::Enforce;
        gateway.policy.rate_limits[0].on_unavailable = Unavailable::Allow;
        gateway.forwarded("/a", &[]);
        assert_eq!((gateway.heard("ErrorRefused"), gateway.heard("ErrorAllowed")), (1, 2));
    }
}

#[test]
fn a_corrupt_record_counts_as_none_and_is_counted() {
    for algorithm in [bucket(60, MINUTE, 2), window(2, MINUTE), leaky(60, 1), adaptive(2)] {
        let mut gateway = with(algorithm);
        admitted(&mut gateway, 9);
        gateway.leases.forget();
        for value in gateway.store.values.values_mut() {
            value.bytes.truncate(value.bytes.len() - 1);
        }
        gateway.heard.clear();
        assert_eq!(admitted(&mut gateway, 9), 2, "{algorithm:?}");
        assert_eq!(gateway.heard("RecordUnreadable"), 1);
    }
}

#[test]
fn bytes_of_a_stranger_are_no_records() {
    let mut dice = 7_u64;
    for algorithm in [bucket(60, MINUTE, 2), window(2, MINUTE), leaky(60, 1), adaptive(2)] {
        let mut gateway = with(algorithm);
        gateway.send("/a", &[]);
        for _ in 0..2_000 {
            gateway.leases.forget();
            for value in gateway.store.values.values_mut() {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(dice >> 40).unwrap() % value.bytes.len();
                value.bytes[at] = dice.to_le_bytes()[5];
            }
            // Whatever it reads as, the next request is judged by it.
            let step = gateway.send("/a", &[]);
            assert!(!matches!(step, Step::Wait(held) if held.until().is_none()));
            gateway.now += 1;
        }
    }
}
