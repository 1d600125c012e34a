//! Every error reply of the sidecar, in one place: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::sync::PROTOCOL;
use serde_json::json;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No such path.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed,
    /// The `Host` is none that this listener answers to: a page whose name was rebound to it.
    Misdirected,
    /// No token, or not the right one.
    Unauthorized(Realm),
    /// The body is not what it should be.
    BadRequest(String),
    /// A member of the body, or of the query, is not what it should be.
    Field {
        /// Its path.
        field: String,
        /// What is wrong with it.
        wrong: String,
        /// What is allowed.
        allowed: String,
    },
    /// The body is larger than this.
    TooLarge(usize),
    /// The body took too long.
    BodyTimeout,
    /// The handler took too long.
    Timeout,
    /// More requests at once than the sidecar works on.
    Busy,
    /// The filter speaks another version of the synchronisation protocol.
    Protocol(u32),
    /// Nothing is known of a breaker with this name.
    UnknownBreaker(String),
    /// There is no revocation with this id.
    UnknownRevocation,
    /// There is no API key with this id.
    UnknownKey,
    /// There is no ban with this id in force.
    UnknownBan,
    /// The policy in force has no limit of this name.
    UnknownLimit(String),
    /// Nothing takes the place of this limit's numbers.
    UnknownOverride(String),
    /// The filter does not have a limit, or a key of it, that it told of a moment ago.
    UnknownLimitKey,
    /// No filter has told its policy since the sidecar started.
    PolicyUnknown,
    /// What is asked for is in Envoy's memory, and no filter is connected.
    FilterAway,
    /// There is one with this id already.
    KeyExists(String),
    /// There are as many as there may be.
    Full(&'static str, usize),
    /// The policy in force does not look at what is asked for; this key is missing from it.
    NotInPolicy(&'static str),
    /// The store failed.
    Store,
    /// The system gave no random bytes.
    NoRandomness,
    /// Envoy's admin interface did not answer.
    EnvoyUnavailable(String),
    /// The filter could not change its shared state.
    NotApplied,
    /// Too many commands wait for the filter.
    QueueFull,
    /// The sidecar is about to end.
    Stopping,
}

/// Which token was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Realm {
    /// The administrator's.
    Admin,
    /// The filter's.
    Sync,
}

