//! Numbers of limits that change while requests come in.

use super::{ROOT, SECRET, configured, details, host, serialize};
use crate::metrics::Metrics;
use crate::replica::View;
use crate::store::SharedData;
use crate::testing::FakeHost;
use crate::vm::{Action, Vm};
use policy::replica::overrides::{self, Override};
use policy::replica::{Bans, STATE_KEY, Seeded, State};
use policy::store::{Change, update};
use policy::time::Nanos;
use serde_json::json;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Three a minute; with a sidecar.
fn policy() -> String {
    json!({
        "version": 1,
        "rate_limits": [{
            "name": "all", "key": [], "algorithm": "token_bucket", "requests": 3, "per": "1m",
        }],
        "sidecar": {"cluster": "side", "token": {"env": "S"}},
    })
    .to_string()
}

/// Two VMs of one process.
fn two(policy: &str) -> [(FakeHost, Rc<Vm<FakeHost>>); 2] {
    let first = host(policy);
    first.vm.variables.borrow_mut().insert("S".into(), SECRET.into());
    let second = first.sibling();
    for host in [&first, &second] {
        let request = serialize(&[(b":method", b"GET"), (b":path", b"/a")]);
        *host.vm.request.borrow_mut() = request;
    }
    [first, second].map(|host| (host.clone(), configured(&host)))
}

fn send((_, vm): &(FakeHost, Rc<Vm<FakeHost>>), context: u32) -> Action {
    vm.on_context_create(context, ROOT);
    vm.on_request_headers(context, 2)
}

/// The sidecar hands over what an administrator has changed.
fn change(host: &FakeHost, number: u64, numbers: Option<&Override>) {
    let mut store = SharedData(host.clone());
    let all: BTreeMap<&str, &Override> = numbers.into_iter().map(|one| ("all", one)).collect();
    let mut write = |key: &[u8], bytes: Vec<u8>| {
        update(&mut store, key, |_| Change::Write(bytes.clone(), ())).unwrap();
    };
    write(&overrides::bucket("all").key(), overrides::encode(&all));
    let state = State { store: 1, number, keys: [5, 6], seeded: Seeded::Yes, bans: Bans::None };
    write(STATE_KEY, state.to_bytes());
    View::new(host, &Metrics::new(host.clone())).changed();
}

#[test]
fn new_numbers_are_in_force_in_every_worker_with_its_next_request() {
    let [one, two] = two(&policy());
    assert_eq!(send(&one, 2), Action::Continue);
    one.0.pass(Nanos::from_secs(60));
    change(&one.0, 1, Some(&Override { requests: Some(1), ..Override::default() }));
    assert_eq!(send(&one, 3), Action::Continue);
    assert_eq!(send(&two, 3), Action::Pause);
    assert_eq!(details(&two.0), ["gateway.rate-limited"]);
    let shadow = Override { mode: Some("shadow".into()), ..Override::default() };
    change(&one.0, 2, Some(&shadow));
    assert_eq!((send(&one, 4), send(&two, 4)), (Action::Continue, Action::Continue));
    change(&one.0, 3, None);
    one.0.pass(Nanos::from_secs(60));
    for context in 5..8 {
        assert_eq!(send(&two, context), Action::Continue);
    }
    assert_eq!(send(&one, 8), Action::Pause);
    assert_eq!(details(&one.0), ["gateway.rate-limited"]);
}

#[test]
fn a_request_that_was_judged_before_is_settled_all_the_same() {
    let [one, _] = two(&policy());
    assert_eq!(send(&one, 2), Action::Continue);
    change(&one.0, 1, Some(&Override { requests: Some(9), ..Override::default() }));
    one.1.on_response_headers(2);
    assert!(one.0.vm.added.borrow().contains(&"ratelimit".into()));
    one.1.on_log(2);
    let allowed = "gateway_requests_total;service=samples;decision=allowed;reason=none";
    assert_eq!(one.0.metric(allowed), 1);
}

#[test]
fn a_request_that_waits_keeps_its_turn_when_numbers_change() {
    let slow =
        policy().replace("token_bucket", "leaky_bucket").replace("\"per\"", "\"queue\":9,\"per\"");
    let [one, _] = two(&slow);
    assert_eq!(send(&one, 2), Action::Continue);
    assert_eq!(send(&one, 3), Action::Pause);
    change(&one.0, 1, Some(&Override { requests: Some(60), ..Override::default() }));
    one.0.run(Nanos::from_millis(19_999), || one.1.on_tick(ROOT));
    assert!(one.0.vm.continued.borrow().is_empty());
    one.0.run(Nanos::from_millis(3), || one.1.on_tick(ROOT));
    assert_eq!(*one.0.vm.continued.borrow(), [3]);
    assert!(details(&one.0).is_empty());
}

#[test]
fn what_a_worker_holds_of_a_limit_is_forgotten_when_state_has_moved() {
    let hot = policy().replace("\"requests\":3", "\"requests\":600000000");
    let [one, _] = two(&hot);
    let writes = |context| {
        let before = one.0.process.shared_writes.get();
        assert_eq!(send(&one, context), Action::Continue);
        one.0.process.shared_writes.get() - before
    };
    writes(2);
    let rare = (3..200).map(writes).sum::<usize>();
    assert!(rare < 20, "{rare}: nothing is taken in advance");
    assert!((300..400).any(|context| writes(context) == 0));
    change(&one.0, 1, None);
    assert_eq!(writes(400), 1);
}

#[test]
fn a_policy_without_a_sidecar_does_not_look_for_changes() {
    let mut alone: serde_json::Value = serde_json::from_str(&policy()).unwrap();
    alone.as_object_mut().unwrap().remove("sidecar");
    let [one, _] = two(&alone.to_string());
    assert_eq!(send(&one, 2), Action::Continue);
    one.0.process.shared_calls.set(0);
    assert_eq!(send(&one, 3), Action::Continue);
    assert_eq!(one.0.vm.gauges_read.get(), 0);
    // The limit's record is read and written, and nothing else.
    assert_eq!(one.0.process.shared_calls.get(), 2);
}
