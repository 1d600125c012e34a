//! State that is fetched: in pieces, afresh, by several holders, from sidecars good and bad.

mod bad;
mod bans;

use crate::plugin::TICK;
use crate::replica::handover::spoil;
use crate::store::SharedData;
use crate::sync::lease::TERM;
use crate::sync::tests::{Node, OK, policy};
use crate::sync::{FIRST_TICK, HURRY_MAX, SLICE_TICK};
use crate::testing::FakeHost;
use policy::model::{Policy, Revocation, Unseeded};
use policy::replica::batch::{Batch, Begin, End};
use policy::replica::{Bans, Bucket, STATE_KEY, Seeded, State, Table};
use policy::store::Store;
use policy::time::Nanos;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

const KEYS: [u64; 2] = [5, 6];
const REVOKED: Bucket = Bucket { table: Table::Revocations, index: 65_535 };
const KEY: Bucket = Bucket { table: Table::ApiKeys, index: 0 };
const FILE: Bucket = Bucket { table: Table::Files, index: 63 };

/// A sidecar as it should be: every bucket with the number of its last change.
struct Sidecar {
    store: u64,
    number: u64,
    buckets: BTreeMap<Bucket, (u64, Vec<u8>)>,
    /// Buckets in one batch.
    most: usize,
}

impl Sidecar {
    fn new(store: u64) -> Self {
        Self { store, number: 0, buckets: BTreeMap::new(), most: 1000 }
    }

    fn set(&mut self, bucket: Bucket, bytes: &[u8]) {
        self.number += 1;
        self.buckets.insert(bucket, (self.number, bytes.to_vec()));
    }

    fn batch(&self, store: &str, number: u64) -> Batch {
        let known = store == format!("{:016x}", self.store) && number <= self.number;
        let since = if known { number } else { 0 };
        let later = self.buckets.iter().filter(|(_, (changed, _))| *changed > since);
        let mut later: Vec<_> = later.map(|(b, (n, bytes))| (*n, *b, bytes.clone())).collect();
        later.sort();
        let complete = later.len() <= self.most;
        later.truncate(self.most);
        let reached = later.last().map_or(self.number, |(changed, ..)| *changed);
        Batch {
            store: self.store,
            number: if complete { self.number } else { reached },
            keys: KEYS,
            begin: if known { Begin::Continue } else { Begin::Afresh },
            end: if complete { End::Complete } else { End::More },
            buckets: later.into_iter().map(|(_, bucket, bytes)| (bucket, bytes)).collect(),
        }
    }

    /// Answers the call that the node has open. `false` when it holds it.
    fn answer(&self, node: &Node) -> bool {
        let asked = node.poll();
        let (store, number) =
            (asked["state"]["store"].as_str().unwrap(), &asked["state"]["number"]);
        if asked.get("wants").is_none() {
            let batch = self.batch(store, number.as_u64().unwrap());
            node.answer(&OK, &batch.encode());
            return true;
        }
        let mine = format!("{:016x}", self.store);
        if asked["wait_ms"] != 0 && store == mine && *number == self.number {
            return false;
        }
        let state = json!({"store": mine, "number": self.number});
        let body = json!({"protocol": 3, "commands": [], "state": state}).to_string();
        node.answer(&OK, body.as_bytes());
        true
    }

    /// Goes on until the node waits. Gives the number of answers.
    fn serve(&self, node: &Node) -> usize {
        let mut answers = 0;
        loop {
            let calls = node.polls();
            if !self.answer(node) {
                return answers;
            }
            answers += 1;
            for _ in 0..200 {
                if node.polls() > calls {
                    break;
                }
                node.host.pass(SLICE_TICK);
                node.tick();
            }
            assert!(answers < 1000, "it never ends");
        }
    }

