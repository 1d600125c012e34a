//! Refusals as replies: one exhaustive match from reason to status, title and headers.
//!
//! Bodies are `application/problem+json` (RFC 9457); authentication failures carry
//! `WWW-Authenticate` (RFC 6750 section 3); rate-limit fields follow
//! draft-ietf-httpapi-ratelimit-headers. A body never says more than the caller may know.

use crate::event::AuthMethod;
use crate::facts::Facts;
use crate::model::{Fallback, Policy, Rule};
use crate::reason::Reason;
use crate::reply::{Header, Reply};
use crate::stage::authorize::Denied;
use crate::stage::limit::Nearest;
use crate::time::Nanos;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use serde_json::{Map, Value};

/// The registered problem types (IANA "HTTP Problem Types") that fit a gateway.
const PROBLEM_TYPES: &str = "https://iana.org/assignments/http-problem-types";
/// Longest path that is echoed as `instance`.
const INSTANCE_MAX: usize = 512;

/// When a client may ask again for what was not there: keys and state are on their way, and come
/// within seconds or not soon.
const COME_BACK: Nanos = Nanos::from_secs(2);
/// Longest list of permissions that a challenge names; some clients read only so much of a header.
const SCOPE_MAX: usize = 512;

/// A refusal before it is rendered.
#[derive(Clone, Debug)]
pub enum Refused<'p> {
    /// Nothing but the reason.
    For(Reason),
    /// HTTPS is required, and this is where to go.
    Redirect(String),
    /// A permission is missing.
    Denied {
        /// What for.
        denied: Denied<'p>,
        /// What the request was authenticated by.
        method: AuthMethod,
    },
    /// Kept out for a while.
    Banned {
        /// For so much longer; `None` until somebody lifts it.
        wait: Option<Nanos>,
    },
    /// A limit is exhausted.
    Over {
        /// The limit and how it stands.
        nearest: Nearest<'p>,
        /// When to come back.
        retry: Option<Nanos>,
    },
    /// A limit is lowered by the load.
    Overloaded {
        /// The limit and how it stands.
        nearest: Nearest<'p>,
        /// When to come back.
        retry: Option<Nanos>,
    },
    /// A breaker is open.
    Open {
        /// Until the next probe.
        wait: Nanos,
        /// What the service answers instead.
        fallback: Option<&'p Fallback>,
    },
}

impl Refused<'_> {
    /// The reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::For(reason) => *reason,
            Self::Redirect(_) => Reason::HttpsRequired,
            Self::Denied { denied, .. } => denied.reason,
            Self::Banned { .. } => Reason::Banned,
            Self::Over { .. } => Reason::RateLimited,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::Open { .. } => Reason::BreakerOpen,
        }
    }
}

/// Status, title of that status (RFC 9110), a sentence for the caller, and the gRPC code.
const fn words(reason: Reason) -> (u16, &'static str, &'static str, u8) {
    // gRPC codes: PERMISSION_DENIED 7, UNAUTHENTICATED 16, RESOURCE_EXHAUSTED 8, UNAVAILABLE 14.
    const FORBIDDEN: &str = "Forbidden";
    const UNAUTHORIZED: &str = "Unauthorized";
    const TOO_MANY: &str = "Too Many Requests";
    const UNAVAILABLE: &str = "Service Unavailable";
    match reason {
        Reason::HttpsRequired => (403, FORBIDDEN, "Repeat this request over HTTPS.", 7),
        Reason::IpDenied => (403, FORBIDDEN, "Your address may not use this service.", 7),
        Reason::CredentialsMissing => (401, UNAUTHORIZED, "A credential is required.", 16),
        Reason::TokenMalformed => (401, UNAUTHORIZED, "The token is malformed.", 16),
        Reason::TokenExpired => (401, UNAUTHORIZED, "The token has expired.", 16),
        Reason::TokenNotYetValid => (401, UNAUTHORIZED, "The token is not valid yet.", 16),
        Reason::TokenUntrusted => (401, UNAUTHORIZED, "The token is not trusted here.", 16),
        Reason::TokenRevoked => (401, UNAUTHORIZED, "The token was revoked.", 16),
        Reason::ApiKeyInvalid => (401, UNAUTHORIZED, "The API key is not valid here.", 16),
        Reason::CsrfRejected => {
            (403, FORBIDDEN, "The request does not show that it comes from a trusted page.", 7)
        }
        Reason::PermissionDenied => (403, FORBIDDEN, "A permission is missing.", 7),
        Reason::KeysUnavailable => {
            (503, UNAVAILABLE, "Tokens cannot be checked at the moment; try again later.", 14)
        }
        Reason::Banned => {
            (429, TOO_MANY, "Too many refused requests came from here; see Retry-After.", 8)
        }
        Reason::RateLimited => (429, TOO_MANY, "The quota is used up; see Retry-After.", 8),
        Reason::Overloaded => {
            (503, UNAVAILABLE, "The machine is busy and admits less; see Retry-After.", 14)
        }
        Reason::BreakerOpen => {
            (503, UNAVAILABLE, "The service is failing and is given time to recover.", 14)
        }
        Reason::StateUnavailable => {
            (503, UNAVAILABLE, "State that this decision needs is unavailable.", 14)
        }
    }
}

