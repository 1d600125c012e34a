//! A compact JWS taken apart, strictly: one token has one spelling. Nothing here is trusted yet.

use crate::json;
use alloc::string::String;
use alloc::vec::Vec;
use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use policy::verify::TokenError;
use serde_json::{Map, Value};

/// Longest token. Envoy takes 60 KiB of headers by default; tokens of real issuers stay under 8 KiB.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Longest header segment, still encoded. A certificate chain (`x5c`) fits, and is then ignored.
pub(crate) const HEADER_BYTES_MAX: usize = 4 * 1024;

/// A token of which only the shape is known to be right.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    /// The whole token.
    pub(crate) token: &'a str,
    /// What the signature covers: header and payload, still encoded.
    pub(crate) signed: &'a [u8],
    pub(crate) header: Header,
    pub(crate) claims: Map<String, Value>,
    pub(crate) signature: Vec<u8>,
}

/// The header members that decide something.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: String,
    pub(crate) kid: Option<String>,
    /// `typ` as it is written.
    pub(crate) typ: Option<String>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, TokenError> {
        Self::parts(bytes).ok_or(TokenError::Malformed)
    }

    fn parts(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let token = core::str::from_utf8(bytes).ok()?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        // A further dot would be in the payload, where base64url has none.
        if header.len() > HEADER_BYTES_MAX {
            return None;
        }
        Some(Self {
            token,
            signed: signed.as_bytes(),
            header: Header::read(&json::object(&bytes_of(header)?)?)?,
            claims: json::object(&bytes_of(payload)?)?,
            signature: bytes_of(signature)?,
        })
    }
}

impl Header {
    fn read(members: &Map<String, Value>) -> Option<Self> {
        // Extensions that change how a token must be read; none of them is understood here.
        // A key inside a token (`jwk`) could only be an attempt to bring one's own.
        if ["crit", "b64", "zip", "jwk"].iter().any(|name| members.contains_key(*name)) {
            return None;
        }
        // Never followed, but a wrong type means that somebody else may read this header otherwise.
        for name in ["jku", "x5u", "x5t", "x5t#S256", "salt"] {
            text(members, name)?;
        }
        if !members.get("x5c").is_none_or(is_list_of_texts) {
            return None;
        }
        if text(members, "cty")?.is_some_and(|cty| media_type(cty).eq_ignore_ascii_case("jwt")) {
            return None;
        }
        Some(Self {
            algorithm: text(members, "alg")??.into(),
            kid: text(members, "kid")?.map(String::from),
            typ: text(members, "typ")?.map(String::from),
        })
    }
}

/// A member that must be a string when it is there: `None` when it is something else.
pub(crate) fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<Option<&'a str>> {
    match members.get(name) {
        None => Some(None),
        Some(Value::String(text)) => Some(Some(text)),
        Some(_) => None,
    }
}

/// Whether a value is an array of nothing but strings.
pub(crate) fn is_list_of_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

/// A media type without `application/`, which RFC 7515 section 4.1.9 lets a writer leave out.
pub(crate) fn media_type(written: &str) -> &str {
    const PREFIX: &str = "application/";
    match written.split_at_checked(PREFIX.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(PREFIX) => rest,
        _ => written,
    }
}

/// Canonical base64url without padding; empty counts as wrong.
pub(crate) fn bytes_of(segment: &str) -> Option<Vec<u8>> {
    if segment.is_empty() {
        return None;
    }
    Base64UrlSafeNoPadding::decode_to_vec(segment, None).ok()
}