    /// Whether shared data holds exactly what the sidecar has.
    #[track_caller]
    fn check(&self, host: &FakeHost) {
        let full = self.buckets.iter().filter(|(_, (_, bytes))| !bytes.is_empty());
        let mut expected: HashMap<Vec<u8>, Vec<u8>> =
            full.map(|(bucket, (_, bytes))| (bucket.key().to_vec(), bytes.clone())).collect();
        let (store, number, seeded) = (self.store, self.number, Seeded::Yes);
        let banned = expected.keys().any(|key| key.starts_with(b"replica/2/\x04"));
        let bans = if banned { Bans::Some } else { Bans::None };
        let state = State { store, number, keys: KEYS, seeded, bans };
        expected.insert(STATE_KEY.to_vec(), state.to_bytes());
        assert_eq!(host.stored(b"replica/"), expected);
    }
}

fn held(host: &FakeHost, bucket: Bucket) -> Vec<u8> {
    bucket.read(&mut SharedData(host.clone())).unwrap()
}

fn record(host: &FakeHost) -> Option<State> {
    State::from_bytes(&SharedData(host.clone()).read(STATE_KEY).unwrap()?.bytes)
}

fn started() -> (Node, Sidecar) {
    let mut sidecar = Sidecar::new(7);
    sidecar.set(REVOKED, b"one");
    sidecar.set(KEY, b"two");
    let node = Node::new(FakeHost::new(1));
    node.tick();
    (node, sidecar)
}

#[test]
fn the_first_filling_then_changes_and_each_poll_is_the_receipt() {
    let (node, mut sidecar) = started();
    let other = Node::new(node.host.sibling());
    assert_eq!(other.view.look().state, None);
    assert_eq!(sidecar.serve(&node), 2);
    sidecar.check(&node.host);
    assert_eq!(node.poll()["state"], json!({"store": "0000000000000007", "number": 2}));
    assert_eq!(other.view.look().state.map(|state| state.number), Some(2));
    sidecar.set(FILE, b"three");
    sidecar.set(KEY, b"");
    assert_eq!(sidecar.serve(&node), 2);
    sidecar.check(&node.host);
    assert_eq!(node.poll()["state"]["number"], 4);
    assert_eq!(other.view.look().state.map(|state| state.number), Some(4));
    assert_eq!(node.host.metric("gateway_state_number"), 4);
    assert_eq!(node.host.logged("the sidecar's state is here"), 1);
}

#[test]
fn several_batches_are_not_complete_before_the_last() {
    let (node, mut sidecar) = started();
    sidecar.set(FILE, b"three");
    sidecar.most = 1;
    sidecar.answer(&node);
    for number in 1..3 {
        sidecar.answer(&node);
        let state = record(&node.host).unwrap();
        assert_eq!((state.number, state.seeded), (number, Seeded::NotYet));
        assert_eq!(node.view.look().state, Some(state));
    }
    sidecar.serve(&node);
    sidecar.check(&node.host);
    // From here on it may lag but never lack.
    sidecar.set(FILE, b"four");
    sidecar.set(KEY, b"five");
    sidecar.answer(&node);
    sidecar.answer(&node);
    assert_eq!(record(&node.host).map(|state| state.seeded), Some(Seeded::Yes));
}

#[test]
fn another_store_begins_afresh_and_nothing_of_the_old_one_is_left() {
    let (node, sidecar) = started();
    sidecar.serve(&node);
    let mut other = Sidecar::new(8);
    other.set(FILE, b"new");
    // The old poll ends, the fetch is answered: the copy is renounced before anything else.
    other.answer(&node);
    other.answer(&node);
    assert_eq!(node.view.look().state, Some(State::UNKNOWN));
    other.serve(&node);
    other.check(&node.host);
}

#[test]
fn a_sidecar_with_the_same_store_continues_after_its_restart() {
    let (node, mut sidecar) = started();
    sidecar.serve(&node);
    node.answer(&[(b":status", b"503")], b"no healthy upstream");
    node.host.pass(TICK);
    node.tick();
    sidecar.set(FILE, b"later");
    sidecar.serve(&node);
    sidecar.check(&node.host);
    assert_eq!(node.host.logged("the sidecar's state is here"), 1);
}

