//! What administrators ask about limits, from the sidecar's command to what clients see: whole VMs
//! on a host in memory.

use crate::host::Host;
use crate::metrics::Metrics;
use crate::plugin::TICK;
use crate::replica::View;
use crate::sync::lease::TERM;
use crate::sync::tests::{Header, OK};
use crate::sync::{SLICE_TICK, WAIT_LOAD};
use crate::testing::FakeHost;
use crate::vm::{Action, Vm};
use policy::headers::{Headers, Occurrence, serialize};
use policy::replica::overrides::{self, Override};
use policy::sync::{PATH, STATE_PATH};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;

const ROOT: u32 = 1;
/// Requests that the limit `ip` admits.
const BURST: usize = 3;
/// Sets of its table, of which a slice visits 512.
const SETS: u32 = 2048;
const ADA: &str = "192.0.2.1";
const BOB: &str = "192.0.2.2";

fn document() -> Value {
    json!({
        "version": 1,
        "rate_limits": [
            {
                "name": "ip", "key": ["ip"], "algorithm": "token_bucket",
                "requests": BURST, "per": "24h", "burst": BURST, "max_keys": SETS * 8,
            },
            {
                "name": "window", "key": ["ip", "header:x-tenant"], "algorithm": "sliding_window",
                "requests": 100, "per": "24h", "max_keys": 1024,
            },
        ],
        "circuit_breakers": {"default": {"failure_threshold": 3}},
        "sidecar": {"cluster": "side", "token": {"env": "T"}},
    })
}

/// One worker.
struct Worker {
    host: FakeHost,
    vm: Vm<FakeHost>,
    streams: Cell<u32>,
}

impl Worker {
    fn first() -> Self {
        Self::with(&document())
    }

    fn with(document: &Value) -> Self {
        let host = FakeHost::new(1);
        let token = "a-token-that-is-long-enough-for-it";
        host.vm.variables.borrow_mut().insert("T".into(), token.into());
        host.vm.attributes.borrow_mut().insert(b"xds\0cluster_name".into(), b"samples".into());
        *host.vm.request.borrow_mut() =
            serialize(&[(b":method", b"GET"), (b":path", b"/a"), (b":scheme", b"https")]);
        host.configure("gateway", &document.to_string());
        Self::on(host)
    }

    fn another(&self) -> Self {
        let host = self.host.sibling();
        *host.vm.request.borrow_mut() = self.host.vm.request.borrow().clone();
        Self::on(host)
    }

    fn on(host: FakeHost) -> Self {
        let vm = Vm::new(host.clone());
        vm.on_context_create(ROOT, 0);
        let size = host.vm.configuration.borrow().len();
        assert!(vm.on_configure(ROOT, size), "{:?}", host.process.log.borrow());
        Self { host, vm, streams: Cell::new(ROOT + 1) }
    }

    /// One request from an address.
    fn ask(&self, address: &str) -> Action {
        let source = format!("{address}:7");
        let path = b"source\0address".to_vec();
        self.host.vm.attributes.borrow_mut().insert(path, source.into());
        let stream = self.streams.replace(self.streams.get() + 1);
        self.vm.on_context_create(stream, ROOT);
        let action = self.vm.on_request_headers(stream, 3);
        self.vm.on_log(stream);
        self.vm.on_delete(stream);
        action
    }

    /// Uses a client's tokens up.
    #[track_caller]
    fn exhaust(&self, address: &str) {
        let passed = (0..10).filter(|_| self.ask(address) == Action::Continue).count();
        assert_eq!(passed, BURST, "{address}");
    }

    /// Uses up what a client has left.
    #[track_caller]
    fn exhaust_rest(&self, address: &str) {
        assert!((0..10).any(|_| self.ask(address) == Action::Pause), "{address}");
    }

    fn tick(&self) {
        self.vm.on_tick(ROOT);
    }

    fn wait_and_tick(&self) {
        self.host.pass(TICK);
        self.tick();
    }

    /// How many polls were sent.
    fn polls(&self) -> usize {
        self.host.vm.calls.borrow().iter().filter(|call| to(&call.headers, PATH)).count()
    }

    /// The last poll.
    fn poll(&self) -> Value {
        let calls = self.host.vm.calls.borrow();
        let poll = calls.iter().rfind(|call| to(&call.headers, PATH)).unwrap();
        serde_json::from_slice(&poll.body).unwrap()
    }

