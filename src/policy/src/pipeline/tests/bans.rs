//! Stories of penalties and bans: who is kept out, for how long, and who is not.

use super::api_keys::{KEY, key, with_keys};
use super::gateway::{BAD, GOOD, Gateway, bucket, empty, header, limit_of, provider, with_jwt};
use crate::model::{
    Adaptive, AuthMode, Bucket, KeyPart, Leak, Limit, LimitAlgorithm, LimitMode, Penalty, Provider,
};
use crate::pipeline::Step;
use crate::reason::Reason;
use crate::stage::Pause;
use crate::stage::ban::{SETS, Who, violated};
use crate::sync::Named;
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde_json::Value;

const BOB: (&str, &str) = ("authorization", "Bearer good:bob");
/// The keys of the sidecar's fingerprints.
pub(super) const KEYS: [u64; 2] = [7, 8];

/// Three refusals in a minute ban for five minutes, then for ten, for an hour at most.
const PENALTY: Penalty = Penalty {
    violations: 3,
    within: Nanos::from_secs(60),
    ban: Nanos::from_secs(300),
    escalate: 2,
    max_ban: Nanos::from_secs(3_600),
};

/// One request a minute, and the penalty.
fn strict(key: Vec<KeyPart>) -> Limit {
    Limit { penalty: Some(PENALTY), ..limit_of("strict", key, 1) }
}

pub(super) fn by_ip() -> Gateway {
    let mut policy = empty();
    policy.rate_limits = vec![strict(vec![KeyPart::Ip])];
    Gateway::new(policy)
}

pub(super) fn by_user() -> Gateway {
    let mut policy = with_jwt();
    policy.rate_limits = vec![strict(vec![KeyPart::User])];
    Gateway::new(policy)
}

/// Uses the limit up and offends until the ban.
#[track_caller]
pub(super) fn offend(gateway: &mut Gateway, headers: &[(&str, &str)]) {
    gateway.forwarded("/a", headers);
    for _ in 0..3 {
        gateway.refused("/a", headers, Reason::RateLimited);
    }
}

#[test]
fn who_keeps_exceeding_a_limit_is_kept_out_for_a_while() {
    let mut gateway = by_ip();
    offend(&mut gateway, &[]);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!((reply.status, header(&reply, "retry-after")), (429, Some("300")));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let kind = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
    assert_eq!((&body["type"], &body["code"]), (&Value::from(kind), &Value::from("banned")));
    assert_eq!(body["retry_after"], 300);
    assert_eq!(header(&reply, "ratelimit"), None);
    gateway.now += 299;
    gateway.ms = 999;
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("1"));
    gateway.now += 1;
    gateway.ms = 0;
    gateway.forwarded("/a", &[]);
}

#[test]
fn a_ban_is_told_by_name_and_counted_by_limit() {
    let mut gateway = by_ip();
    gateway.wall = Nanos::from_secs(1_000_000) + Nanos(1);
    gateway.client = "::ffff:192.0.2.1".parse().ok();
    offend(&mut gateway, &[]);
    let [ban] = &gateway.told.bans[..] else { panic!("{:?}", gateway.told.bans) };
    let who = Named { kind: "ip".to_string(), provider: None, name: "192.0.2.1".to_string() };
    assert_eq!((&ban.who, ban.limit.as_str(), ban.level), (&who, "strict", 0));
    assert_eq!((ban.made_ms, ban.until_ms), (1_001_000_000, 1_001_300_001), "rounded outwards");
    assert_eq!(ban.serial, "0909090909090909");
    assert_eq!(gateway.heard("Banned { limit: \"strict\", span: Nanos(300000000000) }"), 1);
}

#[test]
fn further_bans_are_longer_and_good_conduct_is_forgiven() {
    let mut gateway = by_ip();
    for span in [300, 600, 1_200, 2_400, 3_600, 3_600] {
        offend(&mut gateway, &[]);
        let reply = gateway.refused("/a", &[], Reason::Banned);
        assert_eq!(header(&reply, "retry-after"), Some(span.to_string().as_str()));
        gateway.now += span;
    }
    let levels: Vec<u32> = gateway.told.bans.iter().map(|ban| ban.level).collect();
    assert_eq!(levels, [0, 1, 2, 3, 4, 5]);
    gateway.now += 6 * 3_600;
    offend(&mut gateway, &[]);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("300"));
}

