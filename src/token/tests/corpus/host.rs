//! What the host is asked, and what its answers can change.

use crate::read::{
    CORPUS, Verifiers, authentication, cases, hex, moment, name_of, now_of, token_of, word,
};
use policy::verify::{Checked, Hash, Signatures, Verify};
use serde_json::Value;
use token::Verifier;

/// A host that takes what it is asked as true when it was asked about that very signature.
#[derive(Clone)]
struct Host {
    hash: Hash,
    text: Vec<u8>,
    signature: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

impl Signatures for Host {
    fn check(&mut self, hash: Hash, spki: &[u8], signature: &[u8], text: &[u8]) -> Checked {
        assert_eq!(hash, self.hash);
        assert!(self.keys.iter().any(|key| key == spki), "an unknown key");
        if text == self.text && signature == self.signature {
            Checked::Genuine
        } else {
            Checked::Forged
        }
    }
}

fn public_keys() -> Vec<Vec<u8>> {
    let keys = CORPUS["spki"].as_array().unwrap().iter();
    keys.map(|key| hex(key["der"].as_str().unwrap())).collect()
}

#[test]
fn the_host_gets_the_key_the_hash_and_the_signature_that_openssl_writes() {
    let mut judged = 0;
    for case in cases().iter().filter(|case| case.get("host").is_some()) {
        let token = case["token"].as_str().unwrap();
        let hash = if name_of(case).contains("384") { Hash::Sha384 } else { Hash::Sha256 };
        let host = Host {
            hash,
            text: token.rsplit_once('.').unwrap().0.as_bytes().to_vec(),
            signature: hex(case["host"].as_str().unwrap()),
            keys: public_keys(),
        };
        let setup = &CORPUS["setups"][case["setup"].as_str().unwrap()];
        let mut verifier = Verifier::new(&authentication(setup), host).unwrap();
        let verdict = verifier.verify(token.as_bytes(), moment(now_of(case)));
        assert!(verdict.is_ok(), "{}: {verdict:?}", name_of(case));
        judged += 1;
    }
    assert!(judged >= 40, "{judged} cases only");
}

#[test]
fn rsa_signatures_go_to_the_host_as_they_are() {
    for (name, hash) in [("RS256", Hash::Sha256), ("RS384", Hash::Sha384), ("RS512", Hash::Sha512)]
    {
        let case = cases().iter().find(|case| case["kind"] == name).unwrap();
        let token = token_of(case);
        let text = token.rsplitn(2, |byte| *byte == b'.').last().unwrap().to_vec();
        let end = str::from_utf8(&token[text.len() + 1..]).unwrap();
        let signature = crate::read::base64url(end);
        let host = Host { hash, text, signature, keys: public_keys() };
        let mut verifiers = Verifiers::new(&host);
        assert!(verifiers.judge(case, &token).is_ok(), "{name}");
    }
}

/// A host with one answer for everything.
#[derive(Clone)]
struct Says(Checked);

impl Signatures for Says {
    fn check(&mut self, _: Hash, _: &[u8], _: &[u8], _: &[u8]) -> Checked {
        self.0
    }
}

/// Whether the host is asked about tokens of this case, going by what it is called.
fn is_for_the_host(case: &Value) -> bool {
    let name = name_of(case);
    ["RS256", "RS384", "RS512", "ES256", "ES384"].iter().any(|kind| {
        name.starts_with(&format!("good: {kind}")) || name.starts_with(&format!("alike: {kind}"))
    })
}

#[test]
fn what_the_host_calls_forged_is_never_accepted() {
    let mut verifiers = Verifiers::new(&Says(Checked::Forged));
    let mut judged = 0;
    for case in cases().iter().filter(|case| is_for_the_host(case)) {
        let verdict = verifiers.judge(case, &token_of(case));
        assert!(verdict.is_err(), "{case}");
        judged += 1;
    }
    assert!(judged >= 150, "{judged} cases only");
}

#[test]
fn a_host_that_calls_everything_genuine_changes_only_signature_verdicts() {
    let mut verifiers = Verifiers::new(&Says(Checked::Genuine));
    for case in cases() {
        let want = case["want"].as_str().unwrap();
        match verifiers.judge(case, &token_of(case)) {
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
fn a_host_that_calls_everything_genuine_is_not_asked_about_other_algorithms() {
    let mut verifiers = Verifiers::new(&Says(Checked::Genuine));
    let ours = ["HS256", "HS384", "HS512", "PS256", "PS384", "PS512", "EdDSA"];
    let mut judged = 0;
    for case in cases().iter().filter(|case| case["want"] != "accepted") {
        let name = name_of(case);
        if ours.iter().any(|kind| name.starts_with(&format!("forged: {kind}"))) {
            assert!(verifiers.judge(case, &token_of(case)).is_err(), "{name}");
            judged += 1;
        }
    }
    assert!(judged >= 70, "{judged} cases only");
}
