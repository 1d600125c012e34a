//! Who sent this token? Bytes, keys and a clock in; an identity or a reason out.
//!
//! [`Verifier`] is the whole crate: compact JWS tokens (RFC 7515) with claims (RFC 7519), signed with
//! HS256, RS256 or ES256. No I/O, no clock, no randomness. Only compact tokens: no encryption, no
//! nesting, no JSON serialisation. It does not look for tokens in requests, and keeps no cache.
//!
//! # The order
//! Shape, issuer, algorithm, type, key, signature, then the claims' values. Cheap refusals come
//! first, and no verdict on claims is given for a token that we did not find genuine.
//!
//! # What is decided here, and refused by which reason
//! Malformed:
//! * Three segments that are not empty; canonical base64url without padding, so that a token has
//!   one spelling; 16 KiB at most, 4 KiB of it for the header.
//! * Header and payload are JSON objects in UTF-8, 32 levels deep at most; a member twice at any
//!   depth is refused, escaped spellings included. White space inside is fine.
//! * `crit`, `b64`, `zip` and `jwk` may not be in the header at all. No extension is understood, so
//!   `crit` can only be wrong, and `b64: true` says nothing without it. Keys never come from tokens:
//!   `jku`, `x5u` and `x5c` are not followed.
//! * `cty: JWT` (a token within a token) is refused; any other `cty` is ignored.
//! * `alg`, `kid`, `typ`, `cty`, `jku`, `x5u`, `x5t`, `x5t#S256` and `salt` are strings, `x5c` a list
//!   of strings; claims `iss`, `sub`, `jti`, `nonce` and `kid` are strings, `aud` a string or a list
//!   of strings, `exp`, `nbf` and `iat` numbers from 0 on. `null` is none of these.
//! * The subject claim is a string when it is there.
//!
//! Untrusted:
//! * An issuer, audience, algorithm or type that is not on the provider's list, compared byte by
//!   byte; `typ` without case and without `application/`. Without a configured `typ`, `jwt`, `at+jwt`
//!   and no `typ` are accepted.
//! * No key or more than one that fits (see `keys.rs`), or a signature that does not. The key
//!   decides the algorithm. A public key serves one algorithm, a secret serves HS256 only.
//! * A `kid` must be the key's `kid`; a key without one serves only tokens without one. A provider
//!   with a secret has one key, so `kid` is ignored there.
//! * No `exp` although it is required, or `exp - iat` above `max_lifetime`; without `iat` the time
//!   left counts, with `clock_skew` on top; without `exp` the lifetime has no end.
//! * No subject although it is required. An empty subject is none.
//!
//! Expired: from `exp + clock_skew` on. Not yet valid: before `nbf - clock_skew` or
//! `iat - clock_skew`. Fractions of seconds count; what does not fit in 64 bits of nanoseconds is the
//! end of time, and never wraps. An `exp` in milliseconds lies far ahead and is accepted, unless
//! `max_lifetime` is set: set it.
//!
//! Keys unavailable: the provider's secret is empty, which only a check away from the gateway gives.
//!
//! A set of public keys may hold keys for other purposes; they are left out. What is refused when
//! the policy is read: no usable key, two keys of one `kid`, private or secret keys, RSA below 2048
//! or above 4096 bits or with an exponent other than 65537, a point that is not on P-256, members
//! of the wrong type, and secrets below 32 bytes.
//!
//! The twin `(r, n - s)` of an ES256 signature verifies as well: never identify a token by its text.
#![no_std]

extern crate alloc;

mod claims;
mod compact;
mod json;
mod jwk;
mod keys;
mod signature;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use compact::{Compact, media_type};
use keys::KeyRing;
use policy::config::Mistake;
use policy::model::{Algorithm, Authentication, Provider};
use policy::time::Nanos;
use policy::verify::{Checked, Hash, Signatures, TokenError, Verified, Verify};
use serde_json::{Map, Value};

/// Verifies tokens against the providers of one policy. Made once, when the policy is read.
#[derive(Debug)]
pub struct Verifier<S> {
    signatures: S,
    clock_skew: Nanos,
    issuers: Vec<Issuer>,
}

/// A provider with its keys read.
#[derive(Debug)]
struct Issuer {
    provider: Provider,
    keys: KeyRing,
}

impl<S: Signatures> Verifier<S> {
    /// Reads the keys of all providers.
    ///
    /// # Errors
    /// Every mistake in the keys, in the order of the document.
    pub fn new(authentication: &Authentication, signatures: S) -> Result<Self, Vec<Mistake>> {
        let mut issuers = Vec::new();
        let mut mistakes = Vec::new();
        for (index, provider) in authentication.providers.iter().enumerate() {
            let path = format!("authentication.jwt.providers[{index}]");
            match KeyRing::read(provider, &path) {
                Ok(keys) => issuers.push(Issuer { provider: provider.clone(), keys }),
                Err(more) => mistakes.extend(more),
            }
        }
        if mistakes.is_empty() {
            Ok(Self { signatures, clock_skew: authentication.clock_skew, issuers })
        } else {
            Err(mistakes)
        }
    }
}

impl<S: Signatures> Verify for Verifier<S> {
    fn verify(&mut self, token: &[u8], now: Nanos) -> Result<Verified, TokenError> {
        let token = Compact::read(token)?;
        let times = claims::types(&token.claims)?;
        let index = self.issuer_of(&token.claims).ok_or(TokenError::Untrusted)?;
        let issuer = self.issuers.get(index).ok_or(TokenError::Untrusted)?;
        let provider = &issuer.provider;
        let algorithm =
            algorithm_of(&token.header.algorithm, provider).ok_or(TokenError::Untrusted)?;
        if !type_fits(token.header.typ.as_deref(), provider) {
            return Err(TokenError::Untrusted);
        }
        let key = issuer.keys.choose(algorithm, token.header.kid.as_deref())?;
        signature::check(&mut self.signatures, &key, &token)?;
        claims::lifetime(times, provider, self.clock_skew, now)?;
        claims::audience(&token.claims, provider)?;
        let subject = claims::subject(&token.claims, provider)?;
        Ok(Verified { provider: index, subject, claims: token.claims })
    }
}

impl<S> Verifier<S> {
    /// The provider whose issuer the token names; one without an issuer takes all.
    fn issuer_of(&self, claims: &Map<String, Value>) -> Option<usize> {
        let named = claims.get("iss").and_then(Value::as_str);
        self.issuers.iter().position(|issuer| match &issuer.provider.issuer {
            Some(ours) => named == Some(ours),
            None => true,
        })
    }
}

/// The algorithm that a token claims, if the provider has it on its list.
fn algorithm_of(name: &str, provider: &Provider) -> Option<Algorithm> {
    provider.algorithms.iter().copied().find(|algorithm| algorithm.name() == name)
}

fn type_fits(written: Option<&str>, provider: &Provider) -> bool {
    let typ = written.map(media_type);
    match (&provider.typ, typ) {
        (Some(ours), Some(typ)) => typ.eq_ignore_ascii_case(ours),
        (Some(_), None) => false,
        (None, Some(typ)) => ["jwt", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known)),
        (None, None) => true,
    }
}

/// A host without signatures: every public-key signature is checked in this process. For the
/// sidecar and the command line; the filter asks Envoy, which is fifty times faster.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Signatures for NoHost {
    fn check(&mut self, _: Hash, _: &[u8], _: &[u8], _: &[u8]) -> Checked {
        Checked::Unsupported
    }
}
