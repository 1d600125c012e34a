//! API keys through the whole router, seen by a filter that copies what it is handed.

use super::*;
use crate::serve::tests::{
    ADMIN, Copied, Needs, app, connected, copier, expect, nobody, request, send,
};
use policy::replica::api_keys::find;
use std::sync::Mutex;

async fn call(app: &Arc<App>, line: &str, body: &Value) -> (StatusCode, HeaderMap, String) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(app, request(line, Some(ADMIN), &body)).await
}

async fn pair() -> (Arc<App>, Arc<Mutex<Copied>>, tokio::task::JoinHandle<()>) {
    let app = app("127.0.0.1:9902", nobody().await);
    let copied = Arc::<Mutex<Copied>>::default();
    let needs = Needs { api_keys: true, ..Needs::default() };
    let filter = copier(&app, needs, Arc::clone(&copied));
    connected(&app).await;
    (app, copied, filter)
}

/// What the filter finds for a secret.
fn found(copied: &Mutex<Copied>, secret: &Value) -> Option<Entry> {
    let sha256 = token::Sha.sha256(secret.as_str().unwrap().as_bytes());
    find(&sha256, &token::Sha, &mut *copied.lock().unwrap()).unwrap()
}

#[tokio::test]
async fn a_key_that_is_answered_201_is_in_force_and_its_secret_is_shown_once() {
    let (app, copied, filter) = pair().await;
    let wanted = json!({"id": "lab-robot", "permissions": ["samples:*:read"], "tier": "internal",
        "expires": "2097-01-01T00:00:00Z", "cidrs": ["10.0.0.0/8", "2001:db8::/32"]});
    let made = expect(call(&app, "POST /gateway/api-keys", &wanted).await, 201, None);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("gw_") && secret.len() == 3 + 43, "{secret}");
    assert_eq!(made["in_force"], true);
    let entry = found(&copied, &made["secret"]).unwrap();
    assert_eq!((entry.id.as_str(), entry.tier.as_deref()), ("lab-robot", Some("internal")));
    assert_eq!(entry.permissions, ["samples:*:read"]);
    assert_eq!(entry.expires, moment::read("2097-01-01T00:00:00Z"));
    assert_eq!(entry.cidrs, ["10.0.0.0/8", "2001:db8::/32"]);
    let list = expect(call(&app, "GET /gateway/api-keys", &Value::Null).await, 200, None);
    let row = &list["api_keys"][0];
    assert_eq!((&row["id"], &row["replaced_secrets"]), (&json!("lab-robot"), &json!([])));
    let text = list.to_string();
    let hash = hex::print(&token::Sha.sha256(secret.as_bytes()));
    assert!(!text.contains(secret) && !text.contains(&hash[..8]), "{text}");
    expect(call(&app, "POST /gateway/api-keys", &wanted).await, 409, Some("api-key-exists"));
    let delete = "DELETE /gateway/api-keys/lab-robot";
    expect(call(&app, delete, &Value::Null).await, 200, None);
    assert_eq!(found(&copied, &made["secret"]), None);
    expect(call(&app, delete, &Value::Null).await, 404, Some("api-key-unknown"));
    let again = expect(call(&app, "POST /gateway/api-keys", &wanted).await, 201, None);
    assert_ne!(again["secret"], made["secret"]);
    filter.abort();
}

#[tokio::test]
async fn rotation_keeps_the_old_secret_for_the_overlap() {
    let (app, copied, filter) = pair().await;
    let wanted = json!({"id": "k", "permissions": ["a"]});
    let first = expect(call(&app, "POST /gateway/api-keys", &wanted).await, 201, None);
    let rotate = "POST /gateway/api-keys/k/rotate";
    let before = moment::now();
    let second = expect(call(&app, rotate, &json!({"overlap": "2h"})).await, 200, None);
    assert_eq!(found(&copied, &second["secret"]).unwrap().expires, None);
    let old = found(&copied, &first["secret"]).unwrap();
    let until = old.expires.unwrap();
    assert!((before + 7200..before + 7260).contains(&until), "{until}");
    assert_eq!(second["old_until"], moment::print(until));
    assert_eq!(old.permissions, ["a"]);
    // A longer overlap does not lengthen what was promised; without a body it is a day.
    let third = expect(call(&app, rotate, &Value::Null).await, 200, None);
    assert_eq!(found(&copied, &first["secret"]).unwrap().expires, Some(until));
    let list = expect(call(&app, "GET /gateway/api-keys", &Value::Null).await, 200, None);
    assert_eq!(list["api_keys"][0]["replaced_secrets"].as_array().unwrap().len(), 2);
    assert_eq!((&list["total"], &list["api_keys"][0]["expires"]), (&json!(1), &Value::Null));
    // Without an overlap only the new one is left.
    let last = expect(call(&app, rotate, &json!({"overlap": "0s"})).await, 200, None);
    for old in [&first, &second, &third] {
        assert_eq!(found(&copied, &old["secret"]), None);
    }
    assert!(found(&copied, &last["secret"]).is_some());
    let unknown = call(&app, "POST /gateway/api-keys/other/rotate", &Value::Null).await;
    expect(unknown, 404, Some("api-key-unknown"));
    filter.abort();
}

