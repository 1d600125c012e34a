//! Elections, answers and commands, on a host in memory.

use super::*;
use crate::testing::FakeHost;
use policy::config::{self, Environment};
use policy::headers::{Headers, Occurrence, serialize};
use policy::kernel::breaker::CallResult;
use policy::stage::breaker::{Settlement, settle};
use policy::stage::ip::is_within;
use serde_json::{Value, json};

pub(crate) struct Node {
    pub(super) host: FakeHost,
    pub(super) sync: Sync<FakeHost>,
    pub(super) view: Rc<View<FakeHost>>,
    metrics: Metrics<FakeHost>,
}

pub(crate) type Header<'a> = (&'a [u8], &'a [u8]);

pub(crate) const OK: [Header; 2] = [(b":status", b"200"), (b"x-tracseq-sync", b"3")];
const SEED: Seed = Seed { keys: [1, 2], instance: 3 };

pub(crate) fn policy() -> Policy {
    let document = json!({
        "version": 1,
        "circuit_breakers": {"default": {"failure_threshold": 3}},
        "sidecar": {"cluster": "side", "token": {"env": "T"}},
    });
    let token = |_: &str| Some("a-token-that-is-long-enough-for-it".to_owned());
    config::read(&document, Environment::Given(&token)).unwrap()
}

impl Node {
    pub(super) fn new(host: FakeHost) -> Self {
        Self::with(host, &policy())
    }

    pub(super) fn with(host: FakeHost, policy: &Policy) -> Self {
        let metrics = Metrics::new(host.clone());
        let view = Rc::new(View::new(&host, &metrics));
        let sync = Sync::new(policy, &host, &metrics, &view).unwrap();
        Self { host, sync, view, metrics }
    }

    fn now(&self) -> Moment {
        let now = Nanos(self.host.process.now.get());
        Moment { monotonic: now, wall: now }
    }

    pub(super) fn tick(&self) {
        self.sync.on_tick(4, SEED, self.now());
    }

    pub(super) fn polls(&self) -> usize {
        self.host.vm.calls.borrow().len()
    }

    pub(super) fn poll(&self) -> Value {
        let calls = self.host.vm.calls.borrow();
        serde_json::from_slice(&calls.last().unwrap().body).unwrap()
    }

