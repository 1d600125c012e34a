//! Authentication, revocation, authorization and CSRF: what is read, and what deserves a word.

use crate::document::{good, minimal, read};
use policy::model::{
    Access, Algorithm, Keys, Mode, RemoteKeys, SecretSource, TokenCache, TokenLocation, Unseeded,
};
use policy::time::Nanos;
use serde_json::{Value, json};

/// The hash of some secret.
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn keys_come_from_where_the_example_says() {
    let authentication = read(&good()).unwrap().authentication.unwrap();
    assert_eq!(authentication.cache, TokenCache { max_entries: 5000, ttl: Nanos::from_secs(60) });
    let [_, idp, inline, file, long, filed] = &authentication.providers[..] else {
        panic!("six providers")
    };
    assert_eq!(idp.permission_claims, ["permissions", "scope"]);
    assert_eq!(idp.algorithms, [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
    let Keys::Remote(remote) = &idp.keys else { panic!("remote keys") };
    let expected = RemoteKeys {
        cluster: "idp".into(),
        host: "idp.example:8443".into(),
        path: "/jwks.json?v=1".into(),
        refresh: Nanos::from_secs(300),
        max_stale: Nanos::from_secs(1800),
        timeout: Nanos::from_secs(2),
        cooldown: Nanos::from_secs(60),
    };
    assert_eq!(*remote, expected);
    assert!(matches!(&inline.keys, Keys::Inline(set) if set.contains_key("keys")));
    assert!(matches!(&file.keys, Keys::File(path) if path == "/run/secrets/jwks.json"));
    assert!(matches!(&long.keys, Keys::Secret(SecretSource::Known(s)) if s.reveal().len() == 64));
    assert!(
        matches!(&filed.keys, Keys::Secret(SecretSource::File(path)) if path == "/run/secrets/jwt")
    );
}

#[test]
fn api_keys_are_read_with_all_that_they_say() {
    let keys = read(&good()).unwrap().authentication.unwrap().api_keys.unwrap();
    let header = |name: &str, scheme: Option<&str>| TokenLocation::Header {
        name: name.into(),
        scheme: scheme.map(Into::into),
    };
    assert_eq!(
        keys.locations,
        [header("x-api-key", None), header("authorization", Some("ApiKey"))]
    );
    assert_eq!((keys.forward_key, keys.forward_id.as_deref()), (false, Some("x-key-id")));
    let [robot, successor] = &keys.keys[..] else { panic!("two keys") };
    assert_eq!((robot.id.as_str(), robot.tier.as_deref()), ("lab-robot", Some("internal")));
    assert_eq!(robot.sha256[..4], [0x01, 0x23, 0x45, 0x67]);
    assert_eq!(robot.sha256[12..16], [0x89, 0xab, 0xcd, 0xef], "upper-case digits");
    assert_eq!(robot.permissions, ["samples:*:read"]);
    assert_eq!(robot.expires, Some(Nanos::from_secs(1_798_761_600)));
    assert_eq!(robot.cidrs.len(), 1);
    assert_eq!((successor.id.as_str(), successor.expires), ("lab-robot", None));
}

#[test]
fn the_other_sections_are_read_as_written() {
    let policy = read(&good()).unwrap();
    let revocation = policy.revocation.unwrap();
    assert_eq!(revocation.on_unseeded, Unseeded::Allow);
    assert_eq!((revocation.seed_deadline, revocation.max), (Nanos::from_secs(3), 500_000));
    let authorization = policy.authorization.unwrap();
    assert_eq!((authorization.mode, authorization.default), (Mode::Shadow, Access::Deny));
    let [samples, admin] = &authorization.rules[..] else { panic!("two rules") };
    assert_eq!(
        (&samples.methods[..], &samples.require[..]),
        (&["GET".into()][..], &["samples:read".into()][..])
    );
    assert!(admin.path.matches(b"/api/admin/x") && admin.require.is_empty());
    assert_eq!(admin.require_any, ["admin:*"]);
    let csrf = policy.csrf.unwrap();
    assert_eq!((csrf.mode, csrf.cookie.as_deref()), (Mode::Shadow, Some("session")));
    assert_eq!(csrf.trusted_origins, ["https://app.example", "https://[2001:db8::1]:8443"]);
    let token = csrf.token.unwrap();
    assert_eq!((token.cookie.as_str(), token.header.as_str()), ("anti-forgery", "x-anti-forgery"));
    assert!(matches!(token.secret, SecretSource::Known(secret) if secret.reveal().len() == 32));
}

#[test]
fn files_are_named_sorted_and_once_each() {
    let document: Value = serde_json::from_str(include_str!("../config_good/files.json")).unwrap();
    let expected = ["/run/secrets/a", "/run/secrets/b.json", "/run/secrets/csrf"];
    assert_eq!(read(&document).unwrap().files(), expected);
    assert_eq!(read(&minimal()).unwrap().files(), [""; 0]);
}

/// As many keys as may be listed, each rule among them tried on the last.
#[test]
fn ten_thousand_api_keys_are_read_and_compared() {
    let key = |n: usize| json!({ "id": format!("key-{n}"), "sha256": format!("{n:064x}") });
    let mut keys: Vec<Value> = (0..10_000).map(key).collect();
    let read = |keys: &[Value]| {
        read(&json!({ "version": 1, "authentication": { "api_keys": { "keys": keys } } }))
    };
    assert_eq!(read(&keys).unwrap().authentication.unwrap().api_keys.unwrap().keys.len(), 10_000);
    *keys.last_mut().unwrap() = key(0);
    assert_eq!(read(&keys).unwrap_err().len(), 2, "its id and its hash");
    keys.push(key(10_000));
    assert_eq!(read(&keys).unwrap_err().len(), 1, "one too many");
}

/// The smallest policy in which all four sections stand.
fn bare() -> Value {
    let mut document = minimal();
    document["authentication"]["api_keys"] = json!({});
    document["authentication"]["jwt"]["providers"][0]["permission_claims"] = json!(["scope"]);
    document["revocation"] = json!({});
    document["authorization"] = json!({ "rules": [{ "path": "/a" }] });
    document["csrf"] = json!({ "cookie": "s", "token": { "secret": { "env": "CSRF_SECRET" } } });
    document
}

#[test]
fn what_is_left_out_reads_as_the_contract_says() {
    let policy = read(&bare()).unwrap();
    let authentication = policy.authentication.unwrap();
    assert_eq!(
        authentication.cache,
        TokenCache { max_entries: 10_000, ttl: Nanos::from_secs(300) }
    );
    let keys = authentication.api_keys.unwrap();
    let header = TokenLocation::Header { name: "x-api-key".into(), scheme: None };
    assert_eq!(keys.locations, [header]);
    assert!(keys.keys.is_empty() && !keys.forward_key && keys.forward_id.is_none());
    let revocation = policy.revocation.unwrap();
    assert_eq!(revocation.on_unseeded, Unseeded::Refuse);
    assert_eq!((revocation.seed_deadline, revocation.max), (Nanos::from_secs(2), 1_000_000));
    let authorization = policy.authorization.unwrap();
    assert_eq!((authorization.mode, authorization.default), (Mode::Enforce, Access::Allow));
    let csrf = policy.csrf.unwrap();
    let token = csrf.token.unwrap();
    assert_eq!(csrf.mode, Mode::Enforce);
    assert_eq!((token.cookie.as_str(), token.header.as_str()), ("csrf-token", "x-csrf-token"));

    let mut document = minimal();
    document["authentication"]["jwt"]["providers"][0]["algorithms"] = json!(["RS256"]);
    document["authentication"]["jwt"]["providers"][0]["keys"] =
        json!({ "jwks": { "cluster": "idp", "host": "idp.example", "path": "/" } });
    let provider = read(&document).unwrap().authentication.unwrap().providers.remove(0);
    let Keys::Remote(remote) = provider.keys else { panic!("remote keys") };
    let secs = [remote.refresh, remote.max_stale, remote.timeout, remote.cooldown];
    assert_eq!(secs, [600, 3600, 5, 30].map(Nanos::from_secs));
}

#[test]
fn api_keys_alone_are_an_authentication() {
    let keys = json!([{ "id": "robot", "sha256": HASH }]);
    let document = json!({ "version": 1, "authentication": { "api_keys": { "keys": keys } } });
    let authentication = read(&document).unwrap().authentication.unwrap();
    assert!(authentication.providers.is_empty());
    assert_eq!(authentication.api_keys.unwrap().keys.len(), 1);
}

/// Envoy's YAML reader hands a bare `off` over as false.
#[test]
fn csrf_that_is_off_is_not_there() {
    for off in [json!("off"), json!(false)] {
        let document = json!({ "version": 1, "csrf": { "mode": off } });
        let policy = read(&document).unwrap();
        assert!(policy.csrf.is_none() && policy.warnings.is_empty(), "{:?}", policy.warnings);
    }
}

/// Checks the warnings of [`bare`] with one thing changed, beside those that it always has.
#[track_caller]
fn check_warnings(pointer: &str, value: Value, expected: &[&str]) {
    let mut document = bare();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
    let mut warnings = read(&document).unwrap().warnings;
    warnings.retain(|warning| !warning.contains("none is stated"));
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warning}");
    }
}

