//! The shape of `authentication`, and of references to secrets.

use super::{LINES, PATHS, YEAR, field, later, object, words};
use crate::config::kind::Absent::{As, Is, Nothing, Required};
use crate::config::kind::{Kind, Object};
use crate::config::text::Format;
use crate::time::Nanos;

/// Most providers: their issuers are compared one after the other.
const PROVIDERS_MAX: usize = 32;
/// Most places where a token is looked for, per provider.
const LOCATIONS_MAX: usize = 8;

/// The section.
pub(super) static AUTHENTICATION: Object = object(&[
    field(
        "mode",
        words(&["required", "optional"], &[]),
        Is("\"required\""),
        "`optional` lets requests without a credential pass as anonymous; one that is sent must be \
         good all the same.",
    ),
    field(
        "public",
        PATHS,
        Is("[]"),
        "Paths where no credential is needed; one that is sent is not looked at.",
    ),
    field("jwt", Kind::Object(&JWT), Required, "JSON Web Tokens."),
    later("api_keys", "API keys."),
]);

static JWT: Object = object(&[
    field(
        "clock_skew",
        Kind::Span { min: Nanos::ZERO, max: Nanos::from_secs(60) },
        Is("\"30s\""),
        "How far the issuer's clock may be off, for `exp`, `nbf` and `iat`.",
    ),
    later("cache", "The cache of verified tokens."),
    field(
        "providers",
        Kind::List { of: &Kind::Object(&PROVIDER), min: 1, max: PROVIDERS_MAX },
        Required,
        "The issuers that are trusted.",
    ),
]);

static PROVIDER: Object = object(&[
    field("name", Kind::Text(Format::Name), Required, "A unique name."),
    field(
        "issuer",
        Kind::Text(Format::Line),
        As("Any issuer is accepted; only with a single provider."),
        "The exact `iss`; unique among the providers.",
    ),
    field(
        "audiences",
        LINES,
        As("Any audience is accepted; only with a single provider."),
        "Accepted `aud` values.",
    ),
    field(
        "algorithms",
        Kind::List {
            of: &words(
                &["HS256", "RS256", "ES256"],
                &["HS384", "HS512", "RS384", "RS512", "PS256", "PS384", "PS512", "ES384", "EdDSA"],
            ),
            min: 1,
            max: 12,
        },
        Required,
        "Accepted signature algorithms; HS* goes with `secret`, the others with a key set.",
    ),
    field("keys", Kind::Object(&KEYS), Required, "Where the keys come from."),
    field(
        "locations",
        Kind::List { of: &Kind::Object(&LOCATION), min: 1, max: LOCATIONS_MAX },
        Is(r#"[{"header": "authorization", "scheme": "Bearer"}]"#),
        "Where tokens are looked for, in this order.",
    ),
    field(
        "subject_claim",
        Kind::Text(Format::Line),
        Is("\"sub\""),
        "The claim that names the user.",
    ),
    field(
        "require_subject",
        Kind::Bool,
        Is("false"),
        "Whether a token without that claim is refused.",
    ),
    field("tier_claim", Kind::Text(Format::Line), Nothing, "The claim that names the tier."),
    later("permission_claims", "The claims that hold permissions."),
    field("require_expiry", Kind::Bool, Is("true"), "Whether a token must have `exp`."),
    field(
        "max_lifetime",
        Kind::Span { min: Nanos::SECOND, max: YEAR },
        As("Any lifetime is accepted."),
        "The longest `exp - iat`, or `exp - now` where there is no `iat`.",
    ),
    field(
        "typ",
        Kind::Text(Format::Line),
        As("`JWT`, `at+jwt` and no `typ` at all are accepted."),
        "The accepted `typ`; `application/` before it makes no difference, nor does case.",
    ),
    field("forward", Kind::Object(&FORWARD), Is("{}"), "What the upstream sees of a token."),
]);

static KEYS: Object = Object {
    fields: &[
        field("secret", Kind::Object(&SECRET), Nothing, "A shared secret, for HS* algorithms."),
        field("jwks_inline", Kind::Foreign, Nothing, "A JWK Set (RFC 7517), for RS* and ES*."),
        later("jwks", "A key set fetched from the issuer."),
    ],
    exactly_one: &["secret", "jwks_inline"],
};

/// A reference to a secret.
pub(super) static SECRET: Object = Object {
    fields: &[
        field(
            "env",
            Kind::Text(Format::Variable),
            Nothing,
            "The variable of Envoy's environment that holds the secret.",
        ),
        field(
            "inline_secret",
            Kind::Text(Format::Secret),
            Nothing,
            "The secret itself, readable by everybody who can read the policy.",
        ),
        later("file", "A file that the sidecar reads."),
    ],
    exactly_one: &["env", "inline_secret"],
};

static LOCATION: Object = Object {
    fields: &[
        field("header", Kind::Text(Format::HeaderName), Nothing, "A header."),
        field(
            "scheme",
            Kind::Text(Format::Token),
            As("The header's whole value is the token."),
            "With `header`: the word before the token, such as Bearer.",
        ),
        field("cookie", Kind::Text(Format::Token), Nothing, "A cookie."),
        field("query", Kind::Text(Format::Line), Nothing, "A query parameter."),
    ],
    exactly_one: &["header", "cookie", "query"],
};

static FORWARD: Object = object(&[
    field("token", Kind::Bool, Is("false"), "Whether the upstream sees the token itself."),
    field(
        "claims",
        Kind::Map { keys: Format::Line, of: &Kind::Text(Format::HeaderName), max: 64 },
        Is("{}"),
        "Claims copied to request headers, claim to header; the same headers from outside are \
         removed.",
    ),
]);
