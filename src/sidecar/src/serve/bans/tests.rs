//! Bans through the whole router, seen by a filter that copies what it is handed.

use super::*;
use crate::serve::tests::{
    ADMIN, Copied, Needs, SYNC, app, connected, copier, expect, nobody, request, send,
};
use crate::store::PenaltyBan;
use policy::replica::bans::{Name, Record, Verdict, bucket, decode};
use std::sync::Mutex;

/// 2096: milliseconds since 1970 that no test outlives.
const FAR_MS: u64 = 4_000_000_000_000;

async fn post_to(app: &Arc<App>, body: &Value) -> (StatusCode, HeaderMap, String) {
    send(app, request("POST /gateway/bans", Some(ADMIN), &body.to_string())).await
}

async fn delete_of(app: &Arc<App>, id: &Value) -> (StatusCode, HeaderMap, String) {
    let line = format!("DELETE /gateway/bans/{}", id.as_str().unwrap());
    send(app, request(&line, Some(ADMIN), "")).await
}

async fn listed(app: &Arc<App>, token: Option<&str>) -> Vec<Value> {
    let page = expect(send(app, request("GET /gateway/bans", token, "")).await, 200, None);
    let rows = page["bans"].as_array().unwrap().clone();
    assert_eq!(page["total"], rows.len());
    rows
}

/// A sidecar with a filter that has copied everything.
async fn pair() -> (Arc<App>, Arc<Mutex<Copied>>, tokio::task::JoinHandle<()>) {
    let app = app("127.0.0.1:9902", nobody().await);
    let copied = Arc::<Mutex<Copied>>::default();
    let needs = Needs {
        providers: vec!["idp".into(), "other".into()],
        api_keys: true,
        exempt: vec!["10.9.0.0/16".into(), "2001:db8:9::/48".into()],
        ..Needs::default()
    };
    let filter = copier(&app, needs, Arc::clone(&copied));
    connected(&app).await;
    (app, copied, filter)
}

/// What the filter has of a name.
fn told(copied: &Mutex<Copied>, name: &Name<'_>) -> Vec<Record> {
    let mut copied = copied.lock().unwrap();
    let keys = copied.keys;
    let print = name.print(keys);
    let bytes = bucket(&print).read(&mut *copied).unwrap();
    let provider = name.provider_print(keys);
    decode(&bytes).filter(|one| one.print == print && one.provider == provider).collect()
}

const fn ip(name: &str) -> Name<'_> {
    Name { kind: Kind::Ip, provider: None, name }
}

/// What a penalty did, as it comes by a report.
fn penalty(serial: u64, until_ms: u64) -> PenaltyBan {
    let stands = Stands::Banned;
    PenaltyBan { serial, limit: "l".into(), level: 1, made_ms: 1000, until_ms, stands }
}

/// Puts what a penalty did into the store.
fn reported(app: &App, kind: Kind, name: &str, ban: PenaltyBan) {
    let nobody = Ban::nobody(kind, None, name.into());
    let ban = Ban { penalty: Some(ban), ..nobody };
    let key = ban.key(app.replica.keys());
    let put = vec![Change::PutBan(key, ban)];
    app.replica.change(|_| Ok::<_, Problem>((put, ()))).unwrap();
    app.channel.offer(|| app.replica.position());
}

