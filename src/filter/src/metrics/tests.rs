//! What events become.

use super::*;
use crate::testing::FakeHost;

#[track_caller]
fn check(events: &[Event<'_>], expected: &[(&str, i64)]) {
    let host = FakeHost::new(1);
    let mut metrics = Metrics::new(host.clone());
    for event in events {
        metrics.on(*event);
    }
    for (name, value) in expected {
        assert_eq!(host.metric(name), *value, "{name}");
    }
}

fn finished(service: &str, refused: Option<Reason>, status: u16, from_upstream: bool) -> Event<'_> {
    Event::Finished { service, refused, status, from_upstream, duration: Nanos::from_millis(5) }
}

#[test]
fn a_request_is_counted_by_decision_and_by_class_only_when_an_upstream_answered() {
    let limited = Some(Reason::RateLimited);
    check(
        &[
            finished("a", None, 204, true),
            finished("a", None, 503, true),
            finished("a", None, 503, false),
            finished("a", limited, 429, false),
            finished("a", None, 0, true),
            finished("a", None, 999, true),
        ],
        &[
            ("gateway_requests_total;service=a;decision=allowed;reason=none", 5),
            ("gateway_requests_total;service=a;decision=refused;reason=rate-limited", 1),
            ("gateway_upstream_responses_total;service=a;class=2xx", 1),
            ("gateway_upstream_responses_total;service=a;class=5xx", 1),
            ("gateway_upstream_responses_total;service=a;class=4xx", 0),
            ("gateway_request_duration_milliseconds;service=a", 5),
        ],
    );
}

/// Shared data may be lost while Envoy keeps its gauges: the new record starts them anew.
#[test]
fn a_breaker_whose_record_was_lost_is_in_one_state_again() {
    let go = |from, to| Event::BreakerTransition { service: "a", from, to };
    check(
        &[go(None, State::Closed), go(Some(State::Closed), State::Open), go(None, State::Closed)],
        &[
            ("gateway_breaker_state;service=a;state=closed", 1),
            ("gateway_breaker_state;service=a;state=open", 0),
        ],
    );
}

#[test]
fn a_breaker_is_in_one_state_whoever_counts() {
    let go = |from, to| Event::BreakerTransition { service: "a", from, to };
    check(
        &[
            go(None, State::Closed),
            go(Some(State::Closed), State::Open),
            go(Some(State::Open), State::HalfOpen),
            go(Some(State::HalfOpen), State::Open),
        ],
        &[
            ("gateway_breaker_state;service=a;state=closed", 0),
            ("gateway_breaker_state;service=a;state=open", 1),
            ("gateway_breaker_state;service=a;state=half_open", 0),
            ("gateway_breaker_transitions_total;service=a;to=open", 2),
            ("gateway_breaker_transitions_total;service=a;to=half_open", 1),
            ("gateway_breaker_transitions_total;service=a;to=closed", 0),
        ],
    );
}

#[test]
fn every_reason_has_a_metric_of_its_own() {
    for reason in Reason::ALL {
        let code = reason.code();
        let name = format!("gateway_requests_total;service=a;decision=refused;reason={code}");
        check(&[finished("a", Some(reason), 400, false)], &[(&name, 1)]);
    }
}

#[test]
fn services_beyond_the_bound_share_one_label_and_no_label_holds_a_separator() {
    let host = FakeHost::new(1);
    let mut metrics = Metrics::new(host.clone());
    for number in 0..SERVICES_MAX + 5 {
        metrics.on(finished(&format!("s{number}"), None, 200, false));
    }
    metrics.on(finished("s0", None, 200, false));
    let count = |service: &str| {
        host.metric(&format!(
            "gateway_requests_total;service={service};decision=allowed;reason=none"
        ))
    };
    assert_eq!((count("s0"), count("s999"), count("s1000"), count("other")), (2, 1, 0, 5));
    check(
        &[Event::BreakerCall { service: "a;b\n", kind: CallKind::Ignored }],
        &[("gateway_breaker_calls_total;service=a_b_;kind=ignored", 1)],
    );
}

#[test]
fn bugs_are_counted_always_and_logged_a_few_times() {
    let host = FakeHost::new(1);
    let mut metrics = Metrics::new(host.clone());
    for _ in 0..100 {
        metrics.on(Event::Bug("what cannot be"));
    }
    assert_eq!(host.metric("gateway_bug_total"), 100);
    assert_eq!(host.logged("what cannot be"), BUG_LINES_MAX as usize);
}

#[test]
fn pauses_and_bans_are_counted_by_limit() {
    let span = Nanos::from_secs(60);
    check(
        &[
            Event::Paused { limit: "smooth" },
            Event::Paused { limit: "smooth" },
            Event::Banned { limit: "smooth", span },
            Event::Banned { limit: "login", span },
        ],
        &[
            ("gateway_rate_limit_paused_total;limit=smooth", 2),
            ("gateway_bans_total;limit=smooth", 1),
            ("gateway_bans_total;limit=login", 1),
        ],
    );
}
