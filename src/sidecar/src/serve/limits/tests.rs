//! Rate limits through the whole router, with a filter that answers what it is asked.

use super::*;
use crate::serve::tests::{
    ADMIN, Copied, Does, Needs, SYNC, app, connected, copier, envoy, expect, nobody, request, send,
};
use policy::sync::{Action, DoneOutcome, KeyStanding};
use std::net::SocketAddr;
use std::sync::Mutex;

const STATS: &str = r#"{"stats":[
    {"name":"wasmcustom.gateway_rate_limit_total;limit=per-user;outcome=ok","value":7},
    {"name":"wasmcustom.gateway_rate_limit_total;limit=per-user;outcome=over","value":3},
    {"name":"wasmcustom.gateway_rate_limit_total;limit=everyone;outcome=ok","value":9},
    {"name":"wasmcustom.gateway_bans_total;limit=per-user","value":2},
    {"name":"wasmcustom.gateway_rate_limit_paused_total;limit=smooth","value":4}]}"#;

fn limit(name: &str, algorithm: &str, key: &[&str]) -> LimitInForce {
    let bucket = matches!(algorithm, "token_bucket" | "adaptive");
    LimitInForce {
        name: name.into(),
        algorithm: algorithm.into(),
        key: key.iter().map(|part| (*part).to_owned()).collect(),
        requests: 100,
        per_ms: 60_000,
        burst: bucket.then_some(100),
        queue: (algorithm == "leaky_bucket").then_some(5),
        cost: 2,
        mode: "enforce".into(),
        penalty: false,
        keys_max: 1024,
    }
}

fn limits() -> Vec<LimitInForce> {
    vec![
        limit("per-user", "token_bucket", &["user", "endpoint"]),
        limit("everyone", "sliding_window", &[]),
        limit("smooth", "leaky_bucket", &["ip", "header:x-tenant"]),
        limit("load", "adaptive", &["claim:https://x/a"]),
    ]
}

struct Pair {
    app: Arc<App>,
    copied: Arc<Mutex<Copied>>,
    filter: tokio::task::JoinHandle<()>,
}

/// A sidecar with a filter that has these limits.
async fn pair_with(envoy: SocketAddr, does: Option<Does>) -> Pair {
    let app = app("127.0.0.1:9902", envoy);
    let copied = Arc::<Mutex<Copied>>::default();
    let providers = vec!["idp".to_owned()];
    let needs = Needs { limits: limits(), providers, does, ..Needs::default() };
    let filter = copier(&app, needs, Arc::clone(&copied));
    connected(&app).await;
    Pair { app, copied, filter }
}

async fn pair() -> Pair {
    pair_with(nobody().await, None).await
}

async fn ask(app: &Arc<App>, line: &str, body: &str) -> (StatusCode, HeaderMap, String) {
    send(app, request(line, Some(ADMIN), body)).await
}

fn told(copied: &Mutex<Copied>, limit: &str) -> Option<Override> {
    policy::replica::overrides::read(limit, &mut *copied.lock().unwrap()).unwrap()
}

#[tokio::test]
async fn every_limit_is_listed_with_its_totals() {
    let Pair { app, filter, .. } = pair_with(envoy(STATS).await, None).await;
    let list = expect(send(&app, request("GET /gateway/rate-limits", None, "")).await, 200, None);
    let rows = list["limits"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["per-user", "everyone", "smooth", "load"]);
    let policy = json!({"requests": 100, "per": "1m", "burst": 100, "mode": "enforce"});
    let expected = json!({
        "name": "per-user", "algorithm": "token_bucket", "key": ["user", "endpoint"],
        "requests": 100, "per": "1m", "burst": 100, "queue": null, "cost": 2, "mode": "enforce",
        "penalty": false, "keys_max": 1024, "policy": policy, "override": null,
        "totals": {"ok": 7, "over": 3, "paused": 0, "bans": 2}, "top_keys": [],
    });
    assert_eq!(rows[0], expected);
    assert_eq!((&rows[2]["queue"], &rows[2]["burst"]), (&json!(5), &Value::Null));
    assert_eq!(rows[2]["totals"], json!({"ok": 0, "over": 0, "paused": 4, "bans": 0}));
    assert_eq!((&list["connected"], &list["unused_overrides"]), (&json!(true), &json!([])));
    let one = send(&app, request("GET /gateway/rate-limits/per-user", None, "")).await;
    assert_eq!(expect(one, 200, None), expected);
    let other = send(&app, request("GET /gateway/rate-limits/other", None, "")).await;
    expect(other, 404, Some("limit-unknown"));
    filter.abort();
}

