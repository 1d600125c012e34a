//! Target `path`: patterns, and the many spellings of one path.
//!
//! Nothing panics. A path that a rule restricts cannot be spelled so that a lenient server reads the
//! same path and the rule does not see it, whatever other rules stand before it; neither can a path
//! that asks for a credential be spelled as a public one.

use crate::input::Input;
use policy::config::{Environment, read as read_policy};
use policy::event::Event;
use policy::facts::Facts;
use policy::headers::{Headers, serialize};
use policy::model::{
    Access, AuthMode, Authentication, Authorization, Mode, Policy, Rule, SecretSource, TokenCache,
};
use policy::path::read;
use policy::pattern::PathPattern;
use policy::reply::Edits;
use policy::stage::authenticate::authenticate;
use policy::stage::authorize::authorize;
use policy::stage::limit::Leases;
use policy::stage::{Means, Pause, Reports};
use policy::store::{Store, StoreError, Swap, Versioned};
use policy::sync::BanMade;
use policy::time::{Moment, Nanos};
use policy::verify::{Secrets, TokenError, Verified, Verify};
use serde_json::json;
use std::cell::RefCell;
use token::Sha;

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
            let _ = read(facts.path()).readings().filter(|one| pattern.fits(*one)).count();
        }
    });
}

/// Rules, a path that the last one restricts, and another spelling of that path.
fn spelled(input: &mut Input<'_>) {
    let mut open: Vec<PathPattern> = (0..input.below(3))
        .filter_map(|_| PathPattern::parse(&pattern_and_path(input).0).ok())
        .collect();
    let (pattern, path) = pattern_and_path(input);
    let Ok(rule) = PathPattern::parse(&pattern) else { return };
    assert!(rule.matches(path.as_bytes()), "{pattern} means {path}");
    let (other, case_changed) = respelled(path.clone().into_bytes(), input);
    let text = String::from_utf8_lossy(&other);
    if case_changed {
        // A policy that opens `/A` and restricts `/a` after it means to open what folds to both.
        let path = read(path.as_bytes());
        open.retain(|rule| !path.readings().any(|reading| rule.fits(reading)));
    }
    if is_denied(&open, &rule, path.as_bytes()) {
        assert!(is_denied(&open, &rule, &other), "{pattern} restricts {path} and not {text}");
    }
    if !is_public(&open, path.as_bytes()) {
        assert!(!is_public(&open, &other), "{path} is not public and {text} is");
    }
}

/// A pattern and a path that it means.
fn pattern_and_path(input: &mut Input<'_>) -> (String, String) {
    let (mut pattern, mut path) = (String::new(), String::new());
    for _ in 0..=input.below(SEGMENTS) {
        let word = input.pick(&WORDS).copied().unwrap_or("a");
        path = format!("{path}/{word}");
        pattern = match input.byte() % 6 {
            0 => format!("{pattern}/*"),
            1 => format!("{pattern}/{{id}}"),
            _ => format!("{pattern}/{word}"),
        };
    }
    if input.byte().is_multiple_of(4) {
        pattern.push_str("/**");
    }
    (pattern, path)
}