/// Renders a refusal.
#[must_use]
pub fn reply(refused: &Refused<'_>, policy: &Policy, facts: &Facts<'_>) -> Reply {
    let reason = refused.reason();
    let (status, title, detail, grpc) = words(reason);
    let mut headers = headers(refused, policy);
    let grpc_status = facts.is_grpc().then_some(grpc);
    if let Refused::Open { fallback: Some(fallback), .. } = refused
        && grpc_status.is_none()
    {
        headers.push(("content-type".into(), fallback.content_type.clone()));
        let body = fallback.body.clone().into_bytes();
        return Reply { status: fallback.status, reason, headers, body, grpc_status };
    }
    let status = if matches!(refused, Refused::Redirect(_)) { 308 } else { status };
    let title = if status == 308 { "Permanent Redirect" } else { title };
    let body = if grpc_status.is_some() {
        detail.as_bytes().to_vec()
    } else {
        headers.push(("content-type".into(), "application/problem+json".to_string()));
        problem(refused, status, title, detail, facts)
    };
    Reply { status, reason, headers, body, grpc_status }
}

fn headers(refused: &Refused<'_>, policy: &Policy) -> Vec<Header> {
    let retry_after = |wait: Nanos| -> Header { ("retry-after".into(), seconds(wait).to_string()) };
    match refused {
        Refused::For(reason @ (Reason::KeysUnavailable | Reason::StateUnavailable)) => {
            let mut headers = challenges(*reason, policy);
            headers.push(retry_after(COME_BACK));
            headers
        }
        Refused::For(reason) => challenges(*reason, policy),
        // RFC 6750 speaks of tokens; for a key there is nothing to say.
        Refused::Denied { denied, method: AuthMethod::Jwt } => {
            let scope = denied.rule.map(scope).unwrap_or_default();
            vec![bearer(policy, &format!(", error=\"insufficient_scope\"{scope}"))]
        }
        Refused::Denied { denied, .. } => challenges(denied.reason, policy),
        Refused::Redirect(location) => vec![("location".into(), location.clone())],
        Refused::Banned { wait } => wait.map(retry_after).into_iter().collect(),
        Refused::Over { nearest, retry } | Refused::Overloaded { nearest, retry } => {
            let mut headers = rate_limit_headers(nearest, *retry);
            headers.extend(retry.map(retry_after));
            headers
        }
        Refused::Open { wait, .. } => {
            vec![retry_after(*wait), ("x-circuit-open".into(), "true".to_string())]
        }
    }
}

/// Seconds to wait: rounded up and at least one, so that nobody is told to come back at once.
const fn seconds(wait: Nanos) -> u64 {
    let seconds = wait.as_secs_ceil();
    if seconds == 0 { 1 } else { seconds }
}

/// `WWW-Authenticate` for every kind of credential that is taken here: no error code where no
/// token was sent (RFC 6750 section 3.1), and of a bad API key not a word.
fn challenges(reason: Reason, policy: &Policy) -> Vec<Header> {
    let error = match reason {
        Reason::CredentialsMissing | Reason::ApiKeyInvalid => String::new(),
        Reason::TokenMalformed
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenUntrusted
        | Reason::TokenRevoked => {
            let (_, _, detail, _) = words(reason);
            format!(", error=\"invalid_token\", error_description=\"{detail}\"")
        }
        Reason::HttpsRequired
        | Reason::IpDenied
        | Reason::CsrfRejected
        | Reason::PermissionDenied
        | Reason::KeysUnavailable
        | Reason::Banned
        | Reason::RateLimited
        | Reason::Overloaded
        | Reason::BreakerOpen
        | Reason::StateUnavailable => return Vec::new(),
    };
    let settings = policy.authentication.as_ref();
    let keys = settings.is_some_and(|settings| settings.api_keys.is_some());
    let only_keys = keys && settings.is_some_and(|settings| settings.providers.is_empty());
    let mut headers = Vec::new();
    if !only_keys {
        headers.push(bearer(policy, &error));
    }
    if keys {
        let value = format!("ApiKey realm=\"{}\"", realm(policy));
        headers.push(("www-authenticate".into(), value));
    }
    headers
}