#[tokio::test]
async fn a_ban_that_is_answered_200_is_in_force_and_lifted_it_is_not() {
    let (app, copied, filter) = pair().await;
    let body = json!({"ip": "::ffff:203.0.113.9", "expires": "2096-10-02T07:06:40Z", "note": "n"});
    let body = expect(post_to(&app, &body).await, 200, None);
    assert_eq!(body["in_force"], true);
    assert_eq!(body["name"], "203.0.113.9", "v4-mapped addresses are v4");
    assert_eq!((&body["kind"], &body["source"]), (&json!("ip"), &json!("admin")));
    assert_eq!((&body["until"], &body["note"]), (&json!("2096-10-02T07:06:40Z"), &json!("n")));
    let records = told(&copied, &ip("203.0.113.9"));
    let said: Vec<_> = records.iter().map(|one| (one.verdict, one.serial, one.until_ms)).collect();
    assert_eq!(said, [(Verdict::Banned, 0, FAR_MS)]);
    assert_eq!(told(&copied, &ip("203.0.113.8")), []);
    let gone = expect(delete_of(&app, &body["id"]).await, 200, None);
    assert_eq!((&gone["deleted"], &gone["in_force"]), (&json!(true), &json!(true)));
    assert_eq!(told(&copied, &ip("203.0.113.9")), []);
    expect(delete_of(&app, &body["id"]).await, 404, Some("ban-unknown"));
    filter.abort();
}

#[tokio::test]
async fn users_of_one_name_at_two_providers_are_two_and_without_a_provider_all_are_meant() {
    let (app, copied, filter) = pair().await;
    let mut ids = Vec::new();
    for provider in [None, Some("idp"), Some("other")] {
        let body = json!({"user": "u", "provider": provider, "duration": "5m"});
        let body = expect(post_to(&app, &body).await, 200, None);
        assert_eq!(body["provider"], json!(provider));
        let id = body["id"].as_str().unwrap().to_owned();
        assert_eq!(id.len(), if provider.is_some() { 48 } else { 32 });
        assert_eq!(told(&copied, &Name { kind: Kind::User, provider, name: "u" }).len(), 1);
        ids.push(id);
    }
    let key = expect(post_to(&app, &json!({"api_key": "u"})).await, 200, None);
    assert_eq!((&key["until"], &key["kind"]), (&Value::Null, &json!("api_key")));
    let key = Name { kind: Kind::ApiKey, provider: None, name: "u" };
    assert_eq!(told(&copied, &key)[0].until_ms, u64::MAX);
    expect(delete_of(&app, &json!(ids[1])).await, 200, None);
    let left: Vec<Value> = listed(&app, None).await.iter().map(|row| row["id"].clone()).collect();
    assert!(left.contains(&json!(ids[0])) && left.contains(&json!(ids[2])), "{left:?}");
    assert_eq!(left.len(), 3);
    filter.abort();
}

#[tokio::test]
async fn a_penaltys_ban_that_is_lifted_stays_known_until_it_would_have_ended() {
    let (app, copied, filter) = pair().await;
    reported(&app, Kind::Ip, "192.0.2.1", penalty(7, FAR_MS));
    let row = listed(&app, Some(ADMIN)).await.remove(0);
    assert_eq!(
        (&row["source"], &row["limit"], &row["level"]),
        (&json!("penalty"), &json!("l"), &json!(1))
    );
    assert_eq!(row["since"], "1970-01-01T00:00:01Z");
    expect(delete_of(&app, &row["id"]).await, 200, None);
    assert_eq!(listed(&app, None).await, [json!(null); 0]);
    let later = penalty(7, FAR_MS).lifted_until_ms();
    assert!(later >= FAR_MS + 3_600_000);
    let verdicts = |copied| -> Vec<_> {
        let told = told(copied, &ip("192.0.2.1"));
        told.iter().map(|one| (one.verdict, one.serial, one.until_ms)).collect()
    };
    assert_eq!(verdicts(&copied), [(Verdict::Lifted, 7, later)]);
    expect(delete_of(&app, &row["id"]).await, 404, Some("ban-unknown"));
    // An administrator's ban stands beside it, and lifted leaves it lifted.
    expect(post_to(&app, &json!({"ip": "192.0.2.1"})).await, 200, None);
    assert_eq!(verdicts(&copied), [(Verdict::Banned, 0, u64::MAX), (Verdict::Lifted, 7, later)]);
    expect(delete_of(&app, &row["id"]).await, 200, None);
    assert_eq!(verdicts(&copied), [(Verdict::Lifted, 7, later)]);
    filter.abort();
}

