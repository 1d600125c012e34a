//! Revocations through the whole router, seen by a filter that copies what it is handed.

use super::*;
use crate::serve::Problem;
use crate::serve::tests::{
    ADMIN, Copied, Needs, app, connected, copier, expect, nobody, request, send,
};
use crate::store::Store;
use crate::store::memory::Memory;
use policy::replica::revocations::{Token, Verdict, look};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

const FAR: u32 = 4_000_000_000;

fn needs(max: u32) -> Needs {
    Needs { revocations_max: Some(max), ..Needs::default() }
}

async fn post_to(app: &Arc<App>, body: &Value) -> (StatusCode, HeaderMap, String) {
    send(app, request("POST /gateway/revocations", Some(ADMIN), &body.to_string())).await
}

/// A sidecar with a filter that has copied everything.
async fn pair(max: u32) -> (Arc<App>, Arc<Mutex<Copied>>, tokio::task::JoinHandle<()>) {
    let app = app("127.0.0.1:9902", nobody().await);
    let copied = Arc::<Mutex<Copied>>::default();
    let filter = copier(&app, needs(max), Arc::clone(&copied));
    connected(&app).await;
    (app, copied, filter)
}

fn verdict(copied: &Mutex<Copied>, token: &Token<'_>, now: u64) -> Verdict {
    let mut copied = copied.lock().unwrap();
    let keys = copied.keys;
    look(token, keys, &mut *copied, now).unwrap()
}

#[tokio::test]
async fn a_revocation_that_is_answered_200_is_in_force() {
    let (app, copied, filter) = pair(10).await;
    let token = Token { id: Some("t-1"), subject: Some("u-1"), issuer: Some("i"), issued: Some(5) };
    let body = json!({"jti": "t-1", "issuer": "i", "expires": "2096-10-02T07:06:40Z"});
    let body = expect(post_to(&app, &body).await, 200, None);
    assert_eq!(body["in_force"], true);
    assert_eq!(body["expires"], "2096-10-02T07:06:40Z");
    assert_eq!(verdict(&copied, &token, 1_800_000_000), Verdict::Revoked);
    assert_eq!(verdict(&copied, &token, u64::from(FAR) + 60), Verdict::Revoked, "clock skew");
    assert_eq!(verdict(&copied, &token, u64::from(FAR) + 121), Verdict::Good);
    for good in [Token { id: Some("t-2"), ..token }, Token { issuer: Some("j"), ..token }] {
        assert_eq!(verdict(&copied, &good, 1_800_000_000), Verdict::Good);
    }
    let delete = format!("DELETE /gateway/revocations/{}", body["id"].as_str().unwrap());
    let body = expect(send(&app, request(&delete, Some(ADMIN), "")).await, 200, None);
    assert_eq!((&body["deleted"], &body["in_force"]), (&json!(true), &json!(true)));
    assert_eq!(verdict(&copied, &token, 1_800_000_000), Verdict::Good);
    let again = send(&app, request(&delete, Some(ADMIN), "")).await;
    expect(again, 404, Some("revocation-unknown"));
    filter.abort();
}

#[tokio::test]
async fn subjects_and_issuers_are_revoked_up_to_a_time() {
    let (app, copied, filter) = pair(10).await;
    expect(post_to(&app, &json!({"sub": "u-1", "issued_before": 1000})).await, 200, None);
    expect(post_to(&app, &json!({"issuer": "i", "issued_before": 500})).await, 200, None);
    let token = Token { id: None, subject: Some("u-1"), issuer: Some("i"), issued: Some(999) };
    for (token, expected) in [
        (token, Verdict::Revoked),
        (Token { issued: Some(1000), ..token }, Verdict::Good),
        (Token { issued: None, ..token }, Verdict::Revoked),
        (Token { subject: Some("u-2"), ..token }, Verdict::Good),
        (Token { subject: Some("u-2"), issued: Some(499), ..token }, Verdict::Revoked),
    ] {
        assert_eq!(verdict(&copied, &token, 1_800_000_000), expected, "{token:?}");
    }
    // Without a time it is now, the second that runs included.
    let before = moment::now();
    expect(post_to(&app, &json!({"sub": "u-3"})).await, 200, None);
    let token = Token { subject: Some("u-3"), issued: Some(before), ..Token::default() };
    assert_eq!(verdict(&copied, &token, before), Verdict::Revoked);
    filter.abort();
}

