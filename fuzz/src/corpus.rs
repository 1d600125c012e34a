//! The tokens and keys of the crate `token`'s tests, made without our code. A target begins with
//! them, because nobody guesses a signature.

use policy::model::{
    Algorithm, AuthMode, Authentication, Keys, Provider, Secret, SecretSource, TokenCache,
};
use policy::time::{Moment, Nanos};
use serde_json::{Map, Value};

const FILE: &str = include_str!("../../src/token/tests/corpus.json");

/// Everything.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// In the order of their names.
    pub(crate) setups: Vec<Setup>,
}

/// Providers, and tokens that are meant for them.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) authentication: Authentication,
    pub(crate) cases: Vec<Case>,
}

/// One token.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) token: Vec<u8>,
    pub(crate) now: Moment,
    /// Whether it was signed with a provider's key, so that only the clock decides.
    pub(crate) is_genuine: bool,
}

impl Corpus {
    /// Reads the file; what is missing in it is an error of ours and ends the program.
    pub(crate) fn read() -> Self {
        let file: Value = serde_json::from_str(FILE).unwrap_or_else(|e| panic!("corpus.json: {e}"));
        let all = file.get("cases").and_then(Value::as_array).map(Vec::as_slice);
        let all = all.unwrap_or_else(|| panic!("corpus.json has no cases"));
        let setups = file.get("setups").and_then(Value::as_object);
        let setups = setups.unwrap_or_else(|| panic!("corpus.json has no setups"));
        let setup = |(name, value): (&String, &Value)| Setup {
            authentication: authentication(value),
            cases: all
                .iter()
                .filter(|case| case.get("setup").and_then(Value::as_str) == Some(name))
                .map(|one| case(one, &file))
                .collect(),
        };
        Self { setups: setups.iter().map(setup).collect() }
    }
}

fn case(case: &Value, file: &Value) -> Case {
    let text = |name: &str| case.get(name).and_then(Value::as_str);
    let token = match (text("token"), text("hex")) {
        (Some(token), _) => token.as_bytes().to_vec(),
        (None, hex) => bytes_of_hex(hex.unwrap_or_default()),
    };
    let now = case.get("now").or_else(|| file.get("now")).and_then(Value::as_u64);
    let wall = Nanos::from_secs(now.unwrap_or_default());
    let now = Moment { monotonic: wall, wall };
    let genuine = ["accepted", "expired", "not-yet-valid"];
    let is_genuine = text("want").is_some_and(|want| genuine.contains(&want));
    Case { token, now, is_genuine }
}

fn authentication(setup: &Value) -> Authentication {
    let providers = setup.get("providers").and_then(Value::as_array);
    let providers = providers.map(Vec::as_slice).unwrap_or_default().iter().enumerate();
    Authentication {
        mode: AuthMode::Required,
        public: Vec::new(),
        clock_skew: Nanos::from_secs(setup.get("skew").and_then(Value::as_u64).unwrap_or(0)),
        cache: TokenCache { max_entries: 0, ttl: Nanos::ZERO },
        providers: providers.map(|(index, value)| provider(index, value)).collect(),
        api_keys: None,
    }
}

fn provider(index: usize, value: &Value) -> Provider {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let truth = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    let names = strings(value.get("algorithms"));
    Provider {
        issuer: text("issuer"),
        audiences: strings(value.get("audiences")),
        algorithms: Algorithm::ALL.into_iter().filter(|a| has(&names, a.name())).collect(),
        keys: keys(value),
        subject_claim: text("subject_claim").unwrap_or_else(|| "sub".to_owned()),
        require_subject: truth("require_subject"),
        require_expiry: truth("require_expiry"),
        max_lifetime: value.get("max_lifetime").and_then(Value::as_u64).map(Nanos::from_secs),
        typ: text("typ"),
        ..plain(format!("p{index}"))
    }
}

/// A provider that takes nothing; the rest is for whoever asks for one.
pub(crate) fn plain(name: String) -> Provider {
    Provider {
        name,
        issuer: None,
        audiences: Vec::new(),
        algorithms: Vec::new(),
        keys: Keys::Inline(Map::new()),
        locations: Vec::new(),
        subject_claim: "sub".to_owned(),
        require_subject: false,
        tier_claim: None,
        permission_claims: vec!["scope".to_owned()],
        require_expiry: false,
        max_lifetime: None,
        typ: None,
        forward_token: false,
        forward_claims: Vec::new(),
    }
}

fn keys(value: &Value) -> Keys {
    let keys = value.get("keys");
    match keys.and_then(|keys| keys.get("jwks")).and_then(Value::as_object) {
        Some(set) => Keys::Inline(set.clone()),
        None => {
            let secret = keys.and_then(|keys| keys.get("secret")).and_then(Value::as_str);
            let secret = base64url::decode(secret.unwrap_or_default().as_bytes());
            Keys::Secret(SecretSource::Known(Secret::new(secret.unwrap_or_default())))
        }
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|one| one == name)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let texts = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    texts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let digits: Vec<u8> = text.as_bytes().iter().filter_map(digit).collect();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, d| sum << 4 | d)).collect()
}

/// Written again here, because the one of the crate `token` is what is tested.
pub(crate) mod base64url {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    /// The bytes; bits that fill the last digit are not looked at.
    pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let (mut bits, mut count, mut out) = (0_u32, 0_u32, Vec::new());
        for letter in text {
            let digit = DIGITS.iter().position(|one| one == letter)?;
            bits = bits << 6 | u32::try_from(digit).ok()?;
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push(u8::try_from(bits >> count & 0xff).ok()?);
            }
        }
        Some(out)
    }

    /// The text without padding.
    pub(crate) fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
        for three in bytes.chunks(3) {
            let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for place in 0..=three.len() {
                let digit = bits >> (18 - 6 * place) & 63;
                out.extend(usize::try_from(digit).ok().and_then(|digit| DIGITS.get(digit)));
            }
        }
        out
    }
}