#[test]
fn refusals_that_are_far_apart_lead_nowhere() {
    let mut gateway = by_ip();
    gateway.policy.rate_limits[0].algorithm = LimitAlgorithm::TokenBucket(Bucket {
        requests: 1,
        per: Nanos::from_secs(86_400),
        burst: 1,
    });
    gateway.forwarded("/a", &[]);
    for _ in 0..50 {
        gateway.refused("/a", &[], Reason::RateLimited);
        gateway.now += 31;
    }
}

#[test]
fn an_abuser_behind_a_shared_address_is_banned_alone() {
    let mut gateway = by_user();
    offend(&mut gateway, &[GOOD]);
    gateway.refused("/a", &[GOOD], Reason::Banned);
    gateway.forwarded("/a", &[BOB]);
    gateway.client = "198.51.100.7".parse().ok();
    gateway.refused("/a", &[GOOD], Reason::Banned);
    assert_eq!(gateway.told.bans[0].who.provider.as_deref(), Some("own"));
}

#[test]
fn users_of_one_name_at_two_providers_are_banned_apart() {
    let mut gateway = by_user();
    let other = Provider { name: "idp".to_string(), ..provider() };
    gateway.policy.authentication.as_mut().unwrap().providers.push(other);
    offend(&mut gateway, &[GOOD]);
    gateway.refused("/a", &[GOOD], Reason::Banned);
    gateway.forwarded("/a", &[("authorization", "Bearer other:ada")]);
}

#[test]
fn an_anonymous_request_gets_nobody_banned_by_user() {
    let mut gateway = by_user();
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    gateway.forwarded("/a", &[]);
    for _ in 0..20 {
        gateway.refused("/a", &[], Reason::RateLimited);
    }
    assert!(gateway.told.bans.is_empty());
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn with_user_and_address_in_the_key_no_address_is_banned() {
    let mut gateway = by_user();
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    gateway.policy.rate_limits = vec![strict(vec![KeyPart::Ip, KeyPart::User])];
    offend(&mut gateway, &[GOOD]);
    gateway.refused("/a", &[GOOD], Reason::Banned);
    offend(&mut gateway, &[]);
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.forwarded("/a", &[BOB]);
    assert_eq!(gateway.told.bans.len(), 1);
}

#[test]
fn an_api_key_is_banned_by_its_id_and_no_user_of_that_name_with_it() {
    let mut policy = with_keys(vec![key("ada", "robot-secret")]);
    policy.rate_limits = vec![strict(vec![KeyPart::ApiKey])];
    let mut gateway = Gateway::new(policy);
    offend(&mut gateway, &[KEY]);
    gateway.refused("/a", &[KEY], Reason::Banned);
    gateway.forwarded("/a", &[GOOD]);
    let named = Named { kind: "api_key".to_string(), provider: None, name: "ada".to_string() };
    assert_eq!(gateway.told.bans[0].who, named);
}

#[test]
fn a_limit_that_tells_nobody_apart_bans_nobody() {
    // All users share what an API key would be counted by: none is banned for the others.
    for part in [KeyPart::Tier, KeyPart::ApiKey] {
        let mut gateway = by_user();
        gateway.policy.rate_limits = vec![strict(vec![part])];
        gateway.forwarded("/a", &[GOOD]);
        for _ in 0..20 {
            gateway.refused("/a", &[GOOD], Reason::RateLimited);
        }
    }
}

#[test]
fn neither_shadow_nor_load_is_a_violation() {
    let mut gateway = by_ip();
    gateway.policy.rate_limits[0].mode = LimitMode::Shadow;
    for _ in 0..20 {
        gateway.forwarded("/a", &[]);
    }
    let bucket = Bucket { requests: 10, per: Nanos::from_secs(60), burst: 10 };
    let adaptive = Adaptive { bucket, threshold: 500, floor: 100 };
    gateway.policy.rate_limits[0].mode = LimitMode::Enforce;
    gateway.policy.rate_limits[0].algorithm = LimitAlgorithm::Adaptive(adaptive);
    gateway.load = 1_000;
    for _ in 0..10 {
        gateway.forwarded("/a", &[]);
    }
    gateway.now += 59;
    for _ in 0..20 {
        let reason = gateway.reason("/a", &[]);
        assert!(!matches!(reason, Some(Reason::Banned | Reason::RateLimited)), "{reason:?}");
    }
    assert!(gateway.heard("outcome: Over") > 10);
}

#[test]
fn a_banned_address_is_refused_before_anything_is_counted_or_known() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![strict(vec![KeyPart::Ip])];
    let mut gateway = Gateway::new(policy);
    offend(&mut gateway, &[GOOD]);
    gateway.heard.clear();
    let asked = gateway.verify.asked;
    gateway.refused("/a", &[GOOD], Reason::Banned);
    assert!(gateway.heard.is_empty(), "{:?}", gateway.heard);
    assert_eq!(gateway.verify.asked, asked);
}

