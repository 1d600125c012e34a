//! HTTPS enforcement. A redirect is offered only where repeating the request is harmless.

use crate::facts::Facts;
use crate::model::HttpsMode;
use alloc::string::String;

/// What is to be done with a clear-text request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Pass,
    /// It is sent here instead.
    Redirect(String),
    /// It is refused.
    Refuse,
}

/// Judges the request's scheme. A body that was sent in clear text has leaked already, so only GET
/// and HEAD are redirected; an authority that cannot stand in a URL is refused.
#[must_use]
pub fn check(mode: HttpsMode, facts: &Facts<'_>) -> Verdict {
    if mode == HttpsMode::Off || facts.is_https() {
        return Verdict::Pass;
    }
    let repeatable = matches!(facts.method(), b"GET" | b"HEAD");
    if mode == HttpsMode::Refuse || !repeatable {
        return Verdict::Refuse;
    }
    location(facts).map_or(Verdict::Refuse, Verdict::Redirect)
}

/// The same URL with `https`. The port goes when it is 80, as in Envoy's own `https_redirect`; any
/// other port is the operator's business and is kept.
fn location(facts: &Facts<'_>) -> Option<String> {
    let authority = core::str::from_utf8(facts.headers.first(":authority")?).ok()?;
    let legal =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if authority.is_empty() || !authority.chars().all(legal) {
        return None;
    }
    let path = core::str::from_utf8(facts.headers.first(":path")?).ok()?;
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let host = authority.strip_suffix(":80").unwrap_or(authority);
    Some(["https://", host, path].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{Headers, serialize};

    #[track_caller]
    fn check_one(mode: HttpsMode, headers: &[(&[u8], &[u8])], expected: &Verdict) {
        let bytes = serialize(headers);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        assert_eq!(check(mode, &facts), *expected);
    }

    #[test]
    fn only_harmless_methods_are_redirected() {
        use HttpsMode::{Off, Redirect, Refuse};
        let clear = |method: &'static [u8], authority: &'static [u8]| {
            [
                (&b":method"[..], method),
                (b":path", b"/a?b=c"),
                (b":authority", authority),
                (b":scheme", b"http"),
            ]
        };
        let to = |url: &str| Verdict::Redirect(String::from(url));
        check_one(Off, &clear(b"GET", b"h"), &Verdict::Pass);
        check_one(Refuse, &clear(b"GET", b"h"), &Verdict::Refuse);
        check_one(Redirect, &clear(b"GET", b"h"), &to("https://h/a?b=c"));
        check_one(Redirect, &clear(b"HEAD", b"h:80"), &to("https://h/a?b=c"));
        check_one(Redirect, &clear(b"GET", b"h:8443"), &to("https://h:8443/a?b=c"));
        check_one(Redirect, &clear(b"POST", b"h"), &Verdict::Refuse);
        check_one(Redirect, &clear(b"GET", b"h/evil"), &Verdict::Refuse);
        check_one(Redirect, &clear(b"GET", b"\xff"), &Verdict::Refuse);
        check_one(Redirect, &clear(b"GET", b""), &Verdict::Refuse);
    }

    #[test]
    fn what_envoy_says_of_the_first_hop_wins_over_the_scheme() {
        let https: [(&[u8], &[u8]); 2] = [(b":scheme", b"http"), (b"x-forwarded-proto", b"https")];
        check_one(HttpsMode::Refuse, &https, &Verdict::Pass);
        let clear: [(&[u8], &[u8]); 2] = [(b":scheme", b"https"), (b"x-forwarded-proto", b"http")];
        check_one(HttpsMode::Refuse, &clear, &Verdict::Refuse);
    }
}