#[tokio::test]
async fn without_a_filter_a_revocation_is_accepted_and_waits() {
    let app = app("127.0.0.1:9902", nobody().await);
    let body = expect(post_to(&app, &json!({"jti": "t-1"})).await, 202, None);
    assert_eq!(body["in_force"], false);
    assert!(body["reason"].as_str().unwrap().contains("no filter"), "{body}");
    assert_eq!(body["stays"], "until it is deleted");
    let copied = Arc::<Mutex<Copied>>::default();
    let filter = copier(&app, needs(10), Arc::clone(&copied));
    let token = Token { id: Some("t-1"), ..Token::default() };
    connected(&app).await;
    // The next change is in force only when everything before it is.
    expect(post_to(&app, &json!({"jti": "t-2"})).await, 200, None);
    assert_eq!(verdict(&copied, &token, 1), Verdict::Revoked);
    filter.abort();
}

#[tokio::test]
async fn a_policy_that_looks_at_no_revocations_is_said_so() {
    let app = app("127.0.0.1:9902", nobody().await);
    let filter = copier(&app, Needs::default(), Arc::default());
    connected(&app).await;
    let reply = post_to(&app, &json!({"jti": "t-1"})).await;
    let body = expect(reply, 409, Some("policy-lacks-section"));
    assert!(body["detail"].as_str().unwrap().contains("`revocation`"), "{body}");
    assert_eq!(app.replica.held().revocations().len(), 0);
    filter.abort();
}

#[tokio::test]
async fn the_same_revocation_again_is_the_same_and_the_later_time_wins() {
    let (app, _, filter) = pair(10).await;
    let first = json!({"sub": "u", "issued_before": 1000, "expires": FAR, "note": "lost"});
    let first = expect(post_to(&app, &first).await, 200, None);
    let number = app.replica.position().number;
    let earlier = json!({"sub": "u", "issued_before": 900, "expires": FAR - 5});
    let again = expect(post_to(&app, &earlier).await, 200, None);
    assert_eq!(again, first);
    assert_eq!(app.replica.position().number, number, "nothing changed");
    let later = expect(post_to(&app, &json!({"sub": "u", "issued_before": 1001})).await, 200, None);
    assert_eq!(later["id"], first["id"]);
    assert_eq!(later["issued_before"], "1970-01-01T00:16:41Z");
    assert_eq!((&later["expires"], &later["note"]), (&Value::Null, &json!("lost")));
    let elsewhere = expect(post_to(&app, &json!({"sub": "u", "issuer": "i"})).await, 200, None);
    assert_ne!(elsewhere["id"], first["id"]);
    assert_eq!(app.replica.held().revocations().len(), 2);
    filter.abort();
}

#[tokio::test]
async fn one_more_than_the_most_is_a_conflict_and_all_or_nothing_holds() {
    let (app, copied, filter) = pair(3).await;
    let many = json!({"revocations": [{"jti": "a"}, {"jti": "b"}, {"jti": "a"}]});
    let body = expect(post_to(&app, &many).await, 200, None);
    assert_eq!(body["count"], 3);
    assert_eq!(body["ids"][0], body["ids"][2]);
    let over = json!({"revocations": [{"jti": "c"}, {"jti": "d"}]});
    expect(post_to(&app, &over).await, 409, Some("full"));
    assert_eq!(app.replica.held().revocations().len(), 2);
    expect(post_to(&app, &json!({"jti": "c"})).await, 200, None);
    expect(post_to(&app, &json!({"jti": "d"})).await, 409, Some("full"));
    // What is there already needs no place.
    expect(post_to(&app, &json!({"jti": "a", "note": "again"})).await, 200, None);
    for (id, expected) in [("a", Verdict::Revoked), ("c", Verdict::Revoked), ("d", Verdict::Good)] {
        let token = Token { id: Some(id), ..Token::default() };
        assert_eq!(verdict(&copied, &token, 1), expected, "{id}");
    }
    filter.abort();
}

