//! Stories of tokens: where they stand, what is made of them, what the upstream gets to see.

use super::gateway::{GOOD, Gateway, header, headers, patterns, provider, with_jwt};
use crate::model::{AuthMode, Provider, TokenLocation};
use crate::pattern::PathPattern;
use crate::reason::Reason;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

fn with_locations(locations: Vec<TokenLocation>) -> Gateway {
    let mut policy = with_jwt();
    if let Some(authentication) = &mut policy.authentication {
        authentication.providers[0].locations = locations;
    }
    Gateway::new(policy)
}

fn query(name: &str) -> TokenLocation {
    TokenLocation::Query(name.to_string())
}

fn cookie(name: &str) -> TokenLocation {
    TokenLocation::Cookie(name.to_string())
}

#[test]
fn every_verdict_on_a_token_has_its_code_and_its_event() {
    let mut gateway = Gateway::new(with_jwt());
    for (token, reason, status) in [
        ("", Reason::TokenMalformed, 401),
        ("old", Reason::TokenExpired, 401),
        ("early", Reason::TokenNotYetValid, 401),
        ("forged", Reason::TokenUntrusted, 401),
        ("unknown", Reason::TokenUntrusted, 401),
        ("revoked", Reason::TokenRevoked, 401),
        ("unchecked", Reason::KeysUnavailable, 503),
        ("unseeded", Reason::StateUnavailable, 503),
    ] {
        gateway.heard.clear();
        let value = ["Bearer ", token].concat();
        let reply = gateway.refused("/a", &[("authorization", &value)], reason);
        assert_eq!(reply.status, status);
        let event =
            alloc::format!("Authentication {{ method: Jwt, outcome: Refused({reason:?}) }}");
        assert_eq!(gateway.heard, [event]);
        let challenge = header(&reply, "www-authenticate");
        if status == 401 {
            assert!(challenge.unwrap().contains("error=\"invalid_token\""), "{token}");
        } else {
            assert_eq!((challenge, header(&reply, "retry-after")), (None, Some("2")));
        }
    }
}

#[test]
fn a_good_token_an_anonymous_request_and_none_are_told_apart_in_events() {
    let mut gateway = Gateway::new(with_jwt());
    gateway.forwarded("/a", &[GOOD]);
    gateway.forwarded("/health", &[]);
    gateway.refused("/a", &[], Reason::CredentialsMissing);
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    gateway.forwarded("/a", &[]);
    let expected = [
        "Authentication { method: Jwt, outcome: Accepted }",
        "Authentication { method: None, outcome: Anonymous }",
        "Authentication { method: None, outcome: Refused(CredentialsMissing) }",
        "Authentication { method: None, outcome: Anonymous }",
    ];
    assert_eq!(gateway.heard, expected);
}

#[test]
fn where_none_is_required_a_bad_credential_is_refused_all_the_same() {
    let mut gateway = Gateway::new(with_jwt());
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    gateway.refused("/a", &[("authorization", "Bearer old")], Reason::TokenExpired);
    gateway.refused("/a", &[("authorization", "Bearer")], Reason::TokenMalformed);
    let reply = gateway.refused("/a", &[("authorization", "Bearer x")], Reason::TokenUntrusted);
    assert_eq!(headers(&reply, "www-authenticate").len(), 1);
}

#[test]
fn on_a_public_path_a_token_is_not_looked_at() {
    let mut gateway = Gateway::new(with_jwt());
    let (edits, _) = gateway.forwarded("/health", &[("authorization", "Bearer forged")]);
    assert!(edits.is_empty());
    assert_eq!(gateway.verify.asked, 0);
}

#[test]
fn outside_copies_are_removed_in_every_spelling_that_a_server_folds() {
    let mut policy = with_jwt();
    let authentication = policy.authentication.as_mut().unwrap();
    authentication.mode = AuthMode::Optional;
    authentication.providers[0].forward_claims = vec![("sub".to_string(), "x-user-id".to_string())];
    let mut gateway = Gateway::new(policy);
    let forged = [
        ("x-user-id", "root"),
        ("x_user_id", "root"),
        ("x-user_id", "root"),
        ("x.user.id", "root"),
        ("x-user-id", "again"),
        ("x-user-idx", "kept"),
        ("xauser-id", "kept"),
    ];
    let expected = ["x-user-id", "x_user_id", "x-user_id", "x.user.id"];
    for path in ["/health", "/a"] {
        let (edits, _) = gateway.forwarded(path, &forged);
        assert_eq!(edits.remove, expected, "anonymous, {path}");
        assert!(edits.set.is_empty());
    }
    let (edits, _) = gateway.forwarded("/a", &[&forged[..], &[GOOD]].concat());
    assert_eq!(edits.remove[..4], expected);
    assert_eq!(edits.set, [("x-user-id".to_string(), b"ada".to_vec())]);
}