#[test]
fn what_is_legal_but_may_surprise_gets_a_warning() {
    let provider = "/authentication/jwt/providers/0";
    let at = |key: &str| format!("{provider}/{key}");
    check_warnings("/name", json!("x"), &[]);
    check_warnings(
        &at("locations"),
        json!([{ "query": "t" }]),
        &["providers[0].locations[0].query: addresses end up in logs"],
    );
    check_warnings(
        "/authentication/api_keys/locations",
        json!([{ "query": "k" }]),
        &["api_keys.locations[0].query: addresses end up in logs"],
    );
    check_warnings("/csrf", json!({ "cookie": "s" }), &["csrf: requests of browsers that send"]);
    check_warnings(
        "/csrf/trusted_origins",
        json!(["http://app.example", "http://localhost:3000", "http://127.0.0.1", "http://[::1]"]),
        &["csrf.trusted_origins[0]: whoever sits on the way"],
    );
    check_warnings(
        "/authorization",
        json!({ "default": "allow" }),
        &["authorization: there are no rules and the default is allow"],
    );
    check_warnings(
        "/authorization",
        json!({ "default": "deny" }),
        &["authorization: there are no rules and the default is deny"],
    );
    check_warnings(
        "/authorization/rules",
        json!([
            { "path": "/a/{x}", "methods": ["GET", "PUT"] },
            { "path": "/a/*", "methods": ["PUT"], "require": ["a"] },
            { "path": "/a/*", "require": ["a"] },
            { "path": "/**" },
            { "path": "/b", "methods": ["GET"] },
        ]),
        &[
            "authorization.rules[1]: authorization.rules[0] matches all of it before",
            "authorization.rules[4]: authorization.rules[3] matches all of it before",
        ],
    );
    check_warnings("/authentication/api_keys/forward", json!({ "id": "x-user" }), &[]);
    check_warnings(
        "/rate_limits",
        json!([{ "name": "l", "key": ["api_key"], "requests": 7, "per": "1s" }]),
        &[],
    );
}

