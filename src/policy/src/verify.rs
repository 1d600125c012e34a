//! What the core asks of whoever verifies tokens. Cryptography lives in the crate `token`.

use crate::time::Nanos;
use alloc::string::String;
use serde_json::{Map, Value};

/// A token that was verified: signature, issuer, audience and times all hold.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The index of the provider in the policy's list.
    pub provider: usize,
    /// The subject claim; `None` when the token has none.
    pub subject: Option<String>,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// Why a token was not accepted. Each variant is one refusal code of the contract.
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
    /// The provider is known, but none of its keys could be had yet, or the host cannot verify.
    KeysUnavailable,
}

/// Verifies compact tokens against the policy's providers.
pub trait Verify {
    /// Judges one token; `now` is the wall clock.
    ///
    /// # Errors
    /// A [`TokenError`] that says which rule was broken first.
    fn verify(&mut self, token: &[u8], now: Nanos) -> Result<Verified, TokenError>;
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
