//! The shape of `revocation`, `authorization` and `csrf`.

use super::keys::SECRET;
use super::{ENTRIES_MAX, METHODS, MINUTE, PERMISSIONS, field, list, object, words};
use crate::config::kind::Absent::{As, Is, Required};
use crate::config::kind::{Kind, Object};
use crate::config::text::Format;
use crate::time::Nanos;

/// Most revocations: at 24 bytes each they fill about 100 MiB of shared memory.
const REVOCATIONS_MAX: u32 = 4_000_000;
/// Less than a few round trips to the sidecar would be missed at every start.
const SEED_MIN: Nanos = Nanos::from_millis(100);

/// `revocation`.
pub(super) static REVOCATION: Object = object(&[
    field(
        "on_unseeded",
        words(&["refuse", "allow"], &[]),
        Is("\"refuse\""),
        "What becomes of tokens before the sidecar has handed the list over.",
    ),
    field(
        "seed_deadline",
        Kind::Span { min: SEED_MIN, max: MINUTE },
        Is("\"2s\""),
        "When it should have; later than this is an error in the log and in a metric.",
    ),
    field(
        "max",
        Kind::Integer { min: 1, max: REVOCATIONS_MAX },
        Is("1000000"),
        "Most entries; none is ever evicted for another.",
    ),
]);

/// `authorization`.
pub(super) static AUTHORIZATION: Object = object(&[
    field(
        "mode",
        words(&["enforce", "shadow"], &[]),
        Is("\"enforce\""),
        "`shadow` counts and reports, and never refuses.",
    ),
    field(
        "default",
        words(&["allow", "deny"], &[]),
        Is("\"allow\""),
        "What becomes of requests that no rule matches; it does not touch `public` paths.",
    ),
    field(
        "rules",
        Kind::List { of: &Kind::Object(&RULE), min: 0, max: ENTRIES_MAX },
        Is("[]"),
        "The rules; the first match wins.",
    ),
]);

static RULE: Object = object(&[
    field("path", Kind::Text(Format::Path), Required, "The paths that it is for."),
    field(
        "methods",
        METHODS,
        Is("[]"),
        "Methods in upper case; empty means any, `GET` means `HEAD` too.",
    ),
    field("require", PERMISSIONS, Is("[]"), "Permissions that must all be there."),
    field(
        "require_any",
        PERMISSIONS,
        Is("[]"),
        "Permissions of which one must be there; `admin:*` is any that begins with `admin:`.",
    ),
]);

/// `csrf`.
pub(super) static CSRF: Object = object(&[
    field(
        "mode",
        words(&["off", "shadow", "enforce"], &[]),
        Is("\"enforce\""),
        "`shadow` counts and reports, and never refuses.",
    ),
    field(
        "trusted_origins",
        list(&Kind::Text(Format::Origin)),
        Is("[]"),
        "Origins beside the request's own whose pages may send requests.",
    ),
    field(
        "cookie",
        Kind::Text(Format::Token),
        As("Only cookies that hold tokens count as credentials."),
        "The cookie of a session that the upstream itself keeps.",
    ),
    field(
        "token",
        Kind::Object(&CSRF_TOKEN),
        As("Requests without Sec-Fetch-Site, Origin and Referer are refused."),
        "A signed token that scripts of one's own pages send back, for browsers that say nothing.",
    ),
]);

static CSRF_TOKEN: Object = object(&[
    field(
        "secret",
        Kind::Object(&SECRET),
        Required,
        "What tokens are signed with, at least 32 bytes.",
    ),
    field(
        "cookie",
        Kind::Text(Format::Token),
        Is("\"csrf-token\""),
        "The cookie that carries a token to the browser.",
    ),
    field(
        "header",
        Kind::Text(Format::HeaderName),
        Is("\"x-csrf-token\""),
        "The request header that brings it back.",
    ),
]);