/// Seconds after which a busy or stopping sidecar may be asked again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    /// Status, code, title and detail.
    fn parts(&self) -> (StatusCode, &'static str, &'static str, String) {
        match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "Not Found",
                "There is nothing at this path.".into(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method Not Allowed",
                "This path has other methods; see the header Allow.".into(),
            ),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "host-not-allowed",
                "Misdirected Request",
                "On loopback the Host must be localhost, 127.0.0.1 or [::1].".into(),
            ),
            Self::Unauthorized(Realm::Admin) => (
                StatusCode::UNAUTHORIZED,
                "admin-token-required",
                "Unauthorized",
                "Send `Authorization: Bearer` with the token of the admin token file.".into(),
            ),
            Self::Unauthorized(Realm::Sync) => (
                StatusCode::UNAUTHORIZED,
                "sync-token-required",
                "Unauthorized",
                "Filter and sidecar need the same synchronisation token.".into(),
            ),
            Self::BadRequest(what) => {
                (StatusCode::BAD_REQUEST, "body-malformed", "Bad Request", what.clone())
            }
            Self::Field { field, wrong, allowed } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "field-invalid",
                "Unprocessable Content",
                format!("{field}: {wrong}; allowed: {allowed}."),
            ),
            Self::TooLarge(bytes_max) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "Content Too Large",
                format!("A body may have {bytes_max} bytes."),
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body-timeout",
                "Request Timeout",
                "The body did not arrive in time.".into(),
            ),
            other => other.state_parts(),
        }
    }

    /// What changes of state are refused for.
    fn state_parts(&self) -> (StatusCode, &'static str, &'static str, String) {
        let missing =
            |code, detail: &str| (StatusCode::NOT_FOUND, code, "Not Found", detail.to_owned());
        let conflict = |code, detail| (StatusCode::CONFLICT, code, "Conflict", detail);
        match self {
            Self::UnknownRevocation => {
                missing("revocation-unknown", "There is no revocation with this id.")
            }
            Self::UnknownKey => missing("api-key-unknown", "There is no API key with this id."),
            Self::UnknownBan => missing("ban-unknown", "There is no ban with this id in force."),
            Self::UnknownLimit(name) => missing(
                "limit-unknown",
                &format!("The policy in force has no rate limit `{name}`."),
            ),
            Self::UnknownOverride(name) => missing(
                "override-unknown",
                &format!("The rate limit `{name}` goes by the policy already."),
            ),
            Self::UnknownLimitKey => missing(
                "limit-key-unknown",
                "The filter has no such rate limit, or its key has other parts.",
            ),
            Self::KeyExists(id) => conflict(
                "api-key-exists",
                format!("id: `{id}` is taken; rotate that key, or choose another id."),
            ),
            Self::Full(what, max) => conflict(
                "full",
                format!("There would be more than {max} {what}; nothing has changed."),
            ),
            Self::NotInPolicy(key) => conflict(
                "policy-lacks-section",
                format!("The policy in force has no `{key}`: add that section, then ask again."),
            ),
            other => other.server_parts(),
        }
    }

    fn server_parts(&self) -> (StatusCode, &'static str, &'static str, String) {
        let unavailable = |code, detail: String| {
            (StatusCode::SERVICE_UNAVAILABLE, code, "Service Unavailable", detail)
        };
        match self {
            Self::Protocol(other) => (
                StatusCode::CONFLICT,
                "protocol-mismatch",
                "Conflict",
                format!(
                    "The filter speaks version {other} of the synchronisation protocol, this \
                     sidecar version {PROTOCOL}: install both from one release."
                ),
            ),
            Self::UnknownBreaker(service) => (
                StatusCode::NOT_FOUND,
                "breaker-unknown",
                "Not Found",
                format!("The service `{service}` has no breaker, or has not been called yet."),
            ),
            Self::EnvoyUnavailable(why) => {
                unavailable("envoy-unavailable", format!("Envoy's admin interface: {why}."))
            }
            Self::PolicyUnknown => unavailable(
                "policy-unknown",
                "No filter has told its policy since the sidecar started.".into(),
            ),
            Self::FilterAway => unavailable(
                "filter-away",
                "No filter is connected: what limits know is in Envoy's memory.".into(),
            ),
            Self::NotApplied => unavailable(
                "state-unavailable",
                "The filter could not have its shared state; nothing has changed.".into(),
            ),
            Self::Store => unavailable(
                "store-unavailable",
                "The sidecar's store failed; see its log, and `store` in /health.".into(),
            ),
            Self::NoRandomness => {
                unavailable("no-randomness", "The system gives no random bytes.".into())
            }
            Self::QueueFull => unavailable(
                "queue-full",
                "Too many commands wait for the filter; this one was not taken.".into(),
            ),
            Self::Busy => unavailable("busy", "Too many requests at once.".into()),
            Self::Stopping => unavailable(
                "stopping",
                "The sidecar stops; the command may not have been applied.".into(),
            ),
            _ => (
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "Gateway Timeout",
                "The answer could not be had in time.".into(),
            ),
        }
    }
}

impl Problem {
    /// The reply, with what only the outermost layer knows.
    pub(super) fn reply(&self, instance: &str, request_id: &str) -> Response {
        let (status, code, title, detail) = self.parts();
        let mut body = json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
            "instance": instance, "code": code, "request_id": request_id,
        });
        if let (Self::Field { field, .. }, Some(body)) = (self, body.as_object_mut()) {
            body.insert("field".to_owned(), field.clone().into());
        }
        let mut response = json_reply(status, &body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthorized(_) => {
                let value = HeaderValue::from_static("Bearer realm=\"gateway-sidecar\"");
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
            Self::Busy
            | Self::Stopping
            | Self::QueueFull
            | Self::NotApplied
            | Self::PolicyUnknown
            | Self::FilterAway => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for Problem {
    /// A reply without a body, which the outermost layer writes: see [`Problem::reply`].
    fn into_response(self) -> Response {
        let mut response = self.parts().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A JSON body that nobody keeps a copy of.
pub(crate) fn json_reply(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, format!("{body}\n")).into_response()
}
