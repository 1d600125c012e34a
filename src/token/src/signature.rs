//! Whether a signature fits: HMAC here, public keys in the host, and where it cannot, here as well.

use crate::compact::Compact;
use crate::jwk::{Material, PublicKey};
use crate::keys::Chosen;
use alloc::vec::Vec;
use jwt_simple::algorithms::{ECDSAP256PublicKeyLike, MACLike, RSAPublicKeyLike};
use jwt_simple::claims::NoCustomClaims;
use jwt_simple::common::VerificationOptions;
use jwt_simple::prelude::UnixTimeStamp;
use jwt_simple::reexports::ct_codecs;
use policy::verify::{Checked, Hash, Signatures, TokenError};

/// The order of P-256 (SEC 2 section 2.4.2), big-endian.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Checks the signature of a token with the chosen key.
pub(crate) fn check<S: Signatures>(
    host: &mut S,
    key: &Chosen<'_>,
    token: &Compact<'_>,
) -> Result<(), TokenError> {
    let genuine = match key {
        Chosen::Secret(key) => {
            ct_codecs::verify(&key.authentication_tag(token.signed), &token.signature)
        }
        Chosen::Public(key) => genuine(host, key, token),
    };
    if genuine { Ok(()) } else { Err(TokenError::Untrusted) }
}

fn genuine<S: Signatures>(host: &mut S, key: &PublicKey, token: &Compact<'_>) -> bool {
    let Some(signature) = for_the_host(&key.material, &token.signature) else { return false };
    match host.check(Hash::Sha256, &key.spki, &signature, token.signed) {
        Checked::Genuine => true,
        Checked::Forged => false,
        Checked::Unsupported => fits_here(&key.material, token),
    }
}

/// The signature as the host takes it; `None` when its form alone is wrong.
fn for_the_host(key: &Material, signature: &[u8]) -> Option<Vec<u8>> {
    match key {
        // Equal lengths, so the order of bytes is the order of numbers.
        Material::Rsa { modulus, .. } => (signature.len() == modulus.len()
            && signature < modulus.as_slice())
        .then(|| signature.to_vec()),
        Material::P256 { .. } => der(signature),
    }
}

/// Raw `r || s` (RFC 7518 section 3.4) as a DER sequence; `None` unless both are in 1..n-1.
pub(crate) fn der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(P256_ORDER.len())?;
    let in_range = |part: &[u8]| {
        part.len() == P256_ORDER.len()
            && part < P256_ORDER.as_slice()
            && part.iter().any(|byte| *byte != 0)
    };
    if !in_range(r) || !in_range(s) {
        return None;
    }
    let mut numbers = Vec::with_capacity(2 * 35);
    integer(&mut numbers, r);
    integer(&mut numbers, s);
    let mut sequence = Vec::with_capacity(2 + numbers.len());
    // 70 bytes at most: a length of one byte is enough, here and below.
    sequence.extend([0x30, u8::try_from(numbers.len()).ok()?]);
    sequence.extend(numbers);
    Some(sequence)
}

/// Appends a DER INTEGER: no leading zeros, but one where the top bit would mean "negative".
fn integer(out: &mut Vec<u8>, big_endian: &[u8]) {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    let digits = big_endian.get(zeros..).unwrap_or_default();
    let sign = digits.first().is_some_and(|byte| *byte >= 0x80);
    let length = u8::try_from(digits.len()).unwrap_or_default() + u8::from(sign);
    out.extend([0x02, length]);
    if sign {
        out.push(0);
    }
    out.extend(digits);
}

/// Lets jwt-simple check the signature alone: everything else it would judge is switched off,
/// because our own rules are stricter and must be the same with and without a host.
fn fits_here(key: &Material, token: &Compact<'_>) -> bool {
    let options = VerificationOptions {
        accept_future: true,
        // At the epoch no token has expired.
        artificial_time: Some(UnixTimeStamp::from_secs(0)),
        time_tolerance: None,
        // The token's own type fits by definition; without this, jwt-simple has a list of its own.
        required_signature_type: token.header.typ.clone(),
        ..VerificationOptions::default()
    };
    match key {
        Material::Rsa { key, .. } => {
            key.verify_token::<NoCustomClaims>(token.token, Some(options)).is_ok()
        }
        Material::P256 { key } => {
            key.verify_token::<NoCustomClaims>(token.token, Some(options)).is_ok()
        }
    }
}