    pub(super) fn answer(&self, headers: &[Header<'_>], body: &[u8]) {
        let token = self.host.vm.calls.borrow().last().unwrap().token;
        let answer = (serialize(headers), body.to_vec());
        *self.host.vm.call_response.borrow_mut() = Some(answer);
        self.sync.on_answer(token, body.len(), SEED, self.now());
    }

    fn good(&self, commands: Value) {
        let state = self.poll()["state"].clone();
        let body = json!({"protocol": 3, "commands": commands, "state": state}).to_string();
        self.answer(&OK, body.as_bytes());
    }

    fn connected(&self) -> i64 {
        self.host.metric("gateway_sidecar_connected")
    }
}

fn reset(id: u64, service: &str) -> Value {
    json!({"id": id, "action": {"reset_breaker": {"service": service}}})
}

/// Opens the breaker of `samples` in the nodes' shared memory.
fn fail(node: &Node) {
    let policy = policy();
    let settings = policy.circuit_breakers.of("samples").unwrap();
    let (mut store, mut events) = (SharedData(node.host.clone()), node.metrics.clone());
    for _ in 0..3 {
        let result = CallResult::Failure;
        let failed = Settlement { service: "samples", permit: None, result };
        let now = node.now().monotonic;
        settle(settings, &failed, &mut store, &mut events, SEED.keys, now);
    }
}

fn open(node: &Node) -> i64 {
    node.host.metric("gateway_breaker_state;service=samples;state=open")
}

#[test]
fn one_of_many_is_elected_and_polls_with_its_token() {
    let first = Node::new(FakeHost::new(1));
    let others: Vec<Node> = (0..5).map(|_| Node::new(first.host.sibling())).collect();
    for _ in 0..10 {
        first.tick();
        others.iter().for_each(Node::tick);
        first.host.pass(TICK);
    }
    assert_eq!(first.polls(), 1);
    assert_eq!(others.iter().map(Node::polls).sum::<usize>(), 0);
    let calls = first.host.vm.calls.borrow();
    let headers = Headers::new(&calls[0].headers);
    let bearer = b"Bearer a-token-that-is-long-enough-for-it";
    assert_eq!(headers.only("authorization"), Occurrence::Once(bearer));
    assert_eq!(headers.only(":path"), Occurrence::Once(b"/sync"));
}

#[test]
fn a_poll_says_which_addresses_are_never_banned() {
    let mut policy = policy();
    let cidr = |network: &str, prefix| Cidr { network: network.parse().unwrap(), prefix };
    policy.ip.exempt = vec![cidr("10.9.0.0", 16), cidr("2001:db8::", 32)];
    let node = Node::with(FakeHost::new(1), &policy);
    node.tick();
    let poll = node.poll();
    assert_eq!(poll["wants"]["exempt"], json!(["10.9.0.0/16", "2001:db8::/32"]));
    for prefix in poll["wants"]["exempt"].as_array().unwrap() {
        let exempt = |address: &str| is_within(prefix.as_str().unwrap(), address.parse().unwrap());
        assert!(exempt("10.9.1.1") != exempt("2001:db8::1"), "{prefix}: the sidecar reads it");
    }
}

#[test]
fn a_poll_says_who_asks_and_the_first_is_answered_at_once() {
    let node = Node::new(FakeHost::new(1));
    node.tick();
    let poll = node.poll();
    assert_eq!(poll["protocol"], 3);
    assert_eq!(poll["state"], json!({"store": "", "number": 0}));
    let wants = json!({
        "files": [], "revocations_max": null, "api_keys": false,
        "load": false, "limits": [], "providers": [], "exempt": [],
    });
    assert_eq!(poll["wants"], wants);
    assert_eq!(poll["instance"], "0000000000000003");
    assert_eq!(poll["policy"]["generation"], 4);
    assert_eq!(poll["wait_ms"], 0);
    node.good(json!([]));
    assert_eq!((node.polls(), &node.poll()["wait_ms"]), (2, &json!(5000)));
    assert_eq!(node.connected(), 1);
}

#[test]
fn a_dead_holder_is_replaced_after_its_lease_and_its_late_answer_is_dropped() {
    let dead = Node::new(FakeHost::new(1));
    let heir = Node::new(dead.host.sibling());
    dead.tick();
    fail(&dead);
    heir.tick();
    assert_eq!(heir.polls(), 0);
    for _ in 0..4 {
        heir.host.pass(TICK);
        heir.tick();
    }
    assert_eq!(heir.polls(), 1);
    dead.good(json!([reset(1, "samples")]));
    assert_eq!((open(&dead), dead.polls()), (1, 1));
    heir.good(json!([reset(1, "samples")]));
    assert_eq!(open(&heir), 0);
}

#[test]
fn a_command_is_done_once_and_reported_until_the_sidecar_has_answered() {
    let node = Node::new(FakeHost::new(1));
    fail(&node);
    node.tick();
    node.good(json!([reset(7, "samples"), reset(8, "nobody")]));
    assert_eq!(open(&node), 0);
    let done = json!([{"id": 7, "outcome": "applied"}, {"id": 8, "outcome": "unknown"}]);
    assert_eq!(node.poll()["done"], done);
    // The poll with the report is lost; the next one has it again.
    node.answer(&[(b":status", b"503")], b"upstream connect error");
    node.host.pass(TICK);
    node.tick();
    assert_eq!(node.poll()["done"], done);
    fail(&node);
    // The sidecar asks for what was done: it is told, and nothing is done.
    node.good(json!([reset(7, "samples")]));
    assert_eq!(open(&node), 1);
    assert_eq!(node.poll()["done"], json!([{"id": 7, "outcome": "applied"}]));
    node.good(json!([]));
    node.host.pass(TICK);
    node.tick();
    assert_eq!(node.poll()["done"], json!([]));
}

#[test]
fn what_a_dead_holder_did_is_not_done_again_by_its_heir() {
    let dead = Node::new(FakeHost::new(1));
    let heir = Node::new(dead.host.sibling());
    fail(&dead);
    dead.tick();
    dead.good(json!([reset(7, "samples")]));
    fail(&dead);
    heir.host.pass(lease::TERM);
    heir.tick();
    assert_eq!(heir.poll()["done"], json!([{"id": 7, "outcome": "applied"}]));
    heir.good(json!([reset(7, "samples")]));
    assert_eq!(open(&heir), 1);
}

#[test]
fn what_no_sidecar_says_is_no_answer_and_is_logged_once() {
    let [ok, marker] = OK;
    let good = r#"{"protocol":3,"commands":[],"state":{"store":"","number":0}}"#;
    let bad: [(&[Header], &str); 9] = [
        (&[(b":status", b"503")], "upstream connect error"),
        (&[ok], good),
        (&[ok, marker, marker], good),
        (&[ok, (b"x-tracseq-sync", b"2")], good),
        (&[(b":status", b"401"), marker], good),
        (&[ok, marker], ""),
        (&[ok, marker], "{nope"),
        (&[ok, marker], &good.replace(":3", ":2")),
        (&[], ""),
    ];
    for (headers, body) in bad {
        let node = Node::new(FakeHost::new(1));
        node.tick();
        node.good(json!([]));
        for _ in 0..3 {
            node.answer(headers, body.as_bytes());
            node.host.pass(TICK);
            node.tick();
        }
        assert_eq!(node.connected(), 0, "{headers:?} {body}");
        assert_eq!(node.host.logged("sidecar not connected"), 1, "{headers:?} {body}");
        assert_eq!(node.polls(), 5);
        node.good(json!([]));
        assert_eq!((node.connected(), node.host.logged("sidecar connected")), (1, 2));
    }
}

#[test]
fn a_poll_that_cannot_be_sent_is_tried_again_on_each_tick() {
    let node = Node::new(FakeHost::new(1));
    node.host.vm.callless.set(true);
    node.tick();
    node.tick();
    assert_eq!(node.host.logged("the cluster does not exist"), 1);
    node.host.vm.callless.set(false);
    node.tick();
    assert_eq!(node.polls(), 1);
}

#[test]
fn a_poll_that_is_never_answered_is_given_up() {
    let node = Node::new(FakeHost::new(1));
    node.tick();
    for _ in 0..19 {
        node.host.pass(TICK);
        node.tick();
    }
    assert_eq!(node.polls(), 2);
    assert_eq!(node.host.metric("gateway_sidecar_sync_age_seconds"), 9);
}

#[test]
fn a_sidecar_that_does_not_hold_polls_does_not_make_us_spin() {
    let node = Node::new(FakeHost::new(1));
    node.tick();
    node.good(json!([]));
    for _ in 0..10 {
        let polls = node.polls();
        node.good(json!([]));
        assert_eq!(node.polls(), polls);
        node.host.pass(TICK);
        node.tick();
        assert_eq!(node.polls(), polls + 1);
    }
}

/// It forgets what it was told, and asks again as fast as it is answered.
#[test]
fn a_sidecar_that_repeats_itself_does_not_make_us_spin() {
    let node = Node::new(FakeHost::new(1));
    node.tick();
    node.good(json!([]));
    node.good(json!([reset(7, "samples")]));
    for _ in 0..10 {
        let polls = node.polls();
        node.good(json!([reset(7, "samples")]));
        assert_eq!(node.polls(), polls);
        node.host.pass(TICK);
        node.tick();
        assert_eq!(node.polls(), polls + 1);
        assert_eq!(node.poll()["done"][0], json!({"id": 7, "outcome": "unknown"}));
    }
}

#[test]
fn a_plugin_that_retires_leaves_the_line_at_once() {
    let old = Node::new(FakeHost::new(1));
    let new = Node::new(old.host.sibling());
    old.tick();
    old.sync.retire();
    new.tick();
    assert_eq!(new.polls(), 1);
    old.good(json!([]));
    assert_eq!(old.polls(), 1);
}

/// Every worker reads its clock before it looks at the lease: one who read it a microsecond before
/// the holder renewed saw an expiry beyond a whole term, and took a lease that was in force.
#[test]
fn a_clock_that_was_read_earlier_does_not_take_the_lease() {
    let mut store = SharedData(FakeHost::new(1));
    let earlier = Nanos::from_secs(100);
    let held =
        |store: &mut SharedData<FakeHost>, me, now| Lease::hold(store, me, now).unwrap().is_some();
    assert!(held(&mut store, 1, earlier + Nanos(1_000)));
    assert!(!held(&mut store, 2, earlier));
    assert!(held(&mut store, 1, earlier + Nanos(2_000)));
}

#[test]
fn a_record_that_cannot_be_read_counts_as_none() {
    let node = Node::new(FakeHost::new(1));
    for garbage in [&b"\x02"[..], b"\x01short", &[1; 34], &[1; 42], &[9; 33]] {
        let host = node.host.sibling();
        let mut store = SharedData(host.clone());
        policy::store::update(&mut store, b"filter/sync", |_| {
            policy::store::Change::Write(garbage.to_vec(), ())
        })
        .unwrap();
        let heir = Node::new(host);
        heir.tick();
        assert_eq!(heir.polls(), 1, "{garbage:?}");
    }
}

#[test]
fn an_old_sidecar_is_told_from_none_and_the_log_says_so() {
    let node = Node::new(FakeHost::new(1));
    node.tick();
    let old = r#"{"protocol":2,"commands":[],"state":{"store":"","number":0}}"#;
    node.answer(&[(b":status", b"200"), (b"x-tracseq-sync", b"2")], old.as_bytes());
    assert_eq!(node.host.logged("the sidecar speaks another protocol version"), 1);
    assert_eq!(node.host.logged(r#""protocol":2"#), 1);
}
