//! Target `cookie`: finding and taking out credentials, in arbitrary header maps.
//!
//! It never panics; after the taking out no place holds a credential any more, and everything else
//! is, byte by byte and in order, what came in.

use crate::input::Input;
use policy::facts::Facts;
use policy::headers::{Headers, serialize};
use policy::model::TokenLocation;
use policy::reply::Edits;
use policy::stage::credential::{Found, at, strip};

/// Most headers that an input puts together.
const HEADERS: usize = 8;
/// Most pieces of a value.
const PIECES: usize = 12;

/// Names of credentials, so that inputs hit them, and their neighbours.
const NAMES: [&str; 6] = ["s", "session", "t", "access_token", "__Host-x", "S"];
/// What values are put together from.
const PIECES_OF_VALUES: [&[u8]; 25] = [
    b"s",
    b"session",
    b"t",
    b"access_token",
    b"=",
    b";",
    b"; ",
    b" ",
    b"\t",
    b"&",
    b"?",
    b"#",
    b"/",
    b"tok",
    b"\"",
    b",",
    b"Bearer ",
    b"bearer",
    b"%3d",
    b"%73",
    b"\xff",
    b"==",
    b"",
    b"+",
    b"$Version=1",
];
/// Names of headers; the last ones are no place of a credential.
const HEADER_NAMES: [&[u8]; 7] =
    [b"cookie", b":path", b"authorization", b"x-api-key", b"cookie2", b"x-other", b""];

type Map = Vec<(Vec<u8>, Vec<u8>)>;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() == 0xff {
        // The host's own format, which arrives from the network.
        let bytes = input.rest();
        let facts = Facts { headers: Headers::new(bytes), client: None, service: None };
        return check(&places(&mut Input::new(bytes)), &facts);
    }
    let places = places(&mut input);
    let map = map(&mut input);
    let bytes = serialized(&map);
    check(&places, &Facts { headers: Headers::new(&bytes), client: None, service: None });
}

fn check(places: &[TokenLocation], facts: &Facts<'_>) {
    let mut edits = Edits::default();
    strip(places, facts, &mut edits);
    let before: Map = facts.headers.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    let after = apply(&before, &edits);
    let bytes = serialized(&after);
    let left = Facts { headers: Headers::new(&bytes), client: None, service: None };
    for place in places {
        assert_eq!(at(place, &left), Found::Nothing, "{place:?} still holds one: {after:?}");
    }
    let found = |place: &TokenLocation| at(place, facts) != Found::Nothing;
    let gone: Vec<&TokenLocation> = places.iter().filter(|place| found(place)).collect();
    assert_eq!(rest(&after, &[]), rest(&before, &gone), "something else changed: {before:?}");
}

/// The edits as Envoy carries them out.
fn apply(before: &Map, edits: &Edits) -> Map {
    let mut map = before.clone();
    for name in &edits.remove {
        map.retain(|(key, _)| key != name.as_bytes());
    }
    for (name, value) in &edits.set {
        let place = map.iter().position(|(key, _)| key == name.as_bytes());
        let mut first = true;
        map.retain(|(key, _)| key != name.as_bytes() || std::mem::take(&mut first));
        match place.and_then(|place| map.get_mut(place)) {
            Some(entry) => entry.1.clone_from(value),
            None => map.push((name.clone().into_bytes(), value.clone())),
        }
    }
    map
}

/// Everything but what stood in these places: headers, cookies and parameters one by one.
fn rest(map: &Map, gone: &[&TokenLocation]) -> [Vec<Vec<u8>>; 3] {
    let (mut headers, mut cookies, mut parameters) = (Vec::new(), Vec::new(), Vec::new());
    let in_header = |key: &[u8]| {
        gone.iter()
            .any(|p| matches!(p, TokenLocation::Header { name, .. } if name.as_bytes() == key))
    };
    let is_cookie = |key: &[u8]| {
        gone.iter().any(
            |p| matches!(p, TokenLocation::Cookie(name) if name.as_bytes() == key.trim_ascii_end()),
        )
    };
    let is_parameter = |key: &[u8]| {
        let key = decoded(key);
        gone.iter().any(|p| matches!(p, TokenLocation::Query(name) if name.as_bytes() == key))
    };
    let mut path_seen = false;
    for (key, value) in map.iter().filter(|(key, _)| !in_header(key)) {
        match key.as_slice() {
            b"cookie" => {
                let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let kept = pairs.filter(|pair| !pair.is_empty() && !is_cookie(name_of(pair)));
                cookies.extend(kept.map(<[u8]>::to_vec));
            }
            b":path" => {
                // Envoy has one; a second one is no path to anybody.
                if std::mem::replace(&mut path_seen, true) {
                    continue;
                }
                let mut halves = value.splitn(2, |byte| *byte == b'?');
                parameters.push(halves.next().unwrap_or_default().to_vec());
                let query = halves.next().unwrap_or_default();
                let pairs = query.split(|byte| b"&;".contains(byte));
                let kept = pairs.filter(|pair| !pair.is_empty() && !is_parameter(name_of(pair)));
                parameters.extend(kept.map(<[u8]>::to_vec));
            }
            _ => headers.push([key.as_slice(), b": ", value].concat()),
        }
    }
    [headers, cookies, parameters]
}

/// Percent escapes decoded, as an upstream does before it looks for a name.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = match after {
            [high, low, ..] if *first == b'%' => digit(high).zip(digit(low)),
            _ => None,
        };
        out.push(code.map_or(*first, |(high, low)| high << 4 | low));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out
}

fn name_of(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// Up to four places, each once.
fn places(input: &mut Input<'_>) -> Vec<TokenLocation> {
    let mut places = Vec::new();
    for _ in 0..=input.below(4) {
        let kind = input.byte();
        let name = input.pick(&NAMES).copied().unwrap_or("s").to_owned();
        let place = match kind % 5 {
            0 => TokenLocation::Header {
                name: "authorization".to_owned(),
                scheme: Some("Bearer".to_owned()),
            },
            1 => TokenLocation::Header { name: "x-api-key".to_owned(), scheme: None },
            2 | 3 => TokenLocation::Cookie(name),
            _ => TokenLocation::Query(name),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn map(input: &mut Input<'_>) -> Map {
    let mut map = Vec::new();
    while map.len() < HEADERS && !input.is_over() {
        let name = input.pick(&HEADER_NAMES).copied().unwrap_or_default();
        let mut value = Vec::new();
        for _ in 0..input.below(PIECES) {
            match input.byte() {
                0xff => value.extend_from_slice(input.chunk()),
                other => {
                    let index = usize::from(other) % PIECES_OF_VALUES.len();
                    value.extend_from_slice(
                        PIECES_OF_VALUES.get(index).copied().unwrap_or_default(),
                    );
                }
            }
        }
        map.push((name.to_vec(), value));
    }
    map
}

fn serialized(map: &Map) -> Vec<u8> {
    let entries: Vec<_> = map.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
    serialize(&entries)
}
