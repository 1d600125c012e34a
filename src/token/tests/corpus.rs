//! Runs the tokens of `corpus.json`, which `corpus.py` has made without our code and without the
//! library that we verify with.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this is test code, also what is not marked as a test"
)]

use policy::model::{Algorithm, AuthMode, Authentication, Keys, Provider, Secret};
use policy::time::Nanos;
use policy::verify::{Checked, Hash, Signatures, TokenError, Verify};
use serde_json::Value;
use std::collections::BTreeMap;
use token::{NoHost, Verifier};

/// The whole file.
fn corpus() -> Value {
    serde_json::from_str(include_str!("corpus.json")).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// base64url, written again here because the crate's own is under test.
fn base64url(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let digit = DIGITS.iter().position(|one| *one == letter).unwrap();
        (bits, count) = (bits << 6 | u32::try_from(digit).unwrap(), count + 6);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    out
}

fn provider(index: usize, setup: &Value) -> Provider {
    let keys = match (&setup["keys"]["secret"], &setup["keys"]["jwks"]) {
        (Value::String(secret), _) => Keys::Secret(Secret::new(base64url(secret))),
        (_, Value::Object(set)) => Keys::Inline(set.clone()),
        _ => panic!("no keys in {setup}"),
    };
    let named = |name: &String| Algorithm::ALL.into_iter().find(|one| one.name() == name).unwrap();
    Provider {
        name: format!("p{index}"),
        issuer: setup["issuer"].as_str().map(str::to_owned),
        audiences: strings(&setup["audiences"]),
        algorithms: strings(&setup["algorithms"]).iter().map(named).collect(),
        keys,
        locations: Vec::new(),
        subject_claim: setup["subject_claim"].as_str().unwrap_or("sub").to_owned(),
        require_subject: setup["require_subject"].as_bool().unwrap_or(false),
        tier_claim: None,
        require_expiry: setup["require_expiry"].as_bool().unwrap(),
        max_lifetime: setup["max_lifetime"].as_u64().map(Nanos::from_secs),
        typ: setup["typ"].as_str().map(str::to_owned),
        forward_token: false,
        forward_claims: Vec::new(),
    }
}

fn authentication(setup: &Value) -> Authentication {
    let providers = setup["providers"].as_array().unwrap().iter().enumerate();
    Authentication {
        mode: AuthMode::Required,
        public: Vec::new(),
        clock_skew: Nanos::from_secs(setup["skew"].as_u64().unwrap_or(0)),
        providers: providers.map(|(index, setup)| provider(index, setup)).collect(),
    }
}

fn verifiers<S: Signatures + Clone>(corpus: &Value, host: &S) -> BTreeMap<String, Verifier<S>> {
    let setups = corpus["setups"].as_object().unwrap().iter();
    let made = setups.map(|(name, setup)| {
        let verifier = Verifier::new(&authentication(setup), host.clone());
        (name.clone(), verifier.unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}")))
    });
    made.collect()
}

fn cases(corpus: &Value) -> &[Value] {
    corpus["cases"].as_array().unwrap()
}

fn token_of(case: &Value) -> Vec<u8> {
    match &case["token"] {
        Value::String(token) => token.as_bytes().to_vec(),
        _ => hex(case["hex"].as_str().unwrap()),
    }
}

fn now_of(corpus: &Value, case: &Value) -> Nanos {
    Nanos::from_secs(case["now"].as_u64().or(corpus["now"].as_u64()).unwrap())
}

fn word(error: TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "malformed",
        TokenError::Expired => "expired",
        TokenError::NotYetValid => "not-yet-valid",
        TokenError::Untrusted => "untrusted",
        TokenError::KeysUnavailable => "keys-unavailable",
    }
}

/// What is different from what the case asks for.
fn complaint<S: Signatures>(
    corpus: &Value,
    case: &Value,
    verifier: &mut Verifier<S>,
) -> Option<String> {
    let want = case["want"].as_str().unwrap();
    let verdict = verifier.verify(&token_of(case), now_of(corpus, case));
    let name = format!("{}: {}", case["group"].as_str().unwrap(), case["name"].as_str().unwrap());
    let verified = match verdict {
        Err(error) => {
            let got = word(error);
            return (got != want).then(|| format!("{name}: want {want}, got {got}"));
        }
        Ok(verified) => verified,
    };
    if want != "accepted" {
        return Some(format!("{name}: want {want}, got accepted"));
    }
    if verified.provider as u64 != case["provider"].as_u64().unwrap_or(0) {
        return Some(format!("{name}: provider {}", verified.provider));
    }
    let subject = case.get("subject").map(|subject| subject.as_str().map(str::to_owned));
    if subject.is_some_and(|subject| subject != verified.subject) {
        return Some(format!("{name}: subject {:?}", verified.subject));
    }
    None
}

