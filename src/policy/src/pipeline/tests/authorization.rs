//! Stories of permissions, and of those who try to walk around a rule.

use super::gateway::{
    GOOD, Gateway, authentication, empty, header, headers, patterns, provider, with_jwt,
};
use crate::model::{Access, AuthMode, Authorization, Mode, Policy, Rule};
use crate::pattern::PathPattern;
use crate::reason::Reason;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn rule(path: &str, methods: &[&str], require: &[&str], require_any: &[&str]) -> Rule {
    Rule {
        path: PathPattern::parse(path).unwrap(),
        methods: words(methods),
        require: words(require),
        require_any: words(require_any),
    }
}

fn with_rules(default: Access, rules: Vec<Rule>) -> Gateway {
    let authorization = Some(Authorization { mode: Mode::Enforce, default, rules });
    Gateway::new(Policy { authorization, ..with_jwt() })
}

/// The rules of a lab: everybody signed in reads samples, administrators do the rest.
fn lab() -> Gateway {
    with_rules(
        Access::Allow,
        vec![
            rule("/api/samples/**", &["GET"], &["samples:read"], &[]),
            rule("/api/public/**", &[], &[], &[]),
            rule("/api/admin/**", &[], &[], &["admin:*"]),
        ],
    )
}

#[track_caller]
fn check(gateway: &mut Gateway, path: &str, scope: &str, allowed: bool) {
    let value = ["Bearer good:ada/", scope].concat();
    let authorization = [("authorization", value.as_str())];
    if allowed {
        gateway.forwarded(path, &authorization);
    } else {
        gateway.refused(path, &authorization, Reason::PermissionDenied);
    }
}

#[test]
fn the_first_rule_that_matches_path_and_method_decides() {
    let mut gateway = with_rules(
        Access::Allow,
        vec![
            rule("/a/open", &[], &[], &[]),
            rule("/a/**", &["GET", "PUT"], &["read", "more"], &[]),
            rule("/a/**", &["POST"], &["write"], &[]),
        ],
    );
    check(&mut gateway, "/a/open", "", true);
    check(&mut gateway, "/a/x", "read", false);
    check(&mut gateway, "/a/x", "more read", true);
    check(&mut gateway, "/b", "", true);
    gateway.method = "POST";
    check(&mut gateway, "/a/x", "read more", false);
    check(&mut gateway, "/a/x", "write", true);
    gateway.method = "DELETE";
    check(&mut gateway, "/a/x", "", true);
    gateway.policy.authorization.as_mut().unwrap().default = Access::Deny;
    check(&mut gateway, "/a/x", "read more write", false);
}

#[test]
fn a_rule_may_ask_for_any_of_several_and_for_all_of_others() {
    let rules = vec![rule("/a", &[], &["base"], &["one", "two:*"])];
    let mut gateway = with_rules(Access::Deny, rules);
    for (scope, allowed) in [
        ("", false),
        ("base", false),
        ("one", false),
        ("base one", true),
        ("base two:x", true),
        ("base two", false),
        ("*", true),
    ] {
        check(&mut gateway, "/a", scope, allowed);
    }
}

#[test]
fn permissions_come_from_every_claim_that_the_provider_names() {
    let mut gateway = with_rules(Access::Deny, vec![rule("/a", &[], &["listed:x"], &[])]);
    check(&mut gateway, "/a", "listed:x", true);
    gateway.policy.authentication.as_mut().unwrap().providers[0].permission_claims =
        words(&["permissions"]);
    check(&mut gateway, "/a", "listed:x", true);
    let mut gateway = with_rules(Access::Deny, vec![rule("/a", &[], &["x"], &[])]);
    check(&mut gateway, "/a", "w  x y", true);
    check(&mut gateway, "/a", "w\tx", false);
    gateway.policy.authentication.as_mut().unwrap().providers[0].permission_claims = vec![];
    check(&mut gateway, "/a", "x", false);
    // A number, an object and a missing claim hold no permissions.
    gateway.policy.authentication.as_mut().unwrap().providers[0].permission_claims =
        words(&["number", "roles", "absent"]);
    check(&mut gateway, "/a", "x", false);
}

