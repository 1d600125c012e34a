//! Documents for the tests: good ones, and good ones with something changed by a seeded generator.

use policy::config::{self, Environment};
use policy::model::Policy;
use serde_json::{Value, json};

/// The environment of every test.
pub(crate) const VARIABLES: [(&str, &str); 7] = [
    ("TRACSEQ_JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ("GATEWAY_SYNC_TOKEN", "sync-token"),
    ("LONG_SECRET", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("CSRF_SECRET", "fedcba9876543210fedcba9876543210"),
    ("SHORT", "short"),
    ("EMPTY", ""),
    ("UMLAUT", "schlüssel"),
];

/// The one call of the tests: the policy, or all messages as a person would see them.
pub(crate) fn read(document: &Value) -> Result<Policy, Vec<String>> {
    let lookup = |name: &str| {
        let found = VARIABLES.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_string())
    };
    let answer = config::read(document, Environment::Given(&lookup));
    answer.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// Everything that this version supports.
pub(crate) fn good() -> Value {
    serde_json::from_str(include_str!("../config_good/full.json")).unwrap()
}

/// Every section with what is required in it, and no more.
pub(crate) fn minimal() -> Value {
    json!({
        "version": 1,
        "https": {},
        "ip": {},
        "endpoints": [{ "name": "a", "path": "/a" }],
        "authentication": { "jwt": { "providers": [{
            "name": "p",
            "algorithms": ["HS256"],
            "keys": { "secret": { "env": "TRACSEQ_JWT_SECRET" } },
        }] } },
        "security_headers": {},
        "rate_limits": [{ "name": "l", "key": ["ip"], "requests": 7, "per": "1s" }],
        "circuit_breakers": { "default": {}, "services": { "auth": {} } },
        "sidecar": { "cluster": "c", "token": { "env": "GATEWAY_SYNC_TOKEN" } },
    })
}

/// A good document with a few things changed; the same for the same seed.
pub(crate) fn mutated(seed: u64) -> Value {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut document = if dice.roll(2) == 0 { good() } else { minimal() };
    for _ in 0..=dice.roll(4) {
        change(&mut document, &mut dice);
    }
    document
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }
}

/// Walks down at random and changes what it finds.
fn change(value: &mut Value, dice: &mut Dice) {
    if dice.roll(5) > 0 {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let key = map.keys().nth(dice.roll(map.len())).unwrap().clone();
                if dice.roll(8) == 0 {
                    map.remove(&key);
                } else if dice.roll(8) == 0 {
                    let moved = map.remove(&key).unwrap();
                    map.insert(key + "s", moved);
                } else {
                    change(&mut map[&key], dice);
                }
                return;
            }
            Value::Array(entries) if !entries.is_empty() => {
                let index = dice.roll(entries.len());
                if dice.roll(4) == 0 {
                    entries.push(entries[index].clone());
                } else {
                    change(&mut entries[index], dice);
                }
                return;
            }
            _ => {}
        }
    }
    *value = odd(dice);
}

fn odd(dice: &mut Dice) -> Value {
    let odd = json!([
        null, true, 0, 1, 2, 5.0, 5.5, -1, 1e300, -1e300, 18446744073709551615u64, 4294967296u64,
        "", "0s", "1ms", "99999999999999999999d", "s", "-1s", "1.5s", "GET", "get", "off", "shadow",
        "/a/**", "/a/**/b", "::/0", "10.0.0.1/8", "1.2.3.4/33", "::1/", "header:", "claim:x", "user",
        "\u{0}\n", "é", "\r\n", "HS256", "HS512", "x".repeat(70_000), [], {}, [[]], { "": {} },
        { "env": "SHORT" }, { "env": "MISSING" }, { "file": "/x" }, "samples:*", "2027-01-01T00:00:00Z", "https://a.example",
        "api_key", "null", "http://[::1]:80", "1970-01-01T00:00:00+23:59", { "cookie": "a" }, { "a\nb": { "timeout": "1s" } },
        { "x-a": "1", "X-A": "2" }, ["user", "user"], ["GET"], [1, 2, 3],
        "sliding_window", "leaky_bucket", "adaptive", "0.5", ".5", "1e-3", 0.5, 1e-9, { "floor": 1 }, 100_000, ["ip", "user"],
    ]);
    odd[dice.roll(odd.as_array().unwrap().len())].clone()
}
