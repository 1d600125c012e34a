//! Origins as browsers write them (RFC 6454 section 6.2): scheme, host, port, and nothing else.

/// An origin. Two are equal when a browser takes them for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    scheme: &'a [u8],
    host: &'a [u8],
    /// `None` when it is the scheme's own.
    port: Option<u16>,
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
    }
}

impl<'a> Origin<'a> {
    /// Reads `scheme://host[:port]`; `None` for `null` and whatever else is no origin.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let at = text.windows(3).position(|three| three == b"://")?;
        let (scheme, rest) = text.split_at_checked(at)?;
        Self::new(scheme, rest.strip_prefix(b"://")?)
    }

    /// The origin of a URL.
    pub(super) fn of_url(url: &'a [u8]) -> Option<Self> {
        let start = url.windows(3).position(|three| three == b"://")?.checked_add(3)?;
        let authority = url.get(start..)?;
        let end = authority.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        let whole = start.checked_add(end.unwrap_or(authority.len()))?;
        Self::read(url.get(..whole)?)
    }

    /// From a scheme and an authority without a user.
    pub(super) fn new(scheme: &'a [u8], authority: &'a [u8]) -> Option<Self> {
        let (first, rest) = scheme.split_first()?;
        let in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        if !first.is_ascii_alphabetic() || !rest.iter().all(in_scheme) {
            return None;
        }
        // The colons of an IPv6 address stand between brackets.
        let after = authority.iter().rposition(|byte| *byte == b']').unwrap_or(0);
        let colon = authority.iter().skip(after).position(|byte| *byte == b':');
        let (host, port) = match colon {
            Some(colon) => authority.split_at_checked(after.checked_add(colon)?)?,
            None => (authority, &b""[..]),
        };
        let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(byte);
        if host.is_empty() || !host.iter().all(in_host) {
            return None;
        }
        let port = match port {
            [] => None,
            [b':', digits @ ..] if !digits.is_empty() => Some(number(digits)?),
            _ => return None,
        };
        let own = match scheme.to_ascii_lowercase().as_slice() {
            b"https" => Some(443),
            b"http" => Some(80),
            _ => None,
        };
        Some(Self { scheme, host, port: port.filter(|port| Some(*port) != own) })
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: &str, other: &str, expected: bool) {
        let (one, other) = (Origin::read(one.as_bytes()), Origin::read(other.as_bytes()));
        assert_eq!(one.is_some() && one == other, expected, "{one:?} {other:?}");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        check("https://a.example", "https://a.example", true);
        check("https://a.example", "HTTPS://A.example:443", true);
        check("http://a.example:80", "http://a.example", true);
        check("http://a.example:443", "http://a.example", false);
        check("http://a.example", "https://a.example", false);
        check("https://a.example", "https://b.a.example", false);
        check("https://a.example", "https://a.example.evil.test", false);
        check("https://a.example:8443", "https://a.example", false);
        check("https://[::1]:8443", "https://[::1]:8443", true);
        check("https://[::1]:8443", "https://[::1]", false);
        check("app+x://abc", "app+x://abc", true);
    }

    #[test]
    fn what_is_no_origin_is_equal_to_nothing() {
        for text in [
            "null",
            "",
            "https://",
            "a.example",
            "https://a.example/",
            "https://a.example/x",
            "https://u@a.example",
            "https://a.example:",
            "https://a.example:x",
            "https://a.example:+1",
            "https://a.example:99999",
            "https://a b",
            "https://a.example,https://b.example",
            "://a",
            "1http://a",
            "https://a.example\\@evil.test",
            "https://a:1:2",
        ] {
            check(text, text, false);
        }
    }

    #[test]
    fn the_origin_of_a_url_ends_where_its_host_does() {
        let of = |url: &str| Origin::of_url(url.as_bytes()) == Origin::read(b"https://a.example");
        for url in [
            "https://a.example",
            "https://a.example/x?y#z",
            "https://a.example?x=://b",
            "https://a.example#x",
            "https://a.example:443/",
        ] {
            assert!(of(url), "{url}");
        }
        for url in [
            "https://evil.test/https://a.example",
            "https://evil.test?https://a.example",
            "https://a.example@evil.test/",
            "https://a.example\\.evil.test/",
        ] {
            assert!(!of(url), "{url}");
        }
    }
}