#[test]
fn a_store_that_was_set_back_begins_afresh() {
    let (node, mut sidecar) = started();
    sidecar.set(FILE, b"three");
    sidecar.serve(&node);
    let mut back = Sidecar::new(7);
    back.set(REVOKED, b"one");
    back.serve(&node);
    back.check(&node.host);
}

#[test]
fn no_slice_does_more_than_its_share() {
    let (node, _) = started();
    let mut sidecar = Sidecar::new(7);
    for index in 0..9000 {
        sidecar.set(Bucket { table: Table::Revocations, index }, b"x");
    }
    sidecar.most = 9000;
    sidecar.serve(&node);
    let mut other = Sidecar::new(8);
    other.set(Bucket { table: Table::Revocations, index: 1 }, b"y");
    other.answer(&node);
    node.host.process.shared_calls.set(0);
    other.answer(&node);
    while record(&node.host) == Some(State::UNKNOWN) {
        let calls = node.host.process.shared_calls.get();
        assert!(calls < 2 * 2048 + 20, "{calls}");
        assert_eq!(node.sync.pace(TICK), SLICE_TICK);
        node.host.pass(SLICE_TICK);
        node.host.process.shared_calls.set(0);
        node.tick();
    }
    assert_eq!(node.sync.pace(TICK), TICK);
    other.check(&node.host);
}

/// The holder dies at each host call in turn; an heir that knows nothing of it finishes the work.
#[test]
fn wherever_a_holder_dies_its_heir_ends_with_the_same() {
    for calls in 0.. {
        let (node, mut sidecar) = started();
        sidecar.serve(&node);
        sidecar.set(REVOKED, b"");
        sidecar.set(FILE, b"three");
        let heir = Node::new(node.host.sibling());
        sidecar.answer(&node);
        node.host.vm.dies_after.set(Some(calls));
        sidecar.answer(&node);
        let survived = node.host.vm.dies_after.get() != Some(0);
        for _ in 0..6 {
            heir.host.pass(TICK);
            heir.tick();
        }
        assert_eq!(heir.polls(), 1);
        sidecar.serve(&heir);
        sidecar.check(&heir.host);
        assert_eq!(heir.view.look().state, record(&heir.host));
        if survived {
            assert!(calls > 5);
            break;
        }
    }
}

#[test]
fn a_holder_that_dies_while_emptying_leaves_no_old_bucket() {
    let (node, sidecar) = started();
    sidecar.serve(&node);
    let mut other = Sidecar::new(8);
    other.set(FILE, b"new");
    other.answer(&node);
    other.answer(&node);
    let heir = Node::new(node.host.sibling());
    for _ in 0..6 {
        heir.host.pass(TICK);
        heir.tick();
    }
    other.serve(&heir);
    other.check(&heir.host);
    // The dead one was only asleep: its slices are over.
    node.tick();
    other.check(&heir.host);
}

/// The holder stalls in the middle of its writing; its heir is done before it wakes and overwrites
/// what is newer.
#[test]
fn a_lease_that_is_lost_within_a_slice_makes_the_heir_begin_afresh() {
    let (node, mut sidecar) = started();
    sidecar.serve(&node);
    sidecar.set(REVOKED, b"newer");
    sidecar.answer(&node);
    let old = sidecar.batch("0000000000000007", 2).encode();
    sidecar.set(REVOKED, b"newest");
    let rest = Rc::new((Node::new(node.host.sibling()), sidecar));
    let meanwhile = Rc::clone(&rest);
    *node.host.vm.before_overwrite.borrow_mut() = Some(Box::new(move || {
        let (heir, sidecar) = &*meanwhile;
        heir.host.pass(TERM);
        heir.tick();
        sidecar.serve(heir);
        sidecar.check(&heir.host);
    }));
    node.answer(&OK, &old);
    let (heir, sidecar) = &*rest;
    assert_eq!(held(&heir.host, REVOKED), b"newer");
    assert_eq!(heir.view.look().state, Some(State::UNKNOWN));
    heir.tick();
    sidecar.serve(heir);
    sidecar.check(&heir.host);
}

