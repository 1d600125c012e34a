//! Finding a credential in a request, and taking it out again. Nothing here judges one.

use crate::facts::Facts;
use crate::headers::{Headers, Occurrence};
use crate::model::TokenLocation;
use crate::path::digit;
use crate::reply::Edits;
use alloc::string::String;
use alloc::vec::Vec;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No credential anywhere.
    Nothing,
    /// One credential (or the same one several times).
    One(Credential<'a>),
    /// Two different ones, or a place that holds something ambiguous: the upstream might use the
    /// one that was not checked.
    Ambiguous,
}

/// A credential as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential<'a> {
    /// The token or key; in a query still percent-encoded.
    pub bytes: &'a [u8],
    /// What brought it.
    pub carrier: Carrier,
}

/// What brought a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A header, which only a program that knows the credential can send.
    Header,
    /// A cookie and nothing else: a browser sends it whoever asks it to.
    Cookie,
    /// The query.
    Query,
    /// Several of them.
    Several,
}

impl<'a> Found<'a> {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ambiguous, _) | (_, Self::Ambiguous) => Self::Ambiguous,
            (Self::Nothing, found) | (found, Self::Nothing) => found,
            (Self::One(one), Self::One(other)) if one.bytes == other.bytes => {
                let same = one.carrier == other.carrier;
                Self::One(Credential {
                    carrier: if same { one.carrier } else { Carrier::Several },
                    ..one
                })
            }
            (Self::One(_), Self::One(_)) => Self::Ambiguous,
        }
    }
}

/// Looks in all these places.
#[must_use]
pub fn find<'a, 'p>(
    locations: impl IntoIterator<Item = &'p TokenLocation>,
    facts: &Facts<'a>,
) -> Found<'a> {
    locations.into_iter().map(|location| at(location, facts)).fold(Found::Nothing, Found::and)
}

/// Looks in one place.
#[must_use]
pub fn at<'a>(location: &TokenLocation, facts: &Facts<'a>) -> Found<'a> {
    match location {
        TokenLocation::Header { name, scheme } => match facts.headers.only(name) {
            Occurrence::Absent => Found::Nothing,
            Occurrence::Repeated => Found::Ambiguous,
            Occurrence::Once(value) => match scheme {
                None => one(value, Carrier::Header),
                Some(scheme) => after_scheme(value, scheme),
            },
        },
        TokenLocation::Cookie(name) => cookie(&facts.headers, name),
        TokenLocation::Query(name) => all(query(facts, name), Carrier::Query),
    }
}

/// The cookie of that name.
#[must_use]
pub fn cookie<'a>(headers: &Headers<'a>, name: &str) -> Found<'a> {
    let found = cookies(headers).filter(|pair| key(pair).trim_ascii_end() == name.as_bytes());
    all(found.map(|pair| value(pair).trim_ascii_start()), Carrier::Cookie)
}

fn one(bytes: &[u8], carrier: Carrier) -> Found<'_> {
    Found::One(Credential { bytes, carrier })
}

fn all<'a>(values: impl Iterator<Item = &'a [u8]>, carrier: Carrier) -> Found<'a> {
    values.map(|bytes| one(bytes, carrier)).fold(Found::Nothing, Found::and)
}

/// `Bearer token`: the scheme in any case, then spaces (RFC 9110 section 11.4), or a tab, because there
/// are servers that take one. Another scheme is somebody else's credential, not a bad token.
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Found<'a> {
    let Some((start, rest)) = value.split_at_checked(scheme.len()) else { return Found::Nothing };
    if !start.eq_ignore_ascii_case(scheme.as_bytes()) {
        return Found::Nothing;
    }
    match rest.first() {
        // The bare word is an empty token, so that it is refused as malformed.
        None => one(b"", Carrier::Header),
        Some(b' ' | b'\t') => one(rest.trim_ascii_start(), Carrier::Header),
        Some(_) => Found::Nothing,
    }
}

fn cookies<'a>(headers: &Headers<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers
        .iter()
        .filter(|(header, _)| *header == b"cookie")
        .flat_map(|(_, line)| line.split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
}

fn query<'a>(facts: &Facts<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let (_, query) = split_path(facts.headers.first(":path").unwrap_or_default());
    pairs(query)
        .map(|(_, pair)| pair)
        .filter(move |pair| is_named(key(pair), name) && pair.contains(&b'='))
        .map(value)
}

