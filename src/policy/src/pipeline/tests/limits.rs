//! Stories of limits: what is taken, what is given back, what the client is told.

use super::gateway::{
    BAD, GOOD, Gateway, breaker_settings, bucket, empty, header, limit_of, with_jwt,
};
use crate::model::{
    Access, Adaptive, Authorization, Breaker, Bucket, Cidr, KeyPart, Leak, Limit, LimitAlgorithm,
    LimitMode, Mode, Unavailable, Window,
};
use crate::pattern::PathPattern;
use crate::pipeline::Step;
use crate::reason::Reason;
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::IpAddr;
use serde_json::{Value, json};

/// A reviewer's case: both tables had one name, and each read the other's sets as rubbish.
#[test]
fn a_limit_named_breaker_leaves_the_breakers_alone() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("breaker", vec![KeyPart::Ip], 1_000)];
    policy.rate_limits[0].table_sets = 512;
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    for client in 0..5_000_u32 {
        gateway.client = Some(IpAddr::from(client.to_be_bytes()));
        gateway.refused("/a", &[], Reason::BreakerOpen);
    }
    assert_eq!(gateway.heard("RecordUnreadable"), 0);
}

#[test]
fn a_limit_by_user_counts_each_user_alone() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("user", vec![KeyPart::User], 2)];
    let mut gateway = Gateway::new(policy);
    let bob = ("authorization", "Bearer good:bob");
    gateway.forwarded("/a", &[GOOD]);
    gateway.forwarded("/a", &[GOOD]);
    let reply = gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.forwarded("/a", &[bob]);
    assert_eq!(header(&reply, "retry-after"), Some("30"));
    assert_eq!(header(&reply, "ratelimit"), Some("\"user\";r=0;t=30"));
    assert_eq!(header(&reply, "ratelimit-policy"), Some("\"user\";q=2;w=60"));
    assert_eq!(header(&reply, "x-ratelimit-remaining"), Some("0"));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["violated-policies"], json!(["user"]));
    assert_eq!(body["retry_after"], 30);
    gateway.now += 30;
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn a_refusal_by_one_limit_gives_back_what_the_others_took() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("all", vec![], 3), limit_of("user", vec![KeyPart::User], 1)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[GOOD]);
    for _ in 0..10 {
        gateway.refused("/a", &[GOOD], Reason::RateLimited);
    }
    gateway.forwarded("/a", &[("authorization", "Bearer good:bob")]);
    gateway.forwarded("/a", &[("authorization", "Bearer good:eve")]);
    gateway.refused("/a", &[("authorization", "Bearer good:kim")], Reason::RateLimited);
}

#[test]
fn who_is_refused_is_told_when_all_limits_will_let_him_pass() {
    for limit in algorithms() {
        let name = limit.name.clone();
        let mut gateway = Gateway::new(empty());
        let mut first = limit_of("first", vec![], 3);
        first.algorithm = bucket(6, Nanos::from_secs(60), 3);
        gateway.policy.rate_limits = vec![first, limit];
        let slow = &mut gateway.policy.rate_limits[1];
        slow.algorithm = slowly(slow.algorithm);
        let mut shadow = limit_of("shadow", vec![], 1);
        shadow.mode = LimitMode::Shadow;
        gateway.policy.rate_limits.push(shadow);
        for _ in 0..3 {
            let reason = gateway.reason("/a", &[]);
            assert_eq!(reason, None, "{name}");
        }
        gateway.heard.clear();
        let swaps = gateway.store.swaps;
        let reply = gateway.refused("/a", &[], Reason::RateLimited);
        let wait: u64 = header(&reply, "retry-after").unwrap().parse().unwrap();
        assert!(header(&reply, "ratelimit").unwrap().starts_with("\"first\";r=0;t="));
        assert_eq!((gateway.heard("RateLimit {"), gateway.store.swaps), (1, swaps), "only a look");
        // From now on both are remembered.
        let reads = gateway.store.reads;
        for _ in 0..50 {
            let again = gateway.refused("/a", &[], Reason::RateLimited);
            assert_eq!(header(&again, "retry-after"), header(&reply, "retry-after"), "{name}");
        }
        assert_eq!(gateway.store.reads, reads, "a flood costs no shared data");
        gateway.now += wait - 1;
        gateway.refused("/a", &[], Reason::RateLimited);
        gateway.now += 1;
        assert_eq!(gateway.reason("/a", &[]), None, "{name}");
    }
}