#[tokio::test]
async fn the_same_name_again_is_the_same_ban_and_the_last_word_counts() {
    let (app, copied, filter) = pair().await;
    let first = expect(post_to(&app, &json!({"ip": "2001:DB8::1"})).await, 200, None);
    let again = json!({"ip": "2001:db8:0::1", "expires": 4_000_000_000_u64});
    let again = expect(post_to(&app, &again).await, 200, None);
    assert_eq!(again["id"], first["id"]);
    assert_eq!(again["name"], "2001:db8::1");
    assert_eq!(told(&copied, &ip("2001:db8::1"))[0].until_ms, FAR_MS);
    assert_eq!(listed(&app, None).await.len(), 1);
    filter.abort();
}

#[tokio::test]
async fn without_a_filter_a_ban_is_accepted_and_waits() {
    let app = app("127.0.0.1:9902", nobody().await);
    let body = expect(post_to(&app, &json!({"user": "u", "provider": "any"})).await, 202, None);
    assert_eq!(body["in_force"], false);
    assert!(body["reason"].as_str().unwrap().contains("no filter"), "{body}");
    let copied = Arc::<Mutex<Copied>>::default();
    let filter = copier(&app, Needs::default(), Arc::clone(&copied));
    connected(&app).await;
    expect(post_to(&app, &json!({"ip": "192.0.2.1"})).await, 200, None);
    let name = Name { kind: Kind::User, provider: Some("any"), name: "u" };
    assert_eq!(told(&copied, &name).len(), 1);
    filter.abort();
}

#[tokio::test]
async fn bans_that_are_over_leave_by_themselves() {
    let (app, copied, filter) = pair().await;
    let over = FAR_MS / 1000;
    expect(post_to(&app, &json!({"ip": "192.0.2.1", "expires": over})).await, 200, None);
    expect(post_to(&app, &json!({"ip": "192.0.2.2", "expires": over + 10})).await, 200, None);
    expect(post_to(&app, &json!({"ip": "192.0.2.3"})).await, 200, None);
    crate::serve::state::expire(&app, over - 1).await;
    assert_eq!(app.replica.held().bans().len(), 3);
    crate::serve::state::expire(&app, over).await;
    assert_eq!(app.replica.held().bans().len(), 2);
    // The next change is in force only when everything before it is.
    expect(post_to(&app, &json!({"ip": "192.0.2.4"})).await, 200, None);
    assert_eq!(told(&copied, &ip("192.0.2.1")), []);
    assert_eq!(told(&copied, &ip("192.0.2.2")).len(), 1);
    filter.abort();
}

#[tokio::test]
async fn one_more_than_the_most_is_a_conflict_and_what_is_over_takes_no_place() {
    let app = app("127.0.0.1:9902", nobody().await);
    let keys = app.replica.keys();
    let put = |name: &str, until_ms, over_secs| {
        let who = Ban::nobody(Kind::User, None, name.into());
        let ban = AdminBan { since_ms: 1, until_ms, note: None };
        let key = who.key(keys);
        let done = app.replica.change(|held| plan(key, who, ban, held, 2, over_secs));
        done.map(|_| app.replica.held().bans().len())
    };
    assert_eq!(put("a", Some(100_000), 1), Ok(1));
    assert_eq!(put("b", None, 1), Ok(2));
    assert_eq!(put("c", None, 99), Err(Problem::Full(FULL, 2)));
    assert_eq!(put("b", Some(200_000), 99), Ok(2), "what is there already needs no place");
    assert_eq!(put("c", None, 100), Ok(2));
    assert_eq!(put("d", None, 100), Err(Problem::Full(FULL, 2)));
}

