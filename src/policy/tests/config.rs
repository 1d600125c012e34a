//! What `config` promises: every mistake at once with its path, the contract's defaults, no secret
//! in any message, and no panic whatever the document.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the helpers of a test may fail it"
)]

#[path = "config/access.rs"]
mod access;
#[path = "config/document.rs"]
mod document;
#[path = "config/limits.rs"]
mod limits;
#[path = "config/schema.rs"]
mod schema;

use document::{VARIABLES, good, minimal, read};
use policy::config::{self, Environment};
use policy::model::{HttpsMode, Keys, SecretSource, TokenLocation};
use policy::time::Nanos;
use serde_json::{Value, json};
use std::{env, fs, path::Path};

/// The variables that the full example names.
const GOOD_VARIABLES: [&str; 4] =
    ["CSRF_SECRET", "GATEWAY_SYNC_TOKEN", "LONG_SECRET", "TRACSEQ_JWT_SECRET"];

/// One fixture per mistake: `x.json` is the document, `x.txt` the messages. `BLESS=1` rewrites the
/// messages; read the difference before you commit it.
#[test]
fn every_bad_fixture_gives_exactly_its_messages() {
    let count = check_fixtures("tests/config_bad", |document, name| {
        read(document).map(|policy| policy.warnings).expect_err(name)
    });
    assert!(count > 250, "{count} fixtures found");
}

/// The same for documents that are read, and for their warnings.
#[test]
fn every_good_fixture_gives_exactly_its_warnings() {
    let schema = config::schema();
    let count = check_fixtures("tests/config_good", |document, name| {
        assert_eq!(schema::faults(&schema, document, ""), [""; 0], "{name}");
        read(document).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:#?}")).warnings
    });
    assert!(count > 8, "{count} fixtures found");
}

/// Compares what is said of each document of a folder with the text beside it.
fn check_fixtures(folder: &str, say: impl Fn(&Value, &str) -> Vec<String>) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.display().to_string();
        let document: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let messages: String =
            say(&document, &name).iter().map(|line| format!("{line}\n")).collect();
        let expected = path.with_extension("txt");
        if env::var_os("BLESS").is_some() {
            fs::write(&expected, &messages).unwrap();
        }
        assert_eq!(messages, fs::read_to_string(&expected).unwrap(), "{name}");
        count += 1;
    }
    count
}

#[test]
fn ten_mistakes_in_ten_sections_come_at_once() {
    let text = include_str!("config_bad/ten_mistakes.json");
    let messages = read(&serde_json::from_str(text).unwrap()).unwrap_err();
    assert_eq!(messages.len(), 10, "{messages:#?}");
}

#[test]
fn the_full_example_reads_as_written() {
    let policy = read(&good()).unwrap();
    assert_eq!(policy.name, "tracseq");
    assert_eq!(policy.https, HttpsMode::Redirect);
    let networks = |list: &[policy::model::Cidr]| -> Vec<String> {
        list.iter().map(|cidr| format!("{}/{}", cidr.network, cidr.prefix)).collect()
    };
    assert_eq!(networks(&policy.ip.deny), ["203.0.113.0/24", "198.51.100.0/24"]);
    assert_eq!(networks(&policy.ip.exempt), ["10.9.0.0/16", "192.0.2.7/32"]);
    assert_eq!(policy.endpoints.len(), 2);
    assert_eq!(policy.variables, GOOD_VARIABLES);
    assert_eq!(policy.files(), ["/run/secrets/jwks.json", "/run/secrets/jwt"]);
    assert_eq!(policy.warnings.len(), 1, "{:?}", policy.warnings);
    assert!(policy.warnings[0].contains("locations[2].query: addresses end up in logs"));
    assert_eq!(policy.sidecar.unwrap().cluster, "gateway-sidecar");

    let authentication = policy.authentication.unwrap();
    let [tracseq, idp, ..] = &authentication.providers[..] else { panic!("providers") };
    let Keys::Secret(SecretSource::Known(secret)) = &tracseq.keys else { panic!("a secret") };
    assert_eq!(secret.reveal(), VARIABLES[0].1.as_bytes());
    assert_eq!(tracseq.max_lifetime, Some(Nanos::from_secs(3600)));
    assert_eq!(idp.typ.as_deref(), Some("at+jwt"));
    assert_eq!(idp.locations[1], TokenLocation::Cookie("session".into()));
    assert_eq!(idp.forward_claims[0], ("sub".into(), "x-user-id".into()));

    let auth = policy.circuit_breakers.of("auth").unwrap();
    assert_eq!((auth.failure_threshold, auth.timeout), (3, Nanos::from_secs(10)));
    assert_eq!(auth.ignore_statuses, [501], "inherited");
    assert_eq!(policy.circuit_breakers.of("x").unwrap().failure_threshold, 7);
}

