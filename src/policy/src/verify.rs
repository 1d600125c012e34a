//! What the core asks of whoever verifies tokens. Cryptography lives in the crate `token`.

use crate::model::SecretSource;
use crate::time::Moment;
use alloc::rc::Rc;
use alloc::string::String;
use serde_json::{Map, Value};

/// A token that was verified: signature, issuer, audience and times all hold.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The index of the provider in the policy's list.
    pub provider: usize,
    /// The subject claim; `None` when the token has none.
    pub subject: Option<String>,
    /// All claims. Shared, so that whoever remembers a token does not copy them per request
    /// (`claims.into()` makes one of a map).
    pub claims: Rc<Map<String, Value>>,
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Not a well-formed compact JWS with a JSON object of claims.
    Malformed,
    /// `exp` has passed, clock skew included.
    Expired,
    /// `nbf` or `iat` lies in the future, clock skew included.
    NotYetValid,
    /// Signature, algorithm, key, issuer, audience, type or lifetime do not fit any provider.
    Untrusted,
    /// None of this provider's present keys is the one that the token names; a newer set may have
    /// it. Whoever cannot get a newer set treats it as [`TokenError::Untrusted`].
    UnknownKey {
        /// The index of the provider in the policy's list.
        provider: usize,
    },
    /// This provider has no key yet, or the host cannot verify.
    KeysUnavailable {
        /// The index of the provider in the policy's list.
        provider: usize,
    },
    /// Keys that may decide it are on their way: judge the request again when they are here.
    Pending,
    /// It was revoked.
    Revoked,
    /// Whether it was revoked cannot be known yet, and the policy says `refuse`.
    Unseeded,
}

/// Verifies compact tokens against the policy's providers.
pub trait Verify {
    /// Judges one token; `now` has both clocks, of which claims are compared with the wall clock.
    ///
    /// # Errors
    /// A [`TokenError`] that says which rule was broken first.
    fn verify(&mut self, token: &[u8], now: Moment) -> Result<Verified, TokenError>;
}

/// Hashes of secrets; cryptography lives in the crate `token`.
pub trait Digest {
    /// SHA-256 (FIPS 180-4).
    fn sha256(&self, bytes: &[u8]) -> [u8; 32];

    /// HMAC-SHA-256 (RFC 2104).
    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> [u8; 32];

    /// Whether both are equal, in a time that does not depend on where they differ.
    fn same(&self, one: &[u8], other: &[u8]) -> Same;
}

/// What a comparison in constant time found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// Equal.
    Yes,
    /// Not equal.
    No,
}

/// Secrets that were handed over after the policy was read.
pub trait Secrets {
    /// The bytes; `None` while the file that holds them has not been handed over.
    fn reveal<'a>(&'a self, source: &'a SecretSource) -> Option<&'a [u8]>;
}

/// The hash of a host-verified signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256, for RS256 and ES256.
    Sha256,
    /// SHA-384, for RS384 and ES384.
    Sha384,
    /// SHA-512, for RS512.
    Sha512,
}

/// Public-key signatures as the host checks them (Envoy's `verify_signature`).
pub trait Signatures {
    /// Checks `signature` over `text` with a DER SubjectPublicKeyInfo. RSA is PKCS#1 v1.5; an ECDSA
    /// signature is DER.
    fn check(&mut self, hash: Hash, spki: &[u8], signature: &[u8], text: &[u8]) -> Checked;
}

/// What the host said of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It fits.
    Genuine,
    /// It does not fit.
    Forged,
    /// The host cannot check signatures here.
    Unsupported,
}
