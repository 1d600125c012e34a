//! Who sent this token? Bytes, keys and a clock in; an identity or a reason out.
//!
//! [`Verifier`] is the whole crate, with [`check_set`] for whoever fetches key sets and [`Sha`] for
//! the core: compact JWS tokens (RFC 7515) with claims (RFC 7519), signed with HS256, HS384, HS512,
//! RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA (Ed25519). No I/O, no clock, no
//! randomness. Only compact tokens: no encryption, no nesting, no JSON serialisation. It does not
//! look for tokens in requests, fetches nothing, and keeps no cache.
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
//! * `alg: Ed25519` (RFC 9864): the policy's name for the algorithm is `EdDSA`, and so must the
//!   token's be. One algorithm has one name here, as one token has one spelling. A *key* may call
//!   itself either.
//! * No key or more than one that fits, or a signature that does not. Key and provider decide the
//!   algorithm, the token only says which of theirs it uses:
//!   * a key with `alg` serves that algorithm and no other;
//!   * a key without `alg` serves every algorithm on the provider's list that its kind can: an RSA
//!     key all listed RS* and PS*, a key on P-256 ES256, on P-384 ES384, on Ed25519 EdDSA. List what
//!     the issuer uses, not what it might;
//!   * a secret serves the listed HS*. Secrets and public keys never go together.
//! * A `kid` must be the key's `kid`; a key without one serves only tokens without one, and a token
//!   without one is served only when one key alone could be meant. A provider with a secret has one
//!   key, so `kid` is ignored there.
//! * No `exp` although it is required, or `exp - iat` above `max_lifetime`; without `iat` the time
//!   left counts, with `clock_skew` on top; without `exp` the lifetime has no end.
//! * No subject although it is required. An empty subject is none.
//!
//! Unknown key: the token names a `kid` that no usable key of a file or a remote set has, whatever
//! its algorithm, and its claims would hold; a newer set may have it. A bad signature under a known `kid`, or without one, is
//! untrusted instead: it never leads to a fetch, or garbage would. An issuer that changes keys
//! without changing names is served again after the next refresh.
//!
//! Expired: from `exp + clock_skew` on. Not yet valid: before `nbf - clock_skew` or
//! `iat - clock_skew`. Fractions of seconds count; what does not fit in 64 bits of nanoseconds is the
//! end of time, and never wraps. An `exp` in milliseconds lies far ahead and is accepted, unless
//! `max_lifetime` is set: set it.
//!
//! Keys unavailable: the file or set was not handed over yet, or was forgotten, or the provider's
//! secret is empty, which only a check away from the gateway gives.
//!
//! # Keys
//! Secrets are as long as the largest hash on the list: 32, 48 or 64 bytes. Of a secret's file one
//! line end is cut off. What is wrong with a public key: private or secret members, RSA below 2048
//! or above 4096 bits, with an exponent other than 65537 or the mark of CVE-2017-15361, a point that
//! is not on its curve or of small order, members of the wrong type. Keys for other purposes and of
//! unknown kinds are no mistake; they are left out.
//!
//! A set in the policy is read strictly: any mistake, a `kid` twice, or no usable key refuses the
//! policy. A set that was handed over is read entry by entry, because one bad entry at the issuer
//! must not lock everybody out: entries with mistakes are left out and reported, and of a `kid` that
//! two usable keys for one algorithm share, both. It must be one JSON object with each member once,
//! 256 KiB and 64 keys at most, with a usable key; otherwise the keys that were there stay.
//!
//! # The signatures themselves
//! RS* and ES* are checked by the host, PS* and EdDSA here. ECDSA: both numbers within 1..n-1 and of
//! full length. RSA: as long as the modulus and below it. EdDSA: canonical S, no point of small
//! order. The twin `(r, n - s)` of an ECDSA signature verifies as well, and anybody can make it:
//! never identify a token by its text.
#![no_std]

extern crate alloc;

mod claims;
mod compact;
mod here;
mod json;
mod jwk;
mod keys;
mod load;
mod roca;
mod set;
mod sha;
mod signature;