#[tokio::test]
async fn without_envoys_statistics_or_a_filter_the_list_still_comes() {
    let app = app("127.0.0.1:9902", nobody().await);
    let list = expect(send(&app, request("GET /gateway/rate-limits", None, "")).await, 200, None);
    assert_eq!((&list["limits"], &list["connected"]), (&json!([]), &json!(false)));
    for line in ["GET /gateway/rate-limits/a", "GET /gateway/rate-limits/a/user=u"] {
        expect(send(&app, request(line, None, "")).await, 503, Some("policy-unknown"));
    }
    let Pair { app, filter, .. } = pair().await;
    let list = expect(send(&app, request("GET /gateway/rate-limits", None, "")).await, 200, None);
    assert_eq!(list["limits"][0]["totals"], Value::Null);
    filter.abort();
}

#[tokio::test]
async fn an_override_is_in_force_when_it_is_answered_200_and_leaves_again() {
    let Pair { app, copied, filter } = pair().await;
    let line = "PUT /gateway/rate-limits/per-user";
    let body = expect(ask(&app, line, r#"{"requests": 600, "mode": "shadow"}"#).await, 200, None);
    assert_eq!(body["in_force"], true);
    // The burst was that of the requests, and follows them.
    let numbers = |body: &Value| {
        json!([body["requests"], body["per"], body["burst"], body["mode"], body["policy"]["burst"]])
    };
    assert_eq!(numbers(&body), json!([600, "1m", 600, "shadow", 100]));
    assert_eq!(
        (&body["override"]["requests"], &body["override"]["per"]),
        (&json!(600), &Value::Null)
    );
    assert!(body["override"]["since"].as_str().unwrap().ends_with('Z'), "{body}");
    let one = Override { requests: Some(600), mode: Some("shadow".into()), ..Override::default() };
    assert_eq!(told(&copied, "per-user"), Some(one));
    // The next one takes its place as a whole.
    let body = expect(ask(&app, line, r#"{"per": "250ms", "burst": 7}"#).await, 200, None);
    assert_eq!(numbers(&body), json!([100, "250ms", 7, "enforce", 100]));
    let one = Override { per_ms: Some(250), burst: Some(7), ..Override::default() };
    assert_eq!(told(&copied, "per-user"), Some(one));
    let delete = "DELETE /gateway/rate-limits/per-user";
    let body = expect(ask(&app, delete, "").await, 200, None);
    assert_eq!(numbers(&body), json!([100, "1m", 100, "enforce", 100]));
    assert_eq!((&body["override"], &body["in_force"]), (&Value::Null, &json!(true)));
    assert_eq!(told(&copied, "per-user"), None);
    expect(ask(&app, delete, "").await, 404, Some("override-unknown"));
    expect(ask(&app, "DELETE /gateway/rate-limits/x", "").await, 404, Some("limit-unknown"));
    filter.abort();
}

#[tokio::test]
async fn numbers_that_the_policy_could_not_have_name_their_field_and_change_nothing() {
    let Pair { app, filter, .. } = pair().await;
    for (limit, body, field) in [
        ("per-user", json!({}), "requests"),
        ("per-user", json!({"requests": null}), "requests"),
        ("per-user", json!({"requests": 0}), "requests"),
        ("per-user", json!({"requests": -1}), "requests"),
        ("per-user", json!({"requests": 1.5}), "requests"),
        ("per-user", json!({"requests": "5"}), "requests"),
        ("per-user", json!({"requests": 4_294_967_296_u64}), "requests"),
        ("per-user", json!({"burst": 0}), "burst"),
        ("per-user", json!({"burst": 1}), "burst"),
        ("per-user", json!({"per": "0s"}), "per"),
        ("per-user", json!({"per": 60}), "per"),
        ("per-user", json!({"per": "1h30m"}), "per"),
        ("per-user", json!({"per": "99999d"}), "per"),
        ("per-user", json!({"mode": "off"}), "mode"),
        ("per-user", json!({"queue": 1}), "queue"),
        ("everyone", json!({"burst": 10}), "burst"),
        ("everyone", json!({"requests": 1}), "requests"),
        ("smooth", json!({"burst": 10}), "burst"),
    ] {
        let line = format!("PUT /gateway/rate-limits/{limit}");
        let reply = expect(ask(&app, &line, &body.to_string()).await, 422, Some("field-invalid"));
        assert_eq!(reply["field"], field, "{body}: {reply}");
        assert!(reply["detail"].as_str().unwrap().contains("; allowed: "), "{reply}");
    }
    let put = "PUT /gateway/rate-limits/other";
    expect(ask(&app, put, r#"{"requests": 1}"#).await, 404, Some("limit-unknown"));
    for body in ["", "[]", "{"] {
        let put = "PUT /gateway/rate-limits/per-user";
        expect(ask(&app, put, body).await, 400, Some("body-malformed"));
    }
    assert_eq!(app.replica.position().number, 0);
    filter.abort();
}

#[tokio::test]
async fn an_override_outlives_its_limit_and_can_still_be_deleted() {
    let Pair { app, filter, .. } = pair().await;
    let put = |name: &str, change: Override| {
        let one = Overridden { change, since: 1 };
        let put = vec![Change::PutOverride(name.to_owned(), one)];
        app.replica.change(|_| Ok::<_, Problem>((put, ()))).unwrap();
    };
    // The policy has changed since: one limit is gone, the other one cannot have a burst.
    put("gone", Override { requests: Some(5), ..Override::default() });
    put("everyone", Override { burst: Some(5), ..Override::default() });
    let list = expect(send(&app, request("GET /gateway/rate-limits", None, "")).await, 200, None);
    let unused =
        json!([{"name": "gone", "override": {"requests": 5, "since": "1970-01-01T00:00:01Z"}}]);
    assert_eq!(list["unused_overrides"], unused);
    let row = &list["limits"][1];
    assert_eq!((&row["burst"], &row["requests"]), (&Value::Null, &json!(100)));
    assert!(row["override"]["not_in_force"].as_str().unwrap().contains("burst"), "{row}");
    let body = expect(ask(&app, "DELETE /gateway/rate-limits/gone", "").await, 200, None);
    assert_eq!(body["name"], "gone");
    filter.abort();
}

#[tokio::test]
async fn an_override_without_a_filter_waits_for_one() {
    let Pair { app, filter, .. } = pair().await;
    filter.abort();
    assert!(filter.await.is_err());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    tokio::time::resume();
    let put = "PUT /gateway/rate-limits/per-user";
    let body = expect(ask(&app, put, r#"{"requests": 600}"#).await, 202, None);
    assert!(body["reason"].as_str().unwrap().contains("no filter"), "{body}");
    let read = request("GET /gateway/rate-limits/everyone/-", None, "");
    expect(send(&app, read).await, 503, Some("filter-away"));
    let reset = ask(&app, "DELETE /gateway/rate-limits/everyone/-", "").await;
    assert_eq!(expect(reset, 202, None)["status"], "accepted");
}

fn standing(provider: Option<&str>, remaining: u32, retry_ms: u64) -> KeyStanding {
    let provider = provider.map(str::to_owned);
    KeyStanding { provider, known: true, remaining, reset_ms: 30_000, retry_ms }
}

#[tokio::test]
async fn a_key_is_read_from_the_filter() {
    let does: Does = |action| {
        let Action::ReadKey { limit, key } = action else { return (DoneOutcome::Failed, vec![]) };
        let key: Vec<_> = key.iter().map(|(part, value)| format!("{part}={value}")).collect();
        let standings = match (limit.as_str(), key.join("&").as_str()) {
            ("per-user", "endpoint=a,b=c&user=u 1") => {
                vec![standing(Some("idp"), 7, 0), standing(Some("other"), 0, 5)]
            }
            ("per-user", "endpoint=-&provider=idp&user=ü") => vec![standing(Some("idp"), 1, 0)],
            ("everyone", "") => vec![standing(None, 2, 0)],
            ("smooth", "header:x-tenant=&ip=203.0.113.9") => vec![standing(None, 3, 0)],
            ("smooth", "header:x-tenant=a/b&ip=-") => vec![standing(None, 4, 0)],
            ("load", "claim:https://x/a=v") => vec![standing(None, 5, 0)],
            _ => return (DoneOutcome::Unknown, vec![]),
        };
        (DoneOutcome::Applied, standings)
    };
    let Pair { app, filter, .. } = pair_with(nobody().await, Some(does)).await;
    for (path, remaining) in [
        ("per-user/user=u%201,endpoint=a%2Cb%3Dc", 0),
        ("per-user/endpoint=-,provider=idp,user=%C3%BC", 1),
        ("everyone/-", 2),
        ("everyone/", 2),
        ("smooth/ip=%3A%3Affff:203.0.113.9,header:X-Tenant=", 3),
        ("smooth/ip=-,header%3ax-tenant=a%2Fb", 4),
        ("load/claim:https:%2F%2Fx%2Fa=v", 5),
    ] {
        let read = request(&format!("GET /gateway/rate-limits/{path}"), None, "");
        let body = expect(send(&app, read).await, 200, None);
        assert_eq!(body["remaining"], remaining, "{path}: {body}");
    }
    let read = "GET /gateway/rate-limits/per-user/user=u%201,endpoint=a%2Cb%3Dc";
    let body = expect(send(&app, request(read, None, "")).await, 200, None);
    assert_eq!(body["key"], json!({"user": "u 1", "endpoint": "a,b=c"}));
    assert_eq!((&body["limit"], &body["retry_ms"]), (&json!("per-user"), &json!(5)));
    let standings = body["standings"].as_array().unwrap();
    assert_eq!((&standings[0]["provider"], &standings[0]["remaining"]), (&json!("idp"), &json!(7)));
    assert_eq!((standings.len(), &standings[1]["reset_ms"]), (2, &json!(30_000)));
    assert!(standings[0]["reset"].as_str().unwrap().ends_with('Z'));
    // The filter has just taken another policy.
    let read = request("GET /gateway/rate-limits/per-user/user=x,endpoint=y", None, "");
    expect(send(&app, read).await, 404, Some("limit-key-unknown"));
    filter.abort();
}

#[tokio::test]
async fn a_key_that_is_not_of_the_limits_parts_is_refused_with_what_they_are() {
    let Pair { app, filter, .. } = pair().await;
    for (path, allowed) in [
        ("per-user/user=u", "user=…,endpoint=…"),
        ("per-user/user=u,endpoint=e,ip=192.0.2.1", "user=…,endpoint=…"),
        ("per-user/user=u,user=u,endpoint=e", "user=…,endpoint=…"),
        ("per-user/user=u,endpoint=e,provider=nobody", "user=…,endpoint=…"),
        ("per-user/user,endpoint=e", "user=…,endpoint=…"),
        ("per-user/=u,endpoint=e", "user=…,endpoint=…"),
        ("per-user/user=%zz,endpoint=e", "user=…,endpoint=…"),
        ("per-user/user=%FF,endpoint=e", "user=…,endpoint=…"),
        ("per-user/-", "user=…,endpoint=…"),
        ("per-user/", "user=…,endpoint=…"),
        ("everyone/user=u", "`-`"),
        ("smooth/ip=203.0.113,header:x-tenant=a", "ip=…,header:x-tenant=…"),
        ("smooth/ip=192.0.2.1,header:x-tenant=a,provider=idp", "ip=…,header:x-tenant=…"),
    ] {
        for method in ["GET", "DELETE"] {
            let reply = ask(&app, &format!("{method} /gateway/rate-limits/{path}"), "").await;
            let body = expect(reply, 422, Some("field-invalid"));
            assert_eq!(body["field"], "key", "{path}");
            assert!(body["detail"].as_str().unwrap().contains(allowed), "{path}: {body}");
        }
    }
    let long = format!("DELETE /gateway/rate-limits/per-user/user={},endpoint=e", "x".repeat(2048));
    let body = expect(ask(&app, &long, "").await, 422, Some("field-invalid"));
    assert_eq!(body["field"], "key");
    let other = ask(&app, "GET /gateway/rate-limits/other/user=u", "").await;
    expect(other, 404, Some("limit-unknown"));
    assert_eq!(app.channel.status().pending, 0);
    filter.abort();
}

#[tokio::test]
async fn a_key_and_an_identity_are_forgotten_when_the_filter_says_so() {
    let does: Does = |action| {
        let outcome = match action {
            Action::ResetKey { limit, key } if limit == "smooth" && key["ip"] == "::1" => {
                DoneOutcome::Applied
            }
            Action::ResetIdentity(who) if who.kind == "ip" && who.name == "192.0.2.1" => {
                DoneOutcome::Applied
            }
            Action::ResetIdentity(who) if who.provider.as_deref() == Some("idp") => {
                DoneOutcome::Applied
            }
            _ => DoneOutcome::Unknown,
        };
        (outcome, Vec::new())
    };
    let Pair { app, filter, .. } = pair_with(nobody().await, Some(does)).await;
    let line = "DELETE /gateway/rate-limits/smooth/ip=0:0::1,header:x-tenant=a";
    let body = expect(ask(&app, line, "").await, 200, None);
    assert_eq!((&body["status"], &body["limit"]), (&json!("applied"), &json!("smooth")));
    let line = "DELETE /gateway/rate-limits/everyone/-";
    expect(ask(&app, line, "").await, 404, Some("limit-key-unknown"));
    let reset = "POST /gateway/rate-limits/reset";
    for (body, status) in [
        (json!({"ip": "::ffff:192.0.2.1"}), "applied"),
        (json!({"user": "u", "provider": "idp"}), "applied"),
        (json!({"api_key": "k"}), "nothing_there"),
    ] {
        let reply = expect(ask(&app, reset, &body.to_string()).await, 200, None);
        assert_eq!(reply["status"], status, "{body}");
    }
    for (body, field) in [
        (json!({}), "ip"),
        (json!({"user": "u", "provider": "x"}), "provider"),
        (json!({"ip": "u"}), "ip"),
        (json!({"user": "u", "duration": "5m"}), "duration"),
    ] {
        let reply = expect(ask(&app, reset, &body.to_string()).await, 422, Some("field-invalid"));
        assert_eq!(reply["field"], field);
    }
    expect(ask(&app, "POST /gateway/rate-limits/per-user", "{}").await, 404, Some("not-found"));
    filter.abort();
}

#[tokio::test]
async fn without_a_policy_a_reset_is_kept_for_the_filter_that_connects() {
    let app = app("127.0.0.1:9902", nobody().await);
    for (line, body) in [
        ("DELETE /gateway/rate-limits/l/user=u,endpoint=e", ""),
        ("POST /gateway/rate-limits/reset", r#"{"user": "u"}"#),
    ] {
        let body = expect(ask(&app, line, body).await, 202, None);
        assert_eq!(body["status"], "accepted");
        assert!(body["reason"].as_str().unwrap().contains("no filter"), "{body}");
    }
    assert_eq!(app.channel.status().pending, 2);
}

#[tokio::test]
async fn a_filter_that_cannot_have_its_shared_state_is_said_so() {
    let does: Does = |_| (DoneOutcome::Failed, Vec::new());
    let Pair { app, filter, .. } = pair_with(nobody().await, Some(does)).await;
    for line in ["GET /gateway/rate-limits/everyone/-", "DELETE /gateway/rate-limits/everyone/-"] {
        expect(ask(&app, line, "").await, 503, Some("state-unavailable"));
    }
    filter.abort();
}

#[tokio::test]
async fn a_read_that_nobody_waits_for_is_forgotten() {
    let app = app("127.0.0.1:9902", nobody().await);
    let key = std::collections::BTreeMap::new();
    let read = Action::ReadKey { limit: "l".into(), key: key.clone() };
    let first = app.channel.put(read.clone()).unwrap();
    drop(app.channel.put(read).unwrap());
    let reset = app.channel.put(Action::ResetKey { limit: "l".into(), key }).unwrap();
    drop(reset.done);
    let poll = crate::serve::tests::poll(&json!([]));
    let answer = expect(send(&app, request("POST /sync", Some(SYNC), &poll)).await, 200, None);
    let ids: Vec<_> = answer["commands"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&json!(first.id), &json!(reset.id)]);
}

#[tokio::test]
async fn changes_need_the_token() {
    let app = app("127.0.0.1:9902", nobody().await);
    for line in [
        "PUT /gateway/rate-limits/l",
        "DELETE /gateway/rate-limits/l",
        "DELETE /gateway/rate-limits/l/user=u",
        "POST /gateway/rate-limits/reset",
    ] {
        for token in [None, Some("x"), Some(SYNC)] {
            let reply = send(&app, request(line, token, r#"{"requests": 1, "user": "u"}"#)).await;
            expect(reply, 401, Some("admin-token-required"));
        }
    }
    assert_eq!((app.replica.position().number, app.channel.status().pending), (0, 0));
}

#[test]
fn masks_leave_what_is_the_policys() {
    for (key, masked) in [
        ("user=u,endpoint=sample", "user=***,endpoint=sample"),
        ("ip=1.2.3.4,service=a,tier=gold,provider=idp", "ip=***,service=a,tier=gold,provider=***"),
        ("header:x-tenant=t,claim:org=o", "header:x-tenant=***,claim:org=***"),
        ("", ""),
        ("strange", "***"),
    ] {
        assert_eq!(mask(key), masked);
    }
}
