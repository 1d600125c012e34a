//! The file, as the verifier takes it.

use policy::model::{
    Algorithm, AuthMode, Authentication, Keys, Provider, RemoteKeys, Secret, SecretSource,
    TokenCache,
};
use policy::time::{Moment, Nanos};
use policy::verify::{Signatures, TokenError, Verified, Verify};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use token::Verifier;

/// The whole file.
pub(crate) static CORPUS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../corpus.json")).unwrap());

pub(crate) fn cases() -> &'static [Value] {
    CORPUS["cases"].as_array().unwrap()
}

/// The cases of which no change may be accepted, one for each algorithm and some from RFCs.
pub(crate) fn unchangeable() -> impl Iterator<Item = &'static Value> {
    cases().iter().filter(|case| case.get("flip").is_some())
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.map(|text| text.as_str().unwrap().to_owned()).collect()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// base64url, written again here because the crate's own is under test.
pub(crate) fn base64url(text: &str) -> Vec<u8> {
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

pub(crate) fn algorithms(value: &Value) -> Vec<Algorithm> {
    let named = |name: &String| Algorithm::ALL.into_iter().find(|one| one.name() == name).unwrap();
    strings(value).iter().map(named).collect()
}

fn provider(index: usize, setup: &Value) -> Provider {
    let keys = match (&setup["keys"]["secret"], &setup["keys"]["jwks"]) {
        (Value::String(secret), _) => {
            Keys::Secret(SecretSource::Known(Secret::new(base64url(secret))))
        }
        (_, Value::Object(set)) => Keys::Inline(set.clone()),
        _ => panic!("no keys in {setup}"),
    };
    Provider {
        name: format!("p{index}"),
        issuer: setup["issuer"].as_str().map(str::to_owned),
        audiences: strings(&setup["audiences"]),
        algorithms: algorithms(&setup["algorithms"]),
        keys,
        locations: Vec::new(),
        subject_claim: setup["subject_claim"].as_str().unwrap_or("sub").to_owned(),
        require_subject: setup["require_subject"].as_bool().unwrap_or(false),
        tier_claim: None,
        permission_claims: Vec::new(),
        require_expiry: setup["require_expiry"].as_bool().unwrap(),
        max_lifetime: setup["max_lifetime"].as_u64().map(Nanos::from_secs),
        typ: setup["typ"].as_str().map(str::to_owned),
        forward_token: false,
        forward_claims: Vec::new(),
    }
}

pub(crate) fn authentication(setup: &Value) -> Authentication {
    let providers = setup["providers"].as_array().unwrap().iter().enumerate();
    Authentication {
        mode: AuthMode::Required,
        public: Vec::new(),
        clock_skew: Nanos::from_secs(setup["skew"].as_u64().unwrap_or(0)),
        cache: TokenCache { max_entries: 0, ttl: Nanos::ZERO },
        providers: providers.map(|(index, setup)| provider(index, setup)).collect(),
        api_keys: None,
    }
}

/// The keys of somebody else's cluster.
pub(crate) fn remote() -> Keys {
    Keys::Remote(RemoteKeys {
        cluster: "issuer".into(),
        host: "i".into(),
        path: "/jwks".into(),
        refresh: Nanos::from_secs(600),
        max_stale: Nanos::from_secs(3600),
        timeout: Nanos::from_secs(5),
        cooldown: Nanos::from_secs(30),
    })
}

/// A verifier for each setup.
pub(crate) struct Verifiers<S>(BTreeMap<&'static str, Verifier<S>>);

impl<S: Signatures + Clone> Verifiers<S> {
    pub(crate) fn new(host: &S) -> Self {
        let setups = CORPUS["setups"].as_object().unwrap().iter();
        let made = setups.map(|(name, setup)| {
            let verifier = Verifier::new(&authentication(setup), host.clone());
            (name.as_str(), verifier.unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}")))
        });
        Self(made.collect())
    }

    /// The verdict on other bytes in place of a case's token, at its clock.
    pub(crate) fn judge(&mut self, case: &Value, token: &[u8]) -> Result<Verified, TokenError> {
        self.at(case, token, now_of(case))
    }

    pub(crate) fn at(
        &mut self,
        case: &Value,
        token: &[u8],
        secs: u64,
    ) -> Result<Verified, TokenError> {
        let verifier = self.0.get_mut(case["setup"].as_str().unwrap()).unwrap();
        verifier.verify(token, moment(secs))
    }
}

/// A moment whose other clock is far from the wall clock.
pub(crate) fn moment(secs: u64) -> Moment {
    Moment { monotonic: Nanos::from_secs(77), wall: Nanos::from_secs(secs) }
}

pub(crate) fn token_of(case: &Value) -> Vec<u8> {
    match &case["token"] {
        Value::String(token) => token.as_bytes().to_vec(),
        _ => hex(case["hex"].as_str().unwrap()),
    }
}

pub(crate) fn now_of(case: &Value) -> u64 {
    case["now"].as_u64().or(CORPUS["now"].as_u64()).unwrap()
}

pub(crate) fn name_of(case: &Value) -> String {
    format!("{}: {}", case["group"].as_str().unwrap(), case["name"].as_str().unwrap())
}

pub(crate) fn word(error: TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "malformed",
        TokenError::Expired => "expired",
        TokenError::NotYetValid => "not-yet-valid",
        TokenError::Untrusted => "untrusted",
        TokenError::UnknownKey { .. } => "unknown-key",
        TokenError::KeysUnavailable { .. } => "keys-unavailable",
        TokenError::Pending => "pending",
        TokenError::Revoked => "revoked",
        TokenError::Unseeded => "unseeded",
    }
}
