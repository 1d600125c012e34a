//! Keys: what a policy may hold, what may be handed over, and what a token then finds.

use crate::read::{CORPUS, algorithms, authentication, hex, moment, now_of, remote, strings};
use policy::model::{Algorithm, Authentication, Keys, Secret, SecretSource};
use policy::verify::{TokenError, Verify};
use serde_json::{Value, json};
use token::{LoadError, Loaded, NoHost, SET_BYTES_MAX, Verifier, check_set};

/// One provider that takes these algorithms.
fn alone(names: &Value, keys: Keys) -> Authentication {
    let setup = json!({ "providers": [{
        "issuer": "https://i/", "audiences": ["me"], "require_expiry": true,
        "algorithms": names, "keys": { "secret": "" },
    }]});
    let mut alone = authentication(&setup);
    alone.providers[0].keys = keys;
    alone
}

/// The provider of the setup `algorithms` for one of them, with its keys taken out of the policy.
fn provider_for(name: &str, keys: Keys) -> (Authentication, Value) {
    let setup = &CORPUS["setups"]["algorithms"];
    let providers = setup["providers"].as_array().unwrap();
    let one = providers.iter().find(|one| one["algorithms"] == json!([name])).unwrap();
    let mut alone = authentication(&json!({ "providers": [one] }));
    alone.providers[0].keys = keys;
    (alone, one["keys"].clone())
}

fn good(name: &str) -> (&'static [u8], policy::time::Moment) {
    let cases = CORPUS["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["kind"] == name).unwrap();
    (case["token"].as_str().unwrap().as_bytes(), moment(now_of(case)))
}

#[test]
fn a_bad_set_of_keys_is_refused_with_the_path_of_each_mistake() {
    for case in CORPUS["key_mistakes"].as_array().unwrap() {
        let set = json!({ "keys": case["keys"] }).as_object().cloned().unwrap();
        let name = &case["name"];
        let mistakes = Verifier::new(&alone(&case["algorithms"], Keys::Inline(set)), NoHost).err();
        let mistakes = mistakes.unwrap_or_else(|| panic!("{name} is taken"));
        let paths: Vec<String> = mistakes.iter().map(|mistake| mistake.path.clone()).collect();
        assert_eq!(paths, strings(&case["paths"]), "{name}: {mistakes:?}");
    }
}

fn word(error: &LoadError) -> &'static str {
    match error {
        LoadError::NotLoadable => "NotLoadable",
        LoadError::SecretTooShort { .. } => "SecretTooShort",
        LoadError::TooLarge { .. } => "TooLarge",
        LoadError::NotAnObject => "NotAnObject",
        LoadError::NoList => "NoList",
        LoadError::TooMany { .. } => "TooMany",
        LoadError::NoneUsable(_) => "NoneUsable",
    }
}

#[test]
fn a_set_that_is_handed_over_is_read_entry_by_entry() {
    for case in CORPUS["sets"].as_array().unwrap() {
        let name = &case["name"];
        let bytes = match case["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => hex(case["hex"].as_str().unwrap()),
        };
        let alone = alone(&case["algorithms"], remote());
        let checked = check_set(&alone.providers[0], &bytes);
        let mut verifier = Verifier::new(&alone, NoHost).unwrap();
        assert_eq!(verifier.load(0, &bytes), checked, "{name}");
        match checked {
            Err(error) => assert_eq!(case["error"], word(&error), "{name}: {error}"),
            Ok(loaded) => {
                assert_eq!(case["used"], loaded.used, "{name}: {loaded:?}");
                assert_eq!(case["for_others"], loaded.for_others, "{name}: {loaded:?}");
                let paths: Vec<_> = loaded.left_out.into_iter().map(|one| one.path).collect();
                assert_eq!(paths, strings(&case["left_out"]), "{name}");
            }
        }
    }
}

#[test]
fn a_set_above_256_kib_is_refused_whatever_it_holds() {
    let (alone, keys) = provider_for("ES256", remote());
    let text = keys["jwks"].to_string();
    let fill = |length: usize| [text.as_bytes(), &vec![b' '; length - text.len()]].concat();
    assert!(check_set(&alone.providers[0], &fill(SET_BYTES_MAX)).is_ok());
    let bytes = SET_BYTES_MAX + 1;
    let refused = check_set(&alone.providers[0], &fill(bytes));
    assert_eq!(refused, Err(LoadError::TooLarge { bytes }));
}

