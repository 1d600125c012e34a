//! Finding the token in a request, and taking it out again. Nothing here judges a token.

use crate::facts::Facts;
use crate::headers::{Headers, Occurrence};
use crate::model::{Authentication, TokenLocation};
use crate::reply::Edits;
use alloc::string::String;
use alloc::vec::Vec;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No token anywhere.
    Nothing,
    /// One token (or the same one several times).
    Token(&'a [u8]),
    /// Two different tokens, or a place that holds something ambiguous: the upstream might use the
    /// one that was not checked.
    Ambiguous,
}

/// Looks in every place that any provider names.
#[must_use]
pub fn find<'a>(authentication: &Authentication, facts: &Facts<'a>) -> Found<'a> {
    let mut found = Found::Nothing;
    for location in authentication.providers.iter().flat_map(|provider| &provider.locations) {
        found = match (found, at(location, facts)) {
            (_, Found::Ambiguous) => return Found::Ambiguous,
            (before, Found::Nothing) => before,
            (Found::Nothing, here) => here,
            (Found::Token(one), Found::Token(other)) if one == other => found,
            _ => return Found::Ambiguous,
        };
    }
    found
}

/// Looks in one place.
#[must_use]
pub fn at<'a>(location: &TokenLocation, facts: &Facts<'a>) -> Found<'a> {
    match location {
        TokenLocation::Header { name, scheme } => match facts.headers.only(name) {
            Occurrence::Absent => Found::Nothing,
            Occurrence::Repeated => Found::Ambiguous,
            Occurrence::Once(value) => match scheme {
                None => Found::Token(value),
                Some(scheme) => after_scheme(value, scheme),
            },
        },
        TokenLocation::Cookie(name) => single(cookies(&facts.headers, name)),
        TokenLocation::Query(name) => single(query(facts, name)),
    }
}

fn single<'a>(values: impl Iterator<Item = &'a [u8]>) -> Found<'a> {
    let mut found = Found::Nothing;
    for value in values {
        found = match found {
            Found::Token(before) if before != value => return Found::Ambiguous,
            _ => Found::Token(value),
        };
    }
    found
}

/// `Bearer token`: the scheme in any case, then spaces (RFC 9110 section 11.4). Another scheme is
/// somebody else's credential, not a bad token.
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Found<'a> {
    let Some((start, rest)) = value.split_at_checked(scheme.len()) else { return Found::Nothing };
    if !start.eq_ignore_ascii_case(scheme.as_bytes()) {
        return Found::Nothing;
    }
    match rest.first() {
        // The bare word is an empty token, so that it is refused as malformed.
        None => Found::Token(b""),
        Some(b' ') => Found::Token(rest.trim_ascii_start()),
        Some(_) => Found::Nothing,
    }
}

fn cookies<'a>(headers: &Headers<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    pairs_of_cookies(headers).filter(move |pair| key(pair) == name.as_bytes()).map(value)
}

fn pairs_of_cookies<'a>(headers: &Headers<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers
        .iter()
        .filter(|(header, _)| *header == b"cookie")
        .flat_map(|(_, line)| line.split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
}

fn query<'a>(facts: &Facts<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let (_, query) = split_path(facts.headers.first(":path").unwrap_or_default());
    query
        .split(|byte| *byte == b'&')
        .filter(move |pair| key(pair) == name.as_bytes() && pair.contains(&b'='))
        .map(value)
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

/// Takes the token out of every place of a provider, leaving everything else as it came.
pub fn strip(locations: &[TokenLocation], facts: &Facts<'_>, edits: &mut Edits) {
    let (mut cookies, mut parameters) = (Vec::new(), Vec::new());
    for location in locations.iter().filter(|location| at(location, facts) != Found::Nothing) {
        match location {
            TokenLocation::Header { name, .. } => edits.remove.push(name.clone()),
            TokenLocation::Cookie(name) => cookies.push(name.as_bytes()),
            TokenLocation::Query(name) => parameters.push(name.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        let pairs = pairs_of_cookies(&facts.headers);
        let others = join(pairs.filter(|pair| !cookies.contains(&key(pair))), b"; ");
        if others.is_empty() {
            edits.remove.push(String::from("cookie"));
        } else {
            edits.set.push((String::from("cookie"), others));
        }
    }
    if !parameters.is_empty() {
        let (path, query) = split_path(facts.headers.first(":path").unwrap_or_default());
        let pairs = query.split(|byte| *byte == b'&');
        let kept = join(pairs.filter(|pair| !parameters.contains(&key(pair))), b"&");
        let mark: &[u8] = if kept.is_empty() { b"" } else { b"?" };
        edits.set.push((String::from(":path"), [path, mark, &kept].concat()));
    }
}

fn join<'a>(pairs: impl Iterator<Item = &'a [u8]>, between: &[u8]) -> Vec<u8> {
    pairs.collect::<Vec<_>>().join(between)
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

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let bearer = header(Some("Bearer"));
        check(&bearer, &[("authorization", "Bearer abc")], Found::Token(b"abc"));
        check(&bearer, &[("authorization", "bearer  abc")], Found::Token(b"abc"));
        check(&bearer, &[("authorization", "Bearer")], Found::Token(b""));
        check(&bearer, &[("authorization", "Bearer\tabc")], Found::Nothing);
        check(&bearer, &[("authorization", "Bearer-invalid")], Found::Nothing);
        check(&bearer, &[("authorization", "Basic abc")], Found::Nothing);
        check(&bearer, &[("authorization", "X Bearer abc")], Found::Nothing);
        check(&bearer, &[], Found::Nothing);
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        check(&bearer, &twice, Found::Ambiguous);
        check(&header(None), &[("authorization", "abc")], Found::Token(b"abc"));
    }

    #[test]
    fn cookies_and_queries_are_searched_by_their_exact_name() {
        let cookie = TokenLocation::Cookie(String::from("session"));
        check(&cookie, &[("cookie", "a=1; session=tok; b=2")], Found::Token(b"tok"));
        check(&cookie, &[("cookie", "xsession=1")], Found::Nothing);
        check(&cookie, &[("cookie", "a=1"), ("cookie", "session=tok")], Found::Token(b"tok"));
        check(&cookie, &[("cookie", "session=x; session=y")], Found::Ambiguous);
        let query = TokenLocation::Query(String::from("access_token"));
        check(&query, &[(":path", "/a?b=1&access_token=tok")], Found::Token(b"tok"));
        check(&query, &[(":path", "/a?access_token")], Found::Nothing);
        check(&query, &[(":path", "/access_token=tok")], Found::Nothing);
        check(&query, &[(":path", "/a?access_token=x&access_token=y")], Found::Ambiguous);
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
