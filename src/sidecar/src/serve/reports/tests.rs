//! Reports through the whole router.

use super::*;
use crate::log::tests::{keep, lines_with};
use crate::serve::tests::{
    ADMIN, Copied, Needs, SYNC, app, app_with, connected, copier, expect, nobody, request, send,
};
use crate::store::memory::Memory;
use crate::store::{AdminBan, Store};
use policy::replica::bans::{Name, Verdict, bucket, decode};
use policy::sync::{Limited, MARKER, Named, PROTOCOL};
use serde_json::Value;

/// 2096 and a little later.
const FAR_MS: u64 = 4_000_000_000_000;

fn report(worker: &str, number: u64) -> Report {
    Report {
        protocol: PROTOCOL,
        instance: "ab".into(),
        worker: worker.into(),
        number,
        limited: Vec::new(),
        bans: Vec::new(),
        lost: 0,
    }
}

fn limited(limit: &str, key: &str, count: u64) -> Limited {
    Limited { limit: limit.into(), key: key.into(), count }
}

fn banned(name: &str, serial: u64, made_ms: u64, until_ms: u64) -> BanMade {
    BanMade {
        who: Named { kind: "user".into(), provider: Some("idp".into()), name: name.into() },
        limit: "logins".into(),
        serial: format!("{serial:x}"),
        made_ms,
        until_ms,
        level: 1,
    }
}

async fn tell(app: &Arc<App>, report: &Report) -> Value {
    let body = serde_json::to_string(report).unwrap();
    let reply = send(app, request("POST /sync/report", Some(SYNC), &body)).await;
    assert_eq!(reply.1[MARKER], PROTOCOL.to_string());
    expect(reply, 200, None)
}

fn counts(app: &App) -> [u64; 4] {
    Outcome::ALL.map(|outcome| app.reports.count(outcome))
}

/// What is known of a user of `idp`.
fn known(app: &App, name: &str) -> Option<Ban> {
    let ban = Ban::nobody(Kind::User, Some("idp".into()), name.into());
    app.replica.held().bans().get(&ban.key(app.replica.keys())).cloned()
}

#[tokio::test]
async fn refused_keys_are_counted_once_for_each_number_of_a_worker() {
    let app = app("127.0.0.1:9902", nobody().await);
    let one = Report { limited: vec![limited("l", "user=a", 3)], lost: 2, ..report("w1", 1) };
    assert_eq!(tell(&app, &one).await, json!({}));
    tell(&app, &one).await;
    tell(&app, &Report { number: 0, ..one.clone() }).await;
    let count = |app: &App| app.reports.top("l").first().map(|top| top.count);
    assert_eq!(count(&app), Some(3));
    tell(&app, &Report { number: 2, ..one.clone() }).await;
    tell(&app, &Report { worker: "w2".into(), ..one.clone() }).await;
    tell(&app, &Report { instance: "cd".into(), ..one }).await;
    assert_eq!(count(&app), Some(12));
    assert_eq!(app.reports.lost(), 8);
    assert_eq!(counts(&app), [4, 2, 0, 0]);
    assert_eq!(app.reports.top("other"), []);
}

#[tokio::test]
async fn the_most_refused_keys_are_listed_with_names_for_the_token_only() {
    let app = app("127.0.0.1:9902", nobody().await);
    let limit = policy::sync::LimitInForce {
        name: "l".into(),
        algorithm: "token_bucket".into(),
        key: vec!["user".into(), "endpoint".into()],
        requests: 1,
        per_ms: 1000,
        burst: Some(1),
        queue: None,
        cost: 1,
        mode: "enforce".into(),
        penalty: true,
        keys_max: 8,
    };
    let needs = Needs { limits: vec![limit], ..Needs::default() };
    let filter = copier(&app, needs, Arc::default());
    connected(&app).await;
    let keys = [limited("l", "user=a,endpoint=e", 3), limited("l", "user=b,endpoint=f", 30)];
    tell(&app, &Report { limited: keys.into(), ..report("w", 1) }).await;
    for (token, names) in [
        (Some(ADMIN), ["user=b,endpoint=f", "user=a,endpoint=e"]),
        (None, ["user=***,endpoint=f", "user=***,endpoint=e"]),
        (Some(SYNC), ["user=***,endpoint=f", "user=***,endpoint=e"]),
    ] {
        let list = send(&app, request("GET /gateway/rate-limits", token, "")).await;
        let top = expect(list, 200, None)["limits"][0]["top_keys"].clone();
        let row = |index: usize, refused| json!({"key": names[index], "refused": refused, "over_by_at_most": 0});
        assert_eq!(top, json!([row(0, 30), row(1, 3)]));
    }
    filter.abort();
}

