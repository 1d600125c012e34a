//! The keys of one provider, and which of them a token may be checked with.

use crate::jwk::PublicKey;
use crate::load::{LoadError, Loaded};
use crate::{json, set};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use policy::config::Mistake;
use policy::model::{Algorithm, Keys, Provider, Secret, SecretSource};
use serde_json::{Map, Value};

/// Most keys in one set. A set holds the present key and the next one; large tenants have a dozen.
pub const SET_KEYS_MAX: usize = 64;

/// Largest key set that is handed over, in bytes: room for the most keys, each with the certificate
/// chain that some issuers add.
pub const SET_BYTES_MAX: usize = 256 * 1024;

/// What a provider's tokens are checked with.
#[derive(Debug)]
pub(crate) enum KeyRing {
    /// One HMAC key; whatever `kid` a token names, there is no other.
    Secret(Secret),
    /// Nothing yet, so nothing can be verified: a file or a remote set that did not come, or a
    /// secret that a check away from the gateway cannot know.
    Absent,
    /// Public keys; only those that fit the provider's algorithms.
    Set {
        keys: Vec<PublicKey>,
        /// Whether a newer set may hold a key that this one lacks.
        renewable: bool,
    },
}

/// The one key that a token is checked with.
#[derive(Debug)]
pub(crate) enum Chosen<'a> {
    Secret { algorithm: Algorithm, secret: &'a Secret },
    Public(&'a PublicKey),
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// There are no keys at all.
    Absent,
    /// The token names one that is not here, but may be in a newer set.
    Unknown,
    /// No present or future set would help.
    Unfit,
}

impl KeyRing {
    /// Reads what the policy itself holds of a provider's keys; `path` names the provider.
    pub(crate) fn read(provider: &Provider, path: &str) -> Result<Self, Vec<Mistake>> {
        if let Some(mistake) = kinds(provider, path) {
            return Err(vec![mistake]);
        }
        match &provider.keys {
            Keys::Secret(SecretSource::Known(secret)) if secret.reveal().is_empty() => {
                Ok(Self::Absent)
            }
            Keys::Secret(SecretSource::Known(secret)) => Self::secret(secret.reveal(), provider)
                .map_err(|short| {
                    let at = format!("{path}.keys.secret");
                    let allowed = "as many bytes as the largest listed hash: 32, 48 or 64 \
                                   (RFC 7518 section 3.2)";
                    vec![mistake(at, format!("{short}"), allowed)]
                }),
            Keys::Inline(set) => Self::inline(set, provider, &format!("{path}.keys.jwks_inline")),
            Keys::Secret(SecretSource::File(_)) | Keys::File(_) | Keys::Remote(_) => {
                Ok(Self::Absent)
            }
        }
    }

    /// Reads what was handed over for a provider whose keys are not in the policy.
    pub(crate) fn load(provider: &Provider, bytes: &[u8]) -> Result<(Self, Loaded), LoadError> {
        match &provider.keys {
            Keys::Secret(SecretSource::File(_)) => {
                let ring = Self::secret(without_line_end(bytes), provider)?;
                Ok((ring, Loaded { used: 1, ..Loaded::default() }))
            }
            Keys::File(_) | Keys::Remote(_) => {
                if bytes.len() > SET_BYTES_MAX {
                    return Err(LoadError::TooLarge { bytes: bytes.len() });
                }
                let set = json::object(bytes).ok_or(LoadError::NotAnObject)?;
                let (keys, loaded) = set::lenient(&set, &provider.algorithms)?;
                Ok((Self::Set { keys, renewable: true }, loaded))
            }
            Keys::Inline(_) | Keys::Secret(SecretSource::Known(_)) => Err(LoadError::NotLoadable),
        }
    }

    fn secret(bytes: &[u8], provider: &Provider) -> Result<Self, LoadError> {
        let least = provider.algorithms.iter().map(|one| one.secret_len_min()).max();
        match least {
            Some(least) if bytes.len() < least => {
                Err(LoadError::SecretTooShort { bytes: bytes.len(), least })
            }
            _ => Ok(Self::Secret(Secret::new(bytes.to_vec()))),
        }
    }

    fn inline(
        set: &Map<String, Value>,
        provider: &Provider,
        path: &str,
    ) -> Result<Self, Vec<Mistake>> {
        let keys = set::strict(set, &provider.algorithms, path)?;
        Ok(Self::Set { keys, renewable: false })
    }

    /// The key for a token with that algorithm and `kid`. Never more than one: a token that names
    /// no key is accepted only when there is nothing to choose.
    pub(crate) fn choose(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Chosen<'_>, NoKey> {
        let (keys, renewable) = match self {
            Self::Absent => return Err(NoKey::Absent),
            Self::Secret(secret) if algorithm.is_hmac() => {
                return Ok(Chosen::Secret { algorithm, secret });
            }
            Self::Secret(_) => return Err(NoKey::Unfit),
            Self::Set { keys, renewable } => (keys, *renewable),
        };
        let named = |key: &&PublicKey| kid.is_none() || key.kid.as_deref() == kid;
        let fits = |key: &&PublicKey| key.algorithm == algorithm;
        let mut candidates = keys.iter().filter(named).filter(fits);
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => Ok(Chosen::Public(only)),
            // A key of that name is here, for another algorithm: a new set would not change that.
            (None, _) if renewable && kid.is_some() && !keys.iter().any(|key| named(&key)) => {
                Err(NoKey::Unknown)
            }
            _ => Err(NoKey::Unfit),
        }
    }
}

/// A public key must never be taken for a secret, nor the other way round.
fn kinds(provider: &Provider, path: &str) -> Option<Mistake> {
    let shared = matches!(provider.keys, Keys::Secret(_));
    let other = provider.algorithms.iter().find(|one| one.is_hmac() != shared)?;
    let (with, allowed) = if shared {
        ("a secret", "HS256, HS384 and HS512 with `keys.secret`, the others with public keys")
    } else {
        ("public keys", "HS256, HS384 and HS512 with `keys.secret` only")
    };
    let wrong = format!("{} cannot be verified with {with}", other.name());
    Some(mistake(format!("{path}.algorithms"), wrong, allowed))
}

/// A file's secret without the line end that editors and `echo` leave behind it.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    line.strip_suffix(b"\r").filter(|_| line.len() < bytes.len()).unwrap_or(line)
}

pub(crate) fn mistake(path: String, wrong: String, allowed: &str) -> Mistake {
    Mistake { path, wrong, allowed: allowed.into() }
}
