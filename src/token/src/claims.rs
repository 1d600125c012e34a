//! The claims of a token whose signature holds: types first, then times, audience and subject.

use crate::compact::{is_list_of_texts, text};
use alloc::string::String;
use policy::model::Provider;
use policy::time::Nanos;
use policy::verify::TokenError;
use serde_json::{Map, Number, Value};

/// Claims that must be strings when they are there.
const TEXTS: [&str; 5] = ["iss", "sub", "jti", "nonce", "kid"];

/// The times of a token, since the Unix epoch. A time too far off for 64 bits of nanoseconds (the
/// year 2554) is the largest one; it never wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) expires: Option<Nanos>,
    pub(crate) not_before: Option<Nanos>,
    pub(crate) issued: Option<Nanos>,
}

/// Checks the types of the registered claims. Cheap, and needs no key.
pub(crate) fn types(claims: &Map<String, Value>) -> Result<Times, TokenError> {
    let texts = TEXTS.iter().all(|name| text(claims, name).is_some());
    let audience =
        claims.get("aud").is_none_or(|value| value.is_string() || is_list_of_texts(value));
    if !texts || !audience {
        return Err(TokenError::Malformed);
    }
    Ok(Times {
        expires: time(claims, "exp")?,
        not_before: time(claims, "nbf")?,
        issued: time(claims, "iat")?,
    })
}

fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Nanos>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => instant(number).map(Some).ok_or(TokenError::Malformed),
        Some(_) => Err(TokenError::Malformed),
    }
}

/// A `NumericDate` (RFC 7519 section 2), fractions included; `None` before 1970.
fn instant(number: &Number) -> Option<Nanos> {
    if let Some(seconds) = number.as_u64() {
        return Some(Nanos::from_secs(seconds));
    }
    let seconds = number.as_f64().filter(|seconds| *seconds >= 0.0)?;
    // Casts from floats saturate. The nearest f64 of a present time is 0.24 µs off at most.
    Some(Nanos((seconds * 1e9) as u64))
}

/// Checks the times against the clock.
pub(crate) fn lifetime(
    times: Times,
    provider: &Provider,
    skew: Nanos,
    now: Nanos,
) -> Result<(), TokenError> {
    // RFC 7519 section 4.1.4: on or after the time itself a token must not be accepted.
    if times.expires.is_some_and(|expires| now >= expires + skew) {
        return Err(TokenError::Expired);
    }
    let starts = [times.not_before, times.issued];
    if starts.iter().flatten().any(|start| *start > now + skew) {
        return Err(TokenError::NotYetValid);
    }
    if provider.require_expiry && times.expires.is_none() {
        return Err(TokenError::Untrusted);
    }
    let Some(longest) = provider.max_lifetime else { return Ok(()) };
    let fits = match (times.expires, times.issued) {
        (Some(expires), Some(issued)) => expires - issued <= longest,
        // The issuer's clock may be ahead of ours by the skew.
        (Some(expires), None) => expires - now <= longest + skew,
        (None, _) => false,
    };
    if fits { Ok(()) } else { Err(TokenError::Untrusted) }
}

/// Checks that the token is meant for us.
pub(crate) fn audience(claims: &Map<String, Value>, provider: &Provider) -> Result<(), TokenError> {
    let ours = |value: &Value| {
        value.as_str().is_some_and(|name| provider.audiences.iter().any(|ours| ours == name))
    };
    let fits = match claims.get("aud") {
        _ if provider.audiences.is_empty() => true,
        Some(Value::Array(several)) => several.iter().any(ours),
        Some(one) => ours(one),
        None => false,
    };
    if fits { Ok(()) } else { Err(TokenError::Untrusted) }
}

/// The user's name; an empty one is none.
pub(crate) fn subject(
    claims: &Map<String, Value>,
    provider: &Provider,
) -> Result<Option<String>, TokenError> {
    let written = text(claims, &provider.subject_claim).ok_or(TokenError::Malformed)?;
    let subject = written.filter(|subject| !subject.is_empty());
    if provider.require_subject && subject.is_none() {
        return Err(TokenError::Untrusted);
    }
    Ok(subject.map(String::from))
}
