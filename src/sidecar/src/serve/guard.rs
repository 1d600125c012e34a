//! What stands before every handler: how much at once, from which host, with which token, how long.

use super::App;
use super::problem::{Problem, Realm};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use policy::sync::{MARKER, PATH, PROTOCOL, REPORT_PATH, STATE_PATH};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Requests worked on at once: a person and a few scrapers need ten, a flood stops here.
pub(super) const IN_FLIGHT_MAX: usize = 128;
/// Longest body: a poll that acknowledges a full answer has a few kilobytes.
pub(crate) const BODY_MAX: usize = 256 * 1024;
/// Longest a request may take (held polls have their own bound): above the wait for the filter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The header that names a request.
const REQUEST_ID: &str = "x-request-id";
/// Paths that are open wherever the sidecar listens.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// A secret that is compared in constant time and never printed.
#[derive(Clone)]
pub(crate) struct Token(Vec<u8>);

impl Token {
    /// Wraps the bytes.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Whether a request carries exactly this token, once, as `Authorization: Bearer`.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(&self.0))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Names one request in replies and log lines.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

impl RequestId {
    /// Longest one that is taken from a client.
    const LENGTH_MAX: usize = 64;

    /// The client's, when it is short and plain, else a random one.
    fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match given {
            Some(id) if (1..=Self::LENGTH_MAX).contains(&id.len()) && id.bytes().all(plain) => {
                Self(id.to_owned())
            }
            _ => {
                // Without randomness the id is all zeros: it names nothing, and opens nothing.
                let id = getrandom::u64().unwrap_or_default();
                Self(format!("{id:016x}"))
            }
        }
    }
}

/// The outermost layer.
pub(super) async fn guard(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let is_sync = is_sync(&path);
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let mut response = match admit(&app, &request) {
        Ok(permit) => {
            let answer = next.run(request);
            let response = if is_sync {
                answer.await
            } else {
                match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
                    Ok(response) => response,
                    Err(_) => Problem::Timeout.into_response(),
                }
            };
            drop(permit);
            response
        }
        Err(problem) => problem.into_response(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = problem.reply(&path, &id.0);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    if is_sync {
        response.headers_mut().insert(MARKER, HeaderValue::from(PROTOCOL));
    }
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Whether a path is for the filter.
fn is_sync(path: &str) -> bool {
    [PATH, STATE_PATH, REPORT_PATH].contains(&path)
}

fn admit<'a>(
    app: &'a App,
    request: &Request,
) -> Result<Option<tokio::sync::SemaphorePermit<'a>>, Problem> {
    let path = request.uri().path();
    if is_sync(path) {
        // The filter's call has the cluster's name as its host, and its own token; polls supersede
        // each other, a VM has one report under way, and neither needs a place.
        return Ok(None);
    }
    if app.loopback {
        if !is_local(app.listen.ip(), request.uri(), request.headers()) {
            return Err(Problem::Misdirected);
        }
    } else if !OPEN.contains(&path) && !app.admin_token.is_in(request.headers()) {
        return Err(Problem::Unauthorized(Realm::Admin));
    }
    // A flood must not make the process look dead.
    if path == "/livez" {
        return Ok(None);
    }
    app.in_flight.try_acquire().map(Some).map_err(|_| Problem::Busy)
}

/// Whether the request is for this machine by name, whatever the port.
fn is_local(own: IpAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (values.next(), values.next()) else { return false };
    let local = |host: &str| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || matches!(name, "127.0.0.1" | "[::1]")
            || (bare != name || own.is_ipv4()) && bare.parse() == Ok(own)
    };
    host.to_str().is_ok_and(local) && uri.authority().is_none_or(|name| local(name.as_str()))
}

/// Refuses requests without the administrator's token.
pub(super) fn require_admin(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    if app.admin_token.is_in(headers) { Ok(()) } else { Err(Problem::Unauthorized(Realm::Admin)) }
}

/// A name in a path, as far as it can be read: handlers look at it after the token.
pub(super) type Named = Result<Path<String>, PathRejection>;

/// The name. Nothing has one that is no text.
pub(super) fn name(named: Named) -> Result<String, Problem> {
    named.map(|Path(name)| name).map_err(|_| Problem::NotFound)
}
