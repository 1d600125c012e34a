//! Target `jwks`: key sets, as they are fetched and as they stand in a policy.
//!
//! Nothing panics; a set that was taken has 1 to 64 keys. An input is a set as it came, or one put
//! together from known keys with members changed, which gets past the outer shape.

use crate::corpus::{Corpus, plain};
use crate::input::Input;
use policy::model::{Algorithm, AuthMode, Authentication, Keys, Provider, RemoteKeys, TokenCache};
use policy::time::Nanos;
use serde_json::{Map, Value};
use std::sync::OnceLock;
use token::{LoadError, NoHost, Verifier, check_set};

/// Most entries that an input puts together: beyond the bound of a set.
const ENTRIES: usize = 70;
/// Most changes to one entry.
const CHANGES: usize = 3;

/// Members that decide what a key is for.
const MEMBERS: [&str; 19] = [
    "kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "d", "p", "q", "k", "x5c",
    "x5t", "oth", "dp", "ext",
];
/// Values for them.
const VALUES: [&str; 22] = [
    "null",
    "true",
    "1",
    "\"\"",
    "[]",
    "{}",
    "\"RSA\"",
    "\"EC\"",
    "\"OKP\"",
    "\"oct\"",
    "\"sig\"",
    "\"enc\"",
    "[\"verify\"]",
    "[\"sign\"]",
    "\"P-256\"",
    "\"P-384\"",
    "\"Ed25519\"",
    "\"RS256\"",
    "\"ES384\"",
    "\"EdDSA\"",
    "\"AQAB\"",
    "\"AA\"",
];

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let chosen = u16::from_be_bytes([input.byte(), input.byte()]);
    let bits = |(index, _): &(usize, Algorithm)| chosen >> (index % 16) & 1 == 1;
    let algorithms = Algorithm::ALL.into_iter().enumerate().filter(bits).map(|(_, a)| a);
    let algorithms = algorithms.filter(|algorithm| !algorithm.is_hmac()).collect();
    let set = if input.byte().is_multiple_of(2) {
        input.rest().to_vec()
    } else {
        let set = Map::from_iter([("keys".to_owned(), Value::Array(entries(&mut input)))]);
        Value::Object(set).to_string().into_bytes()
    };
    check(algorithms, &set);
}

fn check(algorithms: Vec<Algorithm>, set: &[u8]) {
    let keys = Keys::Remote(RemoteKeys {
        cluster: "keys".to_owned(),
        host: "keys".to_owned(),
        path: "/".to_owned(),
        refresh: Nanos::SECOND,
        max_stale: Nanos::SECOND,
        timeout: Nanos::SECOND,
        cooldown: Nanos::SECOND,
    });
    let mut provider = Provider { algorithms, keys, ..plain("p".to_owned()) };
    let checked = check_set(&provider, set);
    if let Ok(loaded) = &checked {
        assert!((1..=64).contains(&loaded.used), "{} keys were taken", loaded.used);
    }
    match Verifier::new(&authentication(provider.clone()), NoHost) {
        Ok(mut verifier) => {
            let loaded = verifier.load(0, set);
            assert_eq!(
                loaded.is_ok(),
                checked.is_ok(),
                "who loads it finds what who checks it does"
            );
        }
        Err(mistakes) => assert!(provider.algorithms.is_empty(), "{mistakes:?}"),
    }
    if let Ok(Value::Object(map)) = serde_json::from_slice(set) {
        provider.keys = Keys::Inline(map);
        let strict = Verifier::new(&authentication(provider), NoHost);
        // A policy is read before it gets here, so a member twice is nobody's mistake any more.
        let same = checked.is_ok() || matches!(checked, Err(LoadError::NotAnObject));
        assert!(strict.is_err() || same, "taken from a policy, refused when fetched: {checked:?}");
    }
}

fn authentication(provider: Provider) -> Authentication {
    Authentication {
        mode: AuthMode::Required,
        public: Vec::new(),
        clock_skew: Nanos::ZERO,
        cache: TokenCache { max_entries: 0, ttl: Nanos::ZERO },
        providers: vec![provider],
        api_keys: None,
    }
}

/// Known keys with changes.
fn entries(input: &mut Input<'_>) -> Vec<Value> {
    static KNOWN: OnceLock<Vec<Value>> = OnceLock::new();
    let known = KNOWN.get_or_init(known);
    let mut entries = Vec::new();
    while entries.len() < ENTRIES && !input.is_over() {
        let mut entry = input.pick(known).cloned().unwrap_or_default();
        for _ in 0..input.below(CHANGES) {
            let member = input.pick(&MEMBERS).copied().unwrap_or_default().to_owned();
            let Value::Object(members) = &mut entry else { break };
            match input.byte() % 4 {
                0 => drop(members.remove(&member)),
                1 => {
                    let text = input.pick(&VALUES).copied().unwrap_or_default();
                    let value = serde_json::from_str(text).unwrap_or(Value::Null);
                    drop(members.insert(member, value));
                }
                2 => {
                    let text = String::from_utf8_lossy(input.chunk()).into_owned();
                    drop(members.insert(member, Value::String(text)));
                }
                _ => {
                    if let Some(Value::String(text)) = members.get_mut(&member) {
                        let mut bytes = std::mem::take(text).into_bytes();
                        let at = input.below(bytes.len());
                        let value = input.byte();
                        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
                        *text = String::from_utf8_lossy(&bytes).into_owned();
                    }
                }
            }
        }
        entries.push(entry);
    }
    entries
}

/// Every public key of the corpus.
fn known() -> Vec<Value> {
    let mut found = Vec::new();
    for provider in Corpus::read().setups.iter().flat_map(|setup| &setup.authentication.providers) {
        let Keys::Inline(set) = &provider.keys else { continue };
        let keys = set.get("keys").and_then(Value::as_array).map(Vec::as_slice);
        for key in keys.unwrap_or_default() {
            if !found.contains(key) {
                found.push(key.clone());
            }
        }
    }
    found
}
