//! Stories of API keys: who may use which, where it may stand, and what is never said.

use super::gateway::{
    GOOD, Gateway, authentication, empty, header, headers, limit_of, sidecar, with_jwt,
};
use crate::model::{ApiKey, ApiKeys, AuthMode, Cidr, KeyPart, Policy, TokenLocation};
use crate::reason::Reason;
use crate::replica::api_keys::{Entry, bucket, encode};
use crate::replica::{Bans, STATE_KEY, Seeded, State};
use crate::stage::api_key::KEY_BYTES_MAX;
use crate::store::Versioned;
use crate::testing::FakeDigest;
use crate::time::Nanos;
use crate::verify::Digest;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

pub(super) const KEY: (&str, &str) = ("x-api-key", "robot-secret");

pub(super) fn key(id: &str, secret: &str) -> ApiKey {
    ApiKey {
        id: id.to_string(),
        sha256: FakeDigest.sha256(secret.as_bytes()),
        permissions: vec!["samples:*:read".to_string()],
        tier: Some("internal".to_string()),
        expires: None,
        cidrs: vec![],
    }
}

fn api_keys(keys: Vec<ApiKey>) -> ApiKeys {
    let query = TokenLocation::Query("api_key".to_string());
    let header = TokenLocation::Header { name: "x-api-key".to_string(), scheme: None };
    ApiKeys { locations: vec![header, query], keys, forward_key: false, forward_id: None }
}

pub(super) fn with_keys(keys: Vec<ApiKey>) -> Policy {
    let mut authentication = authentication();
    authentication.api_keys = Some(api_keys(keys));
    Policy { authentication: Some(authentication), ..empty() }
}

fn robot() -> Gateway {
    Gateway::new(with_keys(vec![key("robot", "robot-secret")]))
}

fn settings(gateway: &mut Gateway) -> &mut ApiKeys {
    gateway.policy.authentication.as_mut().unwrap().api_keys.as_mut().unwrap()
}

fn put(gateway: &mut Gateway, key: &[u8], bytes: Vec<u8>) {
    gateway.store.values.insert(key.to_vec(), Versioned { bytes, cas: 1 });
}

/// Hands over keys as the sidecar does.
fn hand_over(gateway: &mut Gateway, secret: &str, entry: &Entry, seeded: Seeded) {
    let hash = FakeDigest.sha256(secret.as_bytes());
    put(gateway, &bucket(&hash).key(), encode([(&hash, entry)]));
    let bans = Bans::None;
    let state = State { store: 1, number: 1, keys: [1, 2], seeded, bans };
    put(gateway, STATE_KEY, state.to_bytes());
}

#[test]
fn a_key_of_the_policy_is_an_identity_and_goes_no_further() {
    let mut gateway = robot();
    let (edits, _) = gateway.forwarded("/a", &[KEY]);
    assert_eq!(edits.remove, ["x-api-key"]);
    assert_eq!(gateway.heard, ["Authentication { method: ApiKey, outcome: Accepted }"]);
    assert_eq!(gateway.verify.asked, 0);
    assert_eq!(gateway.store.reads, 0, "without a sidecar nobody else is asked");
}

#[test]
fn a_bad_key_is_refused_and_never_told_why() {
    let mut gateway = robot();
    let near = Cidr { network: "10.0.0.0".parse().unwrap(), prefix: 8 };
    let expired = ApiKey { expires: Some(Nanos::from_secs(1_000)), ..key("old", "old-secret") };
    let far = ApiKey { cidrs: vec![near], ..key("far", "far-secret") };
    settings(&mut gateway).keys.extend([expired, far]);
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    settings(&mut gateway).keys.push(key("long", &long));
    let mut bodies = vec![];
    for secret in ["", "wrong", "old-secret", "far-secret", &long] {
        let reply = gateway.refused("/a", &[("x-api-key", secret)], Reason::ApiKeyInvalid);
        bodies.push(reply);
    }
    let two = [KEY, ("x-api-key", "other")];
    bodies.push(gateway.refused("/a", &two, Reason::ApiKeyInvalid));
    assert!(bodies.iter().all(|reply| *reply == bodies[0]));
    let event = "Authentication { method: ApiKey, outcome: Refused(ApiKeyInvalid) }";
    assert_eq!(gateway.heard(event), 6);
}

