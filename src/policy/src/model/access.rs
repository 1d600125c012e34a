//! Who may come in and what he may do: authentication, revocation, authorization, CSRF.

use super::{Cidr, Secret};
use crate::pattern::PathPattern;
use crate::time::Nanos;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::{Map, Value};

/// `authentication`.
#[derive(Clone, Debug)]
pub struct Authentication {
    /// `mode: required` (true) refuses requests without a credential.
    pub mode: AuthMode,
    /// Paths where no credential is needed; one that is sent is not looked at.
    pub public: Vec<PathPattern>,
    /// `jwt.clock_skew`.
    pub clock_skew: Nanos,
    /// `jwt.cache`.
    pub cache: TokenCache,
    /// `jwt.providers`, in order; empty when only API keys are taken.
    pub providers: Vec<Provider>,
    /// `api_keys`; `None` when none are taken.
    pub api_keys: Option<ApiKeys>,
}

/// How verified tokens are remembered, per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCache {
    /// Most tokens; 0 verifies each time.
    pub max_entries: u32,
    /// Longest trust in a verdict; never past `exp`.
    pub ttl: Nanos,
}

/// Whether anonymous requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They do not.
    Required,
    /// They do; a credential that is sent must be good all the same.
    Optional,
}

/// One issuer of tokens.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Unique name.
    pub name: String,
    /// Exact `iss`; `None` (single provider only) accepts any.
    pub issuer: Option<String>,
    /// Accepted `aud` values; empty (single provider only) accepts any.
    pub audiences: Vec<String>,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Where the keys come from.
    pub keys: Keys,
    /// Where tokens are looked for, in order.
    pub locations: Vec<TokenLocation>,
    /// The claim that names the user.
    pub subject_claim: String,
    /// Whether a token without that claim is refused.
    pub require_subject: bool,
    /// The claim that names the tier, if any.
    pub tier_claim: Option<String>,
    /// Claims that hold permissions: a list of strings, or one string with blanks between them
    /// (RFC 6749 section 3.3).
    pub permission_claims: Vec<String>,
    /// Whether `exp` must be there.
    pub require_expiry: bool,
    /// Longest `exp - iat` (or `exp - now` without `iat`).
    pub max_lifetime: Option<Nanos>,
    /// Accepted `typ`, without `application/`, lower case; `None` accepts `jwt`, `at+jwt` and none.
    pub typ: Option<String>,
    /// Whether the upstream sees the token.
    pub forward_token: bool,
    /// Claims copied to headers: (claim, lower-case header).
    pub forward_claims: Vec<(String, String)>,
}

/// Signature algorithms (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them, for messages and schemas.
    pub const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The `alg` value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The least bytes of a shared secret: as long as the hash (RFC 7518 section 3.2); 0 for those
    /// that need none.
    #[must_use]
    pub const fn secret_len_min(self) -> usize {
        match self {
            Self::Hs256 => 32,
            Self::Hs384 => 48,
            Self::Hs512 => 64,
            _ => 0,
        }
    }

    /// Whether it needs a shared secret, and not a public key.
    #[must_use]
    pub const fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// The keys of a provider.
#[derive(Clone, Debug)]
pub enum Keys {
    /// A shared secret for HMAC.
    Secret(SecretSource),
    /// A JWK Set written into the policy.
    Inline(Map<String, Value>),
    /// A JWK Set in a file of this path, which the sidecar reads and hands over.
    File(String),
    /// A JWK Set that the gateway fetches.
    Remote(RemoteKeys),
}

impl Keys {
    /// The file that they are in, if any.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Secret(source) => source.file(),
            Self::File(path) => Some(path),
            Self::Inline(_) | Self::Remote(_) => None,
        }
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Here. Empty in a check away from the gateway, which cannot know it.
    Known(Secret),
    /// In a file of this path, which the sidecar reads and hands over.
    File(String),
}

