//! Stories of requests that wait for their turn: in which order they go on, who is refused instead,
//! and what becomes of the turns of those who leave.

use super::gateway::{GOOD, Gateway, breaker_settings, empty, header, limit_of, permit, with_jwt};
use crate::model::{KeyPart, Leak, Limit, LimitAlgorithm, LimitMode};
use crate::pipeline::{Step, Suspended};
use crate::reason::Reason;
use crate::stage::Pause;
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

/// A request every half second, so many may wait.
fn leaky(name: &str, key: Vec<KeyPart>, queue: u32) -> Limit {
    let leak = Leak { requests: 2, per: Nanos::SECOND, queue };
    Limit { algorithm: LimitAlgorithm::LeakyBucket(leak), ..limit_of(name, key, 1) }
}

fn smooth(queue: u32) -> Gateway {
    let mut policy = with_jwt();
    policy.rate_limits = vec![leaky("smooth", vec![], queue)];
    policy.circuit_breakers.default = Some(breaker_settings());
    Gateway::new(policy)
}

/// Milliseconds from now until a request's turn.
#[track_caller]
fn wait_of(gateway: &Gateway, held: &Suspended) -> u64 {
    (held.until().unwrap() - gateway.moment().monotonic).as_millis()
}

#[test]
fn requests_go_on_at_even_distances_and_one_too_many_is_refused() {
    let mut gateway = smooth(2);
    gateway.forwarded("/a", &[GOOD]);
    let first = gateway.held("/a", &[GOOD]);
    let second = gateway.held("/a", &[GOOD]);
    assert_eq!((wait_of(&gateway, &first), wait_of(&gateway, &second)), (500, 1_000));
    let reply = gateway.refused("/a", &[GOOD], Reason::RateLimited);
    assert_eq!(header(&reply, "retry-after"), Some("1"));
    assert_eq!(header(&reply, "ratelimit"), Some("\"smooth\";r=0;t=1"));
    assert_eq!(header(&reply, "x-ratelimit-limit"), Some("3"), "one passes, two may wait");
    assert_eq!(gateway.heard("Paused { limit: \"smooth\" }"), 2);
    gateway.ms = 500;
    let Step::Forward(..) = gateway.resume("/a", &[GOOD], first) else { panic!("its turn") };
    let third = gateway.held("/a", &[GOOD]);
    assert_eq!(wait_of(&gateway, &third), 1_000, "nobody overtakes");
}

#[test]
fn a_request_that_waited_for_its_turn_passes_each_stage_once() {
    let mut gateway = smooth(2);
    gateway.policy.rate_limits.push(limit_of("user", vec![KeyPart::User], 9));
    gateway.forwarded("/a", &[GOOD]);
    gateway.heard.clear();
    let held = gateway.held("/a", &[GOOD]);
    assert_eq!(gateway.heard("Breaker"), 0, "the breaker hears of those who go on at once");
    gateway.ms = 499;
    let Step::Wait(held) = gateway.resume("/a", &[GOOD], held) else { panic!("too early") };
    gateway.ms = 500;
    let step = gateway.resume("/a", &[GOOD], held);
    let Step::Forward(edits, passage) = step else { panic!("not forwarded: {step:?}") };
    assert_eq!(edits.remove, ["authorization"], "what was to be changed still is");
    assert!(permit(&passage).is_some());
    for once in ["limit: \"smooth\", outcome", "limit: \"user\"", "Authentication", "Paused"] {
        assert_eq!(gateway.heard(once), 1, "{once}");
    }
}

#[test]
fn the_headers_of_one_that_waited_tell_how_the_limit_stands_then() {
    let mut gateway = smooth(1);
    let slow = Leak { requests: 1, per: Nanos::from_secs(10), queue: 1 };
    gateway.policy.rate_limits[0].algorithm = LimitAlgorithm::LeakyBucket(slow);
    gateway.forwarded("/a", &[GOOD]);
    let held = gateway.held("/a", &[GOOD]);
    gateway.now += 10;
    let Step::Forward(_, passage) = gateway.resume("/a", &[GOOD], held) else { panic!("its turn") };
    let added = gateway.added(&passage, &[]);
    assert!(added.contains(&"ratelimit: \"smooth\";r=0;t=10".to_string()), "{added:?}");
    assert!(added.contains(&"ratelimit-policy: \"smooth\";q=1;w=10".to_string()), "{added:?}");
}