#[test]
fn a_key_is_good_until_its_last_second_and_only_from_its_networks() {
    let mut gateway = robot();
    settings(&mut gateway).keys[0].expires = Some(Nanos::from_secs(1_001));
    let near = Cidr { network: "192.0.2.0".parse().unwrap(), prefix: 24 };
    settings(&mut gateway).keys[0].cidrs = vec![near];
    gateway.forwarded("/a", &[KEY]);
    gateway.client = None;
    gateway.refused("/a", &[KEY], Reason::ApiKeyInvalid);
    gateway.client = "192.0.3.1".parse().ok();
    gateway.refused("/a", &[KEY], Reason::ApiKeyInvalid);
    gateway.client = "::ffff:192.0.2.9".parse().ok();
    gateway.forwarded("/a", &[KEY]);
    gateway.now += 1;
    gateway.refused("/a", &[KEY], Reason::ApiKeyInvalid);
}

#[test]
fn while_a_key_is_rotated_both_secrets_are_good() {
    let mut gateway = robot();
    settings(&mut gateway).keys[0].expires = Some(Nanos::from_secs(2_000));
    settings(&mut gateway).keys.push(key("robot", "new-secret"));
    gateway.forwarded("/a", &[KEY]);
    gateway.forwarded("/a", &[("x-api-key", "new-secret")]);
    gateway.now = 2_000;
    gateway.refused("/a", &[KEY], Reason::ApiKeyInvalid);
    gateway.forwarded("/a", &[("x-api-key", "new-secret")]);
}

#[test]
fn keys_whose_hashes_begin_alike_are_told_apart() {
    let mut gateway = robot();
    let mut twin = key("twin", "robot-secret");
    twin.sha256[31] ^= 1;
    settings(&mut gateway).keys.insert(0, twin);
    settings(&mut gateway).forward_id = Some("x-key-id".to_string());
    let (edits, _) = gateway.forwarded("/a", &[KEY]);
    assert_eq!(edits.set, [("x-key-id".to_string(), b"robot".to_vec())]);
}

#[test]
fn a_token_and_a_key_in_one_request_are_refused_even_if_both_are_good() {
    let mut gateway = robot();
    gateway.refused("/a", &[GOOD, KEY], Reason::TokenMalformed);
    gateway.refused("/a?api_key=robot-secret", &[GOOD], Reason::TokenMalformed);
    gateway.refused("/a?api_key=wrong", &[KEY], Reason::ApiKeyInvalid);
    gateway.forwarded("/a?api_key=robot-secret", &[KEY]);
}

#[test]
fn a_key_in_the_query_is_stripped_whatever_else_happens() {
    let mut gateway = robot();
    settings(&mut gateway).forward_key = true;
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    let path_of = |edits: crate::reply::Edits| String::from_utf8(edits.set[0].1.clone()).unwrap();
    for spelling in ["api_key", "api%5Fkey", "%61pi_key"] {
        let path = ["/a?x=1&", spelling, "=robot%2Dsecret"].concat();
        assert_eq!(path_of(gateway.forwarded(&path, &[]).0), "/a?x=1");
        let path = ["/health?", spelling, "=anything"].concat();
        assert_eq!(path_of(gateway.forwarded(&path, &[]).0), "/health", "public");
    }
    let (edits, _) = gateway.forwarded("/a", &[KEY]);
    assert!(edits.is_empty(), "in the header the upstream sees it, as the policy says");
}

#[test]
fn the_upstream_learns_the_id_from_us_alone() {
    let mut gateway = robot();
    settings(&mut gateway).forward_id = Some("x-key-id".to_string());
    let forged = [("x-key-id", "root"), ("x_key_id", "root")];
    for headers in [&forged[..], &[forged[0], forged[1], GOOD]] {
        let path = if headers.len() == 2 { "/health" } else { "/a" };
        let (edits, _) = gateway.forwarded(path, headers);
        assert_eq!(edits.remove[..2], ["x-key-id", "x_key_id"]);
        assert!(!edits.set.iter().any(|(name, _)| name == "x-key-id"));
    }
    let (edits, _) = gateway.forwarded("/a", &[forged[0], forged[1], KEY]);
    assert_eq!(edits.set, [("x-key-id".to_string(), b"robot".to_vec())]);
}

