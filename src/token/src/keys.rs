//! The keys of one provider, read once, and which of them a token may be checked with.

use crate::jwk::{self, PublicKey};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use jwt_simple::algorithms::HS256Key;
use policy::config::Mistake;
use policy::model::{Algorithm, Keys, Provider, Secret};
use policy::verify::TokenError;
use serde_json::{Map, Value};

/// Shortest HMAC key: RFC 7518 section 3.2 asks for the length of the hash.
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// Most keys in one set. A set holds the present key and the next one; large tenants have a dozen.
pub(crate) const SET_KEYS_MAX: usize = 64;

/// What a provider's tokens are checked with.
#[derive(Debug)]
pub(crate) enum KeyRing {
    /// One HMAC key; whatever `kid` a token names, there is no other.
    Secret(HS256Key),
    /// The secret was not given (a check away from the gateway), so nothing can be verified.
    Unknown,
    /// Public keys; only those that fit the provider's algorithms.
    Set(Vec<PublicKey>),
}

/// The one key that a token is checked with.
#[derive(Debug)]
pub(crate) enum Chosen<'a> {
    Secret(&'a HS256Key),
    Public(&'a PublicKey),
}

impl KeyRing {
    /// Reads a provider's keys; `path` names the provider.
    pub(crate) fn read(provider: &Provider, path: &str) -> Result<Self, Vec<Mistake>> {
        match &provider.keys {
            Keys::Secret(secret) => Self::secret(secret, provider, path).map_err(|one| vec![one]),
            Keys::Inline(set) => Self::set(set, provider, &format!("{path}.keys.jwks_inline")),
        }
    }

    fn secret(secret: &Secret, provider: &Provider, path: &str) -> Result<Self, Mistake> {
        let bytes = secret.reveal();
        if let Some(other) = provider.algorithms.iter().find(|one| **one != Algorithm::Hs256) {
            return Err(mistake(
                format!("{path}.algorithms"),
                format!("{} cannot be verified with a secret", other.name()),
                "HS256 with `keys.secret`, or `keys.jwks_inline` with public keys",
            ));
        }
        if bytes.is_empty() {
            return Ok(Self::Unknown);
        }
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(mistake(
                format!("{path}.keys.secret"),
                format!("{} bytes are too few for HS256", bytes.len()),
                "at least 32 bytes (RFC 7518 section 3.2)",
            ));
        }
        Ok(Self::Secret(HS256Key::from_bytes(bytes)))
    }

    fn set(
        set: &Map<String, Value>,
        provider: &Provider,
        path: &str,
    ) -> Result<Self, Vec<Mistake>> {
        if provider.algorithms.contains(&Algorithm::Hs256) {
            return Err(vec![mistake(
                // Would invite a public key to be taken for a secret.
                path.replace(".keys.jwks_inline", ".algorithms"),
                "HS256 cannot be verified with public keys".into(),
                "RS256 and ES256 with `keys.jwks_inline`, or HS256 alone with `keys.secret`",
            )]);
        }
        let Some(Value::Array(entries)) = set.get("keys") else {
            return Err(vec![mistake(
                format!("{path}.keys"),
                "there is no list of keys".into(),
                "a JWK Set (RFC 7517 section 5)",
            )]);
        };
        let allowed = "1 to 64 keys, of which at least one fits the provider's algorithms";
        if entries.len() > SET_KEYS_MAX {
            let wrong = format!("{} keys are too many", entries.len());
            return Err(vec![mistake(format!("{path}.keys"), wrong, allowed)]);
        }
        let mut mistakes = twice(entries, path);
        let mut keys = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let at = format!("{path}.keys[{index}]");
            keys.extend(jwk::read(entry, &at, &provider.algorithms, &mut mistakes));
        }
        if keys.is_empty() && mistakes.is_empty() {
            let wrong = "no key fits the provider's algorithms".into();
            mistakes.push(mistake(format!("{path}.keys"), wrong, allowed));
        }
        if mistakes.is_empty() { Ok(Self::Set(keys)) } else { Err(mistakes) }
    }

    /// The key for a token with that algorithm and `kid`. Never more than one: a token that names
    /// no key is accepted only when there is nothing to choose.
    pub(crate) fn choose(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Chosen<'_>, TokenError> {
        match self {
            Self::Unknown => Err(TokenError::KeysUnavailable),
            Self::Secret(key) if algorithm == Algorithm::Hs256 => Ok(Chosen::Secret(key)),
            Self::Secret(_) => Err(TokenError::Untrusted),
            Self::Set(keys) => {
                let named = |key: &&PublicKey| kid.is_none() || key.kid.as_deref() == kid;
                let fits = |key: &&PublicKey| key.algorithm() == algorithm;
                let mut candidates = keys.iter().filter(fits).filter(named);
                match (candidates.next(), candidates.next()) {
                    (Some(only), None) => Ok(Chosen::Public(only)),
                    _ => Err(TokenError::Untrusted),
                }
            }
        }
    }
}

/// Two keys of one name: whoever rotates keys by hand forgets to take the old one out, and a token
/// cannot say which of them it means.
fn twice(entries: &[Value], path: &str) -> Vec<Mistake> {
    let name = |entry: &Value| entry.get("kid").and_then(Value::as_str).map(String::from);
    let names: Vec<Option<String>> = entries.iter().map(name).collect();
    let again = |(index, name): (usize, &Option<String>)| {
        let name = name.as_ref()?;
        let earlier = names.iter().take(index).flatten().any(|other| other == name);
        earlier.then(|| {
            mistake(
                format!("{path}.keys[{index}].kid"),
                format!("{name:?} is the kid of an earlier key too"),
                "each kid once in a set",
            )
        })
    };
    names.iter().enumerate().filter_map(again).collect()
}

pub(crate) fn mistake(path: String, wrong: String, allowed: &str) -> Mistake {
    Mistake { path, wrong, allowed: allowed.into() }
}
