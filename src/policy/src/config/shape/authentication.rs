//! The shape of `authentication`.

use super::keys::KEYS;
use super::{CIDRS, LINES, PATHS, PERMISSIONS, YEAR, field, object, one_of, words};
use crate::config::kind::Absent::{As, Is, Nothing, Required};
use crate::config::kind::{Choice, Field, Kind, Object};
use crate::config::text::Format;
use crate::replica::files;
use crate::time::Nanos;

/// Most providers: their issuers are compared one after the other.
const PROVIDERS_MAX: usize = 32;
const _: () = assert!(
    PROVIDERS_MAX < files::FILES_MAX,
    "each provider, and the token of `csrf`, may name a file"
);
/// Most places where a token is looked for, per provider.
const LOCATIONS_MAX: usize = 8;
/// Most API keys in the policy, which every worker holds; thousands more belong to the sidecar.
const API_KEYS_MAX: usize = 10_000;
/// Most tokens that one worker remembers: at about 1 KiB each this is 100 MiB.
const CACHE_MAX: u32 = 100_000;
/// Longest trust in a verified token.
const CACHE_TTL_MAX: Nanos = Nanos::from_secs(3600);

/// A list of places where a credential is looked for.
const LOCATIONS: Kind = Kind::List { of: &Kind::Object(&LOCATION), min: 1, max: LOCATIONS_MAX };

/// The names of the algorithms.
const ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

/// The section.
pub(super) static AUTHENTICATION: Object =
    Object { fields: &SECTION, choice: Choice::Some(&["jwt", "api_keys"]) };

static SECTION: [Field; 4] = [
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
    field("jwt", Kind::Object(&JWT), As("No tokens are taken."), "JSON Web Tokens."),
    field("api_keys", Kind::Object(&API_KEYS), As("No API keys are taken."), "API keys."),
];

static JWT: Object = object(&[
    field(
        "clock_skew",
        Kind::Span { min: Nanos::ZERO, max: Nanos::from_secs(60) },
        Is("\"30s\""),
        "How far the issuer's clock may be off, for `exp`, `nbf` and `iat`.",
    ),
    field("cache", Kind::Object(&CACHE), Is("{}"), "How verified tokens are remembered."),
    field(
        "providers",
        Kind::List { of: &Kind::Object(&PROVIDER), min: 1, max: PROVIDERS_MAX },
        Required,
        "The issuers that are trusted.",
    ),
]);

static CACHE: Object = object(&[
    field(
        "max_entries",
        Kind::Integer { min: 0, max: CACHE_MAX },
        Is("10000"),
        "Most tokens that each worker remembers; 0 verifies every token each time.",
    ),
    field(
        "ttl",
        Kind::Span { min: Nanos::SECOND, max: CACHE_TTL_MAX },
        Is("\"5m\""),
        "How long a verified token is trusted without a new look; never past its `exp`.",
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
        Kind::List { of: &words(ALGORITHMS, &[]), min: 1, max: 12 },
        Required,
        "Accepted signature algorithms; HS* goes with `secret`, the others with a key set.",
    ),
    field("keys", Kind::Object(&KEYS), Required, "Where the keys come from."),
    field(
        "locations",
        LOCATIONS,
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
    field(
        "permission_claims",
        LINES,
        Is("[]"),
        "Claims that hold permissions: a list of strings, or one string with blanks between them.",
    ),
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

static LOCATION: Object = one_of(
    &["header", "cookie", "query"],
    &[
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
);

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

static API_KEYS: Object = object(&[
    field(
        "locations",
        LOCATIONS,
        Is(r#"[{"header": "x-api-key"}]"#),
        "Where keys are looked for, in this order.",
    ),
    field(
        "keys",
        Kind::List { of: &Kind::Object(&API_KEY), min: 0, max: API_KEYS_MAX },
        Is("[]"),
        "The keys; more can be made at the sidecar.",
    ),
    field("forward", Kind::Object(&FORWARD_KEY), Is("{}"), "What the upstream sees of a key."),
]);

static API_KEY: Object = object(&[
    field(
        "id",
        Kind::Text(Format::Name),
        Required,
        "What it is called; a key and its successor share an id, and all but one of them expire.",
    ),
    field("sha256", Kind::Text(Format::Sha256), Required, "The SHA-256 of the secret."),
    field("permissions", PERMISSIONS, Is("[]"), "What its holder may do."),
    field("tier", Kind::Text(Format::Line), Nothing, "The tier."),
    field(
        "expires",
        Kind::Text(Format::Time),
        As("It never expires."),
        "From here on it is no longer good.",
    ),
    field("cidrs", CIDRS, Is("[]"), "Client addresses that may use it; empty means any."),
]);

static FORWARD_KEY: Object = object(&[
    field(
        "key",
        Kind::Bool,
        Is("false"),
        "Whether the upstream sees the key itself; in a query it never does.",
    ),
    field(
        "id",
        Kind::Text(Format::HeaderName),
        Nothing,
        "The request header that tells the upstream the key's id; the same header from outside is \
         removed.",
    ),
]);
