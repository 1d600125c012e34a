//! Why a request was refused: the stable codes of the contract, with the status each one has.

/// A stable, kebab-case code that a client, an access log and a metric all see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request came in clear text and the policy wants TLS.
    HttpsRequired,
    /// The client's address is on the deny list, or not on the allow list.
    IpDenied,
    /// No credential where one is required.
    CredentialsMissing,
    /// The token is not a well-formed signed token.
    TokenMalformed,
    /// The token's `exp` has passed.
    TokenExpired,
    /// The token's `nbf` or `iat` lies in the future.
    TokenNotYetValid,
    /// Signature, issuer, audience, type or key do not fit any provider.
    TokenUntrusted,
    /// The token was revoked.
    TokenRevoked,
    /// The API key is unknown, expired, or not for this address.
    ApiKeyInvalid,
    /// No key set could be had yet.
    KeysUnavailable,
    /// A cookie is the credential, and nothing shows that the request comes from a trusted page.
    CsrfRejected,
    /// The identity lacks a permission.
    PermissionDenied,
    /// The client or the identity is banned for a while.
    Banned,
    /// A rate limit is exhausted.
    RateLimited,
    /// An adaptive limit refused, because of the load, what its full rate would have admitted.
    Overloaded,
    /// The service's breaker is open.
    BreakerOpen,
    /// State that the decision needs could not be had, and the policy says `refuse`.
    StateUnavailable,
}

impl Reason {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 17] = [
        Self::HttpsRequired,
        Self::IpDenied,
        Self::CredentialsMissing,
        Self::TokenMalformed,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenUntrusted,
        Self::TokenRevoked,
        Self::ApiKeyInvalid,
        Self::KeysUnavailable,
        Self::CsrfRejected,
        Self::PermissionDenied,
        Self::Banned,
        Self::RateLimited,
        Self::Overloaded,
        Self::BreakerOpen,
        Self::StateUnavailable,
    ];

    /// The code as clients see it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::HttpsRequired => "https-required",
            Self::IpDenied => "ip-denied",
            Self::CredentialsMissing => "credentials-missing",
            Self::TokenMalformed => "token-malformed",
            Self::TokenExpired => "token-expired",
            Self::TokenNotYetValid => "token-not-yet-valid",
            Self::TokenUntrusted => "token-untrusted",
            Self::TokenRevoked => "token-revoked",
            Self::ApiKeyInvalid => "api-key-invalid",
            Self::KeysUnavailable => "keys-unavailable",
            Self::CsrfRejected => "csrf-rejected",
            Self::PermissionDenied => "permission-denied",
            Self::Banned => "banned",
            Self::RateLimited => "rate-limited",
            Self::Overloaded => "overloaded",
            Self::BreakerOpen => "breaker-open",
            Self::StateUnavailable => "state-unavailable",
        }
    }

    /// What Envoy's access log shows as `%RESPONSE_CODE_DETAILS%`.
    #[must_use]
    pub const fn details(self) -> &'static str {
        match self {
            Self::HttpsRequired => "gateway.https-required",
            Self::IpDenied => "gateway.ip-denied",
            Self::CredentialsMissing => "gateway.credentials-missing",
            Self::TokenMalformed => "gateway.token-malformed",
            Self::TokenExpired => "gateway.token-expired",
            Self::TokenNotYetValid => "gateway.token-not-yet-valid",
            Self::TokenUntrusted => "gateway.token-untrusted",
            Self::TokenRevoked => "gateway.token-revoked",
            Self::ApiKeyInvalid => "gateway.api-key-invalid",
            Self::KeysUnavailable => "gateway.keys-unavailable",
            Self::CsrfRejected => "gateway.csrf-rejected",
            Self::PermissionDenied => "gateway.permission-denied",
            Self::Banned => "gateway.banned",
            Self::RateLimited => "gateway.rate-limited",
            Self::Overloaded => "gateway.overloaded",
            Self::BreakerOpen => "gateway.breaker-open",
            Self::StateUnavailable => "gateway.state-unavailable",
        }
    }
}