fn bearer(policy: &Policy, more: &str) -> Header {
    ("www-authenticate".into(), format!("Bearer realm=\"{}\"{more}", realm(policy)))
}

fn realm(policy: &Policy) -> String {
    policy.name.chars().filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\').collect()
}

/// What a rule asks for, as `scope` of RFC 6750 section 3; nothing when it is too long or has bytes
/// that may not stand there.
fn scope(rule: &Rule) -> String {
    let all: Vec<&str> = rule.require.iter().chain(&rule.require_any).map(String::as_str).collect();
    let safe = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    let safe = all.iter().all(|permission| permission.chars().all(safe));
    let list = all.join(" ");
    if !safe || list.is_empty() || list.len() > SCOPE_MAX {
        return String::new();
    }
    format!(", scope=\"{list}\"")
}

/// `RateLimit`, `RateLimit-Policy` and the older `X-RateLimit-*`. A refused client's `t` is its
/// `Retry-After`, which must not be earlier than `t`.
#[must_use]
pub fn rate_limit_headers(nearest: &Nearest<'_>, retry: Option<Nanos>) -> Vec<Header> {
    let Nearest { limit, standing } = nearest;
    let name = &limit.name;
    let reset = retry.map_or(standing.reset.as_secs_ceil(), seconds);
    let requests = limit.algorithm.requests();
    let per = limit.algorithm.per();
    let window = per.as_secs();
    // `w` is whole seconds above zero, and optional: a sub-second window leaves it out.
    let whole = window > 0 && per == Nanos::from_secs(window);
    let window = if whole { format!(";w={window}") } else { String::new() };
    let remaining = standing.remaining;
    let header = |name: &'static str, value: String| -> Header { (Cow::Borrowed(name), value) };
    vec![
        header("ratelimit", format!("\"{name}\";r={remaining};t={reset}")),
        header("ratelimit-policy", format!("\"{name}\";q={requests}{window}")),
        // A bucket or a queue larger than its quota may have more left than the quota: `Remaining`
        // must not exceed `Limit`.
        header("x-ratelimit-limit", requests.max(limit.algorithm.size()).to_string()),
        header("x-ratelimit-remaining", remaining.to_string()),
        header("x-ratelimit-reset", reset.to_string()),
    ]
}

fn problem_type(name: &str) -> Value {
    Value::from(format!("{PROBLEM_TYPES}#{name}"))
}

fn problem(
    refused: &Refused<'_>,
    status: u16,
    title: &str,
    detail: &str,
    facts: &Facts<'_>,
) -> Vec<u8> {
    let path = facts.path();
    let path = path.get(..path.len().min(INSTANCE_MAX)).unwrap_or_default();
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_string(), value);
    put("type", Value::from("about:blank"));
    put("title", Value::from(title));
    put("status", Value::from(status));
    put("detail", Value::from(detail));
    put("instance", Value::from(String::from_utf8_lossy(path).into_owned()));
    put("code", Value::from(refused.reason().code()));
    put("request_id", Value::from(facts.request_id()));
    match refused {
        Refused::Banned { wait } => {
            put("type", problem_type("abnormal-usage-detected"));
            if let Some(wait) = wait {
                put("retry_after", Value::from(seconds(*wait)));
            }
        }
        Refused::Over { nearest, retry } | Refused::Overloaded { nearest, retry } => {
            let lowered = matches!(refused, Refused::Overloaded { .. });
            let name = if lowered { "temporary-reduced-capacity" } else { "quota-exceeded" };
            put("type", problem_type(name));
            put("violated-policies", Value::from(vec![nearest.limit.name.as_str()]));
            if let Some(wait) = retry {
                put("retry_after", Value::from(seconds(*wait)));
            }
        }
        Refused::Open { wait, .. } => {
            put("retry_after", Value::from(seconds(*wait)));
        }
        Refused::For(Reason::KeysUnavailable | Reason::StateUnavailable) => {
            put("retry_after", Value::from(seconds(COME_BACK)));
        }
        Refused::For(_) | Refused::Redirect(_) | Refused::Denied { .. } => {}
    }
    Value::Object(body).to_string().into_bytes()
}