#[test]
fn a_claim_that_has_no_one_spelling_is_not_forwarded() {
    let mut policy = with_jwt();
    let claims = ["number", "roles", "absent", "sub"];
    policy.authentication.as_mut().unwrap().providers[0].forward_claims =
        claims.map(|claim| (claim.to_string(), ["x-", claim].concat())).into();
    let (edits, _) = Gateway::new(policy).forwarded("/a", &[GOOD]);
    let set = [("x-number", &b"7"[..]), ("x-sub", b"ada")];
    assert_eq!(edits.set, set.map(|(name, value)| (name.to_string(), value.to_vec())));
}

#[test]
fn a_token_in_the_query_is_taken_out_however_its_name_is_spelt() {
    let mut gateway = with_locations(vec![query("access_token")]);
    for path in ["/a?x=1&access_token=good:ada", "/a?x=1&access%5ftoken=good:ada"] {
        let (edits, _) = gateway.forwarded(path, &[]);
        assert_eq!(edits.set[0], (":path".to_string(), b"/a?x=1".to_vec()), "{path}");
    }
    let two = "/a?access_token=good:ada&access%5Ftoken=good:eve";
    gateway.refused(two, &[], Reason::TokenMalformed);
}

#[test]
fn a_token_counts_only_where_its_own_provider_looks_and_is_taken_out_everywhere() {
    let mut policy = with_jwt();
    let authentication = policy.authentication.as_mut().unwrap();
    let other = Provider { name: "other".to_string(), ..provider() };
    authentication.providers.push(Provider { locations: vec![cookie("session")], ..other });
    let mut gateway = Gateway::new(policy);
    let session = ("cookie", "session=good:ada; a=1");
    gateway.refused("/a", &[session], Reason::TokenUntrusted);
    let (edits, _) = gateway.forwarded("/a", &[GOOD, session]);
    assert_eq!(edits.remove, ["authorization"]);
    assert_eq!(edits.set[0], ("cookie".to_string(), b"a=1".to_vec()));
}

#[test]
fn a_token_that_is_forwarded_stays_where_it_is() {
    let mut policy = with_jwt();
    let provider = &mut policy.authentication.as_mut().unwrap().providers[0];
    provider.forward_token = true;
    provider.forward_claims.clear();
    let (edits, _) = Gateway::new(policy).forwarded("/a", &[GOOD]);
    assert!(edits.is_empty(), "and the route is not selected again");
}

#[test]
fn a_public_path_is_public_in_all_its_readings() {
    let mut policy = with_jwt();
    policy.authentication.as_mut().unwrap().public = patterns(&["/docs/**"]);
    let mut gateway = Gateway::new(policy);
    for path in ["/docs", "/docs/", "/docs/a%20b", "/docs/v1.2/x", "/docs/%41"] {
        gateway.forwarded(path, &[]);
    }
    for path in [
        "/docs/../api",
        "/docs/..;/api",
        "/docs;x/../api",
        "/docs//../api",
        "/docs/%2E%2e/api",
        "/docs/..%5Capi",
        "/docs/．．／api",
        "/docs/%EF%BC%8E%EF%BC%8E/api",
        "/docs/.. /api",
        "/docs/%c0%ae%c0%ae/api",
        "/docs/%00",
        "/docs/%zz",
        "/Docs/a",
        "//docs/a",
        "/docs%2fa",
        "/docs/.../api",
    ] {
        gateway.refused(path, &[], Reason::CredentialsMissing);
    }
}

#[test]
fn nobody_outside_may_say_who_he_is() {
    let mut gateway = Gateway::new(with_jwt());
    let forged = ("x-user", "root");
    let (edits, _) = gateway.forwarded("/health", &[forged]);
    assert_eq!(edits.remove, ["x-user"], "on public paths too");
    let (edits, _) = gateway.forwarded("/a", &[forged, ("x-tenant", "evil"), GOOD]);
    assert_eq!(edits.remove, ["x-user", "x-tenant", "authorization"]);
    assert_eq!(edits.set, [("x-user".to_string(), b"ada".to_vec())], "no line break in a header");
}

#[test]
fn a_public_path_is_public_only_when_it_can_be_read_in_one_way() {
    let mut policy = with_jwt();
    if let Some(authentication) = &mut policy.authentication {
        authentication.public = vec![PathPattern::parse("/docs/**").unwrap()];
    }
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/docs/a", &[]);
    for path in ["/docs/../api/admin", "/docs/%2e%2e/api/admin", "/docs/..%2fapi", "/docs/..\\api"]
    {
        gateway.refused(path, &[], Reason::CredentialsMissing);
    }
}

#[test]
fn two_different_tokens_are_refused_even_if_both_are_good() {
    let mut policy = with_jwt();
    if let Some(authentication) = &mut policy.authentication {
        let query = TokenLocation::Query("t".to_string());
        authentication.providers[0].locations.push(query);
    }
    let mut gateway = Gateway::new(policy);
    gateway.refused("/a?t=good:bob", &[GOOD], Reason::TokenMalformed);
    gateway.forwarded("/a?t=good:ada", &[GOOD]);
}
