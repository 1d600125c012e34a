//! Stories of whole requests: what each one meets, takes, gives back and leaves behind.

mod admin;
mod algorithms;
mod api_keys;
mod authentication;
mod authorization;
mod bans;
mod breakers;
mod csrf;
mod gateway;
mod kept_bans;
mod keys;
mod leases;
mod limits;
mod pauses;
mod waiting;

use super::*;
use crate::event::Event;
use crate::headers::{Headers, serialize};
use crate::model::{
    Access, Authorization, Breaker, Cidr, Csrf, HttpsMode, KeyPart, Mode, TokenLocation,
};
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::{format, vec};
use gateway::{BAD, Gateway, breaker_settings, empty, header, limit_of, with_jwt};
use serde_json::{Value, json};

#[test]
fn an_empty_policy_lets_everything_pass_and_touches_nothing() {
    let mut gateway = Gateway::new(empty());
    let (edits, passage) = gateway.forwarded("/a", &[]);
    assert!(edits.is_empty());
    assert!(gateway.added(&passage, &[]).is_empty());
    gateway.finish(passage, 200, "svc");
    assert_eq!(gateway.store.reads, 0);
    assert_eq!(gateway.heard("Finished"), 1);
}

#[test]
fn the_stages_refuse_in_the_order_of_the_contract() {
    let mut policy = with_jwt();
    policy.https = HttpsMode::Refuse;
    policy.ip.deny = vec![Cidr { network: "192.0.2.0".parse().unwrap(), prefix: 24 }];
    policy.rate_limits = vec![limit_of("all", vec![], 1)];
    let mut gateway = Gateway::new(policy);
    gateway.refused("/a", &[], Reason::HttpsRequired);
    gateway.policy.https = HttpsMode::Off;
    gateway.refused("/a", &[], Reason::IpDenied);
    gateway.policy.ip.deny.clear();
    assert_eq!(gateway.store.reads, 0, "what needs no state is judged before state is touched");
    gateway.refused("/a", &[], Reason::CredentialsMissing);
    gateway.refused("/a", &[], Reason::RateLimited);
}

#[test]
fn one_who_is_known_meets_csrf_then_authorization_then_limits_then_the_breaker() {
    let mut policy = with_jwt();
    let session = TokenLocation::Cookie("session".to_string());
    policy.authentication.as_mut().unwrap().providers[0].locations = vec![session];
    let (trusted_origins, cookie, token) = (vec![], None, None);
    policy.csrf = Some(Csrf { mode: Mode::Enforce, trusted_origins, cookie, token });
    policy.authorization =
        Some(Authorization { mode: Mode::Enforce, default: Access::Deny, rules: vec![] });
    policy.rate_limits = vec![limit_of("user", vec![KeyPart::User], 1)];
    policy.circuit_breakers.default = Some(Breaker {
        failure_threshold: 1,
        timeout: Nanos::from_secs(600),
        max_timeout: Nanos::from_secs(600),
        ..breaker_settings()
    });
    let mut gateway = Gateway::new(policy);
    gateway.method = "POST";
    let cookie = ("cookie", "session=good:ada");
    let own = [cookie, ("origin", "http://h")];
    gateway.refused("/a", &[cookie], Reason::CsrfRejected);
    gateway.refused("/a", &own, Reason::PermissionDenied);
    assert_eq!(gateway.store.reads, 0, "neither takes anything");
    gateway.policy.authorization.as_mut().unwrap().default = Access::Allow;
    let (_, passage) = gateway.forwarded("/a", &own);
    gateway.finish(passage, 500, "svc");
    gateway.refused("/a", &own, Reason::RateLimited);
    gateway.now += 60;
    gateway.refused("/a", &own, Reason::BreakerOpen);
}

#[test]
fn a_problem_says_what_a_program_needs() {
    let mut gateway = Gateway::new(with_jwt());
    let reply = gateway.refused("/a?secret=1", &[], Reason::CredentialsMissing);
    assert_eq!(reply.status, 401);
    assert_eq!(header(&reply, "content-type"), Some("application/problem+json"));
    assert_eq!(header(&reply, "www-authenticate"), Some("Bearer realm=\"test\""));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = json!({
        "type": "about:blank", "title": "Unauthorized", "status": 401,
        "detail": "A credential is required.", "instance": "/a",
        "code": "credentials-missing", "request_id": "r-1",
    });
    assert_eq!(body, expected);
    let reply = gateway.refused("/a", &[BAD], Reason::TokenUntrusted);
    assert!(header(&reply, "www-authenticate").unwrap().contains("error=\"invalid_token\""));
}

#[test]
fn a_grpc_call_is_refused_in_its_own_terms() {
    let mut gateway = Gateway::new(with_jwt());
    let grpc = ("content-type", "application/grpc+proto");
    let reply = gateway.refused("/a", &[grpc], Reason::CredentialsMissing);
    assert_eq!(reply.grpc_status, Some(16));
    assert_eq!(reply.body, b"A credential is required.");
}

#[test]
fn every_reason_has_a_status_and_the_grpc_code_that_fits_it() {
    // google.rpc.Code: 7 permission denied, 8 resource exhausted, 14 unavailable,
    // 16 unauthenticated.
    for reason in Reason::ALL {
        let (status, code) = match reason {
            Reason::HttpsRequired
            | Reason::IpDenied
            | Reason::CsrfRejected
            | Reason::PermissionDenied => (403, 7),
            Reason::CredentialsMissing
            | Reason::TokenMalformed
            | Reason::TokenExpired
            | Reason::TokenNotYetValid
            | Reason::TokenUntrusted
            | Reason::TokenRevoked
            | Reason::ApiKeyInvalid => (401, 16),
            Reason::Banned | Reason::RateLimited => (429, 8),
            Reason::KeysUnavailable
            | Reason::Overloaded
            | Reason::BreakerOpen
            | Reason::StateUnavailable => (503, 14),
        };
        let bytes = serialize(&[(b":path", b"/a"), (b"content-type", b"application/grpc")]);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        let reply = render::reply(&Refused::For(reason), &with_jwt(), &facts);
        assert_eq!((reply.status, reply.grpc_status), (status, Some(code)), "{reason:?}");
        let challenged = header(&reply, "www-authenticate").is_some();
        assert_eq!(challenged, status == 401, "RFC 9110 section 15.5.2, {reason:?}");
    }
}

#[test]
fn a_stream_that_was_never_seen_is_counted_and_settles_nothing() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    let outcome =
        Outcome { status: 400, flags: 0, details: b"", service: None, duration: Nanos::ZERO };
    let now = gateway.moment();
    let heard = &mut gateway.heard;
    let mut events = |event: Event<'_>| heard.push(format!("{event:?}"));
    let store = &mut gateway.store;
    Passage::unseen().finish(&gateway.policy, &outcome, store, &mut events, [1, 2], now);
    assert_eq!(
        gateway.heard,
        [
            "Finished { service: \"none\", refused: None, status: 400, from_upstream: false, duration: Nanos(0) }"
        ]
    );
    assert_eq!(gateway.store.reads, 0);
}

#[test]
fn a_clear_text_get_is_sent_to_https_and_a_post_is_not() {
    let mut policy = empty();
    policy.https = HttpsMode::Redirect;
    let mut gateway = Gateway::new(policy);
    let reply = gateway.refused("/a?b=c", &[], Reason::HttpsRequired);
    assert_eq!((reply.status, header(&reply, "location")), (308, Some("https://h/a?b=c")));
    gateway.forwarded("/a", &[("x-forwarded-proto", "https")]);
}