#[test]
fn a_banned_identity_keeps_what_it_took_and_a_bad_token_is_never_banned() {
    let mut gateway = by_user();
    gateway.policy.rate_limits.push(limit_of("ip", vec![KeyPart::Ip], 6));
    offend(&mut gateway, &[GOOD]);
    for _ in 0..5 {
        gateway.refused("/a", &[GOOD], Reason::Banned);
    }
    gateway.refused("/a", &[BAD], Reason::RateLimited);
}

/// Two limits at once: one request was under way when the other ban was made.
#[test]
fn a_shorter_ban_does_not_replace_a_longer_one() {
    let mut gateway = by_ip();
    let ban_for = |gateway: &mut Gateway, secs| {
        let penalty = Penalty { violations: 1, ban: Nanos::from_secs(secs), ..PENALTY };
        let limit = Limit { penalty: Some(penalty), ..strict(vec![KeyPart::Ip]) };
        let who = Who::Ip("192.0.2.1".parse().unwrap());
        gateway.with(|_, means, now| violated(&limit, &penalty, &who, means, now))
    };
    assert_eq!(ban_for(&mut gateway, 300), Some(Nanos::from_secs(300)));
    gateway.now += 10;
    assert_eq!(ban_for(&mut gateway, 60), Some(Nanos::from_secs(290)));
    assert_eq!(gateway.told.bans.len(), 2);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("290"));
}

#[test]
fn the_refusal_that_leads_to_a_ban_tells_its_end() {
    let mut gateway = by_ip();
    gateway.forwarded("/a", &[]);
    for expected in ["60", "60", "300"] {
        let reply = gateway.refused("/a", &[], Reason::RateLimited);
        assert_eq!(header(&reply, "retry-after"), Some(expected));
    }
    // Of a limit that takes longer than the ban it is the limit's own.
    let mut gateway = by_ip();
    gateway.policy.rate_limits[0].algorithm = bucket(1, Nanos::from_secs(900), 1);
    gateway.forwarded("/a", &[]);
    for _ in 0..3 {
        let reply = gateway.refused("/a", &[], Reason::RateLimited);
        assert_eq!(header(&reply, "retry-after"), Some("900"));
    }
}

/// A request each second, nine may wait, and who exceeds that once is banned.
fn queue(key: Vec<KeyPart>) -> Limit {
    let penalty = Some(Penalty { violations: 1, ..PENALTY });
    let leak = Leak { requests: 1, per: Nanos::SECOND, queue: 9 };
    Limit { algorithm: LimitAlgorithm::LeakyBucket(leak), penalty, ..strict(key) }
}

#[test]
fn nobody_is_banned_because_too_many_others_wait() {
    let mut gateway = by_ip();
    gateway.policy.rate_limits = vec![queue(vec![KeyPart::Ip])];
    gateway.pause = Pause::Full;
    gateway.forwarded("/a", &[]);
    for _ in 0..20 {
        gateway.refused("/a", &[], Reason::RateLimited);
    }
    assert!(gateway.told.bans.is_empty());
    gateway.pause = Pause::Room;
    for _ in 0..9 {
        let _held = gateway.held("/a", &[]);
    }
    gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(gateway.told.bans.len(), 1, "the queue itself is full");
}