#[test]
fn security_headers_are_the_preset_with_the_overrides() {
    let headers = read(&good()).unwrap().security_headers;
    let expected = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("strict-transport-security", "max-age=31536000"),
        ("content-security-policy", "default-src 'none'"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("permissions-policy", "geolocation=(), microphone=(), camera=()"),
        ("x-extra", "yes"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_string(), value.to_string())));
    let owasp = json!({ "version": 1, "security_headers": { "preset": "owasp-api" } });
    let owasp = read(&owasp).unwrap().security_headers;
    assert_eq!(owasp[0], ("cache-control".into(), "no-store".into()));
    assert_eq!(owasp.len(), 6);
}

#[test]
fn an_empty_policy_lets_everything_pass() {
    let policy = read(&json!({ "version": 1.0 })).unwrap();
    assert_eq!(policy.name, "unnamed");
    assert_eq!(policy.https, HttpsMode::Off);
    assert!(policy.ip.allow.is_empty() && policy.endpoints.is_empty());
    assert!(policy.authentication.is_none() && policy.sidecar.is_none());
    assert!(policy.security_headers.is_empty() && policy.rate_limits.is_empty());
    assert!(policy.circuit_breakers.of("any").is_none());
    assert!(policy.variables.is_empty() && policy.warnings.is_empty());
}

/// Envoy's YAML reader hands a bare `off` over as false.
#[test]
fn off_without_quotes_is_off() {
    let document = json!({ "version": 1, "https": { "mode": false }, "security_headers": { "preset": false } });
    let policy = read(&document).unwrap();
    assert_eq!((policy.https, policy.security_headers.len()), (HttpsMode::Off, 0));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let policy = read(&minimal()).unwrap();
    let authentication = format!("{:?}", policy.authentication.unwrap());
    for part in [
        "mode: Required",
        "clock_skew: Nanos(30000000000)",
        "subject_claim: \"sub\"",
        "require_subject: false",
        "require_expiry: true",
        "max_lifetime: None",
        "locations: [Header { name: \"authorization\", scheme: Some(\"Bearer\") }]",
        "forward_token: false",
    ] {
        assert!(authentication.contains(part), "{part} in {authentication}");
    }
    let breaker = format!("{:?}", policy.circuit_breakers.default.as_ref().unwrap());
    assert_eq!(
        breaker,
        "Breaker { failure_threshold: 5, timeout: Nanos(60000000000), \
         max_timeout: Nanos(600000000000), backoff: 2, half_open_calls: 3, success_threshold: 3, \
         failure_statuses: [500, 502, 503, 504], ignore_statuses: [], fallback: None }"
    );
    let only_services = json!({ "version": 1, "circuit_breakers": { "services": { "auth": {} } } });
    let only_services = read(&only_services).unwrap().circuit_breakers;
    assert_eq!(only_services.of("auth"), policy.circuit_breakers.of("any"));
    assert_eq!(only_services.of("other"), None);
}

#[test]
fn a_single_provider_without_issuer_and_audience_is_warned_about() {
    let warnings = read(&minimal()).unwrap().warnings;
    let at = "authentication.jwt.providers[0]";
    let expected = [
        format!("{at}.issuer: none is stated, so tokens of any issuer are accepted"),
        format!("{at}.audiences: none is stated, so tokens made for any audience are accepted"),
    ];
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(&expected), "{warning}");
    }
}

#[test]
fn what_no_stage_implements_is_refused_unless_it_is_empty() {
    let places = [
        "/cache",
        "/graphql",
        "/circuit_breakers/default/failure_rate_threshold",
        "/circuit_breakers/default/slow_call_duration",
        "/circuit_breakers/default/slow_call_rate_threshold",
        "/circuit_breakers/default/window",
        "/circuit_breakers/default/minimum_calls",
    ];
    for place in places {
        let (parent, key) = place.rsplit_once('/').unwrap();
        for (value, refused) in [
            (json!({}), false),
            (json!([]), false),
            (json!({ "x": 1 }), true),
            (json!(["x"]), true),
            (json!("5s"), true),
            (json!(0.5), true),
            (Value::Null, true),
        ] {
            let mut document = minimal();
            document.pointer_mut(parent).unwrap()[key] = value.clone();
            match read(&document) {
                Ok(_) => assert!(!refused, "{place}: {value}"),
                Err(messages) => {
                    assert!(refused, "{place}: {value}: {messages:?}");
                    assert_eq!(messages.len(), 1, "{messages:?}");
                    assert!(messages[0].contains("not supported by this version"), "{messages:?}");
                }
            }
        }
    }
}