#[tokio::test]
async fn replaced_secrets_are_bounded_and_leave_when_they_expire() {
    let app = app("127.0.0.1:9902", nobody().await);
    expect(call(&app, "POST /gateway/api-keys", &json!({"id": "k"})).await, 202, None);
    let rotate = "POST /gateway/api-keys/k/rotate";
    for _ in 1..ROTATING_MAX {
        expect(call(&app, rotate, &json!({"overlap": "30d"})).await, 202, None);
    }
    expect(call(&app, rotate, &json!({"overlap": "30d"})).await, 409, Some("full"));
    crate::serve::state::expire(&app, moment::now() + OVERLAP_MAX + 1).await;
    assert_eq!(app.replica.held().keys().len(), 1);
    expect(call(&app, rotate, &json!({"overlap": "30d"})).await, 202, None);
}

#[tokio::test]
async fn a_policy_that_takes_no_keys_is_said_so_and_without_a_filter_they_wait() {
    let app = app("127.0.0.1:9902", nobody().await);
    let body = expect(call(&app, "POST /gateway/api-keys", &json!({"id": "a"})).await, 202, None);
    assert_eq!(body["in_force"], false);
    assert!(body["secret"].is_string() && body["reason"].is_string(), "{body}");
    let filter = copier(&app, Needs::default(), Arc::default());
    connected(&app).await;
    let reply = call(&app, "POST /gateway/api-keys", &json!({"id": "b"})).await;
    let body = expect(reply, 409, Some("policy-lacks-section"));
    assert!(body["detail"].as_str().unwrap().contains("`authentication.api_keys`"), "{body}");
    filter.abort();
}

#[tokio::test]
async fn bad_input_names_its_field_and_changes_nothing() {
    let app = app("127.0.0.1:9902", nobody().await);
    for (body, field) in [
        (json!({}), "id"),
        (json!({"id": ""}), "id"),
        (json!({"id": "a/b"}), "id"),
        (json!({"id": ".."}), "id"),
        (json!({"id": "ä"}), "id"),
        (json!({"id": "x".repeat(129)}), "id"),
        (json!({"id": "a", "permissions": "p"}), "permissions"),
        (json!({"id": "a", "permissions": [1]}), "permissions[0]"),
        (json!({"id": "a", "permissions": ["good", "not good"]}), "permissions[1]"),
        (json!({"id": "a", "permissions": vec!["p"; 101]}), "permissions"),
        (json!({"id": "a", "tier": 1}), "tier"),
        (json!({"id": "a", "expires": "soon"}), "expires"),
        (json!({"id": "a", "expires": 1}), "expires"),
        (json!({"id": "a", "cidrs": ["10.0.0.0/33"]}), "cidrs[0]"),
        (json!({"id": "a", "cidrs": ["10.0.0.1/8"]}), "cidrs[0]"),
        (json!({"id": "a", "cidrs": ["here"]}), "cidrs[0]"),
        (json!({"id": "a", "secret": "mine"}), "secret"),
        (json!({"id": "a", "sha256": "00"}), "sha256"),
    ] {
        let reply = call(&app, "POST /gateway/api-keys", &body).await;
        let body = expect(reply, 422, Some("field-invalid"));
        assert_eq!(body["field"], field, "{body}");
    }
    expect(call(&app, "POST /gateway/api-keys", &json!({"id": "k"})).await, 202, None);
    let number = app.replica.position().number;
    for (body, field) in [
        (json!({"overlap": "31d"}), "overlap"),
        (json!({"overlap": "1"}), "overlap"),
        (json!({"overlap": 5}), "overlap"),
        (json!({"overlap": "1.5h"}), "overlap"),
        (json!({"for": "1h"}), "for"),
    ] {
        let reply = call(&app, "POST /gateway/api-keys/k/rotate", &body).await;
        assert_eq!(expect(reply, 422, Some("field-invalid"))["field"], field);
    }
    let reply = call(&app, "POST /gateway/api-keys", &json!(" ".repeat(BODY_MAX))).await;
    expect(reply, 413, Some("body-too-large"));
    assert_eq!(app.replica.position().number, number);
}

#[tokio::test]
async fn the_list_comes_in_pages_and_names_only_for_the_token() {
    let app = app("127.0.0.1:9902", nobody().await);
    for index in 0..5 {
        let body = json!({ "id": format!("k-{index}") });
        expect(call(&app, "POST /gateway/api-keys", &body).await, 202, None);
    }
    let mut seen = Vec::new();
    let mut line = "GET /gateway/api-keys?limit=2".to_owned();
    loop {
        let page = expect(call(&app, &line, &Value::Null).await, 200, None);
        assert_eq!(page["total"], 5);
        let rows = page["api_keys"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => line = format!("GET /gateway/api-keys?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["k-0", "k-1", "k-2", "k-3", "k-4"]);
    let open = send(&app, request("GET /gateway/api-keys?limit=2", None, "")).await;
    let open = expect(open, 200, None);
    assert_eq!((&open["total"], &open["next"]), (&json!(5), &Value::Null));
    assert!(!open.to_string().contains("k-"), "{open}");
}

#[tokio::test]
async fn changes_need_the_token() {
    let app = app("127.0.0.1:9902", nobody().await);
    for line in
        ["POST /gateway/api-keys", "DELETE /gateway/api-keys/k", "POST /gateway/api-keys/k/rotate"]
    {
        for token in [None, Some("x"), Some(crate::serve::tests::SYNC)] {
            let reply = send(&app, request(line, token, r#"{"id": "k"}"#)).await;
            expect(reply, 401, Some("admin-token-required"));
        }
    }
    assert_eq!(app.replica.position().number, 0);
}
