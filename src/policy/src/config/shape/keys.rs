//! The shape of keys and of references to secrets.

use super::{DAY, MINUTE, field, object, one_of};
use crate::config::kind::Absent::{Is, Nothing, Required};
use crate::config::kind::{Field, Kind, Object};
use crate::config::text::Format;
use crate::time::Nanos;

/// The shortest refresh: an issuer must not be asked more often by each gateway.
const REFRESH_MIN: Nanos = Nanos::from_secs(10);
/// A request that waits for keys waits this long at most.
const TIMEOUT_MAX: Nanos = Nanos::from_secs(30);
/// A fetch that is given less time cannot cross a network.
const TIMEOUT_MIN: Nanos = Nanos::from_millis(100);

/// The keys of a provider.
pub(super) static KEYS: Object = one_of(
    &["secret", "jwks_inline", "jwks_file", "jwks"],
    &[
        field("secret", Kind::Object(&SECRET), Nothing, "A shared secret, for HS* algorithms."),
        field(
            "jwks_inline",
            Kind::Foreign,
            Nothing,
            "A JWK Set (RFC 7517), for all but HS* algorithms.",
        ),
        field(
            "jwks_file",
            Kind::Text(Format::File),
            Nothing,
            "A file with a JWK Set, which the sidecar reads and hands over.",
        ),
        field("jwks", Kind::Object(&JWKS), Nothing, "A JWK Set that the gateway fetches."),
    ],
);

static JWKS: Object = object(&[
    field("cluster", Kind::Text(Format::Service), Required, "The Envoy cluster of the issuer."),
    field("host", Kind::Text(Format::Authority), Required, "The host that is asked."),
    field("path", Kind::Text(Format::Target), Required, "The path that is asked for."),
    field(
        "refresh",
        Kind::Span { min: REFRESH_MIN, max: DAY },
        Is("\"10m\""),
        "A set is fetched anew after this.",
    ),
    field(
        "max_stale",
        Kind::Span { min: Nanos::ZERO, max: DAY.times(7) },
        Is("\"1h\""),
        "How long after that the last good set still serves while none can be fetched.",
    ),
    field(
        "timeout",
        Kind::Span { min: TIMEOUT_MIN, max: TIMEOUT_MAX },
        Is("\"5s\""),
        "When a fetch counts as failed.",
    ),
    field(
        "cooldown",
        Kind::Span { min: Nanos::SECOND, max: MINUTE.times(10) },
        Is("\"30s\""),
        "The least time between two fetches that tokens with an unknown `kid` cause.",
    ),
]);

/// A reference to a secret.
pub(super) static SECRET: Object = one_of(
    &["env", "file", "inline_secret"],
    &[
        ENV,
        field(
            "file",
            Kind::Text(Format::File),
            Nothing,
            "A file with the secret, which the sidecar reads and hands over.",
        ),
        INLINE,
    ],
);

/// The same for the token of the channel to the sidecar.
pub(super) static TOKEN: Object = one_of(
    &["env", "inline_secret"],
    &[
        ENV,
        INLINE,
        field(
            "file",
            Kind::Never {
                why: "files come through the channel that this token opens, so nothing could fetch \
                      it",
                instead: "{env: NAME} or {inline_secret: TEXT}",
            },
            Nothing,
            "A file.",
        ),
    ],
);

const ENV: Field = field(
    "env",
    Kind::Text(Format::Variable),
    Nothing,
    "The variable of Envoy's environment that holds the secret.",
);

const INLINE: Field = field(
    "inline_secret",
    Kind::Text(Format::Secret),
    Nothing,
    "The secret itself, readable by everybody who can read the policy.",
);

/// Whether an object refers to a secret.
pub(super) fn is_reference(object: &'static Object) -> bool {
    core::ptr::eq(object, &raw const SECRET) || core::ptr::eq(object, &raw const TOKEN)
}
