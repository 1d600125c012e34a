//! One public key of a JWK Set (RFC 7517), checked and turned into what Envoy verifies with.

use crate::compact::{bytes_of, is_list_of_texts, text};
use crate::here::Here;
use crate::keys::mistake;
use crate::roca;
use crate::signature::{Curve, Form, P256, P384};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use policy::config::Mistake;
use policy::model::Algorithm;
use policy::verify::Hash;
use serde_json::{Map, Value};

/// Smallest RSA modulus (NIST SP 800-131A, RFC 7518 section 3.3).
const RSA_BITS_MIN: usize = 2048;

/// Largest RSA modulus; one verification with 4096 bits costs four times one with 2048.
const RSA_BITS_MAX: usize = 4096;

/// The exponent of all keys that are in use: 65537.
pub(crate) const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Bytes of an Ed25519 key.
const ED25519_BYTES: usize = 32;

/// Members of private and symmetric keys.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key for one algorithm, ready to verify. An entry that serves several is several of these.
#[derive(Debug)]
pub(crate) struct PublicKey {
    /// The place of its entry in the set.
    pub(crate) entry: usize,
    pub(crate) kid: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// What a signature must look like before anybody computes anything.
    pub(crate) form: Form,
    /// What the host verifies with; `None` when it has no such algorithm.
    pub(crate) host: Option<HostKey>,
    /// The same key for when the host cannot.
    pub(crate) here: Here,
}

/// A key as the host takes it.
#[derive(Debug)]
pub(crate) struct HostKey {
    pub(crate) hash: Hash,
    /// DER `SubjectPublicKeyInfo`.
    pub(crate) spki: Vec<u8>,
}

/// One entry while it is read.
struct Entry<'a> {
    members: &'a Map<String, Value>,
    index: usize,
    path: &'a str,
    mistakes: &'a mut Vec<Mistake>,
}

/// The kinds of keys that we can use.
#[derive(Clone, Copy)]
enum Kind {
    Rsa,
    Ec(&'static Curve),
    Ed25519,
}

impl Kind {
    /// Whether a key of this kind verifies that algorithm.
    fn serves(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => matches!(self, Self::Rsa),
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => matches!(self, Self::Rsa),
            Algorithm::Es256 => matches!(self, Self::Ec(curve) if curve.name == P256.name),
            Algorithm::Es384 => matches!(self, Self::Ec(curve) if curve.name == P384.name),
            Algorithm::EdDsa => matches!(self, Self::Ed25519),
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => false,
        }
    }
}