/// The pairs of a query with the byte before each. Some servers split at `;` too.
fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = Some(query);
    let mut before: &[u8] = b"";
    core::iter::from_fn(move || {
        let all = rest?;
        let end = all.iter().position(|byte| matches!(byte, b'&' | b';'));
        let (pair, after) = all.split_at_checked(end.unwrap_or(all.len()))?;
        let found = (before, pair);
        (before, rest) = match after.split_at_checked(1) {
            Some((mark, after)) => (mark, Some(after)),
            None => (&b""[..], None),
        };
        Some(found)
    })
}

/// Whether a parameter has a name, however it is spelt: an upstream decodes `access%5Ftoken`.
fn is_named(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (key.contains(&b'%') && percent_decoded(key) == name.as_bytes())
}

/// Percent escapes decoded once; a broken one stays as it is.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = match rest {
            [b'%', high, low, after @ ..] => {
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, after));
        out.push(byte);
        rest = after;
    }
    out
}

fn split_path(whole: &[u8]) -> (&[u8], &[u8]) {
    match whole.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            let (path, query) = whole.split_at_checked(at).unwrap_or((whole, b""));
            (path, query.strip_prefix(b"?").unwrap_or_default())
        }
        None => (whole, b""),
    }
}

fn key(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn value(pair: &[u8]) -> &[u8] {
    pair.get(key(pair).len().saturating_add(1)..).unwrap_or_default()
}

/// Takes a credential out of all these places, leaving everything else as it came.
pub fn strip<'p>(
    locations: impl IntoIterator<Item = &'p TokenLocation>,
    facts: &Facts<'_>,
    edits: &mut Edits,
) {
    let (mut names, mut parameters) = (Vec::new(), Vec::new());
    for location in locations.into_iter().filter(|place| at(place, facts) != Found::Nothing) {
        match location {
            TokenLocation::Header { name, .. } => edits.remove(name),
            TokenLocation::Cookie(name) => names.push(name.as_bytes()),
            TokenLocation::Query(name) => parameters.push(name.as_str()),
        }
    }
    if !names.is_empty() {
        let others = cookies(&facts.headers)
            .filter(|pair| !pair.is_empty() && !names.contains(&key(pair).trim_ascii_end()));
        let others = others.collect::<Vec<_>>().join(&b"; "[..]);
        if others.is_empty() {
            edits.remove("cookie");
        } else {
            edits.set.push((String::from("cookie"), others));
        }
    }
    if !parameters.is_empty() {
        let (path, query) = split_path(facts.headers.first(":path").unwrap_or_default());
        let mut kept = path.to_vec();
        let is_kept = |pair: &[u8]| !parameters.iter().any(|name| is_named(key(pair), name));
        for (before, pair) in pairs(query).filter(|(_, pair)| is_kept(pair)) {
            kept.extend_from_slice(if kept.len() == path.len() { b"?" } else { before });
            kept.extend_from_slice(pair);
        }
        edits.set.push((String::from(":path"), kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::serialize;

    fn header(scheme: Option<&str>) -> TokenLocation {
        let scheme = scheme.map(String::from);
        TokenLocation::Header { name: String::from("authorization"), scheme }
    }

    #[track_caller]
    fn check(location: &TokenLocation, headers: &[(&str, &str)], expected: Found<'_>) {
        let entries: Vec<_> = headers.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
        let bytes = serialize(&entries);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        assert_eq!(at(location, &facts), expected, "{headers:?}");
    }

    const fn by(carrier: Carrier, bytes: &[u8]) -> Found<'_> {
        Found::One(Credential { bytes, carrier })
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let bearer = header(Some("Bearer"));
        check(&bearer, &[("authorization", "Bearer abc")], by(Carrier::Header, b"abc"));
        check(&bearer, &[("authorization", "bearer  abc")], by(Carrier::Header, b"abc"));
        check(&bearer, &[("authorization", "Bearer")], by(Carrier::Header, b""));
        check(&bearer, &[("authorization", "Bearer\tabc")], by(Carrier::Header, b"abc"));
        check(&bearer, &[("authorization", "Bearer-invalid")], Found::Nothing);
        check(&bearer, &[("authorization", "Basic abc")], Found::Nothing);
        check(&bearer, &[("authorization", "X Bearer abc")], Found::Nothing);
        check(&bearer, &[], Found::Nothing);
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        check(&bearer, &twice, Found::Ambiguous);
        check(&header(None), &[("authorization", "abc")], by(Carrier::Header, b"abc"));
    }

    #[test]
    fn cookies_and_queries_are_searched_by_their_exact_name() {
        let cookie = TokenLocation::Cookie(String::from("session"));
        check(&cookie, &[("cookie", "a=1; session=tok; b=2")], by(Carrier::Cookie, b"tok"));
        check(&cookie, &[("cookie", "xsession=1")], Found::Nothing);
        check(
            &cookie,
            &[("cookie", "a=1"), ("cookie", "session=tok")],
            by(Carrier::Cookie, b"tok"),
        );
        check(&cookie, &[("cookie", "session=x; session=y")], Found::Ambiguous);
        check(&cookie, &[("cookie", "session = tok")], by(Carrier::Cookie, b"tok"));
        check(&cookie, &[("cookie", "session=x; session =y")], Found::Ambiguous);
        let query = TokenLocation::Query(String::from("access_token"));
        check(&query, &[(":path", "/a?b=1&access_token=tok")], by(Carrier::Query, b"tok"));
        check(&query, &[(":path", "/a?access_token")], Found::Nothing);
        check(&query, &[(":path", "/access_token=tok")], Found::Nothing);
        check(&query, &[(":path", "/a?access_token=x&access_token=y")], Found::Ambiguous);
    }

    #[test]
    fn a_parameter_has_one_name_however_it_is_spelt() {
        let query = TokenLocation::Query(String::from("access_token"));
        let tok = || by(Carrier::Query, b"tok");
        check(&query, &[(":path", "/a?access%5Ftoken=tok")], tok());
        check(&query, &[(":path", "/a?%61ccess%5ftoken=tok")], tok());
        check(&query, &[(":path", "/a?access%5Ftoken=x&access_token=y")], Found::Ambiguous);
        check(&query, &[(":path", "/a?b=1;access_token=tok")], tok());
        // Decoded once: this is the name `access%5Ftoken` to whoever reads it.
        check(&query, &[(":path", "/a?access%255Ftoken=tok")], Found::Nothing);
        check(&query, &[(":path", "/a?access%5token=tok")], Found::Nothing);
        check(&query, &[(":path", "/a?access_token%=tok")], Found::Nothing);
    }

    #[test]
    fn stripping_takes_every_spelling_and_keeps_the_separators() {
        let bytes = serialize(&[
            (b":path", b"/a?x=1;k%65y=s&y=2;&key=s;z=%zz"),
            (b"cookie", b"s = 1;; b=2"),
        ]);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        let mut edits = Edits::default();
        let query = TokenLocation::Query(String::from("key"));
        strip([&query, &TokenLocation::Cookie(String::from("s"))], &facts, &mut edits);
        let set = [("cookie", &b"b=2"[..]), (":path", b"/a?x=1&y=2;;z=%zz")];
        assert_eq!(edits.set, set.map(|(k, v)| (String::from(k), v.to_vec())));
    }

    #[test]
    fn a_credential_in_two_places_was_not_brought_by_a_cookie_alone() {
        let bytes = serialize(&[(b"authorization", b"Bearer tok"), (b"cookie", b"s=tok; t=tok")]);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        let cookie = |name: &str| TokenLocation::Cookie(String::from(name));
        let two = [cookie("s"), cookie("t")];
        assert_eq!(find(&two, &facts), by(Carrier::Cookie, b"tok"));
        assert_eq!(
            find(&[cookie("s"), header(Some("Bearer"))], &facts),
            by(Carrier::Several, b"tok")
        );
    }

    #[test]
    fn taking_the_token_out_leaves_the_rest_byte_by_byte() {
        let bytes = serialize(&[
            (b":path", b"/a?x=\xff&t=tok&y=2&u=tok"),
            (b"cookie", b"a=\xfe; s=tok; r=tok"),
            (b"authorization", b"Bearer tok"),
        ]);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        let mut edits = Edits::default();
        let cookie = |name: &str| TokenLocation::Cookie(String::from(name));
        let query = |name: &str| TokenLocation::Query(String::from(name));
        let places = [
            header(Some("Bearer")),
            cookie("s"),
            cookie("r"),
            query("t"),
            query("u"),
            query("absent"),
        ];
        strip(&places, &facts, &mut edits);
        assert_eq!(edits.remove, ["authorization"]);
        let set = [("cookie", &b"a=\xfe"[..]), (":path", b"/a?x=\xff&y=2")];
        assert_eq!(edits.set, set.map(|(k, v)| (String::from(k), v.to_vec())));
        let mut edits = Edits::default();
        let only = serialize(&[(b":path", b"/a?t=tok"), (b"cookie", b"s=tok")]);
        let facts = Facts { headers: Headers::new(&only), ..facts };
        strip(&places, &facts, &mut edits);
        assert_eq!(edits.remove, ["cookie"]);
        assert_eq!(edits.set, [(String::from(":path"), b"/a".to_vec())]);
    }
}