#[tokio::test]
async fn memory_for_workers_limits_and_keys_is_bounded() {
    let reports = Reports::new();
    for index in 0..WORKERS_MAX + 50 {
        assert_eq!(reports.take(&report(&format!("w-{index}"), 1), 0), Outcome::Counted);
    }
    assert_eq!(reports.told().workers.len(), WORKERS_MAX);
    // The one that was heard of last is still known.
    let last = report(&format!("w-{}", WORKERS_MAX + 49), 1);
    assert_eq!(reports.take(&last, 0), Outcome::Repeated);
    let heavy = Report { limited: vec![limited("heavy", "k", 1000)], ..report("x", 1) };
    reports.take(&heavy, 0);
    for index in 0..LIMITS_MAX + 20 {
        let one = limited(&format!("l-{index}"), "k", 1);
        reports.take(&Report { limited: vec![one], ..report("x", index as u64 + 2) }, 0);
    }
    assert_eq!(reports.told().limits.len(), LIMITS_MAX);
    assert_eq!(reports.top("heavy").len(), 1, "the least refused ones made room");
    let long = limited("heavy", &"x".repeat(NAMES_MAX - 4), 1);
    reports.take(&Report { limited: vec![long], ..report("y", 1) }, 0);
    assert_eq!((reports.lost(), reports.top("heavy").len()), (1, 1));
}

