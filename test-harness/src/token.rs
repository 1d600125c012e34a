//! Tokens from an issuer that shares no code with the gateway: crate `jsonwebtoken`, fixed test keys.

mod key;

pub use key::{Key, jwks, key_set};

use anyhow::Result;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The issuer of the demo policy.
pub const ISSUER: &str = "tracseq-gateway";
/// The audience of the demo policy.
pub const AUDIENCE: &str = "tracseq-api";
/// Lifetime unless another one is asked for.
const LIFETIME: Duration = Duration::from_secs(3600);

/// A token that is being put together. Starts as a good one for `subject`.
#[derive(Clone, Debug)]
pub struct Token {
    key: Key,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Token {
    /// A token of the demo policy's issuer and audience, valid from now for an hour.
    #[must_use]
    pub fn new(key: Key, subject: &str) -> Self {
        let mut header = Map::new();
        header.insert("alg".to_owned(), json!(key.algorithm()));
        header.insert("typ".to_owned(), json!("JWT"));
        if let Some(kid) = key.kid() {
            header.insert("kid".to_owned(), json!(kid));
        }
        let mut token = Self { key, header, claims: Map::new() };
        token.claims.insert("iat".to_owned(), json!(now()));
        token.claim("iss", ISSUER).claim("aud", AUDIENCE).claim("sub", subject).expires_in(LIFETIME)
    }

    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a parameter of the header, whatever it says of the key.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a parameter of the header out.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Expires so long after now.
    #[must_use]
    pub fn expires_in(self, span: Duration) -> Self {
        self.claim("exp", now().saturating_add(span.as_secs()))
    }

    /// Was issued and expired so long before now.
    #[must_use]
    pub fn expired_since(self, span: Duration) -> Self {
        let end = now().saturating_sub(span.as_secs());
        self.claim("iat", end.saturating_sub(LIFETIME.as_secs())).claim("exp", end)
    }

    /// Is valid only so long after now.
    #[must_use]
    pub fn valid_in(self, span: Duration) -> Self {
        self.claim("nbf", now().saturating_add(span.as_secs()))
    }

    /// The signed token.
    ///
    /// # Errors
    /// The key does not fit.
    pub fn sign(self) -> Result<String> {
        let (header, claims) = (Value::Object(self.header), Value::Object(self.claims));
        raw(header.to_string().as_bytes(), claims.to_string().as_bytes(), &self.key)
    }
}

/// A token of these very bytes, well signed: for headers and claims that no library would write.
///
/// # Errors
/// The key does not fit.
pub fn raw(header: &[u8], claims: &[u8], key: &Key) -> Result<String> {
    let text = format!("{}.{}", base64url(header), base64url(claims));
    let signature = key.sign(text.as_bytes())?;
    Ok(format!("{text}.{signature}"))
}

/// base64url without padding.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |bits: u32| DIGITS.get((bits & 63) as usize).copied().map_or('?', char::from);
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let whole = three.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let whole = whole << (8 * (3 - three.len()));
        text.extend((0..=three.len()).map(|i| digit(whole >> (18 - 6 * i))));
    }
    text
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_the_rfc() {
        // RFC 4648 section 10, without padding; and the two digits that differ.
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
        {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn every_key_signs_and_its_public_half_is_there() {
        for key in Key::all() {
            let token = Token::new(key.clone(), "anna").sign().unwrap();
            assert_eq!(token.split('.').count(), 3, "{key:?}");
            if key.kid().is_some() {
                let set = key_set(std::slice::from_ref(&key)).unwrap();
                assert_eq!(set["keys"][0]["alg"], key.algorithm());
            }
        }
    }
}
