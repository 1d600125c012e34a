//! Stories of breakers: who is let through, who is told, what is settled where.

use super::gateway::{Gateway, breaker_settings, empty, header, limit_of};
use crate::event::Event;
use crate::model::{Breaker, Fallback};
use crate::pipeline::{ResetOutcome, reset_breaker};
use crate::reason::Reason;
use alloc::string::ToString;
use alloc::vec;

#[test]
fn a_breaker_opens_refuses_probes_and_recovers() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    policy.rate_limits = vec![limit_of("all", vec![], 4)];
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    for _ in 0..10 {
        let reply = gateway.refused("/a", &[], Reason::BreakerOpen);
        assert_eq!(reply.status, 503);
        assert_eq!(header(&reply, "retry-after"), Some("5"));
        assert_eq!(header(&reply, "x-circuit-open"), Some("true"));
    }
    gateway.now += 5;
    let (_, probe) = gateway.forwarded("/a", &[]);
    gateway.refused("/a", &[], Reason::BreakerOpen);
    gateway.finish(probe, 200, "svc");
    // The refusals took no token: of four, three were taken by calls that went through.
    gateway.call(200);
    for to in ["to: Closed", "to: Open", "to: HalfOpen"] {
        assert!(gateway.heard(to) >= 1, "{to}");
    }
    assert_eq!(gateway.heard("BreakerTransition"), 4, "created, open, half-open, closed");
}

#[test]
fn an_open_breaker_answers_with_the_fallback_of_its_service() {
    let mut policy = empty();
    let fallback = Fallback {
        status: 200,
        body: "[]".to_string(),
        content_type: "application/json".to_string(),
    };
    let settings = Breaker { failure_threshold: 1, fallback: Some(fallback), ..breaker_settings() };
    policy.circuit_breakers.services = vec![("svc".to_string(), settings)];
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    let reply = gateway.refused("/a", &[], Reason::BreakerOpen);
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"[]"[..]));
    assert_eq!(header(&reply, "x-circuit-open"), Some("true"));
}

#[test]
fn a_route_that_changed_after_the_verdict_is_settled_where_the_request_went() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    for _ in 0..2 {
        let (_, passage) = gateway.forwarded("/a", &[]);
        gateway.finish(passage, 500, "elsewhere");
    }
    assert_eq!(gateway.heard("service: \"elsewhere\", from: Some(Closed), to: Open"), 1);
    gateway.call(200);
}

#[test]
fn an_operator_closes_a_breaker_that_is_known_and_no_other() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    gateway.refused("/a", &[], Reason::BreakerOpen);
    let now = gateway.moment();
    let mut quiet = |_: Event<'_>| {};
    let mut reset =
        |service: &str| reset_breaker(service, &mut gateway.store, &mut quiet, [1, 2], now);
    assert_eq!(reset("nobody"), Ok(ResetOutcome::Unknown));
    assert_eq!(reset("svc"), Ok(ResetOutcome::Closed));
    gateway.call(200);
}

#[test]
fn a_probe_that_becomes_a_websocket_closes_the_breaker_at_once_and_is_counted_once() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    gateway.now += 5;
    let (_, mut probe) = gateway.forwarded("/a", &[]);
    assert!(probe.is_probe());
    let now = gateway.moment();
    let mut quiet = |_: Event<'_>| {};
    probe.upgraded(&gateway.policy, &mut gateway.store, &mut quiet, [1, 2], now);
    gateway.call(200);
    let before = gateway.heard("BreakerCall");
    gateway.finish(probe, 101, "svc");
    assert_eq!(gateway.heard("BreakerCall"), before);
}

#[test]
fn a_request_that_the_shell_refused_after_all_gives_its_permit_back() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    gateway.now += 5;
    let (_, probe) = gateway.forwarded("/a", &[]);
    gateway.finish(probe.refused(Reason::StateUnavailable), 503, "svc");
    assert_eq!(gateway.heard("refused: Some(StateUnavailable)"), 1);
    let (_, next) = gateway.forwarded("/a", &[]);
    gateway.finish(next, 200, "svc");
    assert_eq!(gateway.heard("to: Closed"), 2, "created closed, and closed again");
}
