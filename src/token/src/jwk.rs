//! One public key of a JWK Set (RFC 7517), checked and turned into what Envoy verifies with.

use crate::compact::{bytes_of, is_list_of_texts, text};
use crate::keys::mistake;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use jwt_simple::algorithms::{ES256PublicKey, RS256PublicKey};
use policy::config::Mistake;
use policy::model::Algorithm;
use serde_json::{Map, Value};

/// Smallest RSA modulus (NIST SP 800-131A, RFC 7518 section 3.3).
const RSA_BITS_MIN: usize = 2048;

/// Largest RSA modulus; one verification with 4096 bits costs four times one with 2048.
const RSA_BITS_MAX: usize = 4096;

/// The exponent of all keys that are in use: 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Bytes of a P-256 coordinate; leading zeros are written (RFC 7518 section 6.2.1.2).
const P256_BYTES: usize = 32;

/// Members of private and symmetric keys.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key, ready to verify.
#[derive(Debug)]
pub(crate) struct PublicKey {
    pub(crate) kid: Option<String>,
    /// DER `SubjectPublicKeyInfo`, for the host.
    pub(crate) spki: Vec<u8>,
    pub(crate) material: Material,
}

/// The same key for when the host cannot verify.
#[derive(Debug)]
pub(crate) enum Material {
    Rsa {
        /// Big-endian, without leading zeros.
        modulus: Vec<u8>,
        key: Box<RS256PublicKey>,
    },
    P256 {
        key: ES256PublicKey,
    },
}

impl PublicKey {
    /// The one algorithm that the key verifies; no key serves two.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256 { .. } => Algorithm::Es256,
        }
    }
}

/// One entry while it is read.
struct Entry<'a> {
    members: &'a Map<String, Value>,
    path: &'a str,
    mistakes: &'a mut Vec<Mistake>,
}

/// Reads one entry. `None` with a mistake when it is wrong, `None` without one when it is a good key
/// for something else (encryption, another algorithm), which a published set may well hold.
pub(crate) fn read(
    entry: &Value,
    path: &str,
    algorithms: &[Algorithm],
    mistakes: &mut Vec<Mistake>,
) -> Option<PublicKey> {
    let Value::Object(members) = entry else {
        mistakes.push(mistake(path.into(), "not an object".into(), "a JWK (RFC 7517)"));
        return None;
    };
    Entry { members, path, mistakes }.read(algorithms)
}

impl Entry<'_> {
    fn wrong<T>(&mut self, member: &str, wrong: &str, allowed: &str) -> Option<T> {
        self.mistakes.push(mistake(format!("{}.{member}", self.path), wrong.into(), allowed));
        None
    }

    /// An optional string member; wrong types are mistakes, so that none of them bypasses a choice.
    fn text(&mut self, member: &str) -> Option<Option<String>> {
        match text(self.members, member) {
            Some(text) => Some(text.map(String::from)),
            None => self.wrong(member, "not a string", "a string"),
        }
    }

    fn read(mut self, algorithms: &[Algorithm]) -> Option<PublicKey> {
        let Some(kty) = self.text("kty")? else {
            return self.wrong("kty", "missing", "\"RSA\" or \"EC\"");
        };
        if kty == "oct" {
            return self.wrong("kty", "a secret key among public ones", "secrets in `keys.secret`");
        }
        if let Some(member) = PRIVATE.iter().find(|name| self.members.contains_key(**name)) {
            return self.wrong(member, "part of a private key", "the members of the public key");
        }
        let (kid, alg) = (self.text("kid")?, self.text("alg")?);
        let (usage, curve) = (self.text("use")?, self.text("crv")?);
        let operations = self.members.get("key_ops");
        if !operations.is_none_or(is_list_of_texts) {
            return self.wrong("key_ops", "not a list of strings", "such as [\"verify\"]");
        }
        let algorithm = match (kty.as_str(), curve.as_deref()) {
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("EC", None) => return self.wrong("crv", "missing", "\"P-256\" for ES256"),
            _ => return None,
        };
        let verifies = |list: &Value| {
            list.as_array().is_some_and(|items| items.iter().any(|item| item == "verify"))
        };
        let fits = algorithms.contains(&algorithm)
            && alg.is_none_or(|alg| alg == algorithm.name())
            && usage.is_none_or(|usage| usage == "sig")
            && operations.is_none_or(verifies);
        if !fits {
            return None;
        }
        let (spki, material) =
            if algorithm == Algorithm::Rs256 { self.rsa()? } else { self.p256()? };
        Some(PublicKey { kid, spki, material })
    }

    fn bytes(&mut self, member: &str) -> Option<Vec<u8>> {
        match self.text(member)?.as_deref().map(bytes_of) {
            Some(Some(bytes)) => Some(bytes),
            Some(None) => self.wrong(member, "not base64url", "base64url without padding"),
            None => self.wrong(member, "missing", "base64url without padding"),
        }
    }

    fn rsa(&mut self) -> Option<(Vec<u8>, Material)> {
        const EXPONENT: &str = "\"AQAB\" (65537)";
        let (modulus, exponent) = (self.bytes("n"), self.bytes("e"));
        if exponent? != RSA_EXPONENT {
            return self.wrong("e", "another exponent", EXPONENT);
        }
        let modulus = modulus?;
        let leading = modulus.first().map_or(8, |byte| byte.leading_zeros() as usize);
        if leading == 8 {
            return self.wrong(
                "n",
                "a leading zero byte",
                "the shortest form (RFC 7518 section 2)",
            );
        }
        let bits = modulus.len() * 8 - leading;
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return self.wrong("n", &format!("{bits} bits"), "2048 to 4096 bits");
        }
        let key = RS256PublicKey::from_components(&modulus, &RSA_EXPONENT).ok();
        match key.and_then(|key| Some((key.to_der().ok()?, key))) {
            Some((spki, key)) => Some((spki, Material::Rsa { modulus, key: Box::new(key) })),
            None => self.wrong("n", "not an RSA modulus", "an odd product of two primes"),
        }
    }

    fn p256(&mut self) -> Option<(Vec<u8>, Material)> {
        let (x, y) = (self.coordinate("x"), self.coordinate("y"));
        let mut point = Vec::with_capacity(1 + 2 * P256_BYTES);
        point.push(4); // uncompressed (SEC 1 section 2.3.3)
        point.extend(x?);
        point.extend(y?);
        let key = ES256PublicKey::from_bytes(&point).ok();
        match key.and_then(|key| Some((key.to_der().ok()?, key))) {
            Some((spki, key)) => Some((spki, Material::P256 { key })),
            None => self.wrong("x", "x and y are no point of the curve", "a point of P-256"),
        }
    }

    fn coordinate(&mut self, member: &str) -> Option<Vec<u8>> {
        let bytes = self.bytes(member)?;
        if bytes.len() == P256_BYTES {
            return Some(bytes);
        }
        self.wrong(member, &format!("{} bytes", bytes.len()), "32 bytes")
    }
}