#[tokio::test]
async fn what_has_expired_leaves_and_gives_its_place() {
    let (app, copied, filter) = pair(2).await;
    expect(post_to(&app, &json!({"jti": "a", "expires": FAR - 1000})).await, 200, None);
    expect(post_to(&app, &json!({"jti": "b", "expires": FAR})).await, 200, None);
    expect(post_to(&app, &json!({"jti": "c"})).await, 409, Some("full"));
    crate::serve::state::expire(&app, u64::from(FAR)).await;
    assert_eq!(app.replica.held().revocations().len(), 1);
    expect(post_to(&app, &json!({"jti": "c"})).await, 200, None);
    let mut copied = copied.lock().unwrap();
    let keys = copied.keys;
    let token = Token { id: Some("a"), ..Token::default() };
    // Even long before: it is gone, not only over.
    assert_eq!(look(&token, keys, &mut *copied, 1).unwrap(), Verdict::Good);
    filter.abort();
}

#[test]
fn expired_entries_make_room_within_one_change() {
    let replica = Replica::load(Arc::new(Memory::default())).unwrap();
    let one = |id: &str, expires| Revocation {
        kind: Kind::Token,
        issuer: None,
        value: id.to_owned(),
        issued_before: None,
        expires,
        created: 1,
        note: None,
    };
    let put = |wanted: &[Revocation], now| {
        let plan = |held: &Held| plan(wanted, held, &replica, 2, now);
        replica.change(plan).map(|_| replica.held().revocations().len())
    };
    assert_eq!(put(&[one("a", Some(100)), one("b", Some(100))], 1), Ok(2));
    assert_eq!(put(&[one("c", None)], 150), Err(Problem::Full(FULL, 2)));
    // One that has expired and is revoked again stays.
    assert_eq!(put(&[one("c", None), one("a", None)], 300), Ok(2));
    assert!(replica.held().revocations().contains_key(&one("a", None).print(replica.keys())));
}

#[tokio::test]
async fn bad_input_names_its_field_and_changes_nothing() {
    let app = app("127.0.0.1:9902", nobody().await);
    for (body, field) in [
        (json!({}), "jti"),
        (json!({"jti": "a", "sub": "b"}), "sub"),
        (json!({"jti": ""}), "jti"),
        (json!({"jti": 7}), "jti"),
        (json!({"jti": "a\n"}), "jti"),
        (json!({"jti": "x".repeat(1025)}), "jti"),
        (json!({"jti": "a", "issued_before": 5}), "issued_before"),
        (json!({"jti": "a", "expires": "tomorrow"}), "expires"),
        (json!({"jti": "a", "expires": 1.5}), "expires"),
        (json!({"jti": "a", "expires": -1}), "expires"),
        (json!({"jti": "a", "expires": 1000}), "expires"),
        (json!({"jti": "a", "expires": u32::MAX}), "expires"),
        (json!({"jti": "a", "expires": "2200-01-01T00:00:00Z"}), "expires"),
        (json!({"sub": "a", "issued_before": true}), "issued_before"),
        (json!({"issuer": ["a"]}), "issuer"),
        (json!({"jti": "a", "note": "x".repeat(257)}), "note"),
        (json!({"jti": "a", "what": 1}), "what"),
        (json!({"revocations": []}), "revocations"),
        (json!({"revocations": {}}), "revocations"),
        (json!({"revocations": ["a"]}), "revocations[0]"),
        (json!({"revocations": [{"jti": "a"}, {"jti": 1}]}), "revocations[1].jti"),
        (json!({"revocations": [{"jti": "a"}], "jti": "b"}), "jti"),
        (json!({"revocations": vec![json!({"jti": "a"}); 10_001]}), "revocations"),
    ] {
        let body = expect(post_to(&app, &body).await, 422, Some("field-invalid"));
        assert_eq!(body["field"], field, "{body}");
        assert!(body["detail"].as_str().unwrap().contains("; allowed: "), "{body}");
    }
    for body in ["", "{", "[]", "7", "\"a\""] {
        let reply = send(&app, request("POST /gateway/revocations", Some(ADMIN), body)).await;
        expect(reply, 400, Some("body-malformed"));
    }
    let large = " ".repeat(BODY_MAX + 1);
    let reply = send(&app, request("POST /gateway/revocations", Some(ADMIN), &large)).await;
    expect(reply, 413, Some("body-too-large"));
    assert_eq!(app.replica.position().number, 0);
}

