//! Key sets, waiting streams, the memory and revocations, through whole VMs on a host in memory
//! whose `verify_signature` takes every signature.

mod hostile;
mod turns;

use super::*;
use crate::testing::FakeHost;
use crate::vm::{Action, Vm};
use policy::headers::{Headers, serialize};
use policy::replica::revocations::{Kind, Name, Record, bucket, encode};
use policy::replica::{Bans, STATE_KEY, State};
use policy::store::{Change, update};
use serde_json::{Value, json};

const ROOT: u32 = 1;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEYS: [u64; 2] = [5, 6];

fn policy(more: &Value) -> String {
    let mut document = json!({
        "version": 1,
        "authentication": {
            "mode": "required",
            "jwt": {"providers": [{
                "name": "p", "issuer": "i", "audiences": ["a"], "algorithms": ["ES256"],
                "keys": {"jwks": {"cluster": "idp", "host": "idp.example", "path": "/keys",
                                  "refresh": "10m", "max_stale": "1h", "cooldown": "30s"}},
            }]}
        },
        "sidecar": {"cluster": "side", "token": {"env": "S"}},
    });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    document.to_string()
}

/// One VM of a process.
struct Worker {
    host: FakeHost,
    vm: Vm<FakeHost>,
}

impl Worker {
    fn new(host: FakeHost) -> Self {
        let vm = Vm::new(host.clone());
        vm.on_context_create(ROOT, 0);
        let size = host.vm.configuration.borrow().len();
        assert!(vm.on_configure(ROOT, size), "{:?}", host.process.log.borrow());
        Self { host, vm }
    }

    /// Two VMs of one process.
    fn two(more: &Value) -> [Self; 2] {
        let host = FakeHost::new(1);
        host.vm.variables.borrow_mut().insert("S".into(), SECRET.into());
        host.configure("gateway", &policy(more));
        let sibling = host.sibling();
        [Self::new(host), Self::new(sibling)]
    }

    /// A request with this token on this stream.
    fn send(&self, context: u32, token: &str) -> Action {
        self.vm.on_context_create(context, ROOT);
        self.show(token);
        self.host.vm.effective.set(Some(context));
        self.vm.on_request_headers(context, 3)
    }

    /// What the host would read as the request of whatever stream is meant.
    fn show(&self, token: &str) {
        let value = format!("Bearer {token}");
        *self.host.vm.request.borrow_mut() = serialize(&[
            (b":method", b"GET"),
            (b":path", b"/a"),
            (b"authorization", value.as_bytes()),
        ]);
    }

    /// Tokens of the fetches that this VM has begun.
    fn fetches(&self) -> Vec<u32> {
        let calls = self.host.vm.calls.borrow();
        let fetch = |headers: &[u8]| Headers::new(headers).first(":path") == Some(b"/keys");
        calls.iter().filter(|call| fetch(&call.headers)).map(|call| call.token).collect()
    }

    /// The issuer answers a fetch.
    fn answer(&self, fetch: u32, status: &[u8], body: &str) {
        let answer = (serialize(&[(b":status", status)]), body.as_bytes().to_vec());
        *self.host.vm.call_response.borrow_mut() = Some(answer);
        self.vm.on_call_response(ROOT, fetch, body.len());
    }

    fn last(&self) -> u32 {
        *self.fetches().last().unwrap()
    }

    fn tick(&self) {
        self.vm.on_tick(ROOT);
    }

    fn details(&self) -> Vec<String> {
        self.host.vm.replies.borrow().iter().map(|(_, details)| details.clone()).collect()
    }

    fn continued(&self) -> Vec<u32> {
        self.host.vm.continued.borrow().clone()
    }

    fn fetched(&self, outcome: &str) -> i64 {
        self.host.metric(&format!("gateway_jwks_fetch_total;provider=p;outcome={outcome}"))
    }
}

