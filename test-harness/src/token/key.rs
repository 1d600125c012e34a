//! Keys that exist only for tests. Nothing trusts them but a policy made for it.

use anyhow::{Context, Result, bail};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

const RSA: &str = include_str!("../../keys/rs256.pem");
const P256: &str = include_str!("../../keys/es256.pem");
const P384: &str = include_str!("../../keys/es384.pem");
const ED25519: &str = include_str!("../../keys/ed25519.pem");
const STRANGERS: &str = include_str!("../../keys/es256-stranger.pem");
/// All public halves. The RSA algorithms share one key under several names.
const PUBLIC: &str = include_str!("../../keys/jwks.json");
/// Long enough for the longest hash.
const LONG_SECRET: &[u8] = b"a secret of the tests that is long enough even for HS512, at 64 bytes";

/// What a token is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// HMAC with this secret.
    Hs256(Vec<u8>),
    /// HMAC with this secret.
    Hs384(Vec<u8>),
    /// HMAC with this secret.
    Hs512(Vec<u8>),
    /// The RSA key `rs`.
    Rs256,
    /// The same as `rs384`.
    Rs384,
    /// The same as `rs512`.
    Rs512,
    /// The same as `ps256`.
    Ps256,
    /// The same as `ps384`.
    Ps384,
    /// The same as `ps512`.
    Ps512,
    /// The P-256 key `es`.
    Es256,
    /// The P-384 key `es384`.
    Es384,
    /// The Ed25519 key `eddsa`.
    EdDsa,
    /// A P-256 key that is in no key set, although the token says `es`.
    Stranger,
}

impl Key {
    /// One for each algorithm.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let secret = LONG_SECRET.to_vec();
        let mut all =
            vec![Self::Hs256(secret.clone()), Self::Hs384(secret.clone()), Self::Hs512(secret)];
        all.extend([Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Ps384, Self::Ps512]);
        all.extend([Self::Es256, Self::Es384, Self::EdDsa]);
        all
    }

    /// The `alg` value.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Hs384(_) => "HS384",
            Self::Hs512(_) => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 | Self::Stranger => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The `kid` that its tokens name; `None` for secrets.
    #[must_use]
    pub const fn kid(&self) -> Option<&'static str> {
        Some(match self {
            Self::Hs256(_) | Self::Hs384(_) | Self::Hs512(_) => return None,
            Self::Rs256 => "rs",
            Self::Rs384 => "rs384",
            Self::Rs512 => "rs512",
            Self::Ps256 => "ps256",
            Self::Ps384 => "ps384",
            Self::Ps512 => "ps512",
            Self::Es256 | Self::Stranger => "es",
            Self::Es384 => "es384",
            Self::EdDsa => "eddsa",
        })
    }

    /// The `keys` of a provider that trusts this key: its secret, or a key set with it alone.
    ///
    /// # Errors
    /// The secret is no text.
    pub fn trusted(&self) -> Result<Value> {
        match self {
            Self::Hs256(secret) | Self::Hs384(secret) | Self::Hs512(secret) => {
                Ok(json!({ "secret": { "inline_secret": str::from_utf8(secret)? } }))
            }
            _ => Ok(json!({ "jwks_inline": key_set(std::slice::from_ref(self))? })),
        }
    }

    /// The signature of a text, in base64url.
    ///
    /// # Errors
    /// The key does not fit.
    pub fn sign(&self, text: &[u8]) -> Result<String> {
        let rsa = || EncodingKey::from_rsa_pem(RSA.as_bytes());
        let ec = |pem: &str| EncodingKey::from_ec_pem(pem.as_bytes());
        let key = match self {
            Self::Hs256(secret) | Self::Hs384(secret) | Self::Hs512(secret) => {
                if secret.is_empty() {
                    bail!("an empty secret signs nothing");
                }
                EncodingKey::from_secret(secret)
            }
            Self::Rs256 | Self::Rs384 | Self::Rs512 => rsa()?,
            Self::Ps256 | Self::Ps384 | Self::Ps512 => rsa()?,
            Self::Es256 => ec(P256)?,
            Self::Stranger => ec(STRANGERS)?,
            Self::Es384 => ec(P384)?,
            Self::EdDsa => EncodingKey::from_ed_pem(ED25519.as_bytes())?,
        };
        let algorithm: Algorithm = self.algorithm().parse()?;
        Ok(crypto::sign(text, &key, algorithm)?)
    }
}

/// The public keys of [`Key::Rs256`] and [`Key::Es256`], as a JWK Set.
///
/// # Errors
/// The file in the source is no JSON.
pub fn jwks() -> Result<Value> {
    key_set(&[Key::Rs256, Key::Es256])
}

/// The public halves of these keys, as a JWK Set; the stranger's under the name `stranger`.
///
/// # Errors
/// One is a secret.
pub fn key_set(keys: &[Key]) -> Result<Value> {
    let all: Value = serde_json::from_str(PUBLIC)?;
    let all = all.get("keys").and_then(Value::as_array).context("no keys")?;
    let public = |key: &Key| {
        let kid = if *key == Key::Stranger { Some("stranger") } else { key.kid() };
        let kid = kid.context("a secret has no public half")?;
        let found = all.iter().find(|k| k.get("kid").and_then(Value::as_str) == Some(kid));
        found.cloned().with_context(|| format!("no public key {kid}"))
    };
    let keys: Vec<Value> = keys.iter().map(public).collect::<Result<_>>()?;
    Ok(json!({ "keys": keys }))
}