#[test]
fn what_is_over_is_looked_for_once_and_only_when_it_is_needed() {
    let looks = std::cell::Cell::new(0);
    let mut room = Room::new(1, 2, || {
        looks.set(looks.get() + 1);
        vec![Change::DropBan([0; 24])]
    });
    let mut takes = [Place::None; 4];
    for (take, expected) in takes.iter_mut().zip([0, 1, 1, 1]) {
        *take = room.take();
        assert_eq!(looks.get(), expected);
    }
    assert_eq!(takes, [Place::Found, Place::Found, Place::None, Place::None]);
    assert!(matches!(room.gone().as_slice(), [Change::DropBan(_)]));
    // More than the most are there already: one that is over is not enough.
    let mut crowded = Room::new(5, 2, || vec![Change::DropBan([0; 24])]);
    assert_eq!(crowded.take(), Place::None);
}

#[tokio::test]
async fn bad_input_names_its_field_and_changes_nothing() {
    let (app, _, filter) = pair().await;
    for (body, field) in [
        (json!({}), "ip"),
        (json!({"ip": "192.0.2.1", "user": "u"}), "user"),
        (json!({"user": "u", "api_key": "k"}), "api_key"),
        (json!({"ip": "192.0.2.0/24"}), "ip"),
        (json!({"ip": "192.0.2"}), "ip"),
        (json!({"ip": "0192.0.2.1"}), "ip"),
        (json!({"ip": "fe80::1%eth0"}), "ip"),
        (json!({"ip": " 192.0.2.1"}), "ip"),
        (json!({"ip": "example.org"}), "ip"),
        (json!({"ip": 7}), "ip"),
        (json!({"user": ""}), "user"),
        (json!({"user": "x".repeat(1025)}), "user"),
        (json!({"user": "u", "provider": "nobody"}), "provider"),
        (json!({"ip": "192.0.2.1", "provider": "idp"}), "provider"),
        (json!({"provider": "idp"}), "ip"),
        (json!({"ip": "192.0.2.1", "duration": "5"}), "duration"),
        (json!({"ip": "192.0.2.1", "duration": "0s"}), "duration"),
        (json!({"ip": "192.0.2.1", "duration": 300}), "duration"),
        (json!({"ip": "192.0.2.1", "duration": "3651d"}), "duration"),
        (json!({"ip": "192.0.2.1", "duration": "5m", "expires": 4_000_000_000_u64}), "expires"),
        (json!({"ip": "192.0.2.1", "expires": 1000}), "expires"),
        (json!({"ip": "192.0.2.1", "expires": "soon"}), "expires"),
        (json!({"ip": "192.0.2.1", "note": "x".repeat(257)}), "note"),
        (json!({"ip": "192.0.2.1", "until": "5m"}), "until"),
    ] {
        let reply = expect(post_to(&app, &body).await, 422, Some("field-invalid"));
        assert_eq!(reply["field"], field, "{body}: {reply}");
        assert!(reply["detail"].as_str().unwrap().contains("; allowed: "), "{reply}");
    }
    for body in ["", "{", "[]", "7"] {
        let reply = send(&app, request("POST /gateway/bans", Some(ADMIN), body)).await;
        expect(reply, 400, Some("body-malformed"));
    }
    for id in ["00", "zz", &"0".repeat(48), &"0".repeat(32), &"F".repeat(32)] {
        expect(delete_of(&app, &json!(id)).await, 404, Some("ban-unknown"));
    }
    assert_eq!(app.replica.position().number, 0);
    filter.abort();
}

#[tokio::test]
async fn a_ban_that_this_policy_never_looks_at_is_refused() {
    let (app, _, filter) = pair().await;
    for address in ["10.9.1.1", "::ffff:10.9.1.1", "2001:db8:9::1"] {
        let reply =
            expect(post_to(&app, &json!({"ip": address})).await, 422, Some("field-invalid"));
        assert_eq!(reply["field"], "ip");
        assert!(reply["detail"].as_str().unwrap().contains("ip.exempt"), "{reply}");
    }
    expect(post_to(&app, &json!({"ip": "10.10.1.1"})).await, 200, None);
    filter.abort();
    // Before a filter has come nobody knows, and afterwards the last word counts.
    let open = crate::serve::tests::app("127.0.0.1:9902", nobody().await);
    for body in [json!({"user": "u"}), json!({"api_key": "k"})] {
        expect(post_to(&open, &body).await, 202, None);
    }
    let filter = copier(&open, Needs::default(), Arc::default());
    connected(&open).await;
    for (body, field) in [
        (json!({"user": "v"}), "user"),
        (json!({"api_key": "l"}), "api_key"),
        (json!({"user": "v", "provider": "idp"}), "provider"),
    ] {
        let reply = expect(post_to(&open, &body).await, 422, Some("field-invalid"));
        assert_eq!(reply["field"], field, "{reply}");
    }
    assert_eq!(open.replica.held().bans().len(), 2);
    filter.abort();
}

