//! Target `path`: patterns, and the many spellings of one path.
//!
//! Nothing panics; a path that a pattern means is still seen as that path, or as one that servers
//! may read differently, when it is spelled in another way.

use crate::input::Input;
use policy::facts::Facts;
use policy::headers::{Headers, serialize};
use policy::pattern::PathPattern;

/// Most segments of a path, and most changes to its spelling.
const SEGMENTS: usize = 5;
const CHANGES: usize = 4;

/// What segments are made of.
const WORDS: [&str; 10] =
    ["api", "samples", "Admin", "a", "b.c", "..d", "~x", "%41", "\u{fc}", "7"];

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte().is_multiple_of(2) {
        arbitrary(&mut input);
    } else {
        spelled(&mut input);
    }
}

/// Any pattern on any path.
fn arbitrary(input: &mut Input<'_>) {
    let pattern = String::from_utf8_lossy(input.chunk()).into_owned();
    let path = input.rest();
    with_facts(path, |facts| {
        let _ = facts.is_path_canonical();
        assert!(!facts.path().contains(&b'?'), "the query is no part of the path");
        if let Ok(pattern) = PathPattern::parse(&pattern) {
            let _ = pattern.matches(facts.path());
        }
    });
}

/// A pattern, a path that it means, and another spelling of that path.
fn spelled(input: &mut Input<'_>) {
    let (mut pattern, mut path) = (String::new(), String::new());
    for _ in 0..=input.below(SEGMENTS) {
        let word = input.pick(&WORDS).copied().unwrap_or("a");
        path = format!("{path}/{word}");
        pattern = match input.byte() % 4 {
            0 => format!("{pattern}/*"),
            1 => format!("{pattern}/{{id}}"),
            _ => format!("{pattern}/{word}"),
        };
    }
    if input.byte().is_multiple_of(3) {
        pattern.push_str("/**");
    }
    let Ok(rule) = PathPattern::parse(&pattern) else { return };
    assert!(rule.matches(path.as_bytes()), "{pattern} means {path}");
    let other = respelled(path.into_bytes(), input);
    with_facts(&other, |facts| {
        let text = String::from_utf8_lossy(&other);
        let seen = rule.matches(facts.path()) || !facts.is_path_canonical();
        assert!(seen || plainly(&other), "{pattern} does not see {text}");
    });
}

/// Spellings that are left to the readings of the authorization.
fn plainly(path: &[u8]) -> bool {
    path.contains(&b'%') || path.iter().any(u8::is_ascii_alphabetic)
}

/// Another spelling that a lenient server reads as the same path.
fn respelled(mut path: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    for _ in 0..input.below(CHANGES) {
        let slashes: Vec<usize> =
            path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).collect();
        let kind = input.byte();
        let slash = input.pick(&slashes).copied().unwrap_or(0);
        let at = input.below(path.len());
        let insert = |path: &mut Vec<u8>, at: usize, text: &[u8]| {
            path.splice(at..at, text.iter().copied());
        };
        match kind % 10 {
            0 => insert(&mut path, slash, b"/"),
            1 => insert(&mut path, slash, b"/."),
            2 => insert(&mut path, slash, b"/x/.."),
            3 if slash > 0 => insert(&mut path, slash, b";v=1"),
            4 if slash > 0 => path.splice(slash..=slash, *b"\\").for_each(drop),
            5 if slash > 0 => path.splice(slash..=slash, *b"%2f").for_each(drop),
            6 => path.extend_from_slice(b";x"),
            7 => path.extend_from_slice(b"/"),
            8 => path.iter_mut().skip(at).take(1).for_each(|byte| {
                if byte.is_ascii_alphabetic() {
                    *byte ^= 0x20;
                }
            }),
            _ => {
                if let Some(byte) = path.get(at).copied().filter(|b| !b"/%".contains(b)) {
                    let code =
                        if kind < 128 { format!("%{byte:02x}") } else { format!("%{byte:02X}") };
                    path.splice(at..=at, code.into_bytes()).for_each(drop);
                }
            }
        }
    }
    path
}

fn with_facts(path: &[u8], look: impl FnOnce(&Facts<'_>)) {
    let bytes = serialize(&[(b":path", path)]);
    look(&Facts { headers: Headers::new(&bytes), client: None, service: None });
}