/// The messages that a document without one of its parts gets.
#[track_caller]
fn warnings_without(parent: &str, key: &str, change: impl Fn(&mut Value)) -> Vec<String> {
    let mut document = bare();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    change(&mut document);
    let mut warnings = read(&document).unwrap().warnings;
    warnings.retain(|warning| !warning.contains("none is stated"));
    warnings
}

#[test]
fn parts_that_miss_each_other_get_a_warning() {
    let rules = json!([{ "path": "/a", "require": ["a"] }]);
    let nobody = warnings_without("", "authentication", |document| {
        document["authorization"]["rules"] = rules.clone();
    });
    assert_eq!(nobody.len(), 2, "{nobody:#?}");
    assert!(nobody[0].starts_with("revocation: only tokens are revoked"));
    assert!(nobody[1].starts_with("authorization.rules: without `authentication`"));

    let claimless = warnings_without("/authentication", "api_keys", |document| {
        document["authorization"]["rules"] = rules.clone();
        document["authentication"]["jwt"]["providers"][0]["permission_claims"] = json!([]);
        document["rate_limits"][0]["key"] = json!(["api_key"]);
    });
    assert_eq!(claimless.len(), 2, "{claimless:#?}");
    assert!(claimless[0].starts_with("authorization.rules: no provider states"));
    assert!(claimless[1].starts_with("rate_limits[0].key[0]: no API keys are taken"));

    let open = warnings_without("", "csrf", |document| {
        let provider = &mut document["authentication"]["jwt"]["providers"][0];
        provider["locations"] = json!([{ "cookie": "session" }]);
        provider["forward"] = json!({ "claims": { "sub": "x-user" } });
        document["authentication"]["api_keys"]["forward"] = json!({ "id": "X-User" });
    });
    assert_eq!(open.len(), 2, "{open:#?}");
    assert!(open[0].starts_with("authentication.api_keys.forward.id: the header carries a claim"));
    assert!(open[1].contains("locations[0]: pages of other sites"));
}

/// A limit that counts by API key cannot be judged before the key is known.
#[test]
fn a_limit_by_api_key_waits_for_the_identity() {
    for (key, early) in [("ip", true), ("api_key", false), ("user", false)] {
        let mut document = minimal();
        document["rate_limits"][0]["key"] = json!([key]);
        assert_eq!(read(&document).unwrap().rate_limits[0].is_early(), early, "{key}");
    }
}

/// A location that was bad may have been the cookie: nothing is said about it a second time.
#[test]
fn a_bad_location_is_reported_once() {
    let mut document = minimal();
    document["csrf"] = json!({});
    document["authentication"]["jwt"]["providers"][0]["locations"] = json!([{ "cookie": "a b" }]);
    let messages = read(&document).unwrap_err();
    assert_eq!(messages.len(), 1, "{messages:#?}");
    assert!(messages[0].contains("locations[0].cookie"), "{messages:#?}");
}
