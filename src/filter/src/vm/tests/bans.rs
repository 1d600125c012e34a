//! Bans and the load, as whole VMs see them: what comes from the sidecar, what penalties make, and
//! what is told.

use super::{ROOT, SECRET, configured, details, host, serialize};
use crate::load;
use crate::metrics::Metrics;
use crate::plugin::TICK;
use crate::replica::View;
use crate::store::SharedData;
use crate::testing::FakeHost;
use crate::vm::{Action, Vm};
use policy::headers::Headers;
use policy::replica::bans::{Kind, Name, Record, Verdict, bucket, encode};
use policy::replica::{Bans, STATE_KEY, Seeded, State};
use policy::store::{Change, update};
use policy::sync::{REPORT_PATH, Report};
use policy::time::Nanos;
use serde_json::{Value, json};
use std::rc::Rc;

/// The address that [`host`] has requests come from.
const ADDRESS: &str = "8.8.8.8";

struct Worker {
    host: FakeHost,
    vm: Rc<Vm<FakeHost>>,
}

impl Worker {
    fn on(host: FakeHost) -> Self {
        let request = serialize(&[(b":method", b"GET"), (b":path", b"/a")]);
        *host.vm.request.borrow_mut() = request;
        let vm = configured(&host);
        Self { host, vm }
    }

    /// Two VMs of one process.
    fn two(limits: &Value) -> [Self; 2] {
        let document = json!({
            "version": 1,
            "rate_limits": limits,
            "sidecar": {"cluster": "side", "token": {"env": "S"}},
        });
        let host = host(&document.to_string());
        host.vm.variables.borrow_mut().insert("S".into(), SECRET.into());
        let sibling = host.sibling();
        [Self::on(host), Self::on(sibling)]
    }

    fn send(&self, context: u32) -> Action {
        self.vm.on_context_create(context, ROOT);
        self.vm.on_request_headers(context, 2)
    }

    /// The reports that this VM has sent.
    fn reports(&self) -> Vec<Report> {
        let calls = self.host.vm.calls.borrow();
        let to =
            |headers: &[u8]| Headers::new(headers).first(":path") == Some(REPORT_PATH.as_bytes());
        let reports = calls.iter().filter(|call| to(&call.headers));
        reports.map(|call| serde_json::from_slice(&call.body).unwrap()).collect()
    }
}

/// The sidecar hands over a ban of an address, from this store.
fn ban(host: &FakeHost, store: u64, verdict: Verdict) {
    let keys = [5, 6];
    let print = Name { kind: Kind::Ip, provider: None, name: ADDRESS }.print(keys);
    let record = Record { print, provider: 0, serial: 0, verdict, until_ms: u64::MAX };
    let state = State { store, number: 1, keys, seeded: Seeded::Yes, bans: Bans::Some };
    let mut data = SharedData(host.clone());
    let mut write = |key: &[u8], bytes: Vec<u8>| {
        update(&mut data, key, |_| Change::Write(bytes.clone(), ())).unwrap();
    };
    write(&bucket(&print).key(), encode(&[record]));
    write(STATE_KEY, state.to_bytes());
    View::new(host, &Metrics::new(host.clone())).changed();
}

#[test]
fn whom_the_sidecar_bans_no_worker_serves() {
    let [one, two] = Worker::two(&json!([]));
    assert_eq!(one.send(2), Action::Continue);
    ban(&one.host, 1, Verdict::Banned);
    for worker in [&one, &two] {
        assert_eq!(worker.send(3), Action::Pause);
        assert_eq!(*worker.host.vm.replies.borrow(), [(429, "gateway.banned".to_owned())]);
    }
    ban(&one.host, 1, Verdict::Lifted);
    for worker in [&one, &two] {
        assert_eq!(worker.send(4), Action::Continue);
    }
    // While the copy is begun afresh its keys are nobody's.
    ban(&one.host, State::UNKNOWN.store, Verdict::Banned);
    assert_eq!(one.send(5), Action::Continue);
}

#[test]
fn whom_a_penalty_bans_is_told_to_the_sidecar_with_what_was_refused() {
    let [one, two] = Worker::two(&json!([{
        "name": "login", "key": ["ip"], "algorithm": "token_bucket", "requests": 1, "per": "1s",
        "penalty": {"violations": 2, "within": "1m", "ban": "5m"},
    }]));
    assert_eq!(one.send(2), Action::Continue);
    for context in 3..6 {
        assert_eq!(one.send(context), Action::Pause);
    }
    let replies = ["gateway.rate-limited", "gateway.rate-limited", "gateway.banned"];
    assert_eq!(details(&one.host), replies);
    assert_eq!(one.host.metric("gateway_bans_total;limit=login"), 1);
    one.host.pass(Nanos::from_secs(299));
    assert_eq!(two.send(2), Action::Pause);
    assert_eq!(details(&two.host), ["gateway.banned"]);
    one.host.pass(Nanos::SECOND);
    assert_eq!(two.send(3), Action::Continue);

    one.vm.on_tick(ROOT);
    two.vm.on_tick(ROOT);
    let [report] = one.reports().try_into().unwrap();
    let limited: Vec<_> = report
        .limited
        .iter()
        .map(|one| (one.limit.as_str(), one.key.as_str(), one.count))
        .collect();
    assert_eq!(limited, [("login", "ip=8.8.8.8", 2)]);
    let bans: Vec<_> =
        report.bans.iter().map(|ban| (ban.limit.as_str(), ban.who.name.as_str())).collect();
    assert_eq!(bans, [("login", ADDRESS)]);
    assert!(two.reports().is_empty(), "it has refused nobody by a limit");
    // The receipt is taken by whom it is for.
    let token = one.host.vm.calls.borrow().last().unwrap().token;
    let signed = serialize(&[(b":status", b"200"), (b"x-tracseq-sync", b"3")]);
    *one.host.vm.call_response.borrow_mut() = Some((signed, b"{}".to_vec()));
    one.vm.on_call_response(ROOT, token, 2);
    for _ in 0..20 {
        one.host.pass(TICK);
        one.vm.on_tick(ROOT);
    }
    assert_eq!(one.reports().len(), 1, "it was told once");
}

#[test]
fn an_adaptive_limit_follows_the_load_that_the_sidecar_tells() {
    let [one, two] = Worker::two(&json!([{
        "name": "load", "key": [], "algorithm": "adaptive", "requests": 20, "per": "1s",
        "adaptive": {"threshold": 0.5, "floor": 0.1},
    }]));
    for context in 2..22 {
        assert_eq!(one.send(context), Action::Continue);
    }
    load::hear(&one.host, 1000, Nanos(one.host.process.now.get())).unwrap();
    one.host.pass(Nanos::SECOND);
    // A tenth of the rate is left; the full one would admit them all.
    let passed = (2..22).filter(|context| two.send(*context) == Action::Continue).count();
    assert!((1..=2).contains(&passed), "{passed}");
    assert_eq!(details(&two.host).last().unwrap(), "gateway.overloaded");
}