#[test]
fn a_key_that_the_sidecar_made_is_good_like_one_of_the_policy() {
    let mut gateway = robot();
    gateway.policy.sidecar = Some(sidecar());
    let entry = Entry {
        id: "made".to_string(),
        expires: Some(2_000),
        cidrs: vec!["192.0.2.0/24".to_string()],
        ..Entry::default()
    };
    hand_over(&mut gateway, "made-secret", &entry, Seeded::Yes);
    let made = ("x-api-key", "made-secret");
    settings(&mut gateway).forward_id = Some("x-key-id".to_string());
    let (edits, _) = gateway.forwarded("/a", &[made]);
    assert_eq!(edits.set, [("x-key-id".to_string(), b"made".to_vec())]);
    gateway.client = None;
    gateway.refused("/a", &[made], Reason::ApiKeyInvalid);
    gateway.client = "10.0.0.1".parse().ok();
    gateway.refused("/a", &[made], Reason::ApiKeyInvalid);
    gateway.client = "192.0.2.1".parse().ok();
    gateway.now = 2_000;
    gateway.refused("/a", &[made], Reason::ApiKeyInvalid);
    let odd = Entry { cidrs: vec!["what".to_string()], ..Entry::default() };
    hand_over(&mut gateway, "made-secret", &odd, Seeded::Yes);
    gateway.refused("/a", &[made], Reason::ApiKeyInvalid);
}

#[test]
fn whether_a_key_is_bad_is_not_said_before_the_sidecar_has_told_of_all() {
    let mut gateway = robot();
    gateway.policy.sidecar = Some(sidecar());
    let unknown = ("x-api-key", "unknown");
    let reply = gateway.refused("/a", &[unknown], Reason::StateUnavailable);
    assert_eq!((reply.status, header(&reply, "retry-after")), (503, Some("2")));
    hand_over(&mut gateway, "made-secret", &Entry::default(), Seeded::NotYet);
    gateway.refused("/a", &[unknown], Reason::StateUnavailable);
    gateway.forwarded("/a", &[("x-api-key", "made-secret")]);
    hand_over(&mut gateway, "made-secret", &Entry::default(), Seeded::Yes);
    gateway.refused("/a", &[unknown], Reason::ApiKeyInvalid);
    gateway.store.down = true;
    gateway.refused("/a", &[unknown], Reason::StateUnavailable);
    gateway.forwarded("/a", &[KEY]);
}

#[test]
fn a_limit_counts_a_key_by_its_id_and_never_as_a_user_of_that_name() {
    let mut policy = with_keys(vec![key("ada", "robot-secret"), key("bob", "bob-secret")]);
    policy.rate_limits =
        vec![limit_of("user", vec![KeyPart::User], 1), limit_of("key", vec![KeyPart::ApiKey], 2)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[KEY]);
    gateway.forwarded("/a", &[GOOD]);
    gateway.refused("/a", &[KEY], Reason::RateLimited);
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.policy.rate_limits.remove(0);
    gateway.forwarded("/a", &[KEY]);
    gateway.refused("/a", &[KEY], Reason::RateLimited);
    gateway.forwarded("/a", &[("x-api-key", "bob-secret")]);
}

#[test]
fn a_limit_by_tier_knows_the_tier_of_a_key() {
    let mut policy = with_keys(vec![key("robot", "robot-secret")]);
    let mut limit = limit_of("internal", vec![], 1);
    limit.matches.tiers = vec!["internal".to_string()];
    policy.rate_limits = vec![limit];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[GOOD]);
    gateway.forwarded("/a", &[GOOD]);
    gateway.forwarded("/a", &[KEY]);
    gateway.refused("/a", &[KEY], Reason::RateLimited);
}

#[test]
fn a_challenge_names_every_kind_of_credential_that_is_taken() {
    let realm = "realm=\"test\"";
    let both = [["Bearer ", realm].concat(), ["ApiKey ", realm].concat()];
    let mut gateway = robot();
    let reply = gateway.refused("/a", &[], Reason::CredentialsMissing);
    assert_eq!(headers(&reply, "www-authenticate"), both);
    let reply = gateway.refused("/a", &[("x-api-key", "wrong")], Reason::ApiKeyInvalid);
    assert_eq!(headers(&reply, "www-authenticate"), both, "no token was sent, no error code");
    let reply = gateway.refused("/a", &[("authorization", "Bearer x")], Reason::TokenUntrusted);
    let challenges = headers(&reply, "www-authenticate");
    assert!(challenges[0].contains("error=\"invalid_token\""));
    assert_eq!(challenges[1], both[1]);
    gateway.policy.authentication.as_mut().unwrap().providers.clear();
    let reply = gateway.refused("/a", &[], Reason::CredentialsMissing);
    assert_eq!(headers(&reply, "www-authenticate"), both[1..]);
    let mut gateway = Gateway::new(with_jwt());
    let reply = gateway.refused("/a", &[], Reason::CredentialsMissing);
    assert_eq!(headers(&reply, "www-authenticate"), both[..1]);
}
