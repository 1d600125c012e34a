//! The messages as they travel: written so that people can read them, and read strictly.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use serde_json::{Value, json};

/// What is written is this, and is read back as it was.
#[track_caller]
fn check<T>(message: &T, text: &Value)
where
    T: Serialize + for<'a> Deserialize<'a> + PartialEq + core::fmt::Debug,
{
    assert_eq!(&serde_json::to_value(message).unwrap(), text);
    let bytes = serde_json::to_vec(message).unwrap();
    assert_eq!(&serde_json::from_slice::<T>(&bytes).unwrap(), message);
}

fn key(parts: &[(&str, &str)]) -> BTreeMap<String, String> {
    parts.iter().map(|(part, value)| (part.to_string(), value.to_string())).collect()
}

#[test]
fn commands_say_what_they_do() {
    let limit = || "per-user".to_string();
    let named = |kind: &str, provider: Option<&str>, name: &str| Named {
        kind: kind.to_string(),
        provider: provider.map(ToString::to_string),
        name: name.to_string(),
    };
    let actions = [
        (
            Action::ResetBreaker { service: "a".to_string() },
            json!({"reset_breaker": {"service": "a"}}),
        ),
        (
            Action::ReadKey { limit: limit(), key: key(&[("user", "ada"), ("provider", "idp")]) },
            json!({"read_key": {"limit": "per-user", "key": {"provider": "idp", "user": "ada"}}}),
        ),
        (
            Action::ResetKey { limit: limit(), key: key(&[]) },
            json!({"reset_key": {"limit": "per-user", "key": {}}}),
        ),
        (
            Action::ResetIdentity(named("user", Some("idp"), "ada")),
            json!({"reset_identity": {"kind": "user", "provider": "idp", "name": "ada"}}),
        ),
        (
            Action::ResetIdentity(named("ip", None, "::1")),
            json!({"reset_identity": {"kind": "ip", "name": "::1"}}),
        ),
    ];
    for (action, text) in actions {
        check(&Command { id: u64::MAX, action }, &json!({"id": u64::MAX, "action": text}));
    }
}

#[test]
fn an_outcome_carries_standings_only_where_there_are_some() {
    let done = |standings| Done { id: 7, outcome: DoneOutcome::Applied, standings };
    check(&done(vec![]), &json!({"id": 7, "outcome": "applied"}));
    let standing = KeyStanding {
        provider: Some("idp".to_string()),
        known: true,
        remaining: 3,
        reset_ms: 1_000,
        retry_ms: 0,
    };
    let text = json!({
        "provider": "idp", "known": true, "remaining": 3, "reset_ms": 1_000, "retry_ms": 0,
    });
    let text = json!({"id": 7, "outcome": "applied", "standings": [text]});
    check(&done(vec![standing]), &text);
}

#[test]
fn an_answer_tells_the_load_only_where_it_is_known() {
    let answer =
        |load| Answer { protocol: PROTOCOL, commands: vec![], state: Position::of(7, 9), load };
    let state = json!({"store": "0000000000000007", "number": 9});
    check(&answer(None), &json!({"protocol": 3, "commands": [], "state": state}));
    check(&answer(Some(850)), &json!({"protocol": 3, "commands": [], "state": state, "load": 850}));
}

#[test]
fn a_report_names_who_was_limited_and_who_was_banned() {
    let report = Report {
        protocol: PROTOCOL,
        instance: "ab".to_string(),
        worker: "cd".to_string(),
        number: 2,
        limited: vec![Limited {
            limit: "per-user".to_string(),
            key: "user=ada".to_string(),
            count: 3,
        }],
        bans: vec![BanMade {
            who: Named { kind: "user".to_string(), provider: None, name: "ada".to_string() },
            limit: "per-user".to_string(),
            serial: "0f".to_string(),
            made_ms: 4,
            until_ms: 5,
            level: 1,
        }],
        lost: 6,
    };
    let text = json!({
        "protocol": 3, "instance": "ab", "worker": "cd", "number": 2,
        "limited": [{"limit": "per-user", "key": "user=ada", "count": 3}],
        "bans": [{
            "who": {"kind": "user", "name": "ada"}, "limit": "per-user", "serial": "0f",
            "made_ms": 4, "until_ms": 5, "level": 1,
        }],
        "lost": 6,
    });
    check(&report, &text);
}

#[test]
fn what_is_no_message_is_none() {
    let bad = [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"id": 1}"#,
        r#"{"id": -1, "action": {"reset_breaker": {"service": "a"}}}"#,
        r#"{"id": 18446744073709551616, "action": {"reset_breaker": {"service": "a"}}}"#,
        r#"{"id": 1, "action": {"reset_breaker": {}}}"#,
        r#"{"id": 1, "action": {"forget_everything": {}}}"#,
        r#"{"id": 1, "action": {"read_key": {"limit": "a"}}}"#,
        r#"{"id": 1, "action": {"read_key": {"limit": "a", "key": {"user": 1}}}}"#,
        r#"{"id": 1, "action": {"reset_key": {"limit": "a", "key": []}}}"#,
        r#"{"id": 1, "action": {"reset_identity": {"kind": "user"}}}"#,
        r#"{"id": 1, "action": {"reset_identity": {"kind": "user", "name": null}}}"#,
    ];
    for text in bad {
        assert!(serde_json::from_str::<Command>(text).is_err(), "{text}");
    }
    let answers = [
        r#"{"protocol": 3, "commands": []}"#,
        r#"{"protocol": 3, "state": {"store": "", "number": 0}}"#,
        r#"{"protocol": 3, "commands": [], "state": {"store": "", "number": 0}, "load": -1}"#,
        r#"{"protocol": 3, "commands": [], "state": {"store": "", "number": 0}, "load": 0.5}"#,
    ];
    for text in answers {
        assert!(serde_json::from_str::<Answer>(text).is_err(), "{text}");
    }
}
