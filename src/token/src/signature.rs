//! Whether a signature fits: HMAC here, public keys in the host, and where it cannot, here as well.

use crate::compact::Compact;
use crate::ct_equal;
use crate::jwk::PublicKey;
use crate::keys::Chosen;
use alloc::borrow::Cow;
use alloc::vec::Vec;
use policy::model::Algorithm;
use policy::verify::{Checked, Signatures, TokenError};

/// A NIST curve, as far as signatures know it.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    /// Its order, big-endian; as long as a coordinate.
    order: &'static [u8],
}

/// secp256r1 (SEC 2 section 2.4.2).
pub(crate) const P256: Curve = Curve {
    name: "P-256",
    order: &[
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ],
};

/// secp384r1 (SEC 2 section 2.5.1).
pub(crate) const P384: Curve = Curve {
    name: "P-384",
    order: &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37,
        0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc,
        0xc5, 0x29, 0x73,
    ],
};

impl Curve {
    /// Bytes of a coordinate, and of each half of a signature.
    pub(crate) const fn bytes(&self) -> usize {
        self.order.len()
    }
}

/// What a signature of a key must look like.
#[derive(Debug)]
pub(crate) enum Form {
    /// A number below the modulus (big-endian, without leading zeros), of the same length.
    Rsa { modulus: Vec<u8> },
    /// Raw `r || s`.
    Ec(&'static Curve),
    /// `R || S`; whether S is canonical is judged where the signature is.
    Ed25519,
}

/// Bytes of an Ed25519 signature.
const ED25519_BYTES: usize = 64;

impl Form {
    /// The signature as the host takes it; `None` when its form alone is wrong.
    fn of<'a>(&self, signature: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self {
            // Equal lengths, so the order of bytes is the order of numbers.
            Self::Rsa { modulus } => (signature.len() == modulus.len()
                && signature < modulus.as_slice())
            .then_some(Cow::Borrowed(signature)),
            Self::Ec(curve) => der(curve, signature).map(Cow::Owned),
            Self::Ed25519 => (signature.len() == ED25519_BYTES).then_some(Cow::Borrowed(signature)),
        }
    }
}

/// Checks the signature of a token with the chosen key.
///
/// What does not fit is [`TokenError::Untrusted`] and never an unknown key: otherwise anybody could
/// make the gateway fetch key sets by sending garbage under a known name.
pub(crate) fn check<S: Signatures>(
    host: &mut S,
    key: &Chosen<'_>,
    token: &Compact<'_>,
) -> Result<(), TokenError> {
    let genuine = match key {
        Chosen::Secret { algorithm, secret } => mac_fits(*algorithm, secret.reveal(), token),
        Chosen::Public(key) => genuine(host, key, token),
    };
    if genuine { Ok(()) } else { Err(TokenError::Untrusted) }
}

fn mac_fits(algorithm: Algorithm, secret: &[u8], token: &Compact<'_>) -> bool {
    let given = token.signature.as_slice();
    match algorithm {
        Algorithm::Hs256 => ct_equal(&hmac_sha256::HMAC::mac(token.signed, secret), given),
        Algorithm::Hs384 => ct_equal(&hmac_sha512::sha384::HMAC::mac(token.signed, secret), given),
        Algorithm::Hs512 => ct_equal(&hmac_sha512::HMAC::mac(token.signed, secret), given),
        _ => false,
    }
}

fn genuine<S: Signatures>(host: &mut S, key: &PublicKey, token: &Compact<'_>) -> bool {
    let Some(signature) = key.form.of(&token.signature) else { return false };
    let Some(at_host) = &key.host else { return key.here.fits(token) };
    match host.check(at_host.hash, &at_host.spki, &signature, token.signed) {
        Checked::Genuine => true,
        Checked::Forged => false,
        Checked::Unsupported => key.here.fits(token),
    }
}

/// Raw `r || s` (RFC 7518 section 3.4) as a DER sequence; `None` unless both are in 1..n-1.
fn der(curve: &Curve, raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(curve.bytes())?;
    let in_range = |part: &[u8]| {
        part.len() == curve.bytes() && part < curve.order && part.iter().any(|byte| *byte != 0)
    };
    if !in_range(r) || !in_range(s) {
        return None;
    }
    let mut numbers = Vec::with_capacity(2 * (3 + curve.bytes()));
    integer(&mut numbers, r);
    integer(&mut numbers, s);
    let mut sequence = Vec::with_capacity(2 + numbers.len());
    // 102 bytes at most: a length of one byte is enough, here and below.
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