#[test]
fn every_algorithm_is_served_once_its_keys_came_and_until_they_are_forgotten() {
    for algorithm in Algorithm::ALL {
        let name = algorithm.name();
        let keys = if algorithm.is_hmac() {
            Keys::Secret(SecretSource::File("/secret".into()))
        } else {
            Keys::File("/keys.json".into())
        };
        let (alone, keys) = provider_for(name, keys);
        let bytes = match keys["secret"].as_str() {
            Some(secret) => crate::read::base64url(secret),
            None => keys["jwks"].to_string().into_bytes(),
        };
        let mut verifier = Verifier::new(&alone, NoHost).unwrap();
        let (token, now) = good(name);
        let unavailable = Some(TokenError::KeysUnavailable { provider: 0 });
        assert_eq!(verifier.verify(token, now).err(), unavailable, "{name}");
        let loaded = verifier.load(0, &bytes).unwrap();
        assert_eq!(loaded, Loaded { used: 1, for_others: 0, left_out: Vec::new() });
        assert_eq!(verifier.verify(token, now).err(), None, "{name}");
        verifier.forget(0);
        assert_eq!(verifier.verify(token, now).err(), unavailable, "{name}");
    }
}

fn token_called(name: &str) -> Vec<u8> {
    let cases = CORPUS["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == name).unwrap();
    case["token"].as_str().unwrap().as_bytes().to_vec()
}

/// A verifier for rotating keys, and tokens by the first two of them.
fn rotating() -> (Verifier<NoHost>, Vec<Value>, [Vec<u8>; 2]) {
    let providers = CORPUS["setups"]["rules"]["providers"].as_array().unwrap();
    let one = providers.iter().find(|one| one["issuer"] == "https://rotating/").unwrap();
    let mut alone = authentication(&json!({ "providers": [one] }));
    alone.providers[0].keys = remote();
    let keys = one["keys"]["jwks"]["keys"].as_array().unwrap().clone();
    let tokens = ["old key", "new key"].map(token_called);
    (Verifier::new(&alone, NoHost).unwrap(), keys, tokens)
}

fn set(keys: &[&Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

#[test]
fn a_rotation_is_followed_and_an_old_key_ends_with_its_set() {
    let (mut verifier, keys, [old, new]) = rotating();
    let now = moment(CORPUS["now"].as_u64().unwrap());
    let unknown = Some(TokenError::UnknownKey { provider: 0 });
    for (present, of_old, of_new) in [
        (vec![&keys[0]], None, unknown),
        (vec![&keys[0], &keys[1]], None, None),
        (vec![&keys[1]], unknown, None),
    ] {
        verifier.load(0, &set(&present)).unwrap();
        assert_eq!(verifier.verify(&old, now).err(), of_old, "{present:?}");
        assert_eq!(verifier.verify(&new, now).err(), of_new, "{present:?}");
    }
}

#[test]
fn a_broken_or_empty_answer_never_replaces_good_keys() {
    let (mut verifier, keys, [old, _]) = rotating();
    let now = moment(CORPUS["now"].as_u64().unwrap());
    verifier.load(0, &set(&[&keys[0]])).unwrap();
    for bad in [b"".as_slice(), b"<html>", b"{}", b"{\"keys\":[]}", b"{\"keys\":[{}]}", b"null"] {
        assert!(verifier.load(0, bad).is_err());
        assert_eq!(verifier.verify(&old, now).err(), None);
    }
}

#[test]
fn only_a_name_that_no_key_has_asks_for_a_newer_set() {
    let (mut verifier, keys, [old, new]) = rotating();
    let now = moment(CORPUS["now"].as_u64().unwrap());
    verifier.load(0, &set(&[&keys[0]])).unwrap();
    // The header of one and the signature of the other: a known name, a bad signature.
    let parts = |token: &[u8]| -> Vec<Vec<u8>> {
        token.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect()
    };
    let (known, other) = (parts(&old), parts(&new));
    let forged = [known[0].clone(), known[1].clone(), other[2].clone()].join(&b'.');
    assert_eq!(verifier.verify(&forged, now).err(), Some(TokenError::Untrusted));
    // A name that is here for another algorithm.
    let mut elsewhere = keys[1].clone();
    elsewhere["alg"] = json!("PS256");
    let (mut both, _) = provider_for("RS256", remote());
    both.providers[0].issuer = Some("https://rotating/".into());
    both.providers[0].algorithms.push(Algorithm::Ps256);
    let mut verifier = Verifier::new(&both, NoHost).unwrap();
    verifier.load(0, &set(&[&keys[0], &elsewhere])).unwrap();
    assert_eq!(verifier.verify(&new, now).err(), Some(TokenError::Untrusted));
    // A token that names no key.
    let nameless = token_called("no kid, several");
    verifier.load(0, &set(&[&keys[0], &keys[1]])).unwrap();
    assert_eq!(verifier.verify(&nameless, now).err(), Some(TokenError::Untrusted));
}

#[test]
fn a_token_that_no_key_could_make_good_asks_for_no_newer_set() {
    let (mut verifier, keys, [_, new]) = rotating();
    let now = moment(CORPUS["now"].as_u64().unwrap());
    verifier.load(0, &set(&[&keys[0]])).unwrap();
    let unknown = Some(TokenError::UnknownKey { provider: 0 });
    assert_eq!(verifier.verify(&new, now).err(), unknown);
    for name in ["new key, expired", "new key, for somebody else"] {
        let verdict = verifier.verify(&token_called(name), now);
        assert_eq!(verdict.err(), Some(TokenError::Untrusted), "{name}");
    }
}

#[test]
fn a_secret_from_a_file_loses_one_line_end_and_is_as_long_as_its_hash() {
    for (name, least) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        let file = Keys::Secret(SecretSource::File("/secret".into()));
        let (alone, keys) = provider_for(name, file);
        let secret = crate::read::base64url(keys["secret"].as_str().unwrap());
        let (token, now) = good(name);
        for (end, fits) in
            [("", true), ("\n", true), ("\r\n", true), ("\r", false), ("\n\n", false)]
        {
            let mut verifier = Verifier::new(&alone, NoHost).unwrap();
            verifier.load(0, &[secret.as_slice(), end.as_bytes()].concat()).unwrap();
            assert_eq!(verifier.verify(token, now).is_ok(), fits, "{name} {end:?}");
        }
        let mut verifier = Verifier::new(&alone, NoHost).unwrap();
        let bytes = least - 1;
        let short = verifier.load(0, &secret[..bytes]);
        assert_eq!(short, Err(LoadError::SecretTooShort { bytes, least }));
        let short = [&secret[..bytes], b"\n"].concat();
        assert!(verifier.load(0, &short).is_err(), "a line end is no part of a secret");
    }
}

#[test]
fn what_stands_in_the_policy_is_neither_loaded_nor_forgotten() {
    let setup = &CORPUS["setups"]["algorithms"];
    let mut verifier = Verifier::new(&authentication(setup), NoHost).unwrap();
    let providers = setup["providers"].as_array().unwrap();
    for (index, provider) in providers.iter().enumerate() {
        let bytes = provider["keys"]["jwks"].to_string();
        assert_eq!(verifier.load(index, bytes.as_bytes()), Err(LoadError::NotLoadable));
        verifier.forget(index);
        let (token, now) = good(provider["algorithms"][0].as_str().unwrap());
        assert!(verifier.verify(token, now).is_ok(), "{provider}");
    }
    assert_eq!(verifier.load(providers.len(), b"{}"), Err(LoadError::NotLoadable));
    verifier.forget(providers.len());
}

#[test]
fn algorithms_and_keys_of_two_kinds_are_refused() {
    let path = |names: &[&str], keys: Keys| {
        let mistakes = Verifier::new(&alone(&json!(names), keys), NoHost).err().unwrap_or_default();
        mistakes.iter().map(|mistake| mistake.path.clone()).collect::<Vec<_>>()
    };
    let secret = |bytes: usize| Keys::Secret(SecretSource::Known(Secret::new(vec![b'x'; bytes])));
    let file = || Keys::Secret(SecretSource::File("/secret".into()));
    let public = || {
        let set = &CORPUS["setups"]["rules"]["providers"][1]["keys"]["jwks"];
        Keys::Inline(set.as_object().cloned().unwrap())
    };
    let at = "authentication.jwt.providers[0]";
    let of_algorithms = [format!("{at}.algorithms")];
    for algorithm in Algorithm::ALL {
        let name = algorithm.name();
        let (with_secret, with_public) = if algorithm.is_hmac() { (0, 1) } else { (1, 0) };
        for (keys, wrong) in [
            (secret(64), with_secret),
            (file(), with_secret),
            (public(), with_public),
            (remote(), with_public),
            (Keys::File("/keys".into()), with_public),
        ] {
            assert_eq!(path(&[name], keys), of_algorithms[..wrong], "{name}");
        }
    }
    assert_eq!(path(&["HS256", "ES256"], secret(64)), of_algorithms);
    assert_eq!(path(&["ES256", "HS256"], public()), of_algorithms);
    let of_secret = [format!("{at}.keys.secret")];
    for (names, least) in
        [(&["HS256"][..], 32), (&["HS384"], 48), (&["HS512"], 64), (&["HS256", "HS512"], 64)]
    {
        assert_eq!(path(names, secret(least)), of_secret[..0], "{names:?}");
        assert_eq!(path(names, secret(least - 1)), of_secret, "{names:?}");
    }
    let names = algorithms(&json!(["RS256"]));
    assert_eq!(names, [Algorithm::Rs256]);
}
