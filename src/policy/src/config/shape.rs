//! The shape of a policy: every key of contract section 3, once. Messages, defaults and the JSON
//! Schema all come from these tables; what holds between several keys is in `build`.

mod access;
mod authentication;
mod keys;
mod limits;

use super::kind::Absent::{As, Is, Nothing, Required};
use super::kind::{Absent, Choice, Field, Kind, Object};
use super::text::Format;
use crate::kernel::breaker::PROBES_MAX;
use crate::time::Nanos;
use access::{AUTHORIZATION, CSRF, REVOCATION};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use authentication::AUTHENTICATION;
use keys::{TOKEN, is_reference};
use limits::LIMIT;
pub(super) use limits::{ADAPTIVE, OVERRIDE, QUEUE};
use serde_json::Value;

/// Most entries of a list or map where nothing speaks for another number: a policy is pushed to
/// every worker as one message, and each list may be walked per request.
pub(super) const ENTRIES_MAX: usize = 1024;
/// Most limits: each may cost a shared-data access per request.
const LIMITS_MAX: usize = 64;
/// One day.
const DAY: Nanos = Nanos::from_secs(86_400);
/// One year.
const YEAR: Nanos = DAY.times(365);
/// One minute.
const MINUTE: Nanos = Nanos::from_secs(60);
/// The shortest span of a breaker: the host's clock is not finer in practice.
const MILLI: Nanos = Nanos::from_millis(1);

const fn field(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Field {
    Field { name, kind, absent, doc }
}

const fn later(name: &'static str, doc: &'static str) -> Field {
    field(name, Kind::Later, Nothing, doc)
}

const fn object(fields: &'static [Field]) -> Object {
    Object { fields, choice: Choice::Free }
}

const fn one_of(names: &'static [&'static str], fields: &'static [Field]) -> Object {
    Object { fields, choice: Choice::One(names) }
}

const fn list(of: &'static Kind) -> Kind {
    Kind::List { of, min: 0, max: ENTRIES_MAX }
}

const fn words(now: &'static [&'static str], later: &'static [&'static str]) -> Kind {
    Kind::Words { now, later }
}

const CIDRS: Kind = list(&Kind::Text(Format::Cidr));
const PATHS: Kind = list(&Kind::Text(Format::Path));
const METHODS: Kind = list(&Kind::Text(Format::Method));
const SERVICES: Kind = list(&Kind::Text(Format::Service));
const LINES: Kind = list(&Kind::Text(Format::Line));
const PERMISSIONS: Kind = list(&Kind::Text(Format::Permission));
const STATUSES: Kind = list(&Kind::Integer { min: 200, max: 599 });
const COUNT: Kind = Kind::Integer { min: 1, max: 1_000_000 };

/// The whole document.
pub(super) static POLICY: Kind = Kind::Object(&DOCUMENT);

static DOCUMENT: Object = object(&[
    field("version", Kind::Integer { min: 1, max: 1 }, Required, "The version of this format."),
    field(
        "name",
        Kind::Text(Format::Line),
        Is("\"unnamed\""),
        "A name for logs and the admin API.",
    ),
    field("https", Kind::Object(&HTTPS), Is("{}"), "What happens to clear-text requests."),
    field("ip", Kind::Object(&IP), Is("{}"), "Lists of client addresses."),
    field(
        "endpoints",
        Kind::List { of: &Kind::Object(&ENDPOINT), min: 0, max: ENTRIES_MAX },
        Is("[]"),
        "Named paths; the first match wins, unmatched requests share the endpoint `other`.",
    ),
    field(
        "authentication",
        Kind::Object(&AUTHENTICATION),
        As("Everybody passes as anonymous."),
        "Who may come in.",
    ),
    field(
        "revocation",
        Kind::Object(&REVOCATION),
        As("No token is looked up."),
        "Tokens that were revoked at the sidecar.",
    ),
    field(
        "authorization",
        Kind::Object(&AUTHORIZATION),
        As("Every identity may do everything."),
        "Permissions by path and method.",
    ),
    field(
        "csrf",
        Kind::Object(&CSRF),
        As("Requests are not checked for the page that they come from."),
        "Protection from cross-site requests, where a cookie is the credential.",
    ),
    field(
        "security_headers",
        Kind::Object(&SECURITY_HEADERS),
        Is("{}"),
        "Headers that every response gets; one that the upstream set itself is kept.",
    ),
    field(
        "rate_limits",
        Kind::List { of: &Kind::Object(&LIMIT), min: 0, max: LIMITS_MAX },
        Is("[]"),
        "Rate limits; a request must pass all that match it.",
    ),
    field(
        "circuit_breakers",
        Kind::Object(&BREAKERS),
        As("No service has a breaker."),
        "Breakers by service.",
    ),
    later("cache", "Response caching."),
    later("graphql", "GraphQL limits."),
    field(
        "sidecar",
        Kind::Object(&SIDECAR),
        As("The filter runs alone; everything local still works."),
        "How the filter reaches its sidecar.",
    ),
]);

static HTTPS: Object = object(&[field(
    "mode",
    words(&["off", "redirect", "refuse"], &[]),
    Is("\"off\""),
    "`redirect` answers 308 on GET and HEAD and 403 otherwise, `refuse` always 403.",
)]);

