//! Stories of keys: what is told apart, what is not, and which requests a limit counts at all.

use super::api_keys::{KEY, key, with_keys};
use super::gateway::{GOOD, Gateway, empty, limit_of, patterns, provider, with_jwt};
use crate::model::{AuthMode, Endpoint, KeyPart, LimitMode, Policy, Provider};
use crate::pattern::PathPattern;
use crate::reason::Reason;
use crate::stage::limit::KEY_TEXT_MAX;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

fn header(name: &str) -> KeyPart {
    KeyPart::Header(name.to_string())
}

fn by(key: Vec<KeyPart>) -> Gateway {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("one", key, 1)];
    Gateway::new(policy)
}

/// The first requests of two clients: whether they share what the limit gives.
#[track_caller]
fn check(gateway: &mut Gateway, one: &[(&str, &str)], other: &[(&str, &str)], shared: bool) {
    gateway.store.values.clear();
    gateway.leases.forget();
    gateway.forwarded("/a", one);
    gateway.refused("/a", one, Reason::RateLimited);
    assert_eq!(gateway.reason("/a", other).is_some(), shared, "{one:?} and {other:?}");
}

#[test]
fn every_part_of_a_key_tells_requests_apart() {
    let mut gateway = by(vec![header("x-a"), header("x-b")]);
    check(&mut gateway, &[GOOD, ("x-a", "1")], &[GOOD, ("x-a", "2")], false);
    check(&mut gateway, &[GOOD, ("x-b", "1")], &[GOOD, ("x-b", "2")], false);
    check(&mut gateway, &[GOOD, ("x-a", "1")], &[GOOD, ("x-a", "1"), ("x-c", "2")], true);
    let mut gateway = by(vec![KeyPart::Claim("sub".to_string())]);
    check(&mut gateway, &[GOOD], &[("authorization", "Bearer good:bob")], false);
    let mut gateway = by(vec![KeyPart::Tier]);
    check(&mut gateway, &[GOOD], &[("authorization", "Bearer good:bob")], true);
}

#[test]
fn separators_inside_values_do_not_confuse() {
    let mut gateway = by(vec![header("x-a"), header("x-b")]);
    for (one, other) in [
        ([("x-a", "a|b"), ("x-b", "c")], [("x-a", "a"), ("x-b", "b|c")]),
        ([("x-a", "a,x-b=c"), ("x-b", "")], [("x-a", "a"), ("x-b", "c")]),
        ([("x-a", "ab"), ("x-b", "c")], [("x-a", "a"), ("x-b", "bc")]),
        ([("x-a", ""), ("x-b", "a")], [("x-a", "a"), ("x-b", "")]),
    ] {
        let request = |pair: [(&'static str, &'static str); 2]| [GOOD, pair[0], pair[1]];
        check(&mut gateway, &request(one), &request(other), false);
    }
}

#[test]
fn what_a_request_lacks_counts_as_a_dash() {
    let mut gateway = by(vec![header("x-a")]);
    check(&mut gateway, &[GOOD], &[GOOD, ("x-a", "-")], true);
    check(&mut gateway, &[GOOD], &[GOOD, ("x-a", "")], false);
    let mut gateway = by(vec![KeyPart::Claim("none".to_string())]);
    check(&mut gateway, &[GOOD], &[("authorization", "Bearer good:bob")], true);
    let mut gateway = by(vec![KeyPart::Service]);
    gateway.service = None;
    gateway.forwarded("/a", &[GOOD]);
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.service = Some("svc");
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn anonymous_requests_are_one_client_that_no_user_can_be_named_as() {
    let mut gateway = by(vec![KeyPart::User]);
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    check(&mut gateway, &[], &[("x-a", "1")], true);
    check(&mut gateway, &[], &[("authorization", "Bearer good:-")], false);
    check(&mut gateway, &[], &[GOOD], false);
}

#[test]
fn users_of_one_name_at_two_providers_are_two() {
    let mut gateway = by(vec![KeyPart::User]);
    let other = Provider { name: "idp".to_string(), ..provider() };
    gateway.policy.authentication.as_mut().unwrap().providers.push(other);
    check(&mut gateway, &[GOOD], &[("authorization", "Bearer other:ada")], false);
    // A token without a subject is its provider's only user, and no user of that name elsewhere.
    let none = ("authorization", "Bearer good:");
    check(&mut gateway, &[none], &[("authorization", "Bearer other:own")], false);
}

#[test]
fn one_address_in_two_spellings_is_one_client() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("one", vec![KeyPart::Ip], 1)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[]);
    gateway.client = "::ffff:192.0.2.1".parse().ok();
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.client = "2001:db8::1".parse().ok();
    gateway.forwarded("/a", &[]);
    gateway.client = None;
    gateway.forwarded("/a", &[]);
    gateway.refused("/a", &[], Reason::RateLimited);
}