/// Whether somebody without permissions is denied, where the open rules come first.
fn is_denied(open: &[PathPattern], restricted: &PathPattern, path: &[u8]) -> bool {
    let rule = |path: &PathPattern, require| Rule {
        path: path.clone(),
        methods: Vec::new(),
        require,
        require_any: Vec::new(),
    };
    let mut rules: Vec<Rule> = open.iter().map(|path| rule(path, Vec::new())).collect();
    rules.push(rule(restricted, vec!["a:permission".to_owned()]));
    let settings = Authorization { mode: Mode::Enforce, default: Access::Allow, rules };
    with_facts(path, |facts| {
        with_means(None, |policy, means| {
            let identity = authenticate(policy, facts, means, &mut Edits::default(), NOW);
            let Ok(identity) = identity else { return true };
            authorize(Some(&settings), &identity, facts, &mut |_: Event<'_>| {}).is_err()
        })
    })
}

/// Whether a request without a credential passes.
fn is_public(public: &[PathPattern], path: &[u8]) -> bool {
    let settings = Authentication {
        mode: AuthMode::Required,
        public: public.to_vec(),
        clock_skew: Nanos::ZERO,
        cache: TokenCache { max_entries: 0, ttl: Nanos::ZERO },
        providers: Vec::new(),
        api_keys: None,
    };
    with_facts(path, |facts| {
        with_means(Some(settings), |policy, means| {
            authenticate(policy, facts, means, &mut Edits::default(), NOW).is_ok()
        })
    })
}

const NOW: Moment = Moment { monotonic: Nanos::SECOND, wall: Nanos::SECOND };

thread_local! {
    static POLICY: RefCell<Policy> = RefCell::new(
        read_policy(&json!({ "version": 1 }), Environment::Unknown)
            .unwrap_or_else(|mistakes| panic!("an empty policy: {mistakes:?}")),
    );
}

/// Runs the stages with everything that they may use and that nobody needs here.
fn with_means<T>(
    authentication: Option<Authentication>,
    run: impl FnOnce(&Policy, &mut Means<'_>) -> T,
) -> T {
    let mut means = Means {
        store: &mut Nothing,
        verify: &mut Nothing,
        digest: &Sha,
        secrets: &Nothing,
        random: &mut |bytes| bytes.fill(0),
        events: &mut |_: Event<'_>| {},
        reports: &mut Nothing,
        leases: &mut Leases::default(),
        seed: [1, 2],
        state_keys: None,
        load: 0,
        pause: Pause::Room,
    };
    POLICY.with_borrow_mut(|policy| {
        policy.authentication = authentication;
        run(policy, &mut means)
    })
}

/// No shared state, no keys, no secrets.
struct Nothing;

impl Store for Nothing {
    fn read(&mut self, _: &[u8]) -> Result<Option<Versioned>, StoreError> {
        Ok(None)
    }

    fn swap(&mut self, _: &[u8], _: &[u8], _: Option<u32>) -> Result<Swap, StoreError> {
        Err(StoreError::Unavailable)
    }
}

impl Reports for Nothing {
    fn limited(&mut self, _: &str, _: u64, _: &dyn Fn() -> Option<String>) {}

    fn banned(&mut self, _: BanMade) {}
}

impl Verify for Nothing {
    fn verify(&mut self, _: &[u8], _: Moment) -> Result<Verified, TokenError> {
        Err(TokenError::Untrusted)
    }
}

impl Secrets for Nothing {
    fn reveal<'a>(&'a self, _: &'a SecretSource) -> Option<&'a [u8]> {
        None
    }
}

/// Another spelling that a lenient server reads as the same path.
fn respelled(mut path: Vec<u8>, input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let mut case_changed = false;
    for _ in 0..input.below(CHANGES) {
        let slashes: Vec<usize> =
            path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).collect();
        let kind = input.byte();
        let slash = input.pick(&slashes).copied().unwrap_or(0);
        let at = input.below(path.len());
        let insert = |path: &mut Vec<u8>, at: usize, text: &[u8]| {
            path.splice(at..at, text.iter().copied());
        };
        match kind % 12 {
            0 => insert(&mut path, slash, b"/"),
            1 => insert(&mut path, slash, b"/."),
            2 => insert(&mut path, slash, b"/x/.."),
            3 if slash > 0 => insert(&mut path, slash, b";v=1"),
            4 if slash > 0 => path.splice(slash..=slash, *b"\\").for_each(drop),
            5 if slash > 0 => path.splice(slash..=slash, *b"%2f").for_each(drop),
            6 => path.extend_from_slice(b";x"),
            7 => path.extend_from_slice(b"/"),
            9 => path.extend_from_slice(b"%20."),
            10 => {
                // The full-width form of a letter, as three bytes of UTF-8.
                if let Some(byte) = path.get(at).copied().filter(u8::is_ascii_alphabetic) {
                    let wide = char::from_u32(u32::from(byte) + 0xfee0).unwrap_or('a');
                    path.splice(at..=at, wide.to_string().into_bytes()).for_each(drop);
                }
            }
            8 => path.iter_mut().skip(at).take(1).for_each(|byte| {
                if byte.is_ascii_alphabetic() {
                    *byte ^= 0x20;
                    case_changed = true;
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
    (path, case_changed)
}

fn with_facts<T>(path: &[u8], look: impl FnOnce(&Facts<'_>) -> T) -> T {
    let bytes = serialize(&[(b":method", b"GET"), (b":path", path)]);
    look(&Facts { headers: Headers::new(&bytes), client: None, service: None })
}