static IP: Object = object(&[
    field("allow", CIDRS, Is("[]"), "When not empty, only these may pass."),
    field("deny", CIDRS, Is("[]"), "These never pass."),
    field("exempt", CIDRS, Is("[]"), "These are never limited and never banned."),
]);

static ENDPOINT: Object = object(&[
    field("name", Kind::Text(Format::Name), Required, "A unique name; `other` is reserved."),
    field("path", Kind::Text(Format::Path), Required, "The path template."),
    field("methods", METHODS, Is("[]"), "Methods in upper case; empty means any."),
]);

static SECURITY_HEADERS: Object = object(&[
    field(
        "preset",
        words(&["off", "seed", "owasp-api"], &[]),
        Is("\"off\""),
        "A ready set of headers.",
    ),
    field(
        "override",
        Kind::Map {
            keys: Format::HeaderName,
            of: &Kind::Text(Format::HeaderValueOrEmpty),
            max: 64,
        },
        Is("{}"),
        "Headers to set beside or instead of the preset's; an empty value removes the preset's.",
    ),
]);

static BREAKERS: Object = object(&[
    field(
        "default",
        Kind::Object(&BREAKER),
        As("Only the services named below have a breaker."),
        "For services that are not named; a named one inherits from it.",
    ),
    field(
        "services",
        Kind::Map { keys: Format::Service, of: &Kind::Object(&BREAKER), max: ENTRIES_MAX },
        Is("{}"),
        "By service; a key left out is as in `default`, or else as stated with the key.",
    ),
]);

/// One breaker, for the default and for each service.
pub(super) static BREAKER: Object = object(&[
    field("failure_threshold", COUNT, Is("5"), "Consecutive failures that open it."),
    field(
        "timeout",
        Kind::Span { min: MILLI, max: DAY },
        Is("\"60s\""),
        "How long it stays open before probes may pass.",
    ),
    field(
        "max_timeout",
        Kind::Span { min: MILLI, max: DAY },
        Is("\"10m\""),
        "The longest that it stays open, however often it reopened.",
    ),
    field(
        "backoff",
        Kind::Integer { min: 1, max: 100 },
        Is("2"),
        "Each reopening multiplies `timeout` by this.",
    ),
    field(
        "half_open_calls",
        Kind::Integer { min: 1, max: PROBES_MAX as u32 },
        Is("3"),
        "Probes in flight at most.",
    ),
    field("success_threshold", COUNT, Is("3"), "Successful probes that close it."),
    field(
        "failure_statuses",
        STATUSES,
        Is("[500, 502, 503, 504]"),
        "Upstream statuses that count as failures.",
    ),
    field(
        "ignore_statuses",
        STATUSES,
        Is("[]"),
        "Upstream statuses that count neither way; they win over `failure_statuses`.",
    ),
    field(
        "fallback",
        Kind::Object(&FALLBACK),
        As("The standard reply `breaker-open`."),
        "What is answered while it is open.",
    ),
    later("failure_rate_threshold", "The share of failures that opens it."),
    later("slow_call_duration", "What counts as a slow call."),
    later("slow_call_rate_threshold", "The share of slow calls that opens it."),
    later("window", "The window of the shares."),
    later("minimum_calls", "How many calls the shares need."),
]);

static FALLBACK: Object = object(&[
    field("status", Kind::Integer { min: 200, max: 599 }, Is("503"), "The status."),
    field("body", Kind::Text(Format::Body), Required, "The body as it is."),
    field(
        "content_type",
        Kind::Text(Format::HeaderValue),
        Is("\"application/json\""),
        "The body's `content-type`.",
    ),
]);

static SIDECAR: Object = object(&[
    field("cluster", Kind::Text(Format::Service), Required, "The Envoy cluster of the sidecar."),
    field(
        "token",
        Kind::Object(&TOKEN),
        Required,
        "The bearer token of the channel between filter and sidecar.",
    ),
]);

/// Where the section that a path begins with stands in the document's order; unknown ones come last.
pub(super) fn section_index(path: &str) -> usize {
    let section = path.split(['.', '[']).next().unwrap_or_default();
    let place = DOCUMENT.fields.iter().position(|field| field.name == section);
    place.unwrap_or(DOCUMENT.fields.len())
}

/// Collects the variables that the secrets in `value` name.
pub(super) fn variables(value: &Value, kind: &Kind, names: &mut Vec<String>) {
    match (kind, value) {
        (Kind::Object(object), Value::Object(map)) => {
            if is_reference(object) {
                names.extend(map.get("env").and_then(Value::as_str).map(ToString::to_string));
            }
            for field in object.fields {
                map.get(field.name).into_iter().for_each(|v| variables(v, &field.kind, names));
            }
        }
        (Kind::List { of, .. }, Value::Array(entries)) => {
            entries.iter().for_each(|entry| variables(entry, of, names));
        }
        (Kind::Map { of, .. }, Value::Object(map)) => {
            map.values().for_each(|entry| variables(entry, of, names));
        }
        _ => {}
    }
}
