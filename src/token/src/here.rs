//! Public keys of jwt-simple: they verify what the host cannot, and check keys when they are read.

use crate::compact::Compact;
use crate::jwk::RSA_EXPONENT;
use alloc::vec::Vec;
use jwt_simple::algorithms::{
    ECDSAP256PublicKeyLike, ECDSAP384PublicKeyLike, ES256PublicKey, ES384PublicKey,
    Ed25519PublicKey, EdDSAPublicKeyLike, PS256PublicKey, PS384PublicKey, PS512PublicKey,
    RS256PublicKey, RS384PublicKey, RS512PublicKey, RSAPublicKeyLike,
};
use jwt_simple::claims::NoCustomClaims;
use jwt_simple::common::VerificationOptions;
use jwt_simple::prelude::UnixTimeStamp;
use policy::model::Algorithm;

/// A key for one algorithm; the type, not the token, decides what is computed.
#[derive(Debug)]
pub(crate) enum Here {
    Rs256(RS256PublicKey),
    Rs384(RS384PublicKey),
    Rs512(RS512PublicKey),
    Ps256(PS256PublicKey),
    Ps384(PS384PublicKey),
    Ps512(PS512PublicKey),
    Es256(ES256PublicKey),
    Es384(ES384PublicKey),
    Ed25519(Ed25519PublicKey),
}

impl Here {
    /// An RSA key; `None` when it is none, or the algorithm is another one.
    pub(crate) fn rsa(algorithm: Algorithm, modulus: &[u8]) -> Option<Self> {
        let e = &RSA_EXPONENT;
        match algorithm {
            Algorithm::Rs256 => RS256PublicKey::from_components(modulus, e).ok().map(Self::Rs256),
            Algorithm::Rs384 => RS384PublicKey::from_components(modulus, e).ok().map(Self::Rs384),
            Algorithm::Rs512 => RS512PublicKey::from_components(modulus, e).ok().map(Self::Rs512),
            Algorithm::Ps256 => PS256PublicKey::from_components(modulus, e).ok().map(Self::Ps256),
            Algorithm::Ps384 => PS384PublicKey::from_components(modulus, e).ok().map(Self::Ps384),
            Algorithm::Ps512 => PS512PublicKey::from_components(modulus, e).ok().map(Self::Ps512),
            _ => None,
        }
    }

    /// A key on a NIST curve, from an uncompressed point; `None` when it is none.
    pub(crate) fn ec(algorithm: Algorithm, point: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Es256 => ES256PublicKey::from_bytes(point).ok().map(Self::Es256),
            Algorithm::Es384 => ES384PublicKey::from_bytes(point).ok().map(Self::Es384),
            _ => None,
        }
    }

    /// An Ed25519 key; `None` when it is not canonical, no point, or one of small order.
    pub(crate) fn ed25519(bytes: &[u8]) -> Option<Self> {
        Ed25519PublicKey::from_bytes(bytes).ok().map(Self::Ed25519)
    }

    /// DER `SubjectPublicKeyInfo` of a key that the host can verify with.
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        match self {
            Self::Rs256(key) => key.to_der().ok(),
            Self::Rs384(key) => key.to_der().ok(),
            Self::Rs512(key) => key.to_der().ok(),
            Self::Es256(key) => key.to_der().ok(),
            Self::Es384(key) => key.to_der().ok(),
            Self::Ps256(_) | Self::Ps384(_) | Self::Ps512(_) | Self::Ed25519(_) => None,
        }
    }

    /// Lets jwt-simple check the signature alone: everything else it would judge is switched off,
    /// because our own rules are stricter and must be the same with and without a host.
    pub(crate) fn fits(&self, token: &Compact<'_>) -> bool {
        let options = Some(VerificationOptions {
            accept_future: true,
            // At the epoch no token has expired.
            artificial_time: Some(UnixTimeStamp::from_secs(0)),
            time_tolerance: None,
            // The token's own type fits by definition; without this, jwt-simple has its own list.
            required_signature_type: token.header.typ.clone(),
            ..VerificationOptions::default()
        });
        let text = token.token;
        match self {
            Self::Rs256(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Rs384(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Rs512(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Ps256(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Ps384(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Ps512(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Es256(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Es384(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
            Self::Ed25519(key) => key.verify_token::<NoCustomClaims>(text, options).is_ok(),
        }
    }
}
