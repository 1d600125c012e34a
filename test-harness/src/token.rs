//! Tokens from an issuer that shares no code with the gateway: crate `jsonwebtoken`, fixed test keys.

use anyhow::{Result, bail};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Private keys that exist only for tests. Nothing trusts them but a policy made by [`jwks`].
const RS256_KEY: &str = include_str!("../keys/rs256.pem");
const ES256_KEY: &str = include_str!("../keys/es256.pem");
const STRANGERS_KEY: &str = include_str!("../keys/es256-stranger.pem");
const JWKS: &str = include_str!("../keys/jwks.json");

/// The issuer of the demo policy.
pub const ISSUER: &str = "tracseq-gateway";
/// The audience of the demo policy.
pub const AUDIENCE: &str = "tracseq-api";
/// Lifetime unless another one is asked for.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What a token is signed with.
#[derive(Clone, Debug)]
pub enum Key {
    /// HMAC with this secret.
    Hs256(Vec<u8>),
    /// The RSA key `rs` of [`jwks`].
    Rs256,
    /// The P-256 key `es` of [`jwks`].
    Es256,
    /// A P-256 key that is in no key set, although the token says `es`.
    Stranger,
}

/// The public keys of [`Key::Rs256`] and [`Key::Es256`], as a JWK Set.
///
/// # Errors
/// The file in the source is no JSON.
pub fn jwks() -> Result<Value> {
    Ok(serde_json::from_str(JWKS)?)
}

/// A token that is being put together. Starts as a good one for `subject`.
#[derive(Clone, Debug)]
pub struct Token {
    key: Key,
    typ: Option<String>,
    claims: Map<String, Value>,
}

impl Token {
    /// A token of the demo policy's issuer and audience, valid from now for an hour.
    #[must_use]
    pub fn new(key: Key, subject: &str) -> Self {
        let mut token = Self { key, typ: Some("JWT".to_owned()), claims: Map::new() };
        token.claims.insert("iat".to_owned(), json!(now()));
        token.claim("iss", ISSUER).claim("aud", AUDIENCE).claim("sub", subject).expires_in(LIFETIME)
    }

    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Expires so long after now.
    #[must_use]
    pub fn expires_in(self, span: Duration) -> Self {
        self.claim("exp", now().saturating_add(span.as_secs()))
    }

    /// Was issued and expired so long before now.
    #[must_use]
    pub fn expired_since(self, span: Duration) -> Self {
        let end = now().saturating_sub(span.as_secs());
        self.claim("iat", end.saturating_sub(LIFETIME.as_secs())).claim("exp", end)
    }

    /// Is valid only so long after now.
    #[must_use]
    pub fn valid_in(self, span: Duration) -> Self {
        self.claim("nbf", now().saturating_add(span.as_secs()))
    }

    /// The signed token.
    ///
    /// # Errors
    /// The key does not fit, or the claims are no JSON.
    pub fn sign(self) -> Result<String> {
        let (algorithm, kid, key) = match &self.key {
            Key::Hs256(secret) if secret.is_empty() => bail!("an empty secret signs nothing"),
            Key::Hs256(secret) => (Algorithm::HS256, None, EncodingKey::from_secret(secret)),
            Key::Rs256 => {
                (Algorithm::RS256, Some("rs"), EncodingKey::from_rsa_pem(RS256_KEY.as_bytes())?)
            }
            Key::Es256 => {
                (Algorithm::ES256, Some("es"), EncodingKey::from_ec_pem(ES256_KEY.as_bytes())?)
            }
            Key::Stranger => {
                (Algorithm::ES256, Some("es"), EncodingKey::from_ec_pem(STRANGERS_KEY.as_bytes())?)
            }
        };
        let header =
            Header { typ: self.typ, kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        Ok(encode(&header, &Value::Object(self.claims), &key)?)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
