//! Target `token`: `token::Verifier` on arbitrary bytes and on changed tokens.
//!
//! It never panics, and what it accepts is, byte by byte, a token that somebody with the key has
//! signed. The first byte chooses the providers, the second one what becomes of the rest: a token as
//! it stands, a known token with changes, or segments of several known tokens.

use crate::corpus::{Case, Corpus, base64url};
use crate::input::Input;
use policy::time::Moment;
use policy::verify::Verify as _;
use std::cell::RefCell;
use std::collections::BTreeSet;
use token::{NoHost, Verifier};

/// Most changes to one token; beyond a few nothing of the token is left.
const CHANGES_MAX: usize = 6;

/// Values of `alg` that a provider might be talked into.
const ALGORITHMS: [&str; 16] = [
    "none", "None", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384",
    "PS512", "ES256", "ES384", "ES256K", "EdDSA", "",
];

/// Members that change what a token means, for the front of an object.
const MEMBERS: [&str; 14] = [
    r#""alg":"none","#,
    r#""alg":"HS256","#,
    r#""\u0061lg":"HS256","#,
    r#""crit":["b64"],"b64":false,"#,
    r#""crit":[],"#,
    r#""jwk":{"kty":"oct","k":""},"#,
    r#""kid":"","#,
    r#""kid":null,"#,
    r#""zip":"DEF","#,
    r#""exp":99999999999,"#,
    r#""exp":1e400,"#,
    r#""aud":["me"],"#,
    r#""iss":"https://i/","#,
    " ",
];

/// The verifiers, and what may be accepted.
struct World {
    setups: Vec<(Verifier<NoHost>, Vec<Case>)>,
    signed: Signed,
}

/// What the corpus's issuer signed.
struct Signed {
    /// Genuine tokens as they are.
    tokens: BTreeSet<Vec<u8>>,
    /// Their headers and payloads, each with the length of its signature.
    inputs: BTreeSet<(Vec<u8>, usize)>,
    /// All tokens in one text, spoilt ones too: those whose signature was lengthened or put on other
    /// claims still hold the one that the issuer made.
    everything: Vec<u8>,
}

impl Signed {
    fn new<'a>(cases: impl Iterator<Item = &'a Case>) -> Self {
        let (mut tokens, mut inputs) = (BTreeSet::new(), BTreeSet::new());
        let mut everything = Vec::new();
        for case in cases {
            everything.extend_from_slice(&case.token);
            everything.push(b' ');
            if case.is_genuine {
                inputs
                    .extend(halves(&case.token).map(|(input, made)| (input.to_vec(), made.len())));
                tokens.insert(case.token.clone());
            }
        }
        Self { tokens, inputs, everything }
    }

    /// Whether the issuer signed this very header and payload, and made this very signature. A fuzzer
    /// that mends a spoilt token has made a good one.
    fn has(&self, token: &[u8]) -> bool {
        self.tokens.contains(token)
            || halves(token).is_some_and(|(input, signature)| {
                let made = |window: &[u8]| window == signature;
                self.inputs.contains(&(input.to_vec(), signature.len()))
                    && !signature.is_empty()
                    && self.everything.windows(signature.len()).any(made)
            })
    }
}