pub use keys::{SET_BYTES_MAX, SET_KEYS_MAX};
pub use load::{LoadError, Loaded};
pub use sha::Sha;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use compact::{Compact, media_type};
use jwt_simple::reexports::ct_codecs;
use keys::{KeyRing, NoKey};
use policy::config::Mistake;
use policy::model::{Algorithm, Authentication, Keys, Provider, SecretSource};
use policy::time::{Moment, Nanos};
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
    /// Reads what the policy holds of all providers' keys. Those whose keys are in a file or behind
    /// a cluster begin without: [`TokenError::KeysUnavailable`] until [`Verifier::load`].
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

impl<S> Verifier<S> {
    /// Takes the keys that were handed over for the provider at that place in the policy's list: a
    /// secret's bytes, or a JWK Set. They replace all that were there.
    ///
    /// # Errors
    /// Why they were not taken; then nothing has changed.
    pub fn load(&mut self, provider: usize, bytes: &[u8]) -> Result<Loaded, LoadError> {
        let issuer = self.issuers.get_mut(provider).ok_or(LoadError::NotLoadable)?;
        let (keys, loaded) = KeyRing::load(&issuer.provider, bytes)?;
        issuer.keys = keys;
        Ok(loaded)
    }

    /// Forgets the keys that were handed over for a provider, because they are too old: its tokens
    /// are [`TokenError::KeysUnavailable`] from now on. Keys that stand in the policy cannot grow
    /// old and stay.
    pub fn forget(&mut self, provider: usize) {
        match self.issuers.get_mut(provider) {
            Some(issuer) if is_handed_over(&issuer.provider.keys) => issuer.keys = KeyRing::Absent,
            _ => {}
        }
    }

    /// The provider whose issuer the token names; one without an issuer takes all.
    fn issuer_of(&self, claims: &Map<String, Value>) -> Option<usize> {
        let named = claims.get("iss").and_then(Value::as_str);
        self.issuers.iter().position(|issuer| match &issuer.provider.issuer {
            Some(ours) => named == Some(ours),
            None => true,
        })
    }
}

impl<S: Signatures> Verify for Verifier<S> {
    fn verify(&mut self, token: &[u8], now: Moment) -> Result<Verified, TokenError> {
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
        let meant = || {
            claims::lifetime(times, provider, self.clock_skew, now.wall)?;
            claims::audience(&token.claims, provider)?;
            claims::subject(&token.claims, provider)
        };
        let key = issuer.keys.choose(algorithm, token.header.kid.as_deref());
        let key = key.map_err(|none| match none {
            NoKey::Absent => TokenError::KeysUnavailable { provider: index },
            NoKey::Unknown if meant().is_ok() => TokenError::UnknownKey { provider: index },
            // No newer set would make this token good, so none is asked for; and what is wrong with
            // its claims is not told, because nobody signed them that we know.
            NoKey::Unknown | NoKey::Unfit => TokenError::Untrusted,
        })?;
        signature::check(&mut self.signatures, &key, &token)?;
        let subject = meant()?;
        Ok(Verified { provider: index, subject, claims: token.claims.into() })
    }
}

/// What [`Verifier::load`] would say of these bytes, for whoever fetched them and has no verifier.
///
/// # Errors
/// Why no verifier would take them.
pub fn check_set(provider: &Provider, bytes: &[u8]) -> Result<Loaded, LoadError> {
    KeyRing::load(provider, bytes).map(|(_, loaded)| loaded)
}

fn is_handed_over(keys: &Keys) -> bool {
    match keys {
        Keys::File(_) | Keys::Remote(_) | Keys::Secret(SecretSource::File(_)) => true,
        Keys::Inline(_) | Keys::Secret(SecretSource::Known(_)) => false,
    }
}

/// Whether both are equal, in a time that does not depend on where they differ.
fn ct_equal(one: &[u8], other: &[u8]) -> bool {
    ct_codecs::verify(one, other)
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