    /// What the last poll reports.
    fn done(&self) -> Value {
        self.poll()["done"].clone()
    }

    fn answer(&self, commands: Value) {
        self.say(&json!({"protocol": 3, "commands": commands, "state": self.poll()["state"]}));
    }

    fn say(&self, answer: &Value) {
        let body = answer.to_string();
        self.respond(&OK, body.as_bytes());
    }

    fn respond(&self, headers: &[Header<'_>], body: &[u8]) {
        let calls = self.host.vm.calls.borrow();
        let token = calls.iter().rfind(|call| to(&call.headers, PATH)).unwrap().token;
        drop(calls);
        *self.host.vm.call_response.borrow_mut() = Some((serialize(headers), body.to_vec()));
        self.vm.on_call_response(ROOT, token, body.len());
    }

    /// Ticks as fast as slices want it until the outcome of a command is told.
    #[track_caller]
    fn work_until_told(&self, id: u64) {
        for _ in 0..1_000 {
            let done = self.done();
            if done.as_array().unwrap().iter().any(|done| done["id"] == id) {
                return;
            }
            self.host.pass(SLICE_TICK);
            self.tick();
        }
        panic!("command {id} is never done");
    }

    /// A worker that holds the line, with its first poll answered.
    fn connected(self) -> Self {
        self.wait_and_tick();
        self.answer(json!([]));
        assert_eq!(self.polls(), 2);
        self
    }
}

fn to(headers: &[u8], path: &str) -> bool {
    assert_ne!(path, STATE_PATH);
    Headers::new(headers).only(":path") == Occurrence::Once(path.as_bytes())
}

fn of(address: &str) -> Value {
    json!({"ip": address})
}

fn read(id: u64, limit: &str, key: Value) -> Value {
    json!({"id": id, "action": {"read_key": {"limit": limit, "key": key}}})
}

fn reset(id: u64, limit: &str, key: Value) -> Value {
    json!({"id": id, "action": {"reset_key": {"limit": limit, "key": key}}})
}

fn forget(id: u64, kind: &str, name: &str) -> Value {
    json!({"id": id, "action": {"reset_identity": {"kind": kind, "name": name}}})
}

fn close(id: u64) -> Value {
    json!({"id": id, "action": {"reset_breaker": {"service": "nobody"}}})
}

fn outcome(id: u64, outcome: &str) -> Value {
    json!({"id": id, "outcome": outcome})
}

/// Puts an administrator's numbers into the sidecar's state, and tells the workers.
fn set(host: &FakeHost, limit: &str, numbers: &Override) {
    let bytes = overrides::encode(&BTreeMap::from([(limit, numbers)]));
    host.set_shared(&overrides::bucket(limit).key(), &bytes, 0).unwrap();
    View::new(host, &Metrics::new(host.clone())).changed();
}

#[test]
fn a_poll_says_which_limits_there_are() {
    let worker = Worker::first();
    worker.wait_and_tick();
    let wants = &worker.poll()["wants"];
    assert_eq!((&wants["load"], &wants["providers"]), (&json!(false), &json!([])));
    let ip = json!({
        "name": "ip", "algorithm": "token_bucket", "key": ["ip"], "requests": BURST,
        "per_ms": 86_400_000, "burst": BURST, "queue": null, "cost": 1, "mode": "enforce",
        "penalty": false, "keys_max": SETS * 8,
    });
    assert_eq!(wants["limits"][0], ip);
    assert_eq!(wants["limits"][1]["key"], json!(["ip", "header:x-tenant"]));
}

#[test]
fn a_question_is_answered_as_often_as_it_is_asked() {
    let worker = Worker::first().connected();
    worker.exhaust(ADA);
    worker.answer(json!([read(5, "ip", of(ADA)), read(6, "ip", of(BOB))]));
    let done = worker.done();
    let [ada, bob] = [&done[0]["standings"][0], &done[1]["standings"][0]];
    assert_eq!((&ada["known"], &ada["remaining"]), (&json!(true), &json!(0)));
    assert!(ada["retry_ms"].as_u64().unwrap() > 0);
    assert_eq!((&bob["known"], &bob["remaining"]), (&json!(false), &json!(BURST)));
    assert_eq!(bob["retry_ms"], 0);
    // The answer was lost; meanwhile another command was done.
    worker.respond(&[(b":status", b"503")], b"");
    worker.wait_and_tick();
    worker.answer(json!([close(7), read(5, "ip", of(ADA))]));
    assert_eq!(worker.done()[0]["standings"][0]["known"], true);
}

#[test]
fn a_question_about_what_is_not_there_is_answered_so() {
    let worker = Worker::first().connected();
    let commands = [
        read(1, "nobody", of(ADA)),
        read(2, "ip", json!({})),
        read(3, "ip", json!({"ip": "no address"})),
        read(4, "ip", json!({"ip": ADA, "user": "ada"})),
        read(5, "window", of(ADA)),
        reset(6, "nobody", of(ADA)),
        reset(7, "ip", json!({"user": "ada"})),
        forget(8, "ip", "no address"),
        forget(9, "everybody", "ada"),
    ];
    worker.answer(json!(commands));
    let mut told = worker.done().as_array().unwrap().clone();
    told.sort_by_key(|done| done["id"].as_u64());
    let expected: Vec<Value> = (1..=9).map(|id| outcome(id, "unknown")).collect();
    assert_eq!(told, expected);
}

#[test]
fn shared_data_that_cannot_be_had_is_no_answer() {
    let worker = Worker::first().connected();
    let host = worker.host.clone();
    let question = read(5, "ip", of(ADA));
    host.vm.shareless.set(true);
    worker.answer(json!([question]));
    host.vm.shareless.set(false);
    // Whether the line is still ours cannot be said either, so nobody is told anything yet.
    worker.wait_and_tick();
    worker.answer(json!([question]));
    assert_eq!(worker.done()[0]["outcome"], "applied");
}

#[test]
fn a_key_that_is_reset_is_free_at_once_for_every_worker_and_no_other_key_is() {
    let worker = Worker::first();
    let other = worker.another();
    let worker = worker.connected();
    for address in [ADA, BOB] {
        worker.exhaust(address);
        assert_eq!(other.ask(address), Action::Pause);
    }
    worker.answer(json!([reset(5, "ip", of(ADA))]));
    assert_eq!(worker.done(), json!([outcome(5, "applied")]));
    assert_eq!(other.ask(ADA), Action::Continue);
    assert_eq!(worker.ask(ADA), Action::Continue);
    assert_eq!((worker.ask(BOB), other.ask(BOB)), (Action::Pause, Action::Pause));
    // A repetition does nothing: the client keeps what he has used since.
    worker.exhaust_rest(ADA);
    worker.answer(json!([reset(5, "ip", of(ADA))]));
    assert_eq!(worker.ask(ADA), Action::Pause);
}

#[test]
fn an_administrators_numbers_are_those_that_are_read() {
    let worker = Worker::first().connected();
    worker.exhaust(ADA);
    set(&worker.host, "ip", &Override { requests: Some(30), ..Override::default() });
    worker.answer(json!([read(5, "ip", of(BOB))]));
    assert_eq!(worker.done()[0]["standings"][0]["remaining"], 30);
    // Another window is another table: what was counted by the old one is not found by its number.
    worker.answer(json!([read(6, "window", json!({"ip": ADA, "header:x-tenant": "-"}))]));
    assert_eq!(worker.done()[0]["standings"][0]["known"], true);
    let hour = Override { per_ms: Some(3_600_000), ..Override::default() };
    set(&worker.host, "window", &hour);
    worker.answer(json!([read(7, "window", json!({"ip": ADA, "header:x-tenant": "-"}))]));
    assert_eq!(worker.done()[0]["standings"][0]["known"], false);
}

#[test]
fn somebody_is_forgotten_in_slices_and_nobody_else_is() {
    let worker = Worker::first();
    let other = worker.another();
    let worker = worker.connected();
    for address in [ADA, BOB] {
        worker.exhaust(address);
        assert_eq!(other.ask(address), Action::Pause);
    }
    worker.answer(json!([forget(5, "ip", ADA)]));
    assert_eq!(worker.done(), json!([]), "it is only begun");
    let mut slices = 0;
    while worker.done() == json!([]) {
        worker.host.process.shared_calls.set(0);
        worker.host.pass(SLICE_TICK);
        worker.tick();
        assert!(worker.host.process.shared_calls.get() < 512 + 40);
        assert!(
            worker.host.vm.period.get() <= SLICE_TICK.as_millis() || worker.done() != json!([])
        );
        slices += 1;
        assert!(slices < 1_000);
    }
    assert!(slices >= SETS / 512, "{slices}");
    assert_eq!(worker.done(), json!([outcome(5, "applied")]));
    assert_eq!((worker.ask(ADA), other.ask(ADA)), (Action::Continue, Action::Continue));
    assert_eq!((worker.ask(BOB), other.ask(BOB)), (Action::Pause, Action::Pause));
    worker.tick();
    worker.wait_and_tick();
    assert_eq!(worker.host.vm.period.get(), TICK.as_millis(), "the hurry is over");
}

#[test]
fn commands_behind_a_sweep_wait_for_its_end_and_are_done_in_their_order() {
    let worker = Worker::first().connected();
    worker.exhaust(ADA);
    worker.exhaust(BOB);
    let commands = [close(4), forget(5, "ip", ADA), reset(6, "ip", of(BOB)), forget(7, "ip", BOB)];
    worker.answer(json!(commands));
    assert_eq!(worker.done(), json!([outcome(4, "unknown")]), "what comes before is told at once");
    // The sidecar sends what is not done again, and one more.
    let again: Vec<Value> = commands[1..].iter().cloned().chain([close(8)]).collect();
    worker.host.pass(TICK);
    worker.answer(json!(again));
    assert_eq!(worker.ask(BOB), Action::Pause);
    worker.work_until_told(6);
    assert_eq!(worker.done(), json!([outcome(5, "applied"), outcome(6, "applied")]));
    worker.work_until_told(8);
    let rest = json!([
        outcome(5, "applied"),
        outcome(6, "applied"),
        outcome(7, "applied"),
        outcome(8, "unknown"),
    ]);
    assert_eq!(worker.done(), rest);
    assert_eq!((worker.ask(ADA), worker.ask(BOB)), (Action::Continue, Action::Continue));
}

#[test]
fn polls_go_on_during_a_sweep_and_a_hasty_sidecar_does_not_make_us_spin() {
    let worker = Worker::first().connected();
    worker.answer(json!([forget(5, "ip", ADA)]));
    let before = worker.polls();
    let mut passed = 0;
    while worker.done() == json!([]) {
        // It answers at once with what is not done yet.
        worker.answer(json!([forget(5, "ip", ADA)]));
        worker.host.pass(SLICE_TICK);
        passed += SLICE_TICK.as_millis();
        worker.tick();
    }
    let most = usize::try_from(passed / TICK.as_millis()).unwrap() + 2;
    assert!(worker.polls() - before <= most, "{} in {passed} ms", worker.polls() - before);
}

#[test]
fn a_sweep_is_done_by_the_heir_of_a_holder_that_died_or_fell_asleep() {
    for slices in [0, 1, 3] {
        let worker = Worker::first();
        let heir = worker.another();
        let worker = worker.connected();
        worker.exhaust(ADA);
        worker.answer(json!([forget(5, "ip", ADA), close(6)]));
        for _ in 0..slices {
            worker.host.pass(SLICE_TICK);
            worker.tick();
        }
        heir.host.pass(TERM + TICK);
        heir.tick();
        assert_eq!(heir.done(), json!([]), "it was not done");
        heir.answer(json!([forget(5, "ip", ADA), close(6)]));
        // The old holder wakes and finds the lease gone.
        let polls = worker.polls();
        worker.tick();
        assert_eq!(worker.polls(), polls);
        heir.work_until_told(6);
        assert_eq!(heir.done(), json!([outcome(5, "applied"), outcome(6, "unknown")]));
        assert_eq!(heir.ask(ADA), Action::Continue);
        // Done is done: the client keeps what he has used since.
        heir.exhaust_rest(ADA);
        heir.answer(json!([forget(5, "ip", ADA)]));
        heir.wait_and_tick();
        assert_eq!(heir.ask(ADA), Action::Pause);
    }
}

/// The holder dies at each host call of a sweep's last slices in turn; the heir ends with the same.
#[test]
fn wherever_a_holder_dies_the_sweep_is_done_once_told() {
    for calls in (0..1_200).step_by(11) {
        let worker = Worker::first();
        let heir = worker.another();
        let worker = worker.connected();
        worker.exhaust(ADA);
        worker.answer(json!([forget(5, "ip", ADA)]));
        for _ in 0..3 {
            worker.host.pass(SLICE_TICK);
            worker.tick();
        }
        worker.host.vm.dies_after.set(Some(calls));
        for _ in 0..3 {
            worker.host.pass(SLICE_TICK);
            worker.tick();
        }
        heir.host.pass(TERM + TICK);
        heir.tick();
        if heir.done() == json!([]) {
            heir.answer(json!([forget(5, "ip", ADA)]));
            heir.work_until_told(5);
        }
        assert_eq!(heir.done(), json!([outcome(5, "applied")]), "{calls}");
        assert_eq!(heir.ask(ADA), Action::Continue, "{calls}");
    }
}

#[test]
fn a_sweep_without_shared_data_is_given_up_and_said_to_have_failed() {
    let worker = Worker::first().connected();
    worker.exhaust(ADA);
    worker.answer(json!([forget(5, "ip", ADA)]));
    worker.tick();
    // The table alone cannot be had; the lease can.
    worker.host.vm.tableless.set(true);
    for _ in 0..2 {
        worker.host.pass(SLICE_TICK);
        worker.tick();
        assert_eq!(worker.done(), json!([]), "one failure is none");
    }
    worker.work_until_told(5);
    assert_eq!(worker.done(), json!([outcome(5, "failed")]));
    worker.host.vm.tableless.set(false);
    // The sidecar tries again under another number.
    worker.answer(json!([forget(9, "ip", ADA)]));
    worker.work_until_told(9);
    assert_eq!(worker.ask(ADA), Action::Continue);
}

#[test]
fn a_load_is_asked_for_and_passed_on_only_where_a_limit_goes_by_it() {
    let mut adaptive = document();
    adaptive["rate_limits"] = json!([{
        "name": "load", "key": [], "algorithm": "adaptive", "requests": 1000, "per": "1s",
        "adaptive": {"threshold": 0.8, "floor": 0.1},
    }]);
    let (hot, cold) = (Worker::with(&adaptive), Worker::first());
    for worker in [&hot, &cold] {
        worker.wait_and_tick();
        let state = worker.poll()["state"].clone();
        worker.say(&json!({"protocol": 3, "commands": [], "state": state, "load": 930}));
    }
    assert_eq!(hot.poll()["wait_ms"], json!(WAIT_LOAD.as_millis()));
    assert_eq!(hot.poll()["wants"]["load"], true);
    let now = policy::time::Nanos(hot.host.process.now.get());
    assert_eq!(crate::load::Reader::new(&hot.host).look(now), 930);
    assert_eq!(cold.poll()["wait_ms"], 5_000);
    assert_eq!(crate::load::Reader::new(&cold.host).look(now), 0);
    assert!(cold.host.stored(b"load/").is_empty());
}

/// Commands that no sidecar sends, on a host that fails and lies: nothing panics, and afterwards the
/// line is as good as before.
#[test]
fn commands_from_anywhere_do_no_lasting_harm() {
    for seed in 0..8 {
        let worker = Worker::first();
        worker.host.process.random_from(seed);
        let worker = worker.connected();
        worker.exhaust(ADA);
        let draw = |below: u64| worker.host.draw() % below;
        let names = ["ip", "window", "", "nobody", ADA, "::ffff:192.0.2.1", "\u{0}"];
        worker.host.process.hostility.set(50);
        for id in 1..200 {
            let name = || names[draw(names.len() as u64) as usize];
            let command = match draw(5) {
                0 => read(id, name(), json!({name(): name(), "ip": ADA})),
                1 => reset(id, name(), json!({name(): name()})),
                2 => forget(id, name(), name()),
                3 => forget(id, "ip", ADA),
                _ => close(id),
            };
            if worker.polls() > 0 {
                worker.answer(json!([command, close(id + 1)]));
            }
            worker.host.pass(SLICE_TICK);
            worker.tick();
        }
        worker.host.process.hostility.set(0);
        for _ in 0..30 {
            worker.wait_and_tick();
        }
        // A lease that was misread may remember any number as done.
        let last = u64::MAX - 1;
        worker.answer(json!([forget(last, "ip", ADA)]));
        worker.work_until_told(last);
        assert_eq!(worker.ask(ADA), Action::Continue, "seed {seed}");
    }
}