#[test]
fn a_refusal_that_is_remembered_looks_at_each_clients_own_limits_too() {
    let mut gateway = Gateway::new(empty());
    let (mut all, mut own) = (limit_of("all", vec![], 2), limit_of("own", vec![KeyPart::Ip], 1));
    all.algorithm = bucket(2, Nanos::from_secs(60), 2);
    own.algorithm = bucket(1, Nanos::from_secs(600), 1);
    gateway.policy.rate_limits = vec![all, own];
    let mut wait = |client: u8| {
        gateway.client = Some(IpAddr::from([10, 0, 0, client]));
        match gateway.send("/a", &[]) {
            Step::Reply(reply, _) => header(&reply, "retry-after").unwrap().parse().unwrap(),
            _ => 0,
        }
    };
    assert_eq!([wait(1), wait(2)], [0, 0]);
    // The first refusal of all is remembered; what it says to one does not hold for another.
    assert_eq!([wait(3), wait(1), wait(3)], [30, 600, 30]);
}

/// So that one comes back in ten minutes.
fn slowly(algorithm: LimitAlgorithm) -> LimitAlgorithm {
    let per = Nanos::from_secs(1_800);
    match algorithm {
        LimitAlgorithm::TokenBucket(bucket) => {
            LimitAlgorithm::TokenBucket(Bucket { per, ..bucket })
        }
        LimitAlgorithm::SlidingWindow(window) => {
            LimitAlgorithm::SlidingWindow(Window { per, ..window })
        }
        LimitAlgorithm::LeakyBucket(leak) => LimitAlgorithm::LeakyBucket(Leak { per, ..leak }),
        LimitAlgorithm::Adaptive(adaptive) => {
            let bucket = Bucket { per, ..adaptive.bucket };
            LimitAlgorithm::Adaptive(Adaptive { bucket, ..adaptive })
        }
    }
}

#[test]
fn who_can_never_pass_is_not_told_to_come_back() {
    let mut gateway = Gateway::new(empty());
    gateway.policy.rate_limits = vec![limit_of("first", vec![], 1), limit_of("never", vec![], 1)];
    gateway.forwarded("/a", &[]);
    gateway.policy.rate_limits[1].cost = 2;
    let reply = gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(header(&reply, "retry-after"), None);
}

/// One limit of each algorithm, as early ones, each with room for three.
fn algorithms() -> [Limit; 4] {
    let per = Nanos::from_secs(60);
    let of = Bucket { requests: 3, per, burst: 3 };
    [
        LimitAlgorithm::TokenBucket(of),
        LimitAlgorithm::SlidingWindow(Window { requests: 3, per }),
        LimitAlgorithm::Adaptive(Adaptive { bucket: of, threshold: 500, floor: 100 }),
        LimitAlgorithm::LeakyBucket(Leak { requests: 3, per, queue: 2 }),
    ]
    .map(|algorithm| Limit { algorithm, ..limit_of(algorithm.name(), vec![], 1) })
}

#[test]
fn every_limit_counts_a_request_once_and_early_ones_before_anybody_is_known() {
    let mut policy = with_jwt();
    policy.rate_limits = algorithms().to_vec();
    for limit in &mut policy.rate_limits {
        limit.key = vec![KeyPart::User];
    }
    policy
        .rate_limits
        .extend(algorithms().map(|limit| Limit { name: limit.name + "-early", ..limit }));
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[GOOD]);
    assert_eq!(gateway.heard("RateLimit {"), 8);
    let at = |what: &str| gateway.heard.iter().position(|event| event.contains(what)).unwrap();
    let known = at("Authentication");
    for name in ["token_bucket", "sliding_window", "adaptive", "leaky_bucket"] {
        assert_eq!(gateway.heard(&format!("limit: \"{name}\"")), 1);
        assert!(at(&format!("limit: \"{name}-early\"")) < known);
        assert!(known < at(&format!("limit: \"{name}\"")));
    }
    assert_eq!(gateway.store.reads, 8, "one read for each");
    assert_eq!(gateway.store.swaps, 8, "and one write");
}

#[test]
fn every_algorithm_gets_back_what_a_later_limit_or_the_breaker_refuses() {
    for limit in algorithms() {
        let mut policy = with_jwt();
        policy.rate_limits = vec![limit, limit_of("user", vec![KeyPart::User], 1)];
        policy.circuit_breakers.default = Some(Breaker {
            failure_threshold: 1,
            timeout: Nanos::from_secs(600),
            max_timeout: Nanos::from_secs(600),
            ..breaker_settings()
        });
        let mut gateway = Gateway::new(policy);
        let (_, passage) = gateway.forwarded("/a", &[GOOD]);
        for _ in 0..9 {
            gateway.refused("/a", &[GOOD], Reason::RateLimited);
        }
        gateway.policy.rate_limits.pop();
        // Before anything could have come back by itself.
        let left = (0..9).filter(|_| gateway.reason("/a", &[GOOD]).is_none()).count();
        assert_eq!(left, 2, "{}", gateway.policy.rate_limits[0].name);
        gateway.finish(passage, 500, "svc");
        gateway.now += 80;
        for _ in 0..9 {
            gateway.refused("/a", &[GOOD], Reason::BreakerOpen);
        }
        gateway.policy.circuit_breakers.default = None;
        let left = (0..9).filter(|_| gateway.reason("/a", &[GOOD]).is_none()).count();
        assert_eq!(left, 3, "{}", gateway.policy.rate_limits[0].name);
    }
}