impl SecretSource {
    /// The file that it is in, if any.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// A key set behind an Envoy cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteKeys {
    /// The cluster; TLS is its business.
    pub cluster: String,
    /// `:authority` of the request.
    pub host: String,
    /// `:path` of the request, query included.
    pub path: String,
    /// A set is fetched anew after this.
    pub refresh: Nanos,
    /// How long after that the last good set still serves while none can be fetched.
    pub max_stale: Nanos,
    /// When a fetch counts as failed.
    pub timeout: Nanos,
    /// The least time between two fetches that tokens with an unknown `kid` cause.
    pub cooldown: Nanos,
}

/// A place in a request where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLocation {
    /// A header, lower-case name, with an optional scheme such as `Bearer` before the token.
    Header {
        /// Lower-case header name.
        name: String,
        /// The scheme, compared case-insensitively (RFC 9110 section 11.1).
        scheme: Option<String>,
    },
    /// A cookie of that name.
    Cookie(String),
    /// A query parameter of that name.
    Query(String),
}

/// `authentication.api_keys`.
#[derive(Clone, Debug)]
pub struct ApiKeys {
    /// Where keys are looked for, in order.
    pub locations: Vec<TokenLocation>,
    /// The keys of the policy; more come from the sidecar at run time.
    pub keys: Vec<ApiKey>,
    /// Whether the upstream sees the key itself.
    pub forward_key: bool,
    /// The lower-case header that tells the upstream the key's id.
    pub forward_id: Option<String>,
}

/// One API key. Only its hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What it is called; two keys share an id while one replaces the other.
    pub id: String,
    /// SHA-256 of the secret.
    pub sha256: [u8; 32],
    /// What its holder may do.
    pub permissions: Vec<String>,
    /// The tier, if any.
    pub tier: Option<String>,
    /// Wall-clock time from which on it is no longer good; `None` means never.
    pub expires: Option<Nanos>,
    /// Client addresses that may use it; empty means any.
    pub cidrs: Vec<Cidr>,
}

/// `revocation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What becomes of tokens before the sidecar has handed the list over.
    pub on_unseeded: Unseeded,
    /// When it should have; later than this is an error in the log and in a metric.
    pub seed_deadline: Nanos,
    /// Most entries.
    pub max: u32,
}

/// The failure mode of revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseeded {
    /// They pass.
    Allow,
    /// They are refused with `state-unavailable`.
    Refuse,
}

/// Whether a stage refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Enforce,
    /// It counts and reports only.
    Shadow,
}

/// `authorization`.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// Enforce or shadow.
    pub mode: Mode,
    /// What becomes of requests that no rule matches.
    pub default: Access,
    /// The rules; the first match wins.
    pub rules: Vec<Rule>,
}

/// What is done with requests that no rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They pass.
    Allow,
    /// They are refused.
    Deny,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Paths that it is for.
    pub path: PathPattern,
    /// Upper-case methods; empty means any, `GET` means `HEAD` too.
    pub methods: Vec<String>,
    /// Permissions that must all be there.
    pub require: Vec<String>,
    /// Permissions of which one must be there; empty asks for none.
    pub require_any: Vec<String>,
}

/// `csrf`.
#[derive(Clone, Debug)]
pub struct Csrf {
    /// Enforce or shadow.
    pub mode: Mode,
    /// Origins beside the request's own, as browsers write them: `https://app.example`.
    pub trusted_origins: Vec<String>,
    /// The cookie that is a session of the upstream's own, beside those that hold our tokens.
    pub cookie: Option<String>,
    /// The signed double-submit token; `None` when there is none.
    pub token: Option<CsrfToken>,
}

/// `csrf.token`.
#[derive(Clone, Debug)]
pub struct CsrfToken {
    /// What it is signed with.
    pub secret: SecretSource,
    /// The cookie that carries it to the browser.
    pub cookie: String,
    /// The lower-case header that brings it back.
    pub header: String,
}