#[test]
fn no_message_shows_a_secret() {
    let secret = "hunter2-hunter2";
    let places = [
        "/authentication/jwt/providers/0/keys",
        "/authentication/jwt/providers/0/keys/secret",
        "/authentication/jwt/providers/0/keys/secret/env",
        "/authentication/jwt/providers/0/keys/secret/file",
        "/authentication/jwt/providers/0/keys/jwks_inline",
        "/sidecar/token",
        "/csrf",
        "/csrf/token/secret",
        "/csrf/token/secret/env",
        "/authentication/api_keys/keys/0",
        "/authentication/api_keys/keys/0/sha256",
    ];
    for place in places {
        let (parent, key) = place.rsplit_once('/').unwrap();
        for value in [json!(secret), json!({ "x": secret }), json!([secret])] {
            let mut document = good();
            let parent = document.pointer_mut(parent).unwrap();
            match key {
                "0" => parent[0] = value,
                _ => parent[key] = value,
            }
            let messages = read(&document).unwrap_err().join("\n");
            assert!(!messages.contains("hunter2"), "{place}: {messages}");
        }
    }
    let mut document = minimal();
    document["authentication"]["jwt"]["providers"][0]["keys"]["secret"] =
        json!({ "inline_secret": secret });
    let messages = read(&document).unwrap_err().join("\n");
    assert!(messages.contains("15 bytes") && !messages.contains("hunter2"), "{messages}");
    let policy = format!("{:?}", config::read(&document, Environment::Unknown));
    assert!(!policy.contains("hunter2"), "{policy}");
}

#[test]
fn away_from_the_gateway_every_variable_counts_as_set() {
    let policy = config::read(&good(), Environment::Unknown).unwrap();
    assert!(policy.sidecar.unwrap().token.reveal().is_empty());
    let nothing = |_: &str| None;
    let mistakes = config::read(&good(), Environment::Given(&nothing)).unwrap_err();
    let paths: Vec<&str> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    let expected = [
        "authentication.jwt.providers[0].keys.secret.env",
        "authentication.jwt.providers[4].keys.secret.env",
        "csrf.token.secret.env",
        "sidecar.token.env",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn variables_are_found_in_secrets_only_and_in_broken_documents_too() {
    let mut document = good();
    document["rate_limits"] = json!(7);
    document["security_headers"]["override"]["env"] = json!("NO_VARIABLE");
    assert_eq!(config::variables(&document), GOOD_VARIABLES);
    assert_eq!(config::variables(&Value::Null), [""; 0]);
}

#[test]
fn the_fingerprint_is_of_what_is_said_and_not_of_how() {
    let hash = |text: &str| read(&serde_json::from_str(text).unwrap()).unwrap().hash;
    let one = hash(r#"{"version": 1, "name": "a", "ip": {"deny": [], "allow": []}}"#);
    assert_eq!(one, hash(r#"{"ip": {"allow": [], "deny": []}, "name": "a", "version": 1.0}"#));
    assert_ne!(one, hash(r#"{"version": 1, "name": "b", "ip": {"deny": [], "allow": []}}"#));
    assert_ne!(one, hash(r#"{"version": 1, "name": "a", "ip": {"deny": []}}"#));
}

/// A seeded walk away from good documents: whatever comes, `read` answers, and the schema refuses
/// nothing that it takes.
#[test]
fn no_document_makes_the_reader_panic() {
    let offered = config::schema();
    for seed in 0..3000 {
        let document = document::mutated(seed);
        let _ = config::variables(&document);
        match read(&document) {
            Ok(policy) => {
                let usable =
                    policy.rate_limits.iter().all(|limit| limit.cost <= limit.algorithm.size());
                let faults = schema::faults(&offered, &document, "");
                assert!(usable && faults.is_empty(), "seed {seed}: {faults:?}");
            }
            Err(messages) => {
                let lines = messages.iter().all(|message| !message.contains('\n'));
                assert!(!messages.is_empty() && lines, "seed {seed}: {messages:?}");
            }
        }
    }
}