#[test]
fn every_token_of_the_corpus_gets_its_verdict() {
    let corpus = corpus();
    let mut verifiers = verifiers(&corpus, &NoHost);
    let complaints = cases(&corpus).iter().filter_map(|case| {
        let verifier = verifiers.get_mut(case["setup"].as_str().unwrap()).unwrap();
        complaint(&corpus, case, verifier)
    });
    let complaints: Vec<String> = complaints.collect();
    assert!(cases(&corpus).len() >= 700, "the corpus has shrunk");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A host that takes what it is asked as true when it was asked about that very signature.
#[derive(Clone)]
struct Host {
    expects: Vec<(Vec<u8>, Vec<u8>)>,
    keys: Vec<Vec<u8>>,
}

impl Signatures for Host {
    fn check(&mut self, hash: Hash, spki: &[u8], signature: &[u8], text: &[u8]) -> Checked {
        assert_eq!(hash, Hash::Sha256);
        assert!(self.keys.iter().any(|key| key == spki), "an unknown key");
        match self.expects.iter().find(|(expected, _)| expected == text) {
            Some((_, expected)) if expected == signature => Checked::Genuine,
            _ => Checked::Forged,
        }
    }
}

#[test]
fn the_host_gets_the_key_and_the_signature_that_openssl_writes() {
    let corpus = corpus();
    let keys = corpus["spki"].as_array().unwrap().iter();
    let keys: Vec<_> = keys.map(|key| hex(key["der"].as_str().unwrap())).collect();
    let mut judged = 0;
    for case in cases(&corpus).iter().filter(|case| case.get("host").is_some()) {
        let token = case["token"].as_str().unwrap();
        let text = token.rsplit_once('.').unwrap().0.as_bytes().to_vec();
        let signature = hex(case["host"].as_str().unwrap());
        let setup = &corpus["setups"][case["setup"].as_str().unwrap()];
        let host = Host { expects: vec![(text, signature)], keys: keys.clone() };
        let mut verifier = Verifier::new(&authentication(setup), host).unwrap();
        let verdict = verifier.verify(token.as_bytes(), now_of(&corpus, case));
        assert!(verdict.is_ok(), "{}: {verdict:?}", case["name"]);
        judged += 1;
    }
    assert!(judged >= 20, "{judged} cases only");
}

/// A host with one answer for everything.
#[derive(Clone)]
struct Says(Checked);

impl Signatures for Says {
    fn check(&mut self, _: Hash, _: &[u8], _: &[u8], _: &[u8]) -> Checked {
        self.0
    }
}

#[test]
fn what_the_host_calls_forged_is_never_accepted() {
    let corpus = corpus();
    let mut verifiers = verifiers(&corpus, &Says(Checked::Forged));
    let public = |case: &&Value| {
        ["rs", "es", "both", "rotating", "rfc-rs", "rfc-es"]
            .contains(&case["setup"].as_str().unwrap())
    };
    for case in cases(&corpus).iter().filter(public) {
        let verifier = verifiers.get_mut(case["setup"].as_str().unwrap()).unwrap();
        let verdict = verifier.verify(&token_of(case), now_of(&corpus, case));
        assert!(verdict.is_err(), "{case}");
    }
}

#[test]
fn a_host_that_calls_everything_genuine_changes_only_signature_verdicts() {
    let corpus = corpus();
    let mut verifiers = verifiers(&corpus, &Says(Checked::Genuine));
    for case in cases(&corpus) {
        let want = case["want"].as_str().unwrap();
        let verifier = verifiers.get_mut(case["setup"].as_str().unwrap()).unwrap();
        let verdict = verifier.verify(&token_of(case), now_of(&corpus, case));
        match verdict {
            // All that may be accepted beyond the corpus is what only a signature decides.
            Ok(_) => {
                assert!(["accepted", "untrusted"].contains(&want), "{case}");
                assert_ne!(case.get("form"), Some(&Value::Bool(true)), "{case}");
            }
            Err(error) => {
                let same = word(error) == want || want == "untrusted";
                assert!(same, "{error:?} for {case}");
            }
        }
    }
}

#[test]
fn no_single_bit_of_a_good_token_can_be_flipped() {
    let corpus = corpus();
    let mut verifiers = verifiers(&corpus, &NoHost);
    for case in cases(&corpus).iter().filter(|case| case.get("flip").is_some()) {
        let verifier = verifiers.get_mut(case["setup"].as_str().unwrap()).unwrap();
        let good = token_of(case);
        let now = now_of(&corpus, case);
        assert!(verifier.verify(&good, now).is_ok(), "{case}");
        // Public keys are slow without optimisation: there one bit of each letter, all in turn.
        let all = case["setup"] == "hs";
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            if all || at % 8 == bit {
                let mut bent = good.clone();
                bent[at] ^= 1 << bit;
                let verdict = verifier.verify(&bent, now);
                assert!(verdict.is_err(), "bit {bit} of letter {at}: {verdict:?}");
            }
        }
    }
}

