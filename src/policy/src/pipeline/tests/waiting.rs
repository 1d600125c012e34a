//! Stories of requests that wait for keys: what is judged again, what is not, and how it ends.

use super::gateway::{GOOD, Gateway, breaker_settings, bucket, limit_of, permit, with_jwt};
use crate::model::{
    Access, Authorization, Csrf, HttpsMode, KeyPart, Mode, Policy, Rule, TokenLocation,
};
use crate::pattern::PathPattern;
use crate::pipeline::Step;
use crate::reason::Reason;
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::vec;

fn waiting() -> Gateway {
    let mut policy = with_jwt();
    policy.rate_limits = vec![
        limit_of("ip", vec![KeyPart::Ip], 4),
        limit_of("all", vec![], 9),
        limit_of("user", vec![KeyPart::User], 9),
    ];
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.verify.pending = true;
    gateway
}

#[test]
fn a_request_that_waited_passes_each_stage_once() {
    let mut gateway = waiting();
    let held = gateway.held("/a", &[GOOD]);
    assert_eq!(gateway.heard("limit: \"ip\""), 1);
    assert_eq!(gateway.heard("limit: \"user\""), 0, "who it is nobody knows yet");
    assert_eq!(gateway.heard("Authentication"), 0, "nothing is decided yet");
    gateway.verify.pending = false;
    let step = gateway.resume("/a", &[GOOD], held);
    let Step::Forward(edits, passage) = step else { panic!("not forwarded: {step:?}") };
    assert_eq!(edits.remove, ["authorization"]);
    for stage in ["limit: \"ip\"", "limit: \"all\"", "limit: \"user\"", "Authentication"] {
        assert_eq!(gateway.heard(stage), 1, "{stage}");
    }
    assert!(permit(&passage).is_some());
    let nearest = gateway.added(&passage, &[]);
    assert!(nearest.contains(&"ratelimit: \"ip\";r=3;t=15".to_string()), "{nearest:?}");
}

#[test]
fn what_was_judged_before_the_wait_is_not_judged_again() {
    let mut gateway = waiting();
    let held = gateway.held("/a", &[GOOD]);
    gateway.verify.pending = false;
    gateway.policy.https = HttpsMode::Refuse;
    gateway.client = None;
    let step = gateway.resume("/a", &[GOOD], held);
    assert!(matches!(step, Step::Forward(..)), "{step:?}");
}

#[test]
fn a_request_may_wait_again_and_takes_from_early_limits_once() {
    let mut gateway = waiting();
    let mut held = gateway.held("/a", &[GOOD]);
    for _ in 0..20 {
        let step = gateway.resume("/a", &[GOOD], held);
        let Step::Wait(again) = step else { panic!("does not wait: {step:?}") };
        held = again;
    }
    gateway.verify.pending = false;
    assert!(matches!(gateway.resume("/a", &[GOOD], held), Step::Forward(..)));
    for _ in 0..3 {
        gateway.forwarded("/a", &[GOOD]);
    }
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
}

#[test]
fn a_refusal_after_the_wait_gives_back_what_was_taken_before_it() {
    let mut gateway = waiting();
    gateway.policy.rate_limits[2].algorithm = bucket(9, Nanos::from_secs(60), 1);
    gateway.verify.pending = false;
    gateway.forwarded("/a", &[GOOD]);
    for _ in 0..10 {
        gateway.verify.pending = true;
        let held = gateway.held("/a", &[GOOD]);
        gateway.verify.pending = false;
        let step = gateway.resume("/a", &[GOOD], held);
        let Step::Reply(reply, _) = step else { panic!("not refused: {step:?}") };
        assert_eq!(reply.reason, Reason::RateLimited);
    }
    gateway.forwarded("/a", &[("authorization", "Bearer good:bob")]);
}

#[test]
fn a_bad_token_that_waited_keeps_what_it_took() {
    let mut gateway = waiting();
    for _ in 0..4 {
        gateway.verify.pending = true;
        let held = gateway.held("/a", &[("authorization", "Bearer forged")]);
        gateway.verify.pending = false;
        let step = gateway.resume("/a", &[("authorization", "Bearer forged")], held);
        assert!(matches!(step, Step::Reply(..)), "{step:?}");
    }
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
}

#[test]
fn a_request_that_ends_while_it_waits_is_counted_where_it_was_going() {
    let mut gateway = waiting();
    let held = gateway.held("/a", &[GOOD]);
    let passage = gateway.abandon(held);
    assert!(permit(&passage).is_none());
    gateway.finish(passage, 503, "elsewhere");
    assert_eq!(gateway.heard("service: \"svc\", refused: Some(KeysUnavailable)"), 1);
    assert_eq!(gateway.heard("Breaker"), 0);
}

/// Every way to be refused, with everything switched on.
fn strict() -> Policy {
    let mut policy = with_jwt();
    let authentication = policy.authentication.as_mut().unwrap();
    authentication.providers[0].locations.push(TokenLocation::Cookie("session".to_string()));
    let (trusted_origins, cookie, token) = (vec![], None, None);
    policy.csrf = Some(Csrf { mode: Mode::Enforce, trusted_origins, cookie, token });
    let rule = Rule {
        path: PathPattern::parse("/admin/**").unwrap(),
        methods: vec![],
        require: vec!["admin".to_string()],
        require_any: vec![],
    };
    policy.authorization =
        Some(Authorization { mode: Mode::Enforce, default: Access::Allow, rules: vec![rule] });
    policy.rate_limits = vec![limit_of("user", vec![KeyPart::User], 0)];
    policy
}

#[test]
fn after_a_reply_nothing_can_be_forwarded() {
    type Headers = &'static [(&'static str, &'static str)];
    // A reply carries no `Suspended`, and `resume` takes nothing else: the types say it. What is
    // left to say is that each refusal is a reply, has no permit, and reaches nobody's breaker.
    let mut gateway = Gateway::new(strict());
    gateway.policy.circuit_breakers.default = Some(breaker_settings());
    gateway.policy.rate_limits[0].algorithm = bucket(1, Nanos::from_secs(60), 0);
    gateway.method = "POST";
    let requests: [(&str, Headers, Reason); 5] = [
        ("/a", &[], Reason::CredentialsMissing),
        ("/a", &[("authorization", "Bearer old")], Reason::TokenExpired),
        ("/a", &[("cookie", "session=good:ada")], Reason::CsrfRejected),
        ("/admin/x", &[GOOD], Reason::PermissionDenied),
        ("/a", &[GOOD], Reason::RateLimited),
    ];
    for (path, headers, reason) in requests {
        gateway.heard.clear();
        let step = gateway.send(path, headers);
        let Step::Reply(reply, passage) = step else { panic!("{path}: {step:?}") };
        assert_eq!(reply.reason, reason);
        assert!(permit(&passage).is_none() && !passage.is_probe());
        gateway.finish(passage, reply.status, "svc");
        assert_eq!(gateway.heard("Breaker"), 0, "{reason:?}");
        assert_eq!(gateway.heard("Finished"), 1);
    }
}