#[test]
fn nobody_in_particular_is_asked_for_a_credential_and_somebody_is_told_no() {
    let mut gateway = lab();
    gateway.policy.authentication.as_mut().unwrap().mode = AuthMode::Optional;
    let reply = gateway.refused("/api/admin/x", &[], Reason::CredentialsMissing);
    assert_eq!(header(&reply, "www-authenticate"), Some("Bearer realm=\"test\""));
    let reply = gateway.refused("/api/admin/x", &[GOOD], Reason::PermissionDenied);
    assert_eq!(reply.status, 403);
    gateway.policy.authorization.as_mut().unwrap().default = Access::Deny;
    gateway.refused("/other", &[], Reason::CredentialsMissing);
    let reply = gateway.refused("/other", &[GOOD], Reason::PermissionDenied);
    let challenge = "Bearer realm=\"test\", error=\"insufficient_scope\"";
    assert_eq!(headers(&reply, "www-authenticate"), [challenge]);
    gateway.forwarded("/api/public/x", &[]);
}

#[test]
fn without_authentication_rules_know_nobody() {
    let mut gateway = lab();
    gateway.policy.authentication = None;
    gateway.refused("/api/admin/x", &[GOOD], Reason::CredentialsMissing);
    gateway.forwarded("/api/public/x", &[]);
}

#[test]
fn on_a_public_path_rules_count_and_the_default_does_not() {
    let mut gateway = lab();
    let authentication = gateway.policy.authentication.as_mut().unwrap();
    authentication.public = patterns(&["/health", "/api/admin/login"]);
    gateway.policy.authorization.as_mut().unwrap().default = Access::Deny;
    gateway.forwarded("/health", &[]);
    gateway.refused("/api/admin/login", &[], Reason::CredentialsMissing);
}

#[test]
fn in_shadow_mode_a_denial_is_counted_and_lets_pass() {
    let mut gateway = lab();
    gateway.policy.authorization.as_mut().unwrap().mode = Mode::Shadow;
    gateway.forwarded("/api/admin/x", &[GOOD]);
    gateway.forwarded("/api/admin/%00", &[GOOD]);
    gateway.forwarded("/api/public/x", &[GOOD]);
    assert_eq!(gateway.heard("Authorization(ShadowDenied)"), 2);
    assert_eq!(gateway.heard("Authorization(Allowed)"), 1);
    gateway.policy.authorization.as_mut().unwrap().mode = Mode::Enforce;
    gateway.refused("/api/admin/x", &[GOOD], Reason::PermissionDenied);
    assert_eq!(gateway.heard("Authorization(Denied)"), 1);
}

#[test]
fn a_token_that_lacks_a_permission_is_told_what_the_rule_asks_for() {
    let mut gateway = lab();
    let reply = gateway.refused("/api/samples/7", &[GOOD], Reason::PermissionDenied);
    let challenge = "Bearer realm=\"test\", error=\"insufficient_scope\", scope=\"samples:read\"";
    assert_eq!(headers(&reply, "www-authenticate"), [challenge]);
    let reply = gateway.refused("/api/admin/x", &[GOOD], Reason::PermissionDenied);
    assert!(header(&reply, "www-authenticate").unwrap().ends_with("scope=\"admin:*\""));
    let body = String::from_utf8(reply.body).unwrap();
    assert!(!body.contains("admin:"), "the body is for people and says less: {body}");
}

#[test]
fn what_could_break_out_of_a_challenge_is_not_said_in_it() {
    for permission in ["a\"b", "a\\b", "a b", "ä", "a\nb", &"x".repeat(600)] {
        let mut gateway = with_rules(Access::Deny, vec![rule("/a", &[], &[permission], &[])]);
        let reply = gateway.refused("/a", &[GOOD], Reason::PermissionDenied);
        let challenge = "Bearer realm=\"test\", error=\"insufficient_scope\"";
        assert_eq!(headers(&reply, "www-authenticate"), [challenge], "{permission}");
    }
}

/// Spellings of `/api/admin/x` that some server takes for it.
const SPELLINGS: [&str; 38] = [
    "/api/admin/x",
    "/api/admin/x/",
    "/api/admin",
    "/api/admin/",
    "/API/Admin/x",
    "//api/admin/x",
    "/api//admin/x",
    "/;a/api/admin/x",
    "/./api/admin/x",
    "/api/admin/x%2f",
    "/%2e%2e/api/admin/x",
    "/api/./admin/x",
    "/api/x/../admin/x",
    "/api/public/../admin/x",
    "/api/public/..;/admin/x",
    "/api/public/..;a=b/admin/x",
    "/api/public/%2e%2e/admin/x",
    "/api/public/%2E./admin/x",
    "/api/public/..%2fadmin/x",
    "/api/public/..%5cadmin/x",
    "/api/public/..\\admin/x",
    "/api/public%2f..%2fadmin/x",
    "/api\\admin\\x",
    "/api%2fadmin%2fx",
    "/api%5Cadmin/x",
    "/api/admin;/x",
    "/api/admin;x=/../y/x",
    "/api/admin%3b/x",
    "/api;v=1/admin/x",
    "/api/%61dmin/x",
    "/api/%41DMIN/x",
    "/api/admin./x",
    "/api/admin%20/x",
    "/api/admin%2e/x",
    "/api/admin/%2e%2e/public/x",
    "/api/ａｄｍｉｎ/x",
    "/api/%EF%BD%81dmin/x",
    "/api/public/．．／admin/x",
];