#[tokio::test]
async fn changes_need_the_token_and_this_host() {
    let app = app("127.0.0.1:9902", nobody().await);
    for line in ["POST /gateway/bans", "DELETE /gateway/bans/00"] {
        for token in [None, Some("x"), Some(SYNC)] {
            let reply = send(&app, request(line, token, r#"{"ip": "192.0.2.1"}"#)).await;
            expect(reply, 401, Some("admin-token-required"));
        }
        let mut rebound = request(line, Some(ADMIN), r#"{"ip": "192.0.2.1"}"#);
        rebound.headers_mut().insert("host", "evil.example".parse().unwrap());
        expect(send(&app, rebound).await, 421, Some("host-not-allowed"));
    }
    assert_eq!(app.replica.position().number, 0);
}

#[tokio::test]
async fn the_list_comes_in_pages_with_names_for_the_token_only() {
    let app = app("127.0.0.1:9902", nobody().await);
    for index in 0..5 {
        let body = json!({"user": format!("u-{index}"), "note": "n"});
        expect(post_to(&app, &body).await, 202, None);
    }
    // Neither what is over nor what was lifted is a ban.
    reported(&app, Kind::Ip, "192.0.2.1", penalty(1, 2000));
    reported(
        &app,
        Kind::Ip,
        "192.0.2.2",
        PenaltyBan { stands: Stands::Lifted, ..penalty(2, FAR_MS) },
    );
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let line = format!("GET /gateway/bans?limit=2{cursor}");
        let open = expect(send(&app, request(&line, None, "")).await, 200, None);
        let page = expect(send(&app, request(&line, Some(ADMIN), "")).await, 200, None);
        assert_eq!((&page["total"], &page["next"]), (&json!(5), &open["next"]));
        let rows = page["bans"].as_array().unwrap().iter();
        for (row, masked) in rows.zip(open["bans"].as_array().unwrap()) {
            assert_eq!(row["id"], masked["id"]);
            assert_eq!((&masked["name"], &masked["note"]), (&json!("***"), &json!("***")));
            assert_eq!((&row["note"], &masked["kind"]), (&json!("n"), &json!("user")));
            seen.push(row["name"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["u-0", "u-1", "u-2", "u-3", "u-4"]);
    let wrong = send(&app, request("GET /gateway/bans?cursor=x", None, "")).await;
    assert_eq!(expect(wrong, 422, Some("field-invalid"))["field"], "cursor");
}

#[tokio::test]
async fn the_audit_log_says_who_was_banned_and_lifted() {
    crate::log::tests::keep();
    let app = app("127.0.0.1:9902", nobody().await);
    let body = expect(post_to(&app, &json!({"user": "audited-user-1"})).await, 202, None);
    expect(delete_of(&app, &body["id"]).await, 202, None);
    let lines = crate::log::tests::lines_with("audited-user-1");
    for what in [r#""what":"ban""#, r#""what":"lift-ban""#] {
        let is = |line: &&String| line.contains(what) && line.contains(r#""audit":true"#);
        assert!(lines.iter().any(|line| is(&line)), "{what}: {lines:#?}");
    }
    assert!(lines.iter().all(|line| line.contains(r#""audit":true"#)), "{lines:#?}");
}