/// Base64url without padding.
fn text(bytes: &[u8]) -> String {
    let table = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0_u8; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for at in 0..=chunk.len() {
            out.push(char::from(table[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    out
}

fn token(kid: &str, more: &Value) -> String {
    let mut claims = json!({"iss": "i", "aud": "a", "sub": "someone", "exp": 5_000_000});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let header = json!({"alg": "ES256", "kid": kid}).to_string();
    let signed = [header, claims.to_string()].map(|part| text(part.as_bytes()));
    format!("{}.{}.{}", signed[0], signed[1], text(&[1; 64]))
}

fn set(kids: &[&str]) -> String {
    let key = |kid: &&str| {
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid,
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    };
    json!({"keys": kids.iter().map(key).collect::<Vec<_>>()}).to_string()
}

/// Two workers that have the set of `old`.
fn with_old(more: &Value) -> [Worker; 2] {
    let workers = Worker::two(more);
    workers[0].tick();
    workers[0].answer(workers[0].last(), b"200", &set(&["old"]));
    assert_eq!(workers[0].fetched("ok"), 1);
    workers
}

#[test]
fn the_first_tick_of_one_worker_fetches_for_all() {
    let [one, two] = with_old(&json!({}));
    two.tick();
    assert!(two.fetches().is_empty());
    for worker in [&one, &two] {
        assert_eq!(worker.send(2, &token("old", &json!({}))), Action::Continue);
        assert_eq!(worker.send(3, &token("old", &json!({}))), Action::Continue);
    }
    assert_eq!(one.host.metric("gateway_token_cache_total;result=hit"), 2);
    assert_eq!(one.host.metric("gateway_token_cache_total;result=miss"), 2);
}

#[test]
fn requests_with_a_new_key_cause_one_fetch_and_all_get_through() {
    let [one, two] = with_old(&json!({}));
    let new = token("new", &json!({}));
    for context in 2..12 {
        assert_eq!(one.send(context, &new), Action::Pause);
        assert_eq!(two.send(context, &new), Action::Pause);
    }
    assert_eq!(one.fetches().len() + two.fetches().len(), 2);
    assert_eq!(two.host.vm.period.get(), 20);
    one.answer(one.last(), b"200", &set(&["old", "new"]));
    assert_eq!(one.continued(), (2..12).collect::<Vec<_>>());
    assert!(two.continued().is_empty());
    two.host.pass(Nanos::from_millis(20));
    two.tick();
    assert_eq!(two.continued(), (2..12).collect::<Vec<_>>());
    assert!(one.details().is_empty() && two.details().is_empty());
    assert_eq!(one.host.vm.effective.get(), Some(ROOT));
    two.tick();
    assert!(two.host.vm.period.get() >= 500);
}

#[test]
fn a_key_that_nobody_has_is_refused_and_asked_for_once_per_cooldown() {
    let [one, two] = with_old(&json!({}));
    assert_eq!(one.send(2, &token("forged", &json!({}))), Action::Pause);
    one.answer(one.last(), b"200", &set(&["old"]));
    assert_eq!(one.details(), ["gateway.token-untrusted"]);
    for context in 3..100 {
        let worker = if context % 2 == 0 { &one } else { &two };
        worker.send(context, &token(&format!("forged{context}"), &json!({})));
    }
    assert_eq!(one.fetches().len() + two.fetches().len(), 2);
    assert_eq!(one.details().len() + two.details().len(), 98);
    // A rotation gets through after the cooldown.
    one.host.pass(Nanos::from_secs(30));
    assert_eq!(two.send(200, &token("new", &json!({}))), Action::Pause);
    two.answer(two.last(), b"200", &set(&["new"]));
    assert_eq!(two.continued(), [200]);
    // The old key has left the set, and the memory with it.
    assert_eq!(one.send(201, &token("old", &json!({}))), Action::Pause);
    assert_eq!(one.details().last().unwrap(), "gateway.token-untrusted");
}

#[test]
fn an_issuer_that_is_down_gives_503_and_recovers_by_itself() {
    let [one, two] = Worker::two(&json!({}));
    assert_eq!(one.send(2, &token("old", &json!({}))), Action::Pause);
    assert_eq!(two.send(2, &token("old", &json!({}))), Action::Pause);
    assert_eq!(one.fetches().len() + two.fetches().len(), 1);
    one.answer(one.last(), b"503", "no healthy upstream");
    two.tick();
    for worker in [&one, &two] {
        assert_eq!(worker.details(), ["gateway.keys-unavailable"]);
        assert_eq!(worker.send(3, &token("old", &json!({}))), Action::Pause);
        assert_eq!(worker.details(), ["gateway.keys-unavailable"; 2]);
    }
    one.host.pass(Nanos::SECOND);
    two.tick();
    two.answer(two.last(), b"200", &set(&["old"]));
    assert_eq!(one.send(4, &token("old", &json!({}))), Action::Continue);
    assert_eq!((one.fetched("failed"), one.fetched("ok")), (1, 1));
}

#[test]
fn answers_that_are_no_key_set_leave_the_good_one() {
    let huge = " ".repeat(token::SET_BYTES_MAX + 1);
    let answers = [
        ("200", "", "rejected"),
        ("200", "<html>", "rejected"),
        ("200", "{}", "rejected"),
        ("200", r#"{"keys": []}"#, "rejected"),
        ("200", r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#, "rejected"),
        ("200", &huge, "rejected"),
        ("302", &set(&["new"]), "failed"),
        ("404", &set(&["new"]), "failed"),
        ("500", &set(&["new"]), "failed"),
        ("x", &set(&["new"]), "failed"),
    ];
    for (status, body, outcome) in answers {
        let [one, _] = with_old(&json!({}));
        assert_eq!(one.send(2, &token("new", &json!({}))), Action::Pause);
        one.answer(one.last(), status.as_bytes(), body);
        assert_eq!(one.details(), ["gateway.token-untrusted"], "{status}");
        assert_eq!(one.fetched(outcome), 1, "{status}");
        assert_eq!(one.host.logged("key set not fetched"), 1);
        assert_eq!(one.send(3, &token("old", &json!({}))), Action::Continue, "{status}");
    }
}

#[test]
fn a_cluster_that_cannot_be_called_keeps_nobody_waiting() {
    let [one, _] = Worker::two(&json!({}));
    one.host.vm.callless.set(true);
    assert_eq!(one.send(2, &token("old", &json!({}))), Action::Pause);
    assert_eq!(one.details(), ["gateway.keys-unavailable"]);
    assert_eq!(one.fetched("failed"), 1);
}

#[test]
fn a_stale_set_serves_until_its_time_is_up_and_comes_back() {
    let [one, two] = with_old(&json!({}));
    assert_eq!(two.send(2, &token("old", &json!({}))), Action::Continue);
    one.host.pass(Nanos::from_secs(595));
    one.tick();
    assert_eq!(one.fetches().len(), 2);
    one.answer(one.last(), b"500", "");
    one.host.pass(Nanos::from_secs(3600));
    assert_eq!(two.send(3, &token("old", &json!({}))), Action::Continue);
    one.host.pass(Nanos::from_secs(5));
    assert_eq!(two.send(4, &token("old", &json!({}))), Action::Pause);
    assert!(two.details().is_empty());
    two.answer(two.last(), b"200", &set(&["old"]));
    assert_eq!(two.continued(), [4]);
    assert_eq!(one.send(5, &token("old", &json!({}))), Action::Continue);
}

#[test]
fn a_slow_answer_never_replaces_a_newer_one() {
    let [one, two] = Worker::two(&json!({}));
    one.tick();
    let slow = one.last();
    one.host.pass(Nanos::from_secs(9));
    two.tick();
    two.answer(two.last(), b"200", &set(&["new"]));
    one.answer(slow, b"200", &set(&["old"]));
    for worker in [&one, &two] {
        assert_eq!(worker.send(2, &token("new", &json!({}))), Action::Continue);
    }
}

#[test]
fn a_fetch_whose_vm_died_ends_with_its_lease() {
    let [one, two] = Worker::two(&json!({}));
    one.tick();
    assert_eq!(two.send(2, &token("old", &json!({}))), Action::Pause);
    two.host.pass(Nanos::from_millis(6999));
    two.tick();
    // The stream's own patience ends before the lease does.
    assert_eq!(two.details(), ["gateway.keys-unavailable"]);
    two.host.pass(Nanos::from_millis(1001));
    assert_eq!(two.send(3, &token("old", &json!({}))), Action::Pause);
    assert_eq!(two.fetches().len(), 1);
    two.answer(two.last(), b"200", &set(&["old"]));
    assert_eq!(two.continued(), [3]);
}

#[test]
fn a_plugin_that_goes_away_leaves_its_fetch_to_others() {
    let [one, two] = Worker::two(&json!({}));
    one.tick();
    one.vm.on_delete(ROOT);
    two.tick();
    assert_eq!(two.fetches().len(), 1);
}

#[test]
fn streams_that_end_while_they_wait_are_counted_and_never_resumed() {
    let [one, _] = Worker::two(&json!({}));
    for context in 2..6 {
        assert_eq!(one.send(context, &token("old", &json!({}))), Action::Pause);
    }
    one.vm.on_log(2);
    one.vm.on_delete(3);
    one.host.vm.gone.borrow_mut().push(4);
    // Asking again about one that waits keeps it waiting.
    assert_eq!(one.vm.on_request_headers(5, 3), Action::Pause);
    one.vm.on_response_headers(5);
    one.answer(one.last(), b"200", &set(&["old"]));
    one.host.pass(Nanos::from_secs(100));
    one.tick();
    assert!(one.continued().is_empty() && one.details().is_empty());
    let labels = "service=none;decision=refused;reason=keys-unavailable";
    let undecided = format!("gateway_requests_total;{labels}");
    assert_eq!(one.host.metric(&undecided), 1);
    for context in 2..6 {
        one.vm.on_log(context);
        one.vm.on_delete(context);
    }
    assert_eq!(one.host.metric(&undecided), 3);
    assert!(one.host.vm.period.get() >= 500);
}

#[test]
fn only_so_many_streams_wait() {
    let [one, _] = Worker::two(&json!({}));
    let most = u32::try_from(crate::waiting::STREAMS_MAX).unwrap();
    for context in 2..2 + most {
        assert_eq!(one.send(context, &token("old", &json!({}))), Action::Pause);
    }
    assert!(one.details().is_empty());
    assert_eq!(one.send(5000, &token("old", &json!({}))), Action::Pause);
    assert_eq!(one.details(), ["gateway.keys-unavailable"]);
    // One that leaves makes room.
    one.vm.on_delete(2);
    assert_eq!(one.send(5001, &token("old", &json!({}))), Action::Pause);
    assert_eq!(one.details().len(), 1);
    one.answer(one.last(), b"200", &set(&["old"]));
    assert_eq!(one.continued().len(), crate::waiting::STREAMS_MAX);
}

#[test]
fn a_token_that_cannot_be_good_causes_no_fetch() {
    let [one, _] = with_old(&json!({}));
    for (token, details) in [
        (token("new", &json!({"iss": "other"})), "gateway.token-untrusted"),
        (token("old", &json!({"exp": 1})), "gateway.token-expired"),
        ("a.b.c".to_owned(), "gateway.token-malformed"),
    ] {
        assert_eq!(one.send(2, &token), Action::Pause);
        assert_eq!(one.details().last().unwrap(), details);
        one.vm.on_delete(2);
    }
    assert_eq!(one.fetches().len(), 1);
}

/// The sidecar hands over these revocations of tokens.
fn revoke(worker: &Worker, number: u64, ids: &[&str]) {
    hand_over(worker, number, Kind::Token, ids);
}

fn hand_over(worker: &Worker, number: u64, kind: Kind, ids: &[&str]) {
    let mut store = SharedData(worker.host.clone());
    for id in ids {
        let print = Name { kind, issuer: None, id }.print(KEYS);
        let bytes = encode(&[Record { print, before: u32::MAX, until: u32::MAX }]);
        update(&mut store, &bucket(&print).key(), |_| Change::Write(bytes.clone(), ())).unwrap();
    }
    let state = State { store: 1, number, keys: KEYS, seeded: Seeded::Yes, bans: Bans::None };
    update(&mut store, STATE_KEY, |_| Change::Write(state.to_bytes(), ())).unwrap();
    View::new(&worker.host, &Metrics::new(worker.host.clone())).changed();
}

#[test]
fn a_revoked_token_is_refused_also_when_it_is_remembered() {
    let [one, two] = with_old(&json!({"revocation": {}}));
    revoke(&one, 1, &[]);
    let mine = token("old", &json!({"jti": "mine"}));
    for worker in [&one, &two] {
        assert_eq!(worker.send(2, &mine), Action::Continue);
    }
    revoke(&one, 2, &["mine"]);
    for worker in [&one, &two] {
        assert_eq!(worker.send(3, &mine), Action::Pause);
        assert_eq!(worker.details(), ["gateway.token-revoked"]);
        assert_eq!(worker.send(4, &token("old", &json!({"jti": "other"}))), Action::Continue);
    }
}

/// Revoking by `sub` once did nothing where users are called by another claim, and said that it had.
#[test]
fn a_user_is_revoked_by_sub_and_by_the_claim_that_names_him() {
    let mut document: Value = serde_json::from_str(&policy(&json!({"revocation": {}}))).unwrap();
    document["authentication"]["jwt"]["providers"][0]["subject_claim"] = json!("email");
    let authentication = document["authentication"].take();
    let [one, _] = with_old(&json!({"revocation": {}, "authentication": authentication}));
    hand_over(&one, 1, Kind::Subject, &["u-17", "b@x"]);
    let user = |sub: &str, email: &str| token("old", &json!({"sub": sub, "email": email}));
    assert_eq!(one.send(2, &user("u-17", "a@x")), Action::Pause);
    assert_eq!(one.send(3, &user("u-18", "b@x")), Action::Pause);
    assert_eq!(one.details(), ["gateway.token-revoked"; 2]);
    assert_eq!(one.send(4, &user("u-18", "a@x")), Action::Continue);
}

#[test]
fn before_the_list_is_there_the_policy_decides() {
    for (mode, action) in [("refuse", Action::Pause), ("allow", Action::Continue)] {
        let settings = json!({"revocation": {"on_unseeded": mode, "seed_deadline": "2s"}});
        let [one, two] = with_old(&settings);
        assert_eq!(one.send(2, &token("old", &json!({}))), action);
        for worker in [&one, &two] {
            worker.host.pass(Nanos::from_secs(2));
            worker.tick();
            worker.tick();
        }
        assert_eq!(one.host.logged("handed the revocations over in time"), 1);
        assert_eq!(one.host.metric("gateway_revocation_seeded"), 0);
        revoke(&one, 1, &[]);
        one.tick();
        assert_eq!(one.host.metric("gateway_revocation_seeded"), 1);
        assert_eq!(one.send(3, &token("old", &json!({}))), Action::Continue);
        // What cannot be looked up counts as not handed over.
        one.host.vm.shareless.set(true);
        assert_eq!(one.send(4, &token("old", &json!({"jti": "x"}))), action);
    }
}