#[tokio::test]
async fn a_penaltys_ban_is_kept_audited_and_handed_back() {
    keep();
    let store = Arc::new(Memory::default());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let app = app_with("127.0.0.1:9902", nobody().await, shared);
    let copied = Arc::<Mutex<Copied>>::default();
    let filter = copier(&app, Needs::default(), Arc::clone(&copied));
    connected(&app).await;
    let ban = banned("reported-user-1", 0xabc, 1000, FAR_MS);
    tell(&app, &Report { bans: vec![ban.clone()], ..report("w", 1) }).await;
    let number = app.replica.position().number;
    // Again, by another number even: it is the same ban.
    tell(&app, &Report { bans: vec![ban.clone()], ..report("w", 2) }).await;
    assert_eq!(app.replica.position().number, number);
    app.channel.received(number).await.unwrap();
    let told = {
        let mut copied = copied.lock().unwrap();
        let keys = copied.keys;
        let name = Name { kind: Kind::User, provider: Some("idp"), name: "reported-user-1" };
        let bytes = bucket(&name.print(keys)).read(&mut *copied).unwrap();
        decode(&bytes).map(|one| (one.verdict, one.serial, one.until_ms)).collect::<Vec<_>>()
    };
    assert_eq!(told, [(Verdict::Banned, 0xabc, FAR_MS)]);
    let lines = lines_with("reported-user-1");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in [
        r#""audit":true"#,
        r#""who":"penalty""#,
        r#""limit":"logins""#,
        r#""level":1"#,
        r#""until":"2096-10-02T07:06:40Z""#,
        r#""serial":"0000000000000abc""#,
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    // It outlives the sidecar too.
    let shared: Arc<dyn Store> = store;
    let again = app_with("127.0.0.1:9902", nobody().await, shared);
    assert_eq!(known(&again, "reported-user-1"), known(&app, "reported-user-1"));
    filter.abort();
}

#[tokio::test]
async fn an_administrators_ban_that_lasts_longer_stays() {
    let app = app("127.0.0.1:9902", nobody().await);
    let ban = |user: &str, rest: &Value| {
        let mut body = json!({"user": user, "provider": "idp"});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        request("POST /gateway/bans", Some(ADMIN), &body.to_string())
    };
    for (user, rest) in [
        ("for-ever", json!({})),
        ("longer", json!({"expires": FAR_MS / 1000})),
        ("shorter", json!({"expires": FAR_MS / 1000 - 1, "note": "n"})),
    ] {
        expect(send(&app, ban(user, &rest)).await, 202, None);
    }
    let bans = ["for-ever", "longer", "shorter"].map(|user| banned(user, 7, 1000, FAR_MS));
    tell(&app, &Report { bans: bans.into(), ..report("w", 1) }).await;
    let source = |user| {
        let ban = known(&app, user).unwrap();
        assert!(ban.penalty.is_some(), "{user}: it can be lifted later");
        ban.admin.map(|AdminBan { until_ms, .. }| until_ms)
    };
    assert_eq!(source("for-ever"), Some(None));
    assert_eq!(source("longer"), Some(Some(FAR_MS)));
    assert_eq!(source("shorter"), None);
}

#[tokio::test]
async fn a_ban_that_was_lifted_is_not_made_again_by_its_repetition() {
    let app = app("127.0.0.1:9902", nobody().await);
    let first = Report { bans: vec![banned("u", 7, 1000, FAR_MS)], ..report("w", 1) };
    tell(&app, &first).await;
    let list = send(&app, request("GET /gateway/bans", Some(ADMIN), "")).await;
    let id = expect(list, 200, None)["bans"][0]["id"].as_str().unwrap().to_owned();
    let lift = request(&format!("DELETE /gateway/bans/{id}"), Some(ADMIN), "");
    expect(send(&app, lift).await, 202, None);
    for (number, ban, stands) in [
        (1, banned("u", 7, 1000, FAR_MS), Stands::Lifted),
        (2, banned("u", 7, 1000, FAR_MS), Stands::Lifted),
        // One that was made before, and came late.
        (3, banned("u", 6, 999, FAR_MS), Stands::Lifted),
        // One that is over already.
        (4, banned("u", 8, 1001, 1002), Stands::Lifted),
        (5, banned("u", 9, 1001, FAR_MS), Stands::Banned),
    ] {
        tell(&app, &Report { bans: vec![ban], ..report("w", number) }).await;
        assert_eq!(known(&app, "u").unwrap().penalty.unwrap().stands, stands, "{number}");
    }
}

/// What is known of somebody by one ban after another was reported; by its serial.
fn serial_after(there: &Ban, made: (u64, u64, u64), now_ms: u64) -> Option<u64> {
    let (serial, made_ms, until_ms) = made;
    let made = PenaltyBan { serial, made_ms, until_ms, ..penalty(0, 0, 0, Stands::Banned) };
    joined(there, &made, now_ms).and_then(|ban| ban.penalty).map(|ban| ban.serial)
}

fn penalty(serial: u64, made_ms: u64, until_ms: u64, stands: Stands) -> PenaltyBan {
    PenaltyBan { serial, limit: "l".into(), level: 0, made_ms, until_ms, stands }
}

#[test]
fn the_longer_of_two_bans_stays_unless_it_was_lifted() {
    let with = |stands, admin: Option<Option<u64>>| Ban {
        admin: admin.map(|until_ms| AdminBan { since_ms: 1, until_ms, note: None }),
        penalty: Some(penalty(7, 1000, 9000, stands)),
        ..Ban::nobody(Kind::User, None, "u".into())
    };
    let (shorter, as_long, longer) = ((8, 1500, 8999), (8, 1500, 9000), (8, 1500, 9001));
    // Made before, but told later: the order in which reports come changes nothing.
    let earlier = (8, 500, 9001);
    let banned = with(Stands::Banned, None);
    for (made, expected) in
        [(shorter, None), (as_long, Some(8)), (longer, Some(8)), (earlier, Some(8))]
    {
        assert_eq!(serial_after(&banned, made, 2000), expected, "{made:?}");
    }
    // An administrator's word lifts what the penalty did, as if it were deleted.
    for lifted in [with(Stands::Lifted, None), with(Stands::Banned, Some(Some(5000)))] {
        for (made, expected) in [(shorter, Some(8)), (longer, Some(8)), ((7, 1000, 9000), None)] {
            assert_eq!(serial_after(&lifted, made, 2000), expected, "{made:?}");
        }
    }
}

#[test]
fn a_clock_that_was_ahead_costs_no_later_ban() {
    let lifted = |made_ms| Ban {
        penalty: Some(penalty(7, made_ms, made_ms + 4000, Stands::Lifted)),
        ..Ban::nobody(Kind::User, None, "u".into())
    };
    assert_eq!(serial_after(&lifted(1900), (6, 1800, 5800), 2000), None, "it was lifted with it");
    assert_eq!(serial_after(&lifted(1900), (6, 1800, 5901), 2000), Some(6), "it lasts longer");
    assert_eq!(serial_after(&lifted(90_000), (8, 1800, 5800), 2000), Some(8));
    assert_eq!(serial_after(&lifted(2001), (8, 1800, 5800), 2000), Some(8));
    assert_eq!(serial_after(&lifted(2000), (8, 1800, 5800), 2000), None);
}

#[tokio::test]
async fn a_ban_that_makes_no_sense_costs_no_other() {
    let app = app("127.0.0.1:9902", nobody().await);
    let ban = |kind: &str, name: &str, serial: &str| {
        let who = Named { kind: kind.into(), provider: None, name: name.into() };
        BanMade { who, serial: serial.into(), ..banned("", 1, 1000, FAR_MS) }
    };
    let bans = vec![
        ban("dog", "a", "1"),
        ban("ip", "nowhere", "1"),
        ban("user", "zero", "0"),
        ban("user", "words", "xyz"),
        ban("user", &"x".repeat(NAMES_MAX + 1), "1"),
        ban("ip", "::ffff:192.0.2.1", "1f"),
        ban("api_key", "k", "ffffffffffffffff"),
    ];
    tell(&app, &Report { bans, ..report("w", 1) }).await;
    let held = app.replica.held();
    let mut names: Vec<_> = held.bans().values().map(|ban| (ban.kind.name(), &*ban.name)).collect();
    names.sort_unstable();
    assert_eq!(names, [("api_key", "k"), ("ip", "192.0.2.1")]);
}

#[test]
fn bans_beyond_the_most_are_counted_and_what_is_over_makes_room() {
    let replica = crate::serve::replica::Replica::load(Arc::new(Memory::default())).unwrap();
    let keys = replica.keys();
    let put = |bans: &[BanMade], over_secs| {
        let made: Vec<Made> = bans.iter().filter_map(|ban| Made::read(ban, keys)).collect();
        let plan = |held: &Held| Ok::<_, Problem>(plan(&made, held, 2, 0, over_secs));
        let (kept, _) = replica.change(plan).unwrap();
        (kept.bans.len(), kept.full, replica.held().bans().len())
    };
    let bans = ["a", "b", "c"].map(|name| banned(name, 1, 10, 50_000));
    assert_eq!(put(&bans, 1), (2, 1, 2));
    let again = [banned("a", 2, 20, 90_000)];
    assert_eq!(put(&again, 1), (1, 0, 2), "who is known already needs no place");
    assert_eq!(put(&[banned("c", 1, 30, 99_000)], 49), (0, 1, 2));
    // One that is over makes room, unless it is banned again by the same report.
    assert_eq!(put(&[banned("c", 1, 30, 99_000), banned("b", 2, 30, 60_000)], 50), (1, 1, 2));
    assert_eq!(put(&[banned("c", 1, 30, 99_000)], 60), (1, 0, 2));
    // Two bans of one name in one report: the later one counts, in whatever order.
    let two = [banned("a", 4, 50, 99_000), banned("a", 3, 40, 98_000)];
    assert_eq!(put(&two, 1), (1, 0, 2));
}

#[tokio::test]
async fn what_is_lost_is_counted_once_for_each_number() {
    let app = app("127.0.0.1:9902", nobody().await);
    let mut full = Report { bans: vec![banned("u", 1, 1000, FAR_MS)], lost: 3, ..report("w", 1) };
    let put = |count: usize| {
        let ban = |index: usize| {
            let who = Ban::nobody(Kind::User, None, format!("u-{index}"));
            let admin = AdminBan { since_ms: 1, until_ms: None, note: None };
            Change::PutBan(who.key(app.replica.keys()), Ban { admin: Some(admin), ..who })
        };
        let puts = (0..count).map(ban).collect();
        app.replica.change(|_| Ok::<_, Problem>((puts, ()))).unwrap();
    };
    put(BANS_MAX - ADMINS_MIN);
    tell(&app, &full).await;
    tell(&app, &full).await;
    assert_eq!(app.reports.lost(), 4, "no room, and that is counted once");
    full.number = 2;
    tell(&app, &full).await;
    assert_eq!(app.reports.lost(), 8);
    // An administrator has room still.
    let order = request("POST /gateway/bans", Some(ADMIN), r#"{"ip": "192.0.2.1"}"#);
    expect(send(&app, order).await, 202, None);
    // What makes no sense is counted as well: nobody could see it otherwise.
    let endless = banned(&"x".repeat(NAMES_MAX), 1, 1000, FAR_MS);
    tell(&app, &Report { bans: vec![endless], ..report("w", 3) }).await;
    assert_eq!(app.reports.lost(), 9);
}

#[tokio::test]
async fn whatever_a_filter_can_report_is_kept() {
    let app = app("127.0.0.1:9902", nobody().await);
    let mut long = banned("", 7, 1000, FAR_MS);
    long.who.name = "x".repeat(NAMES_MAX - long.names_len());
    assert_eq!(long.names_len(), NAMES_MAX);
    let key = limited("l", &"k".repeat(NAMES_MAX - 1), 1);
    tell(&app, &Report { bans: vec![long.clone()], limited: vec![key], ..report("w", 1) }).await;
    assert!(known(&app, &long.who.name).is_some());
    assert_eq!((app.reports.top("l").len(), app.reports.lost()), (1, 0));
}

#[tokio::test]
async fn a_store_that_fails_is_told_so_that_the_report_comes_again() {
    let store = Arc::new(Memory::default());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let app = app_with("127.0.0.1:9902", nobody().await, shared);
    let one = Report {
        bans: vec![banned("u", 7, 1000, FAR_MS)],
        limited: vec![limited("l", "user=a", 3)],
        ..report("w", 1)
    };
    store.broken.store(true, Ordering::Relaxed);
    let body = serde_json::to_string(&one).unwrap();
    let reply = send(&app, request("POST /sync/report", Some(SYNC), &body)).await;
    assert_eq!(reply.1[MARKER], PROTOCOL.to_string());
    expect(reply, 503, Some("store-unavailable"));
    assert_eq!(counts(&app), [0, 0, 0, 1]);
    store.broken.store(false, Ordering::Relaxed);
    tell(&app, &one).await;
    assert_eq!((known(&app, "u").is_some(), app.reports.top("l")[0].count), (true, 3));
}

#[tokio::test]
async fn what_is_no_report_is_refused_with_the_marker() {
    let app = app("127.0.0.1:9902", nobody().await);
    let good = serde_json::to_value(report("w", 1)).unwrap();
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    let key = json!({"limit": "l", "key": "k", "count": 1});
    let cases = [
        (None, good.to_string(), 401, "sync-token-required"),
        (Some(ADMIN), good.to_string(), 401, "sync-token-required"),
        (Some(SYNC), "{".to_owned(), 400, "body-malformed"),
        (Some(SYNC), with("number", json!(-1)), 400, "body-malformed"),
        (Some(SYNC), with("instance", json!("")), 400, "body-malformed"),
        (Some(SYNC), with("worker", json!("x".repeat(65))), 400, "body-malformed"),
        (Some(SYNC), with("limited", json!(vec![key; REPORTED_MAX + 1])), 400, "body-malformed"),
        (Some(SYNC), with("protocol", json!(PROTOCOL + 1)), 409, "protocol-mismatch"),
        (Some(SYNC), " ".repeat(BODY_MAX + 1), 413, "body-too-large"),
    ];
    let refused = cases.len() as u64;
    for (token, body, status, code) in cases {
        let reply = send(&app, request("POST /sync/report", token, &body)).await;
        assert_eq!(reply.1[MARKER], PROTOCOL.to_string());
        expect(reply, status, Some(code));
    }
    assert_eq!(counts(&app), [0, 0, refused, 0]);
    let mut by_cluster = request("POST /sync/report", Some(SYNC), &good.to_string());
    by_cluster.headers_mut().insert("host", "gateway-sidecar".parse().unwrap());
    expect(send(&app, by_cluster).await, 200, None);
}