#[test]
fn whoever_leaves_gives_back_the_last_place_and_no_other() {
    let mut gateway = smooth(3);
    gateway.forwarded("/a", &[GOOD]);
    let first = gateway.held("/a", &[GOOD]);
    let second = gateway.held("/a", &[GOOD]);
    let passage = gateway.abandon(first);
    let third = gateway.held("/a", &[GOOD]);
    assert_eq!(wait_of(&gateway, &third), 1_500, "a turn in the middle passes unused");
    let _left = gateway.abandon(third);
    let third = gateway.held("/a", &[GOOD]);
    assert_eq!(wait_of(&gateway, &third), 1_500, "the last one is taken again");
    assert_eq!(wait_of(&gateway, &second), 1_000);
    gateway.finish(passage, 0, "elsewhere");
    assert_eq!(gateway.heard("service: \"svc\", refused: Some(RateLimited)"), 1);
    assert_eq!(gateway.heard("BreakerCall"), 0);
}

#[test]
fn whoever_leaves_keeps_what_other_limits_counted() {
    let mut gateway = smooth(3);
    gateway.policy.rate_limits.push(limit_of("user", vec![KeyPart::User], 2));
    gateway.forwarded("/a", &[GOOD]);
    let held = gateway.held("/a", &[GOOD]);
    let _left = gateway.abandon(held);
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
}