#[test]
fn a_copy_that_was_spoiled_is_noticed_on_the_next_tick() {
    let (node, sidecar) = started();
    sidecar.serve(&node);
    spoil(&node.host).unwrap();
    Node::new(node.host.sibling()).view.changed();
    node.tick();
    assert_eq!(node.poll()["state"]["store"], "");
    sidecar.serve(&node);
    sidecar.check(&node.host);
}

#[test]
fn shared_data_that_fails_in_the_middle_announces_nothing() {
    let (node, mut sidecar) = started();
    sidecar.serve(&node);
    sidecar.set(FILE, b"three");
    sidecar.answer(&node);
    let host = node.host.clone();
    *node.host.vm.before_overwrite.borrow_mut() = Some(Box::new(move || {
        host.vm.shareless.set(true);
    }));
    sidecar.answer(&node);
    node.host.vm.shareless.set(false);
    assert_eq!(record(&node.host).map(|state| state.number), Some(2));
    node.host.pass(TICK);
    node.tick();
    sidecar.serve(&node);
    sidecar.check(&node.host);
}

#[test]
fn only_who_lacks_something_is_in_a_hurry_and_not_for_ever() {
    let revocation = Revocation { on_unseeded: Unseeded::Refuse, seed_deadline: TICK, max: 9 };
    let strict = Policy { revocation: Some(revocation), ..policy() };
    let pace = |node: &Node| (node.sync.pace(TICK), node.sync.pace(HURRY_MAX));
    let easy = Node::new(FakeHost::new(1));
    assert_eq!(pace(&easy), (TICK, TICK));
    let needy = Node::with(FakeHost::new(1), &strict);
    assert_eq!(pace(&needy), (FIRST_TICK, TICK));
    needy.tick();
    assert_eq!(needy.poll()["wants"]["revocations_max"], 9);
    started().1.serve(&needy);
    assert_eq!(pace(&needy), (TICK, TICK));
}

/// Several VMs whose host calls fail from any point of a callback on, a sidecar that changes and is
/// sometimes another: when the trouble ends, shared data is what the sidecar has, and all know it.
#[test]
fn whatever_went_wrong_it_ends_with_what_the_sidecar_has() {
    for seed in 0..20 {
        let first = Node::new(FakeHost::new(seed));
        let host = first.host.clone();
        let draw = |below: u64| host.draw() % below;
        let mut nodes = vec![first, Node::new(host.sibling()), Node::new(host.sibling())];
        let mut sidecar = Sidecar::new(7);
        sidecar.most = 3;
        for _ in 0..400 {
            let bucket = Bucket::nth(draw(40) as u32 * 1700).unwrap();
            match draw(20) {
                0..5 => sidecar.set(bucket, &draw(1000).to_le_bytes()),
                5 => sidecar.set(bucket, b""),
                6 if draw(10) == 0 => sidecar.store += 1,
                7 if draw(10) == 0 => nodes[draw(3) as usize] = Node::new(host.sibling()),
                _ => {}
            }
            let node = &nodes[draw(3) as usize];
            node.host.vm.dies_after.set((draw(4) == 0).then(|| draw(30) as u32));
            if node.polls() > 0 && draw(2) == 0 {
                sidecar.answer(node);
            } else {
                host.pass(SLICE_TICK);
                node.tick();
            }
            node.host.vm.dies_after.set(None);
            host.pass(Nanos(draw(TICK.0)));
        }
        for _ in 0..400 {
            host.pass(TICK);
            for node in &nodes {
                node.tick();
                if node.polls() > 0 && node.sync.state.borrow().flight.is_some() {
                    sidecar.answer(node);
                }
            }
        }
        sidecar.check(&host);
        for node in &nodes {
            assert_eq!(node.view.look().state, record(&host), "seed {seed}");
        }
    }
}