#[test]
fn a_limit_by_service_and_endpoint_counts_each_pair() {
    let mut policy = empty();
    let endpoint = |name: &str, path: &str| Endpoint {
        name: name.to_string(),
        path: PathPattern::parse(path).unwrap(),
        methods: vec!["GET".to_string()],
    };
    policy.endpoints = vec![endpoint("sample", "/samples/{id}"), endpoint("rest", "/samples/**")];
    policy.rate_limits = vec![limit_of("each", vec![KeyPart::Service, KeyPart::Endpoint], 1)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/samples/1", &[]);
    gateway.refused("/samples/2", &[], Reason::RateLimited);
    gateway.refused("/Samples//2", &[], Reason::RateLimited);
    gateway.forwarded("/samples", &[]);
    gateway.forwarded("/", &[]);
    gateway.method = "POST";
    gateway.refused("/samples/1", &[], Reason::RateLimited);
    gateway.service = Some("other");
    gateway.forwarded("/samples/1", &[]);
}

/// As authorization does, so that `//api/x` does not slip past.
#[test]
fn a_path_that_any_server_may_read_as_the_limits_counts() {
    let mut policy = empty();
    let mut api = limit_of("api", vec![], 1);
    api.matches.paths = patterns(&["/api/**"]);
    policy.rate_limits = vec![api];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/api/x", &[]);
    for path in [
        "//api/x",
        "/x/../api/x",
        "/%61pi/x",
        "/api%2fx",
        "/API/x",
        "/api;v=1/x",
        "/api/x?y",
        "/api/%00",
        "/x/%zz",
    ] {
        gateway.refused(path, &[], Reason::RateLimited);
    }
    gateway.forwarded("/apix", &[]);
    gateway.forwarded("/x/api", &[]);
}

#[test]
fn methods_services_and_tiers_narrow_a_limit_together() {
    let mut policy = with_jwt();
    let mut narrow = limit_of("narrow", vec![], 1);
    narrow.matches.methods = vec!["GET".to_string()];
    narrow.matches.services = vec!["svc".to_string()];
    narrow.matches.tiers = vec!["gold".to_string()];
    policy.rate_limits = vec![narrow];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[GOOD]);
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.method = "get";
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.method = "POST";
    gateway.forwarded("/a", &[GOOD]);
    gateway.method = "GET";
    gateway.service = Some("other");
    gateway.forwarded("/a", &[GOOD]);
    gateway.service = Some("svc");
    gateway.policy.rate_limits[0].matches.tiers = vec!["silver".to_string()];
    gateway.forwarded("/a", &[GOOD]);
}

/// What a refused key is called in a report.
#[track_caller]
fn called(policy: Policy, key: Vec<KeyPart>, path: &str, headers: &[(&str, &str)]) -> String {
    let rate_limits = vec![limit_of("one", key, 0)];
    let mut gateway = Gateway::new(Policy { rate_limits, ..policy });
    gateway.refused(path, headers, Reason::RateLimited);
    gateway.told.limited.concat()
}

#[test]
fn a_refused_key_is_told_by_name_in_a_form_that_can_be_taken_apart() {
    let keyed =
        |key: Vec<KeyPart>, headers: &[(&str, &str)]| called(with_jwt(), key, "/a", headers);
    assert_eq!(keyed(vec![], &[GOOD]), "one ");
    assert_eq!(
        keyed(vec![KeyPart::User, KeyPart::Ip], &[GOOD]),
        "one user=ada,provider=own,ip=192.0.2.1"
    );
    let odd = ("x-a", "a,b=c%d/é");
    assert_eq!(
        keyed(vec![header("x-a"), KeyPart::Endpoint], &[GOOD, odd]),
        "one header:x-a=a%2Cb%3Dc%25d%2F%C3%A9,endpoint=other"
    );
    let claim = KeyPart::Claim("https://x,y".to_string());
    assert_eq!(keyed(vec![claim], &[GOOD]), "one claim:https:%2F%2Fx%2Cy=-");
    assert_eq!(keyed(vec![KeyPart::Tier, KeyPart::ApiKey], &[GOOD]), "one tier=gold,api_key=-");
    let keys = || with_keys(vec![key("robot", "robot-secret")]);
    let both = called(keys(), vec![KeyPart::User, KeyPart::ApiKey], "/a", &[KEY]);
    assert_eq!(both, "one user=robot,api_key=robot");
    let (name, fits) = ("header:x-a=".len(), "x".repeat(KEY_TEXT_MAX - "header:x-a=".len()));
    let told = keyed(vec![header("x-a")], &[GOOD, ("x-a", &fits)]);
    assert_eq!(told.len(), "one ".len() + name + fits.len());
    // Cut, it would be the key above.
    let long = fits + "x";
    assert_eq!(keyed(vec![header("x-a")], &[GOOD, ("x-a", &long)]), "one too long");
}

#[test]
fn every_refusal_is_told_and_shadow_ones_too() {
    let mut gateway = by(vec![KeyPart::User]);
    gateway.forwarded("/a", &[GOOD]);
    assert!(gateway.told.limited.is_empty());
    for _ in 0..3 {
        gateway.refused("/a", &[GOOD], Reason::RateLimited);
    }
    gateway.policy.rate_limits[0].mode = LimitMode::Shadow;
    gateway.forwarded("/a", &[GOOD]);
    assert_eq!(gateway.told.limited, vec!["one user=ada,provider=own"; 4]);
    assert_eq!(gateway.heard("outcome: Over"), 3);
    assert_eq!(gateway.heard("outcome: ShadowOver"), 1);
}