/// A few edits of a token, from a seed that reproduces them.
fn edited(token: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    let mut bent = token.to_vec();
    for _ in 0..=next(3) {
        let (from, to) = (next(bent.len()), next(bent.len() + 1));
        match next(5) {
            0 => bent.insert(to, b".AQ=_-\0 e{\xff"[next(11)]),
            1 if !bent.is_empty() => drop(bent.remove(from)),
            2 => bent.extend_from_within(from.min(to)..from.max(to).min(from + 40)),
            3 => drop(bent.drain(from.min(to)..from.max(to).min(bent.len()))),
            _ if !bent.is_empty() => bent[from] = b"Aa0_-.z9"[next(8)],
            _ => {}
        }
    }
    bent
}

#[test]
fn edits_of_any_token_neither_stop_us_nor_make_a_new_good_one() {
    let corpus = corpus();
    let mut verifiers = verifiers(&corpus, &NoHost);
    let good: Vec<_> = cases(&corpus).iter().map(|case| (token_of(case), case)).collect();
    for (seed, (token, case)) in (0_u64..).zip(good.iter().cycle().take(20_000)) {
        let setup = case["setup"].as_str().unwrap();
        let verifier = verifiers.get_mut(setup).unwrap();
        let bent = edited(token, seed);
        let known = |(other, case): &(Vec<u8>, &Value)| *other == bent && case["setup"] == setup;
        if verifier.verify(&bent, now_of(&corpus, case)).is_ok() {
            assert!(good.iter().any(known), "seed {seed} of {case}");
        }
    }
}

#[test]
fn no_shorter_token_is_accepted() {
    let corpus = corpus();
    let mut verifiers = verifiers(&corpus, &NoHost);
    for case in cases(&corpus).iter().filter(|case| case.get("flip").is_some()) {
        let verifier = verifiers.get_mut(case["setup"].as_str().unwrap()).unwrap();
        let token = token_of(case);
        for length in 0..token.len() {
            let verdict = verifier.verify(&token[..length], now_of(&corpus, case));
            assert!(verdict.is_err(), "{length} letters of {case}");
        }
    }
}

#[test]
fn a_bad_set_of_keys_is_refused_with_the_path_of_each_mistake() {
    let corpus = corpus();
    for case in corpus["key_mistakes"].as_array().unwrap() {
        let setup = serde_json::json!({ "providers": [{
            "issuer": "https://i/", "audiences": ["me"], "require_expiry": true,
            "algorithms": ["RS256", "ES256"], "keys": { "jwks": { "keys": case["keys"] } },
        }]});
        let name = &case["name"];
        let mistakes = Verifier::new(&authentication(&setup), NoHost).err();
        let mistakes = mistakes.unwrap_or_else(|| panic!("{name} is taken"));
        let paths: Vec<String> = mistakes.iter().map(|mistake| mistake.path.clone()).collect();
        assert_eq!(paths, strings(&case["paths"]), "{name}: {mistakes:?}");
    }
}

#[test]
fn algorithms_and_keys_of_two_kinds_are_refused() {
    let corpus = corpus();
    let mut mixed = corpus["setups"]["hs"].clone();
    let mut path = |algorithms: &[&str], keys: &Value| {
        mixed["providers"][0]["algorithms"] = serde_json::json!(algorithms);
        mixed["providers"][0]["keys"] = keys.clone();
        let mistakes = Verifier::new(&authentication(&mixed), NoHost).err().unwrap_or_default();
        mistakes.iter().map(|mistake| mistake.path.clone()).collect::<Vec<_>>()
    };
    let secret = &corpus["setups"]["hs"]["providers"][0]["keys"];
    let public = &corpus["setups"]["both"]["providers"][0]["keys"];
    let at = "authentication.jwt.providers[0]";
    assert_eq!(path(&["HS256"], secret), Vec::<String>::new());
    assert_eq!(path(&["RS256"], secret), [format!("{at}.algorithms")]);
    assert_eq!(path(&["HS256", "ES256"], secret), [format!("{at}.algorithms")]);
    assert_eq!(path(&["HS256", "RS256"], public), [format!("{at}.algorithms")]);
    let unfit = &corpus["setups"]["rs"]["providers"][0]["keys"];
    assert_eq!(path(&["ES256"], unfit), [format!("{at}.keys.jwks_inline.keys")]);
    let short = serde_json::json!({ "secret": "c2hvcnQ" });
    assert_eq!(path(&["HS256"], &short), [format!("{at}.keys.secret")]);
}