#[tokio::test]
async fn changes_need_the_token_and_this_host() {
    let app = app("127.0.0.1:9902", nobody().await);
    for line in ["POST /gateway/revocations", "DELETE /gateway/revocations/00"] {
        for token in [None, Some("x"), Some(crate::serve::tests::SYNC)] {
            let reply = send(&app, request(line, token, r#"{"jti": "a"}"#)).await;
            expect(reply, 401, Some("admin-token-required"));
        }
        let mut rebound = request(line, Some(ADMIN), r#"{"jti": "a"}"#);
        rebound.headers_mut().insert("host", "evil.example".parse().unwrap());
        expect(send(&app, rebound).await, 421, Some("host-not-allowed"));
    }
    assert_eq!(app.replica.position().number, 0);
}

#[tokio::test]
async fn the_list_comes_in_pages_and_names_only_for_the_token() {
    let app = app("127.0.0.1:9902", nobody().await);
    let many: Vec<Value> = (0..5).map(|i| json!({"sub": format!("u-{i}"), "note": "n"})).collect();
    expect(post_to(&app, &json!({ "revocations": many })).await, 202, None);
    expect(post_to(&app, &json!({"issuer": "i-1"})).await, 202, None);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let line = format!("GET /gateway/revocations?limit=2{cursor}");
        let open = expect(send(&app, request(&line, None, "")).await, 200, None);
        let page = expect(send(&app, request(&line, Some(ADMIN), "")).await, 200, None);
        assert_eq!((&page["total"], &page["next"]), (&json!(6), &open["next"]));
        for (row, masked) in page["revocations"]
            .as_array()
            .unwrap()
            .iter()
            .zip(open["revocations"].as_array().unwrap())
        {
            assert_eq!(row["id"], masked["id"]);
            let name = if row["kind"] == "sub" { "sub" } else { "issuer" };
            seen.push(row[name].as_str().unwrap().to_owned());
            assert_eq!(masked[name], if name == "sub" { "***" } else { "i-1" });
            assert!(masked["note"].is_null() || masked["note"] == "***", "{masked}");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["i-1", "u-0", "u-1", "u-2", "u-3", "u-4"]);
    for (query, field) in
        [("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=x", "cursor"), ("page=2", "page")]
    {
        let line = format!("GET /gateway/revocations?{query}");
        let body = expect(send(&app, request(&line, None, "")).await, 422, Some("field-invalid"));
        assert_eq!(body["field"], field);
    }
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_seen_in_health() {
    let store = Arc::new(Memory::default());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let app = crate::serve::tests::app_with("127.0.0.1:9902", nobody().await, shared);
    store.broken.store(true, Ordering::Relaxed);
    let reply = post_to(&app, &json!({"jti": "a"})).await;
    expect(reply, 503, Some("store-unavailable"));
    assert_eq!(app.replica.held().revocations().len(), 0);
    assert!(app.replica.trouble().unwrap().contains("told to fail"));
    store.broken.store(false, Ordering::Relaxed);
    expect(post_to(&app, &json!({"jti": "a"})).await, 202, None);
    assert_eq!(app.replica.trouble(), None);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_seen_in_health() {
    let store = Arc::new(Memory::default());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let app = crate::serve::tests::app_with("127.0.0.1:9902", nobody().await, shared);
    expect(post_to(&app, &json!({"jti": "a"})).await, 202, None);
    let list = || send(&app, request("GET /gateway/revocations", None, ""));
    expect(list().await, 200, None);
    assert_eq!(app.replica.trouble(), None);
    store.broken.store(true, Ordering::Relaxed);
    expect(list().await, 503, Some("store-unavailable"));
    assert!(app.replica.trouble().unwrap().contains("told to fail"));
}