#[test]
fn what_authorization_refuses_stays_taken_from_every_algorithm() {
    for limit in algorithms() {
        let mut policy = with_jwt();
        policy.rate_limits = vec![limit];
        let (mode, rules) = (Mode::Enforce, vec![]);
        policy.authorization = Some(Authorization { mode, default: Access::Deny, rules });
        let mut gateway = Gateway::new(policy);
        for _ in 0..3 {
            gateway.refused("/a", &[GOOD], Reason::PermissionDenied);
        }
        gateway.refused("/a", &[GOOD], Reason::RateLimited);
    }
}

/// Tokens that were taken long ago have come back by themselves: given back as well, they would be
/// there twice.
#[test]
fn what_is_given_back_late_is_what_has_not_come_back_by_itself() {
    for limit in algorithms().into_iter().take(3) {
        let name = limit.name.clone();
        let mut policy = with_jwt();
        policy.rate_limits = vec![limit, limit_of("user", vec![KeyPart::User], 0)];
        let mut gateway = Gateway::new(policy);
        gateway.verify.pending = true;
        let held: Vec<_> = (0..3).map(|_| gateway.held("/a", &[GOOD])).collect();
        gateway.verify.pending = false;
        gateway.now += 120;
        let user = gateway.policy.rate_limits.pop().unwrap();
        for _ in 0..3 {
            gateway.forwarded("/a", &[GOOD]);
        }
        gateway.policy.rate_limits.push(user);
        for held in held {
            let step = gateway.resume("/a", &[GOOD], held);
            assert!(matches!(step, Step::Reply(..)), "{step:?}");
        }
        gateway.policy.rate_limits.pop();
        assert_eq!(gateway.reason("/a", &[GOOD]), Some(Reason::RateLimited), "{name}");
    }
}

#[test]
fn a_bad_token_keeps_what_it_took_so_that_guessing_is_limited() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("ip", vec![KeyPart::Ip], 2)];
    let mut gateway = Gateway::new(policy);
    gateway.refused("/a", &[BAD], Reason::TokenUntrusted);
    gateway.refused("/a", &[BAD], Reason::TokenUntrusted);
    gateway.refused("/a", &[BAD], Reason::RateLimited);
    gateway.client = "192.0.2.2".parse().ok();
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn the_response_tells_the_limit_nearest_to_exhaustion() {
    let mut policy = with_jwt();
    policy.rate_limits =
        vec![limit_of("wide", vec![], 100), limit_of("tight", vec![KeyPart::User], 4)];
    policy.security_headers = vec![("x-frame-options".to_string(), "DENY".to_string())];
    let mut gateway = Gateway::new(policy);
    let (_, passage) = gateway.forwarded("/a", &[GOOD]);
    let added = gateway.added(&passage, &["x-ratelimit-limit"]);
    let expected = [
        "x-frame-options: DENY",
        "ratelimit: \"tight\";r=3;t=15",
        "ratelimit-policy: \"tight\";q=4;w=60",
        "x-ratelimit-remaining: 3",
        "x-ratelimit-reset: 15",
    ];
    assert_eq!(added, expected);
}

#[test]
fn exempt_addresses_and_unmatched_requests_are_not_counted() {
    let mut policy = empty();
    let mut only_api = limit_of("api", vec![], 1);
    only_api.matches.paths = vec![PathPattern::parse("/api/**").unwrap()];
    only_api.matches.methods = vec!["GET".to_string()];
    policy.rate_limits = vec![only_api];
    policy.ip.exempt = vec![Cidr { network: "10.9.0.0".parse().unwrap(), prefix: 16 }];
    let mut gateway = Gateway::new(policy);
    for _ in 0..3 {
        gateway.forwarded("/other", &[]);
    }
    gateway.forwarded("/api/x", &[]);
    gateway.refused("/api/x", &[], Reason::RateLimited);
    gateway.client = "10.9.1.1".parse().ok();
    gateway.forwarded("/api/x", &[]);
}

#[test]
fn a_limit_in_shadow_reports_and_never_refuses() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("trial", vec![], 1)];
    policy.rate_limits[0].mode = LimitMode::Shadow;
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[]);
    gateway.forwarded("/a", &[]);
    assert_eq!(gateway.heard("ShadowOver"), 1);
}

#[test]
fn without_shared_state_a_limit_does_what_its_policy_says_and_breakers_let_pass() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("all", vec![], 1)];
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.store.down = true;
    let reply = gateway.refused("/a", &[], Reason::StateUnavailable);
    assert_eq!(reply.status, 503);
    assert_eq!(gateway.heard("ErrorRefused"), 1);
    gateway.policy.rate_limits[0].on_unavailable = Unavailable::Allow;
    gateway.call(500);
    gateway.call(500);
    gateway.call(200);
    assert_eq!(gateway.heard("ErrorAllowed"), 3);
}