#[test]
fn a_ban_holds_for_those_who_wait_for_their_turn_or_for_keys() {
    for key in [KeyPart::Ip, KeyPart::User] {
        let by_address = key == KeyPart::Ip;
        let mut gateway = by_user();
        gateway.policy.rate_limits = vec![queue(vec![key])];
        gateway.forwarded("/a", &[GOOD]);
        gateway.verify.pending = by_address;
        let for_keys = by_address.then(|| gateway.held("/a", &[GOOD]));
        gateway.verify.pending = false;
        let mut held = gateway.held("/a", &[GOOD]);
        while gateway.told.bans.is_empty() {
            match gateway.send("/a", &[GOOD]) {
                Step::Wait(one) => held = one,
                other => assert!(matches!(other, Step::Reply(..)), "{other:?}"),
            }
        }
        gateway.now += 9;
        assert_eq!(held.until(), Some(gateway.moment().monotonic));
        for held in for_keys.into_iter().chain([held]) {
            let step = gateway.resume("/a", &[GOOD], held);
            let Step::Reply(reply, _) = step else { panic!("not refused: {step:?}") };
            assert_eq!(reply.reason, Reason::Banned);
            assert_eq!(header(&reply, "retry-after"), Some("291"));
        }
        // The last place is free again: without the ban its turn would be now.
        gateway.policy.rate_limits[0].penalty = None;
        gateway.forwarded("/a", &[GOOD]);
    }
}

#[test]
fn bans_are_looked_up_only_where_a_penalty_can_make_them() {
    for (key, address, identity) in [
        (vec![KeyPart::Ip], 1, 0),
        (vec![KeyPart::User], 0, 1),
        (vec![KeyPart::Ip, KeyPart::User], 0, 1),
        (vec![KeyPart::Ip, KeyPart::ApiKey], 0, 0),
        (vec![KeyPart::Tier], 0, 0),
    ] {
        let mut gateway = by_user();
        gateway.policy.rate_limits = vec![strict(key.clone())];
        gateway.forwarded("/a", &[GOOD]);
        assert_eq!(gateway.store.reads, 1 + address + identity, "{key:?}");
    }
}

#[test]
fn without_shared_state_nobody_is_banned_and_it_is_counted() {
    let mut gateway = by_ip();
    offend(&mut gateway, &[]);
    gateway.store.down = true;
    gateway.refused("/a", &[], Reason::StateUnavailable);
    assert_eq!(gateway.heard("StoreFailed"), 1);
}

#[test]
fn a_ban_that_could_not_be_written_is_reported_all_the_same() {
    let mut gateway = by_ip();
    gateway.forwarded("/a", &[]);
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.refused("/a", &[], Reason::RateLimited);
    // One write counts the violation; the eight tries of the ban are lost.
    gateway.store.rivals_after = Some((1, 8));
    gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(gateway.heard("StoreFailed"), 1);
    assert_eq!(gateway.told.bans.len(), 1);
}

#[test]
fn the_tables_of_bans_are_bounded() {
    let mut gateway = by_ip();
    let strict = Penalty { violations: 1, ..PENALTY };
    gateway.policy.rate_limits[0].penalty = Some(strict);
    // Nobody is admitted: each request is a violation, and each violation a ban.
    gateway.policy.rate_limits[0].algorithm =
        LimitAlgorithm::TokenBucket(Bucket { requests: 1, per: Nanos::from_secs(60), burst: 0 });
    for client in 0..40_000_u32 {
        gateway.client = Some(IpAddr::from(client.to_be_bytes()));
        gateway.send("/a", &[]);
        gateway.heard.clear();
    }
    assert_eq!(gateway.told.bans.len(), 40_000);
    let values = gateway.store.values.len();
    assert!(values <= 2 * SETS as usize, "{values}");
}

#[test]
fn a_policy_without_penalties_and_without_a_sidecar_looks_for_no_bans() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("all", vec![], 9)];
    let mut gateway = Gateway::new(policy);
    gateway.state_keys = Some(KEYS);
    gateway.forwarded("/a", &[GOOD]);
    assert_eq!(gateway.store.reads, 1, "the limit's own");
}
