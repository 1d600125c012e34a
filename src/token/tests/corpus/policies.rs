//! The setups as policies: whoever sends the tokens to a running gateway can say what they need.

use crate::read::{CORPUS, base64url, cases, moment, name_of, now_of, token_of};
use policy::config::{self, Environment};
use policy::model::{Authentication, Keys, SecretSource};
use policy::verify::Verify;
use serde_json::{Map, Value, json};
use token::{NoHost, Verifier};

/// A setup in the words of a policy; secrets that are no text stand in a file.
fn policy_of(setup: &Value) -> Value {
    let providers: Vec<Value> = setup["providers"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, provider)| {
            let mut written = Map::new();
            written.insert("name".into(), json!(format!("p{index}")));
            for name in ["issuer", "audiences", "typ", "algorithms", "subject_claim"] {
                if provider.get(name).is_some_and(|value| !value.is_null() && *value != json!([])) {
                    written.insert(name.into(), provider[name].clone());
                }
            }
            for name in ["require_expiry", "require_subject"] {
                if let Some(truth) = provider.get(name) {
                    written.insert(name.into(), truth.clone());
                }
            }
            if let Some(seconds) = provider["max_lifetime"].as_u64() {
                written.insert("max_lifetime".into(), json!(format!("{seconds}s")));
            }
            let keys = match provider["keys"]["secret"].as_str() {
                None => json!({ "jwks_inline": provider["keys"]["jwks"] }),
                Some(secret) => match String::from_utf8(base64url(secret)) {
                    Ok(text) => json!({ "secret": { "inline_secret": text } }),
                    Err(_) => json!({ "secret": { "file": "/run/secrets/key" } }),
                },
            };
            written.insert("keys".into(), keys);
            Value::Object(written)
        })
        .collect();
    json!({
        "version": 1,
        "sidecar": { "cluster": "sidecar", "token": { "inline_secret": "a".repeat(32) } },
        "authentication": { "jwt": {
            "clock_skew": format!("{}s", setup["skew"].as_u64().unwrap_or(0)),
            "providers": providers,
        }},
    })
}

fn verifier_of(setup: &Value, authentication: &Authentication) -> Verifier<NoHost> {
    let mut verifier = Verifier::new(authentication, NoHost).unwrap();
    for (index, provider) in authentication.providers.iter().enumerate() {
        if matches!(provider.keys, Keys::Secret(SecretSource::File(_))) {
            let secret = setup["providers"][index]["keys"]["secret"].as_str().unwrap();
            verifier.load(index, &base64url(secret)).unwrap();
        }
    }
    verifier
}

#[test]
fn every_setup_can_be_a_policy_and_good_tokens_are_good_there() {
    let mut policies = 0;
    for (name, setup) in CORPUS["setups"].as_object().unwrap() {
        if setup["policy"] == json!(false) {
            continue;
        }
        let read = config::read(&policy_of(setup), Environment::Unknown);
        let policy = read.unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}"));
        let mut verifier = verifier_of(setup, policy.authentication.as_ref().unwrap());
        let good = cases().iter().filter(|case| case["setup"] == name.as_str());
        for case in good.filter(|case| case["want"] == "accepted") {
            let verified = verifier.verify(&token_of(case), moment(now_of(case)));
            let provider = case["provider"].as_u64().unwrap_or(0);
            assert_eq!(verified.unwrap().provider as u64, provider, "{}", name_of(case));
        }
        policies += 1;
    }
    assert_eq!(policies, 7);
}
