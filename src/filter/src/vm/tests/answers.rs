//! What the response's headers tell, and when it is asked for all the same.

use super::*;

const MARK: (&[u8], &[u8]) = (b"x-envoy-upstream-service-time", b"3");

/// A request that was let pass, is answered with these headers, and is logged with these attributes
/// (flags, details, code), in this order of its callbacks; then these counters stand so.
#[track_caller]
fn check(response: &[(&[u8], &[u8])], logged: (u64, &[u8], u64), expected: &[(&str, i64)]) {
    let host = host(&strict());
    let vm = configured(&host);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Continue);
    *host.vm.response.borrow_mut() = serialize(response);
    vm.on_response_headers(2);
    let (flags, details, code) = logged;
    attribute(&host, b"response\0flags", &flags.to_le_bytes());
    attribute(&host, b"response\0code_details", details);
    attribute(&host, b"response\0code", &code.to_le_bytes());
    vm.on_log(2);
    for (name, value) in expected {
        assert_eq!(host.metric(name), *value, "{name}");
    }
}

const GOOD: &str = "gateway_upstream_responses_total;service=samples;class=2xx";
const BAD: &str = "gateway_upstream_responses_total;service=samples;class=5xx";
const SUCCESS: &str = "gateway_breaker_calls_total;service=samples;kind=success";
const FAILURE: &str = "gateway_breaker_calls_total;service=samples;kind=failure";
const IGNORED: &str = "gateway_breaker_calls_total;service=samples;kind=ignored";

#[test]
fn what_bears_the_routers_mark_is_a_services_answer() {
    // The attributes would say otherwise: they are not asked.
    check(&[(b":status", b"204"), MARK], (0, b"direct_response", 0), &[(GOOD, 1), (SUCCESS, 1)]);
    check(&[(b":status", b"503"), MARK], (0, b"direct_response", 0), &[(BAD, 1), (FAILURE, 1)]);
}

#[test]
fn an_answer_without_the_mark_is_asked_about() {
    let unmarked: [(&[u8], &[u8]); 1] = [(b":status", b"200")];
    check(&unmarked, (0, b"via_upstream", 200), &[(GOOD, 1), (SUCCESS, 1)]);
    check(&unmarked, (0, b"direct_response", 200), &[(GOOD, 0), (IGNORED, 1)]);
    check(&[MARK], (0, b"via_upstream", 200), &[(GOOD, 1), (SUCCESS, 1)]);
    check(&[(b":status", b"x"), MARK], (0, b"via_upstream", 200), &[(GOOD, 1), (SUCCESS, 1)]);
}

#[test]
fn an_answer_that_broke_off_is_asked_about() {
    // UPE: the body was cut short after a good status.
    let details = b"upstream_reset_after_response_started{protocol_error}";
    let broken = (0x80_0000, &details[..], 200);
    check(&[(b":status", b"200"), MARK], broken, &[(GOOD, 0), (FAILURE, 1)]);
}

#[test]
fn the_mark_on_our_own_reply_says_nothing() {
    let host = host(&strict());
    let vm = configured(&host);
    *host.vm.request.borrow_mut() = serialize(&[(b":method", b"GET"), (b":path", b"/closed")]);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 2), Action::Pause);
    *host.vm.response.borrow_mut() = serialize(&[(b":status", b"200"), MARK]);
    vm.on_response_headers(2);
    vm.on_log(2);
    assert_eq!(host.metric(GOOD), 0);
}

#[test]
fn a_map_that_cannot_be_read_adds_every_header() {
    let host = host(&strict());
    let vm = configured(&host);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Continue);
    host.vm.unreadable.set(true);
    vm.on_response_headers(2);
    assert!(host.vm.added.borrow().contains(&"x-frame-options".into()));
}