/// Reads one entry, the `index`th of its set. Nothing with a mistake when it is wrong, nothing
/// without one when it is a good key for something else (encryption, another algorithm), which a
/// published set may well hold.
pub(crate) fn read(
    entry: &Value,
    index: usize,
    path: &str,
    algorithms: &[Algorithm],
    mistakes: &mut Vec<Mistake>,
) -> Vec<PublicKey> {
    let Value::Object(members) = entry else {
        mistakes.push(mistake(path.into(), "not an object".into(), "a JWK (RFC 7517)"));
        return Vec::new();
    };
    Entry { members, index, path, mistakes }.read(algorithms).unwrap_or_default()
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

    fn read(mut self, algorithms: &[Algorithm]) -> Option<Vec<PublicKey>> {
        let Some(kty) = self.text("kty")? else {
            return self.wrong("kty", "missing", "\"RSA\", \"EC\" or \"OKP\"");
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
        let kind = match (kty.as_str(), curve.as_deref()) {
            ("RSA", _) => Kind::Rsa,
            ("EC", Some("P-256")) => Kind::Ec(&P256),
            ("EC", Some("P-384")) => Kind::Ec(&P384),
            ("OKP", Some("Ed25519")) => Kind::Ed25519,
            ("EC" | "OKP", None) => {
                return self.wrong("crv", "missing", "\"P-256\", \"P-384\" or \"Ed25519\"");
            }
            _ => return None,
        };
        let verifies = |list: &Value| {
            list.as_array().is_some_and(|items| items.iter().any(|item| item == "verify"))
        };
        let serves = |algorithm: &Algorithm| {
            kind.serves(*algorithm) && alg.as_deref().is_none_or(|alg| names(alg, *algorithm))
        };
        let served: Vec<Algorithm> = algorithms.iter().copied().filter(serves).collect();
        let signs = usage.is_none_or(|usage| usage == "sig") && operations.is_none_or(verifies);
        if served.is_empty() || !signs {
            return None;
        }
        let keys = match kind {
            Kind::Rsa => self.rsa(&served)?,
            Kind::Ec(curve) => self.ec(curve, &served)?,
            Kind::Ed25519 => self.ed25519(&served)?,
        };
        let entry = self.index;
        let finish = |(algorithm, form, host, here)| {
            let kid = kid.clone();
            PublicKey { entry, kid, algorithm, form, host, here }
        };
        Some(keys.into_iter().map(finish).collect())
    }

    fn bytes(&mut self, member: &str) -> Option<Vec<u8>> {
        match self.text(member)?.as_deref().map(bytes_of) {
            Some(Some(bytes)) => Some(bytes),
            Some(None) => self.wrong(member, "not base64url", "base64url without padding"),
            None => self.wrong(member, "missing", "base64url without padding"),
        }
    }

    fn rsa(&mut self, served: &[Algorithm]) -> Option<Vec<Parts>> {
        let (modulus, exponent) = (self.bytes("n"), self.bytes("e"));
        if exponent? != RSA_EXPONENT {
            return self.wrong("e", "another exponent", "\"AQAB\" (65537)");
        }
        let modulus = modulus?;
        let leading = modulus.first().map_or(8, |byte| byte.leading_zeros() as usize);
        if leading == 8 {
            let allowed = "the shortest form (RFC 7518 section 2)";
            return self.wrong("n", "a leading zero byte", allowed);
        }
        let bits = modulus.len() * 8 - leading;
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return self.wrong("n", &format!("{bits} bits"), "2048 to 4096 bits");
        }
        if roca::has_mark(&modulus) {
            let allowed = "a key from another generator";
            return self.wrong("n", "made by a broken generator (CVE-2017-15361)", allowed);
        }
        let parts = |algorithm: &Algorithm| {
            let here = Here::rsa(*algorithm, &modulus)?;
            let host = match host_hash(*algorithm) {
                Some(hash) => Some(HostKey { hash, spki: here.spki()? }),
                None => None,
            };
            Some((*algorithm, Form::Rsa { modulus: modulus.clone() }, host, here))
        };
        match served.iter().map(parts).collect() {
            Some(keys) => Some(keys),
            None => self.wrong("n", "not an RSA modulus", "an odd product of two primes"),
        }
    }

    fn ec(&mut self, curve: &'static Curve, served: &[Algorithm]) -> Option<Vec<Parts>> {
        let (x, y) = (self.fixed("x", curve.bytes()), self.fixed("y", curve.bytes()));
        let mut point = Vec::with_capacity(1 + 2 * curve.bytes());
        point.push(4); // uncompressed (SEC 1 section 2.3.3)
        point.extend(x?);
        point.extend(y?);
        let parts = |algorithm: &Algorithm| {
            let here = Here::ec(*algorithm, &point)?;
            let host = HostKey { hash: host_hash(*algorithm)?, spki: here.spki()? };
            Some((*algorithm, Form::Ec(curve), Some(host), here))
        };
        match served.iter().map(parts).collect() {
            Some(keys) => Some(keys),
            None => {
                let allowed = format!("a point of {}", curve.name);
                self.wrong("x", "x and y are no point of the curve", &allowed)
            }
        }
    }

    fn ed25519(&mut self, served: &[Algorithm]) -> Option<Vec<Parts>> {
        let x = self.fixed("x", ED25519_BYTES)?;
        let parts =
            |algorithm: &Algorithm| Some((*algorithm, Form::Ed25519, None, Here::ed25519(&x)?));
        match served.iter().map(parts).collect() {
            Some(keys) => Some(keys),
            None => self.wrong("x", "no point of large order", "a public key of Ed25519"),
        }
    }

    /// Leading zeros are written (RFC 7518 section 6.2.1.2).
    fn fixed(&mut self, member: &str, length: usize) -> Option<Vec<u8>> {
        let bytes = self.bytes(member)?;
        if bytes.len() == length {
            return Some(bytes);
        }
        self.wrong(member, &format!("{} bytes", bytes.len()), &format!("{length} bytes"))
    }
}

/// What the kinds of keys give for one algorithm.
type Parts = (Algorithm, Form, Option<HostKey>, Here);

/// Whether the `alg` of a key means that algorithm. RFC 9864 calls EdDSA on this curve `Ed25519`.
fn names(alg: &str, algorithm: Algorithm) -> bool {
    alg == algorithm.name() || (algorithm == Algorithm::EdDsa && alg == "Ed25519")
}

/// The hash to name to the host; `None` for what it cannot verify.
fn host_hash(algorithm: Algorithm) -> Option<Hash> {
    match algorithm {
        Algorithm::Rs256 | Algorithm::Es256 => Some(Hash::Sha256),
        Algorithm::Rs384 | Algorithm::Es384 => Some(Hash::Sha384),
        Algorithm::Rs512 => Some(Hash::Sha512),
        Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 | Algorithm::EdDsa => None,
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => None,
    }
}
