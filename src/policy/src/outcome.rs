//! How a request ended, and what a breaker makes of it.

use crate::kernel::breaker::CallResult;
use crate::model::Breaker;
use crate::time::Nanos;

/// How a request ended, as the host tells it in its log phase.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The status that the client got; 0 when there was none.
    pub status: u16,
    /// Envoy's response flags (bits of `response.flags`).
    pub flags: u64,
    /// Envoy's `response.code_details`.
    pub details: &'a [u8],
    /// The cluster that the request really went to.
    pub service: Option<&'a str>,
    /// From the first request byte to the end.
    pub duration: Nanos,
}

/// Flags with which Envoy says that the upstream failed (StreamInfo `CoreResponseFlag`, by bit):
/// health check failed, no healthy host, request timeout, local reset, remote reset, connect
/// failure, connection termination, overflow, duration timeout, protocol error.
const FAILED: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x0040_0000 | 0x0080_0000;
/// The client left.
const DOWNSTREAM_GONE: u64 = 0x4000;
/// A WebSocket (or other upgrade) that was established.
const SWITCHING_PROTOCOLS: u16 = 101;

impl Outcome<'_> {
    /// Whether an upstream answered, as opposed to Envoy or this gateway.
    #[must_use]
    pub fn is_from_upstream(&self) -> bool {
        self.details == b"via_upstream"
    }
}

/// Judges an outcome for a breaker. Retries are seen as Envoy's final outcome.
///
/// An established upgrade is ignored, because its end says nothing of the service (a probe's was
/// settled when it was established). Envoy's failure
/// flags come next (they also catch a body cut short after a good status), then a client that left;
/// what neither an upstream nor a failure explains is Envoy's own reply and is ignored.
#[must_use]
pub fn classify(outcome: &Outcome<'_>, settings: &Breaker) -> CallResult {
    if outcome.status == SWITCHING_PROTOCOLS {
        return CallResult::Ignored;
    }
    if outcome.flags & FAILED != 0 {
        return CallResult::Failure;
    }
    if outcome.flags & DOWNSTREAM_GONE != 0 || !outcome.is_from_upstream() {
        return CallResult::Ignored;
    }
    if settings.ignore_statuses.contains(&outcome.status) {
        return CallResult::Ignored;
    }
    if settings.failure_statuses.contains(&outcome.status) {
        return CallResult::Failure;
    }
    CallResult::Success
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[track_caller]
    fn check(status: u16, flags: u64, details: &str, expected: CallResult) {
        let settings = Breaker {
            failure_threshold: 1,
            timeout: Nanos::SECOND,
            max_timeout: Nanos::SECOND,
            backoff: 1,
            half_open_calls: 1,
            success_threshold: 1,
            failure_statuses: vec![500, 503],
            ignore_statuses: vec![503],
            fallback: None,
        };
        let outcome = Outcome {
            status,
            flags,
            details: details.as_bytes(),
            service: None,
            duration: Nanos::ZERO,
        };
        assert_eq!(classify(&outcome, &settings), expected, "{status} {flags:#x} {details}");
    }

    #[test]
    fn what_envoy_reports_is_sorted_into_success_failure_and_neither() {
        use CallResult::{Failure, Ignored, Success};
        check(200, 0, "via_upstream", Success);
        check(404, 0, "via_upstream", Success);
        check(500, 0, "via_upstream", Failure);
        check(503, 0, "via_upstream", Ignored);
        check(500, 0x8000, "via_upstream", Failure);
        check(
            503,
            0x20,
            "upstream_reset_before_response_started{remote_connection_failure|x}",
            Failure,
        );
        check(503, 0x40, "upstream_reset_before_response_started{connection_termination}", Failure);
        check(504, 0x4, "response_timeout", Failure);
        check(503, 0x2, "no_healthy_upstream", Failure);
        check(503, 0x80, "upstream_reset_before_response_started{overflow}", Failure);
        check(200, 0x0080_0000, "upstream_reset_after_response_started{protocol_error}", Failure);
        check(0, 0x4000, "downstream_remote_disconnect", Ignored);
        check(200, 0x4000, "via_upstream", Ignored);
        check(101, 0x4000, "via_upstream", Ignored);
        check(200, 0, "direct_response", Ignored);
        check(404, 0x100, "route_not_found", Ignored);
        check(503, 0x0100_0000, "cluster_not_found", Ignored);
        check(413, 0, "request_payload_too_large", Ignored);
    }
}
