//! The signed double-submit token: what a page got in a cookie it sends back in a header, which a
//! page of another origin can neither read nor write.
//!
//! `base64url(nonce, issued).base64url(HMAC-SHA-256)`. The signature is bound to the session, so
//! that a token which an attacker got for himself, and planted as a cookie from a sibling domain,
//! fits no other session.

use crate::time::Nanos;
use crate::verify::{Digest, Same};
use alloc::string::String;
use alloc::vec::Vec;

/// Random bytes of a token.
pub const NONCE_BYTES: usize = 16;
/// Nonce, and when it was made in whole seconds since 1970 (u32, big-endian).
const HEAD_BYTES: usize = NONCE_BYTES + 4;
/// How long a token is good: a working day and a night.
const LIFETIME_SECS: u64 = 24 * 60 * 60;
/// How far in the future a token may have been made: the clocks of two gateways differ.
const SKEW_SECS: u64 = 60;

/// What a token is bound to.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// The policy's secret.
    pub secret: &'a [u8],
    /// The value of the session's cookie.
    pub session: &'a [u8],
}

/// A token that is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

/// Makes a token.
#[must_use]
pub fn make(nonce: [u8; NONCE_BYTES], key: Key<'_>, digest: &dyn Digest, now: Nanos) -> String {
    let issued = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let mut head = nonce.to_vec();
    head.extend_from_slice(&issued.to_be_bytes());
    let mut token = encode(&head);
    token.push('.');
    token.push_str(&encode(&sign(&head, key, digest)));
    token
}

/// Judges what came back: the header's and the cookie's must be the same good token.
///
/// # Errors
/// [`Bad`], whatever is wrong with it.
pub fn check(
    cookie: &[u8],
    header: &[u8],
    key: Key<'_>,
    digest: &dyn Digest,
    now: Nanos,
) -> Result<(), Bad> {
    let dot = cookie.iter().position(|byte| *byte == b'.').ok_or(Bad)?;
    let (head, signature) = cookie.split_at_checked(dot).ok_or(Bad)?;
    let head = decode(head).filter(|head| head.len() == HEAD_BYTES).ok_or(Bad)?;
    let signature = decode(signature.strip_prefix(b".").ok_or(Bad)?).ok_or(Bad)?;
    let genuine = digest.same(&signature, &sign(&head, key, digest));
    if genuine != Same::Yes || digest.same(cookie, header) != Same::Yes {
        return Err(Bad);
    }
    let issued = head.last_chunk::<4>().map(|four| u32::from_be_bytes(*four)).ok_or(Bad)?;
    let (issued, now) = (u64::from(issued), now.as_secs());
    let good =
        issued <= now.saturating_add(SKEW_SECS) && now < issued.saturating_add(LIFETIME_SECS);
    if good { Ok(()) } else { Err(Bad) }
}

fn sign(head: &[u8], key: Key<'_>, digest: &dyn Digest) -> [u8; 32] {
    let length = u32::try_from(key.session.len()).unwrap_or(u32::MAX).to_be_bytes();
    let message = [b"csrf\0", &length[..], key.session, head].concat();
    digest.hmac_sha256(key.secret, &message)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64url without padding (RFC 4648 section 5).
fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        let number = number << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let digit = ALPHABET.get(number >> (18 - 6 * place) & 63);
            out.push(digit.map_or('A', |digit| char::from(*digit)));
        }
    }
    out
}

/// The one spelling of some bytes; `None` for any other.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut number = 0_u32;
        for byte in chunk {
            let digit = ALPHABET.iter().position(|digit| digit == byte)?;
            number = number << 6 | u32::try_from(digit).ok()?;
        }
        let unused = match chunk.len() {
            4 => 0,
            3 => 2,
            2 => 4,
            _ => return None,
        };
        if number & ((1 << unused) - 1) != 0 {
            return None;
        }
        let number = number >> unused;
        out.extend_from_slice(number.to_be_bytes().get(5 - chunk.len()..)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDigest;

    const KEY: Key<'_> = Key { secret: b"secret", session: b"session" };
    const NOW: Nanos = Nanos::from_secs(1_000_000);

    fn token() -> Vec<u8> {
        make([7; NONCE_BYTES], KEY, &FakeDigest, NOW).into_bytes()
    }

    #[track_caller]
    fn judge(token: &[u8], key: Key<'_>, now: Nanos, expected: Result<(), Bad>) {
        assert_eq!(check(token, token, key, &FakeDigest, now), expected);
    }

    #[test]
    fn bytes_have_one_spelling() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"\xff\xfe\xfd", "__79"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes));
        }
        for text in ["Z", "Zh", "Zm9", "Zg==", "Zm9v\n", "+/+/", " Zm8", "Zm9vY"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_token_is_good_for_a_day_and_not_before_it_was_made() {
        let later = |secs: u64| NOW + Nanos::from_secs(secs);
        judge(&token(), KEY, NOW, Ok(()));
        judge(&token(), KEY, later(LIFETIME_SECS - 1), Ok(()));
        judge(&token(), KEY, later(LIFETIME_SECS), Err(Bad));
        judge(&token(), KEY, NOW - Nanos::from_secs(SKEW_SECS), Ok(()));
        judge(&token(), KEY, NOW - Nanos::from_secs(SKEW_SECS + 1), Err(Bad));
    }

    #[test]
    fn a_token_is_bound_to_its_session_and_its_secret() {
        judge(&token(), Key { session: b"other", ..KEY }, NOW, Err(Bad));
        judge(&token(), Key { session: b"", ..KEY }, NOW, Err(Bad));
        judge(&token(), Key { secret: b"other", ..KEY }, NOW, Err(Bad));
    }

    #[test]
    fn no_changed_byte_and_no_cut_token_is_good() {
        let good = token();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                judge(&bad, KEY, NOW, Err(Bad));
            }
            judge(&good[..at], KEY, NOW, Err(Bad));
        }
        judge(&[good.as_slice(), b"A"].concat(), KEY, NOW, Err(Bad));
        judge(b".", KEY, NOW, Err(Bad));
    }

    #[test]
    fn the_header_must_be_the_cookie() {
        let other = make([8; NONCE_BYTES], KEY, &FakeDigest, NOW);
        assert_eq!(check(&token(), other.as_bytes(), KEY, &FakeDigest, NOW), Err(Bad));
        assert_eq!(check(&token(), b"", KEY, &FakeDigest, NOW), Err(Bad));
    }
}
