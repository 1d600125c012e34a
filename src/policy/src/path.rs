//! How a path may be read. Envoy routes by the bytes as they are; a server behind it may decode,
//! cut, fold or resolve them first. A rule that only looked at the bytes could be walked around,
//! so a path that can be read in more than one way is judged by all its [`Reading`]s.
//!
//! Percent escapes are decoded once, as by a server that follows RFC 3986 section 2.4: what is
//! escaped twice (`%252e`) is a dot to nobody but a server that decodes twice, which no gateway
//! can guess. Escaped `?` and `#` are text, as the RFC says. Nothing here looks at a method or at
//! a header such as `X-HTTP-Method-Override`.

use alloc::vec::Vec;

/// A path, with whatever else it may be read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// It can be read in one way, but for the case of its letters. The usual path; nothing is
    /// copied for it.
    Plain(&'a [u8]),
    /// Servers may differ.
    Doubtful {
        /// The bytes as they are.
        routed: &'a [u8],
        /// Decoded, with `;parameters` cut off and backslashes turned.
        folded: Vec<u8>,
        /// That, with empty and dot segments resolved.
        resolved: Vec<u8>,
    },
    /// No server should read it: a control byte, a broken escape, an overlong UTF-8 sequence, a
    /// fragment, or no leading slash. `*` (RFC 9110 section 7.1) is plain.
    Unreadable,
}

/// One way to read a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The path.
    pub path: &'a [u8],
    /// Whether the case of letters counts.
    pub case: Case,
}

/// Whether the case of ASCII letters counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// It does, and so does every byte, as for Envoy's routes.
    Counts,
    /// It does, for a server that decodes and resolves. Without this reading `//public` would be
    /// seen by a rule for `/Public` alone, and the server would serve it as `/public`.
    CountsDecoded,
    /// It does not, as for file systems that fold it.
    Ignored,
}

/// Reads a path without its query.
#[must_use]
pub fn read(path: &[u8]) -> Path<'_> {
    if path == b"*" || is_plain(path) {
        return Path::Plain(path);
    }
    let illegal = |byte: &u8| byte.is_ascii_control() || *byte == b'#';
    if !path.starts_with(b"/") || path.iter().any(illegal) {
        return Path::Unreadable;
    }
    match fold(path) {
        Some(folded) => {
            let resolved = resolve(&folded);
            Path::Doubtful { routed: path, folded, resolved }
        }
        None => Path::Unreadable,
    }
}

impl Path<'_> {
    /// Every way to read it, the routed one first; none of an unreadable one.
    pub fn readings(&self) -> impl Iterator<Item = Reading<'_>> {
        let exact = |path| Some(Reading { path, case: Case::Counts });
        let decoded = |path| Some(Reading { path, case: Case::CountsDecoded });
        let loose = |path| Some(Reading { path, case: Case::Ignored });
        let all = match self {
            Self::Plain(path) => [exact(path), loose(path), None, None, None],
            Self::Doubtful { routed, folded, resolved } => {
                [exact(routed), decoded(folded), loose(folded), decoded(resolved), loose(resolved)]
            }
            Self::Unreadable => [None; 5],
        };
        all.into_iter().flatten()
    }
}

/// One pass over the bytes, for the many paths that need no more.
fn is_plain(path: &[u8]) -> bool {
    let mut last = b'/';
    for (at, byte) in path.iter().enumerate() {
        let special = matches!(byte, b'%' | b';' | b'\\' | b'#') || !byte.is_ascii_graphic();
        // An empty segment, or one that ends in a dot, dot segments among them.
        let odd = *byte == b'/' && at > 0 && matches!(last, b'/' | b'.');
        if special || odd || (at == 0 && *byte != b'/') {
            return false;
        }
        last = *byte;
    }
    !path.is_empty() && last != b'.'
}

/// Decoded once, backslashes turned, and of each segment what is left without parameters and
/// without the dots and blanks at its end that Windows drops; of dots alone two are left, because
/// some servers took `...` for a way up. `None` when it cannot be decoded.
pub(crate) fn fold(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = narrow(&decode(path)?)?;
    for byte in decoded.iter_mut().filter(|byte| **byte == b'\\') {
        *byte = b'/';
    }
    let mut out = Vec::with_capacity(decoded.len());
    for (number, segment) in decoded.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(trimmed(segment));
    }
    Some(out)
}

fn trimmed(segment: &[u8]) -> &[u8] {
    let mut rest = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    loop {
        match rest {
            b"." | b".." => return rest,
            [front @ .., b' ' | b'.'] => rest = front,
            _ => return rest,
        }
    }
}

fn resolve(folded: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in folded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                // Above the root there is nothing (RFC 3986 section 5.2.4).
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut out = Vec::with_capacity(folded.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// Percent escapes, once. `None` for a broken one and for one that hides a control byte.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let ([high, low], after) = rest.split_first_chunk()?;
        let byte = digit(*high)? << 4 | digit(*low)?;
        if byte.is_ascii_control() {
            return None;
        }
        out.push(byte);
        rest = after;
    }
    Some(out)
}