#[test]
fn when_nobody_may_wait_those_who_would_are_refused_and_take_nothing() {
    let mut gateway = smooth(9);
    gateway.pause = Pause::Full;
    gateway.forwarded("/a", &[GOOD]);
    for _ in 0..20 {
        let reply = gateway.refused("/a", &[GOOD], Reason::RateLimited);
        assert_eq!(header(&reply, "retry-after"), Some("1"));
    }
    assert_eq!(gateway.heard("outcome: Over"), 20);
    gateway.ms = 500;
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn a_leaky_limit_in_shadow_delays_nobody() {
    let mut gateway = smooth(1);
    gateway.policy.rate_limits[0].mode = LimitMode::Shadow;
    gateway.pause = Pause::Full;
    for _ in 0..4 {
        gateway.forwarded("/a", &[GOOD]);
    }
    assert_eq!((gateway.heard("ShadowOver"), gateway.heard("Paused")), (2, 0));
}

#[test]
fn of_several_turns_the_latest_counts() {
    let mut gateway = smooth(3);
    let slow = Leak { requests: 1, per: Nanos::from_secs(3), queue: 3 };
    let mut late = leaky("slow", vec![KeyPart::User], 3);
    late.algorithm = LimitAlgorithm::LeakyBucket(slow);
    gateway.policy.rate_limits.insert(0, late);
    gateway.forwarded("/a", &[GOOD]);
    let held = gateway.held("/a", &[GOOD]);
    assert_eq!(wait_of(&gateway, &held), 3_000);
    assert_eq!(gateway.heard("Paused { limit: \"slow\" }"), 1);
}

#[test]
fn a_refusal_by_another_limit_gives_the_turn_back() {
    let mut gateway = smooth(3);
    gateway.policy.rate_limits.push(limit_of("user", vec![KeyPart::User], 1));
    gateway.forwarded("/a", &[GOOD]);
    for _ in 0..9 {
        gateway.refused("/a", &[GOOD], Reason::RateLimited);
    }
    let held = gateway.held("/a", &[("authorization", "Bearer good:bob")]);
    assert_eq!(wait_of(&gateway, &held), 500);
}

#[test]
fn a_breaker_that_opens_while_one_waits_refuses_him_at_his_turn() {
    let mut gateway = smooth(3);
    gateway.policy.rate_limits.push(limit_of("user", vec![KeyPart::User], 3));
    let (_, one) = gateway.forwarded("/a", &[GOOD]);
    gateway.ms = 500;
    let (_, other) = gateway.forwarded("/a", &[GOOD]);
    let held = gateway.held("/a", &[GOOD]);
    gateway.finish(one, 500, "svc");
    gateway.finish(other, 500, "svc");
    gateway.ms = 1_000;
    let step = gateway.resume("/a", &[GOOD], held);
    let Step::Reply(reply, passage) = step else { panic!("not refused: {step:?}") };
    assert_eq!(reply.reason, Reason::BreakerOpen);
    gateway.finish(passage, 503, "svc");
    gateway.policy.circuit_breakers.default = None;
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn a_turn_that_came_while_keys_were_awaited_is_not_awaited_again() {
    let mut gateway = smooth(3);
    gateway.forwarded("/a", &[GOOD]);
    gateway.verify.pending = true;
    let held = gateway.held("/a", &[GOOD]);
    assert_eq!(held.until(), None, "keys come first");
    gateway.verify.pending = false;
    gateway.ms = 200;
    let Step::Wait(held) = gateway.resume("/a", &[GOOD], held) else { panic!("before its turn") };
    assert_eq!(wait_of(&gateway, &held), 300);
    gateway.ms = 500;
    assert!(matches!(gateway.resume("/a", &[GOOD], held), Step::Forward(..)));
}

#[test]
fn whose_turn_passed_while_keys_were_awaited_takes_another_one() {
    let mut gateway = smooth(3);
    let mut wide = limit_of("wide", vec![], 5);
    wide.matches.methods = vec!["GET".to_string()];
    gateway.policy.rate_limits.push(wide);
    gateway.verify.pending = true;
    let waiting: Vec<_> = (0..4).map(|_| gateway.held("/a", &[GOOD])).collect();
    gateway.now += 20;
    gateway.heard.clear();
    // As long as there are no keys no turn is taken for nothing.
    let again = |gateway: &mut Gateway, held| match gateway.resume("/a", &[GOOD], held) {
        Step::Wait(held) => held,
        other => panic!("no keys yet: {other:?}"),
    };
    let waiting: Vec<_> = waiting.into_iter().map(|held| again(&mut gateway, held)).collect();
    gateway.verify.pending = false;
    let mut turns = vec![];
    for held in waiting {
        match gateway.resume("/a", &[GOOD], held) {
            Step::Forward(..) => turns.push(0),
            Step::Wait(held) => turns.push(wait_of(&gateway, &held)),
            Step::Reply(reply, _) => panic!("refused: {reply:?}"),
        }
    }
    assert_eq!(turns, [0, 500, 1_000, 1_500], "at even distances again");
    assert_eq!(gateway.heard("RateLimit {"), 0, "each was counted before");
    assert_eq!(gateway.heard("Paused"), 3);
}

#[test]
fn whose_turn_passed_and_who_finds_the_queue_full_is_refused_and_gives_the_rest_back() {
    let mut gateway = smooth(1);
    let mut all = limit_of("all", vec![], 5);
    all.matches.methods = vec!["GET".to_string()];
    gateway.policy.rate_limits.insert(0, all);
    gateway.verify.pending = true;
    let late = gateway.held("/a", &[GOOD]);
    gateway.verify.pending = false;
    gateway.now += 5;
    gateway.forwarded("/a", &[GOOD]);
    let _held = gateway.held("/a", &[GOOD]);
    gateway.heard.clear();
    let step = gateway.resume("/a", &[GOOD], late);
    let Step::Reply(reply, _) = step else { panic!("not refused: {step:?}") };
    assert_eq!(reply.reason, Reason::RateLimited);
    assert_eq!(header(&reply, "ratelimit"), Some("\"smooth\";r=0;t=1"));
    assert_eq!(gateway.heard("RateLimit { limit: \"smooth\", outcome: Over }"), 1);
    gateway.policy.rate_limits.pop();
    let left = (0..9).filter(|_| gateway.reason("/a", &[GOOD]).is_none()).count();
    assert_eq!(left, 3, "two went through");
}

#[test]
fn a_request_that_leaves_while_keys_are_awaited_gives_its_turn_back() {
    let mut gateway = smooth(1);
    gateway.forwarded("/a", &[GOOD]);
    for _ in 0..9 {
        gateway.verify.pending = true;
        let held = gateway.held("/a", &[GOOD]);
        let passage = gateway.abandon(held);
        gateway.finish(passage, 503, "svc");
    }
    assert_eq!(gateway.heard("refused: Some(KeysUnavailable)"), 9);
}

#[test]
fn a_limit_that_changes_while_one_waits_leaves_him_his_turn() {
    let mut gateway = smooth(3);
    let slow = Leak { requests: 1, per: Nanos::from_secs(10), queue: 3 };
    gateway.policy.rate_limits[0].algorithm = LimitAlgorithm::LeakyBucket(slow);
    gateway.forwarded("/a", &[GOOD]);
    let held = gateway.held("/a", &[GOOD]);
    let faster = Leak { requests: 200, per: Nanos::SECOND, queue: 3 };
    gateway.policy.rate_limits[0].algorithm = LimitAlgorithm::LeakyBucket(faster);
    gateway.now += 10;
    assert!(matches!(gateway.resume("/a", &[GOOD], held), Step::Forward(..)));
    // The queue is as long as the new numbers allow, and empty soon.
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.ms = 20;
    gateway.forwarded("/a", &[GOOD]);
    let held = gateway.held("/a", &[GOOD]);
    gateway.policy.rate_limits[0].algorithm = limit_of("smooth", vec![], 1).algorithm;
    let _left = gateway.abandon(held);
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn an_empty_queue_refuses_whatever_comes_too_soon() {
    let mut policy = empty();
    policy.rate_limits = vec![leaky("even", vec![], 0)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[]);
    gateway.ms = 499;
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.ms = 500;
    gateway.forwarded("/a", &[]);
}