/// A token's signed text and its signature.
fn halves(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = token.iter().rposition(|byte| *byte == b'.')?;
    let (input, signature) = token.split_at_checked(at)?;
    Some((input, signature.strip_prefix(b".")?))
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

impl World {
    fn new() -> Self {
        let corpus = Corpus::read();
        let signed = Signed::new(corpus.setups.iter().flat_map(|setup| &setup.cases));
        let setups = corpus.setups.into_iter().map(|setup| {
            let verifier = Verifier::new(&setup.authentication, NoHost);
            let verifier = verifier.unwrap_or_else(|mistakes| panic!("corpus.json: {mistakes:?}"));
            (verifier, setup.cases)
        });
        Self { setups: setups.collect(), signed }
    }
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    WORLD.with_borrow_mut(|World { setups, signed }| {
        let index = input.below(setups.len());
        let Some((verifier, cases)) = setups.get_mut(index) else { return };
        let now = |case: Option<&Case>| case.map_or_else(Moment::default, |case| case.now);
        let (token, now) = match input.byte() % 3 {
            0 => (input.rest().to_vec(), now(cases.first())),
            1 => {
                let case = input.pick(cases);
                let token = case.map(|case| case.token.clone()).unwrap_or_default();
                (changed(token, cases, &mut input), now(case))
            }
            _ => (spliced(cases, &mut input), now(cases.first())),
        };
        if let Ok(verified) = verifier.verify(&token, now) {
            let text = String::from_utf8_lossy(&token);
            assert!(signed.has(&token), "accepted, but nobody signed it: {text}");
            let issuer = verified.claims.get("iss");
            assert!(issuer.is_none_or(serde_json::Value::is_string), "an issuer is text: {text}");
        }
    });
}

/// A token whose segments are of different tokens.
fn spliced(cases: &[Case], input: &mut Input<'_>) -> Vec<u8> {
    let mut segments = Vec::new();
    for place in 0..3 {
        let token = input.pick(cases).map(|case| case.token.as_slice()).unwrap_or_default();
        segments.push(token.split(|byte| *byte == b'.').nth(place).unwrap_or_default());
    }
    segments.join(&b'.')
}

/// Applies changes as the input says.
fn changed(mut token: Vec<u8>, cases: &[Case], input: &mut Input<'_>) -> Vec<u8> {
    for _ in 0..CHANGES_MAX {
        if input.is_over() {
            break;
        }
        let kind = input.byte();
        token = match kind % 4 {
            0 => text_changed(token, kind / 4, input),
            1 | 2 => {
                in_segment(&token, input, |inner, input| inner_changed(inner, kind / 4, input))
            }
            _ => {
                let other = input.pick(cases).map(|case| case.token.as_slice()).unwrap_or_default();
                let place = input.below(3);
                let theirs = other.split(|byte| *byte == b'.').nth(place).unwrap_or_default();
                with_segment(&token, place, |_| theirs.to_vec())
            }
        };
    }
    token
}

/// Changes bytes, whatever they stand for.
fn text_changed(mut bytes: Vec<u8>, kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let at = input.below(bytes.len());
    match kind % 8 {
        0 => {
            let mask = 1 << (input.byte() % 8);
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
        }
        1 => {
            let value = input.byte();
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
        }
        2 => bytes.insert(at, input.byte()),
        3 => {
            let end = at.saturating_add(1 + input.below(4)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => bytes.truncate(at),
        5 => bytes.extend_from_slice(input.chunk()),
        6 => {
            let piece: Vec<u8> = bytes.iter().skip(at).take(input.below(64)).copied().collect();
            let place = input.below(bytes.len());
            bytes.splice(place..place, piece);
        }
        _ => bytes.push([b'=', b'.', b'A', b' '].get(input.below(4)).copied().unwrap_or(b'=')),
    }
    bytes
}

/// Changes what a segment means: a member in front, another algorithm, or its bytes.
fn inner_changed(bytes: Vec<u8>, kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    match kind % 4 {
        0 => {
            let member = input.pick(&MEMBERS).copied().unwrap_or_default();
            let object = bytes.strip_prefix(b"{").unwrap_or(&bytes);
            [b"{", member.as_bytes(), object].concat()
        }
        1 => {
            let name = input.pick(&ALGORITHMS).copied().unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let known = ALGORITHMS
                .iter()
                .find(|known| !known.is_empty() && text.contains(&format!("\"{known}\"")));
            match known {
                Some(known) => text.replacen(known, name, 1).into_bytes(),
                None => bytes,
            }
        }
        kind => text_changed(bytes, kind.wrapping_mul(64).wrapping_add(input.byte()), input),
    }
}

/// Changes one decoded segment; one that is no base64url stays.
fn in_segment(
    token: &[u8],
    input: &mut Input<'_>,
    change: impl FnOnce(Vec<u8>, &mut Input<'_>) -> Vec<u8>,
) -> Vec<u8> {
    let place = input.below(3);
    with_segment(token, place, |segment| match base64url::decode(segment) {
        Some(inner) => base64url::encode(&change(inner, input)),
        None => segment.to_vec(),
    })
}

/// The token with this segment replaced.
fn with_segment(token: &[u8], place: usize, make: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut segments: Vec<Vec<u8>> = token.split(|b| *b == b'.').map(<[u8]>::to_vec).collect();
    if let Some(segment) = segments.get_mut(place) {
        *segment = make(segment);
    }
    segments.join(&b'.')
}