#[test]
fn no_spelling_of_a_path_walks_around_its_rule() {
    let mut gateway = lab();
    for path in SPELLINGS {
        check(&mut gateway, path, "", false);
        check(&mut gateway, path, "admin:users", true);
    }
}

#[test]
fn no_spelling_makes_a_path_fall_to_a_kinder_default() {
    let mut gateway = lab();
    gateway.policy.authorization.as_mut().unwrap().default = Access::Deny;
    for path in ["/api/other/%2e%2e/public/x", "/api/public/%2e%2e/other", "/api/public;/x"] {
        check(&mut gateway, path, "admin:users samples:read", false);
    }
}

#[test]
fn a_path_that_no_server_should_read_is_refused_whatever_the_permissions() {
    let mut gateway = lab();
    for path in [
        "/api/public/%00",
        "/api/admin/%00.html",
        "/api/public/%0d%0a",
        "/api/public/\u{1}",
        "/api/public/%7f",
        "/api/public/%",
        "/api/public/%2",
        "/api/public/%zz",
        "/api/public/%u002e",
        "/api/public/%c0%ae%c0%ae/admin",
        "/api/public/%c0%afadmin",
        "/api/public/%e0%80%af",
        "api/public/x",
        "http://h/api/public/x",
        "",
        "/api/public/x#y",
    ] {
        check(&mut gateway, path, "*", false);
    }
    gateway.policy.authorization.as_mut().unwrap().rules.clear();
    check(&mut gateway, "/api/public/%00", "*", true);
}

#[test]
fn what_is_escaped_twice_is_decoded_once_and_stays_what_it_is() {
    let mut gateway = lab();
    check(&mut gateway, "/api/public/%252e%252e/admin/x", "", true);
    check(&mut gateway, "/api/%2561dmin/x", "", true);
}

#[test]
fn the_query_is_no_part_of_the_path() {
    let mut gateway = lab();
    check(&mut gateway, "/api/public/x?/../admin", "", true);
    check(&mut gateway, "/api/admin/x?/api/public/x", "", false);
    check(&mut gateway, "/api/public/x?y=%00", "", true);
}

#[test]
fn a_method_has_no_second_name_that_its_rule_does_not_see() {
    let mut gateway = lab();
    for method in ["GET", "HEAD", "get", "Head"] {
        gateway.method = method;
        check(&mut gateway, "/api/samples/7", "", false);
    }
    for method in ["POST", "OPTIONS", "GETS", ""] {
        gateway.method = method;
        check(&mut gateway, "/api/samples/7", "", true);
    }
    gateway.method = "POST";
    let overridden = [GOOD, ("x-http-method-override", "GET")];
    gateway.forwarded("/api/samples/7", &overridden);
}

#[test]
fn a_rule_for_head_alone_is_none_for_get() {
    let rules = vec![rule("/a", &["HEAD"], &["head"], &[])];
    let mut gateway = with_rules(Access::Allow, rules);
    check(&mut gateway, "/a", "", true);
    gateway.method = "HEAD";
    check(&mut gateway, "/a", "", false);
}

#[test]
fn permissions_of_an_api_key_count_like_those_of_a_token() {
    use crate::model::{ApiKey, ApiKeys, TokenLocation};
    use crate::testing::FakeDigest;
    use crate::verify::Digest;
    let keys = vec![ApiKey {
        id: "robot".to_string(),
        sha256: FakeDigest.sha256(b"secret"),
        permissions: words(&["samples:*"]),
        tier: None,
        expires: None,
        cidrs: vec![],
    }];
    let locations = vec![TokenLocation::Header { name: "x-api-key".to_string(), scheme: None }];
    let api_keys = Some(ApiKeys { locations, keys, forward_key: false, forward_id: None });
    let providers = vec![provider()];
    let mut gateway = lab();
    gateway.policy = Policy {
        authentication: Some(crate::model::Authentication {
            api_keys,
            providers,
            ..authentication()
        }),
        authorization: gateway.policy.authorization.clone(),
        ..empty()
    };
    let key = ("x-api-key", "secret");
    gateway.forwarded("/api/samples/7", &[key]);
    let reply = gateway.refused("/api/admin/x", &[key], Reason::PermissionDenied);
    assert_eq!(header(&reply, "www-authenticate"), None, "RFC 6750 speaks of tokens");
}