/// The value of a hexadecimal digit.
pub(crate) const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Full-width forms (U+FF01 to U+FF5E) as the ASCII that some servers take them for. `None` where a
/// sequence is longer than its character needs, the old way to hide a dot or a slash.
fn narrow(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match rest {
            [0xc0 | 0xc1, 0x80..=0xbf, ..]
            | [0xe0, 0x80..=0x9f, 0x80..=0xbf, ..]
            | [0xf0, 0x80..=0x8f, 0x80..=0xbf, ..] => return None,
            // U+FF01 is 0x21, U+FF40 is 0x60; the last byte counts from 0x80.
            [0xef, 0xbc, low @ 0x81..=0xbf, after @ ..] => {
                out.push(low - 0x60);
                rest = after;
            }
            [0xef, 0xbd, low @ 0x80..=0x9e, after @ ..] => {
                out.push(low - 0x20);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    /// `None` for an unreadable path, else its folded and its resolved reading.
    #[track_caller]
    fn check(path: &[u8], expected: Option<(&str, &str)>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = match read(path) {
            Path::Plain(path) => Some((text(path), text(path))),
            Path::Doubtful { folded, resolved, .. } => Some((text(&folded), text(&resolved))),
            Path::Unreadable => None,
        };
        let expected =
            expected.map(|(folded, resolved)| (folded.to_string(), resolved.to_string()));
        assert_eq!(found, expected, "{}", text(path));
    }

    #[test]
    fn the_usual_path_is_read_in_one_way_and_not_copied() {
        for path in
            ["/", "/a", "/a/", "/a/b.c", "/a/..b", "/a/.well-known/x", "/a,b=c:d@e!~*'()", "*"]
        {
            assert_eq!(read(path.as_bytes()), Path::Plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_path_that_servers_may_read_differently_shows_what_else_it_may_be() {
        for (path, folded, resolved) in [
            ("//a", "//a", "/a"),
            ("/a//b", "/a//b", "/a/b"),
            ("/a/./b", "/a/./b", "/a/b"),
            ("/a/../b", "/a/../b", "/b"),
            ("/..", "/..", "/"),
            ("/a/%2e%2E/b", "/a/../b", "/b"),
            ("/a%2fb", "/a/b", "/a/b"),
            ("/a%5cb", "/a/b", "/a/b"),
            ("/a\\..\\b", "/a/../b", "/b"),
            ("/a;x=1/b", "/a/b", "/a/b"),
            ("/a/..;/b", "/a/../b", "/b"),
            ("/a%3bx/b", "/a/b", "/a/b"),
            ("/%61dmin", "/admin", "/admin"),
            ("/a.", "/a", "/a"),
            ("/a%20", "/a", "/a"),
            ("/a. .", "/a", "/a"),
            ("/a/.. /b", "/a/../b", "/b"),
            ("/a/.../b", "/a/../b", "/b"),
            ("/a/．．／b", "/a/../b", "/b"),
            ("/a/%EF%BC%8E%EF%BC%8E%EF%BC%8Fb", "/a/../b", "/b"),
            ("/ａｄｍｉｎ", "/admin", "/admin"),
            ("/%E9t%c3%a9", "/\u{fffd}té", "/\u{fffd}té"),
        ] {
            check(path.as_bytes(), Some((folded, resolved)));
        }
    }

    #[test]
    fn what_is_escaped_twice_is_decoded_once() {
        check(b"/a/%252e%252e/b", Some(("/a/%2e%2e/b", "/a/%2e%2e/b")));
    }

    #[test]
    fn what_no_server_should_read_is_unreadable() {
        let paths: [&[u8]; 16] = [
            b"",
            b"a",
            b"http://h/a",
            b"/a%00",
            b"/a%00.html",
            b"/a\x00b",
            b"/a%0d%0ab",
            b"/a\x7f",
            b"/a%7f",
            b"/a%",
            b"/a%2",
            b"/a%zz",
            b"/a%u0061",
            b"/a/%c0%ae%c0%ae/b",
            b"/\xc0\xafb",
            b"/a#b",
        ];
        for path in paths {
            check(path, None);
        }
        check(b"/%e0%80%af", None);
        check(b"/%f0%80%80%af", None);
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_read() {
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut path = std::vec![b'/'];
            for _ in 0..state % 12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pool = b"/.;%\\ aA2eEfF\xc0\xaf\xef\xbc\x8e\0";
                path.push(pool[usize::try_from(state >> 33).unwrap() % pool.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if let Path::Doubtful { resolved, .. } = read(&path) {
                let again = resolve(&resolved);
                assert_eq!(again, resolved, "resolving is done once for all");
                assert!(!resolved.contains(&b'\\') && !resolved.contains(&b';'));
            }
        }
    }
}
