//! Reports: what is told, once, whatever the way to the sidecar does to it, in bounded memory.

use super::*;
use crate::sync::tests::{Header, OK, policy};
use crate::testing::FakeHost;
use policy::headers::{Headers, Occurrence, serialize};
use policy::stage::Reports as _;
use policy::sync::Named;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

struct Vm {
    host: FakeHost,
    reports: Reports<FakeHost>,
}

impl Vm {
    fn new(host: FakeHost) -> Self {
        let reports = Reports::new(&policy(), &host, &Rc::default());
        Self { host, reports }
    }

    fn now(&self) -> Moment {
        let now = Nanos(self.host.process.now.get());
        Moment { monotonic: now, wall: now }
    }

    /// A tick, long enough after the last that anything that can be sent is.
    fn tick(&mut self) {
        self.host.pass(RETRY);
        self.reports.on_tick(self.now());
    }

    fn calls(&self) -> usize {
        self.host.vm.calls.borrow().len()
    }

    fn report(&self) -> Report {
        let calls = self.host.vm.calls.borrow();
        serde_json::from_slice(&calls.last().unwrap().body).unwrap()
    }

    fn answer(&mut self, headers: &[Header<'_>], body: &[u8]) {
        let token = self.host.vm.calls.borrow().last().unwrap().token;
        *self.host.vm.call_response.borrow_mut() = Some((serialize(headers), body.to_vec()));
        assert_eq!(self.reports.on_answer(token, body.len(), self.now()), Ours::Yes);
    }

    /// The next report, and its receipt.
    fn told(&mut self) -> Report {
        let calls = self.calls();
        self.tick();
        assert_eq!(self.calls(), calls + 1);
        let report = self.report();
        self.answer(&OK, b"{}");
        report
    }

    fn refuse(&mut self, key: &str) {
        let mut tag = policy::fingerprint::Fingerprint::new([1, 2], "test");
        tag.part(key.as_bytes());
        self.reports.limited("per-user", tag.finish(), &|| Some(key.to_owned()));
    }
}

fn ban(name: &str) -> BanMade {
    BanMade {
        who: Named { kind: "user".into(), provider: None, name: name.into() },
        limit: "per-user".into(),
        serial: "ab".into(),
        made_ms: 1,
        until_ms: 2,
        level: 0,
    }
}

fn counted(report: &Report) -> BTreeMap<&str, u64> {
    report.limited.iter().map(|limited| (limited.key.as_str(), limited.count)).collect()
}

#[test]
fn who_has_nothing_to_tell_sends_nothing() {
    let mut vm = Vm::new(FakeHost::new(1));
    for _ in 0..10 {
        vm.tick();
    }
    assert_eq!(vm.calls(), 0);
}

#[test]
fn a_report_says_who_was_refused_and_banned_and_is_addressed_as_polls_are() {
    let mut vm = Vm::new(FakeHost::new(1));
    for key in ["user=bob", "user=ada", "user=ada"] {
        vm.refuse(key);
    }
    vm.reports.banned(ban("ada"));
    let report = vm.told();
    assert_eq!((report.protocol, report.number, report.lost), (PROTOCOL, 1, 0));
    assert_eq!(report.instance, instance(vm.reports.seed.get(&vm.host)));
    assert_eq!(report.worker.len(), 16);
    let most = report.limited.first().map(|limited| (limited.key.as_str(), limited.count));
    assert_eq!(most, Some(("user=ada", 2)));
    assert_eq!(counted(&report), BTreeMap::from([("user=ada", 2), ("user=bob", 1)]));
    assert_eq!(report.bans, [ban("ada")]);
    let calls = vm.host.vm.calls.borrow();
    let headers = Headers::new(&calls[0].headers);
    let bearer = b"Bearer a-token-that-is-long-enough-for-it";
    assert_eq!(headers.only("authorization"), Occurrence::Once(bearer));
    assert_eq!(headers.only(":path"), Occurrence::Once(REPORT_PATH.as_bytes()));
}

#[test]
fn what_was_told_is_not_told_again() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    vm.reports.banned(ban("ada"));
    vm.told();
    vm.tick();
    assert_eq!(vm.calls(), 1);
    vm.refuse("user=ada");
    let second = vm.told();
    assert_eq!((second.number, counted(&second)), (2, BTreeMap::from([("user=ada", 1)])));
    assert_eq!(second.bans, []);
}

#[test]
fn vms_have_names_of_their_own_and_one_process() {
    let mut first = Vm::new(FakeHost::new(1));
    let mut other = Vm::new(first.host.sibling());
    let told = [&mut first, &mut other].map(|vm| {
        vm.refuse("user=ada");
        vm.told()
    });
    let [one, two] = &told;
    assert_eq!(one.instance, two.instance);
    assert_ne!(one.worker, two.worker);
    first.refuse("user=ada");
    assert_eq!(first.told().worker, one.worker, "and keep them");
}

/// Whatever comes instead of a receipt, the same report is sent again, byte for byte, and what
/// happened meanwhile is in the next one.
#[test]
fn without_a_receipt_the_same_report_is_sent_again() {
    let [ok, marker] = OK;
    let none: [&[Header]; 9] = [
        &[],
        &[ok],
        &[marker],
        &[ok, marker, marker],
        &[(b":status", b"503")],
        &[(b":status", b"401"), marker],
        &[(b":status", b"204"), marker],
        &[ok, (b"x-tracseq-sync", b"2")],
        &[(b":status", b"abc"), marker],
    ];
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    vm.reports.banned(ban("ada"));
    vm.tick();
    let body = vm.host.vm.calls.borrow()[0].body.clone();
    for (number, headers) in none.into_iter().enumerate() {
        vm.answer(headers, b"{}");
        vm.refuse("user=bob");
        vm.tick();
        assert_eq!(vm.calls(), number + 2, "{headers:?}");
        assert_eq!(vm.host.vm.calls.borrow()[number + 1].body, body, "{headers:?}");
    }
    vm.answer(&OK, b"");
    let next = vm.told();
    assert_eq!((next.number, counted(&next)), (2, BTreeMap::from([("user=bob", 9)])));
}

#[test]
fn a_receipt_is_one_whatever_its_body_is() {
    for body in [&b""[..], b"{}", b"{nope", &[0xff; 1000]] {
        let mut vm = Vm::new(FakeHost::new(1));
        vm.refuse("user=ada");
        vm.tick();
        vm.answer(&OK, body);
        vm.tick();
        assert_eq!(vm.calls(), 1);
    }
}

#[test]
fn trouble_is_said_once_per_change_and_again_after_it_was_over() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    let [ok, marker] = OK;
    let said = |vm: &Vm| vm.host.logged("report not taken by the sidecar");
    vm.tick();
    for _ in 0..3 {
        vm.answer(&[(b":status", b"401"), marker], b"");
        vm.tick();
    }
    assert_eq!((said(&vm), vm.host.logged(r#""status":401"#)), (1, 1));
    for _ in 0..3 {
        vm.answer(&[ok, (b"x-tracseq-sync", b"2")], b"");
        vm.tick();
    }
    assert_eq!((said(&vm), vm.host.logged(r#""protocol":2"#)), (2, 1));
    vm.answer(&OK, b"{}");
    vm.refuse("user=ada");
    vm.tick();
    vm.answer(&[ok, (b"x-tracseq-sync", b"2")], b"");
    assert_eq!(said(&vm), 3);
    assert_eq!(vm.host.logged("ada"), 0, "names do not go to the log");
}

#[test]
fn a_report_that_cannot_be_sent_is_tried_again_at_leisure() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    vm.host.vm.callless.set(true);
    vm.tick();
    vm.host.vm.callless.set(false);
    vm.reports.on_tick(vm.now());
    assert_eq!((vm.calls(), vm.host.logged("the cluster does not exist")), (0, 1));
    assert_eq!(vm.told().number, 1);
}

#[test]
fn one_call_at_a_time_and_one_that_is_never_answered_is_given_up() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    vm.tick();
    let lost = vm.host.vm.calls.borrow()[0].token;
    vm.host.pass(OVERDUE);
    vm.reports.on_tick(vm.now());
    assert_eq!(vm.calls(), 1);
    vm.host.pass(OVERDUE);
    vm.reports.on_tick(vm.now());
    vm.tick();
    assert_eq!(vm.calls(), 2);
    // An answer that comes after all is nobody's: the report may have been replaced since.
    *vm.host.vm.call_response.borrow_mut() = Some((serialize(&OK), Vec::new()));
    assert_eq!(vm.reports.on_answer(lost, 0, vm.now()), Ours::No);
    assert_eq!(vm.report().number, 1);
    vm.answer(&OK, b"{}");
    vm.tick();
    assert_eq!(vm.calls(), 2);
}

#[test]
fn ticks_that_come_thick_do_not_make_reports_so() {
    let mut vm = Vm::new(FakeHost::new(1));
    for _ in 0..1_000 {
        vm.refuse("user=ada");
        vm.host.pass(Nanos::from_millis(1));
        vm.reports.on_tick(vm.now());
        if vm.reports.flight.is_some() {
            vm.answer(&OK, b"{}");
        }
    }
    assert!((2..=3).contains(&vm.calls()), "{} in a second", vm.calls());
}

#[test]
fn an_answer_to_somebody_else_is_not_ours() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    vm.tick();
    assert_eq!(vm.reports.on_answer(12_345, 0, vm.now()), Ours::No);
    assert!(vm.reports.flight.is_some());
}

#[test]
fn without_a_sidecar_nothing_is_kept() {
    let host = FakeHost::new(1);
    let alone = Policy { sidecar: None, ..policy() };
    let reports = Reports::new(&alone, &host, &Rc::default());
    let mut vm = Vm { host, reports };
    vm.refuse("user=ada");
    vm.reports.banned(ban("ada"));
    vm.tick();
    assert!(vm.reports.counts.is_empty() && vm.reports.bans.is_empty());
    assert_eq!((vm.calls(), vm.reports.lost), (0, 0));
}

/// A zero seed is what a VM has that cannot reach shared data: its reports would count as those of
/// an Envoy that has just started.
#[test]
fn nothing_is_told_before_the_process_has_a_name() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.host.vm.shareless.set(true);
    vm.refuse("user=ada");
    vm.tick();
    assert_eq!(vm.calls(), 0);
    vm.host.vm.shareless.set(false);
    assert_eq!(counted(&vm.told()), BTreeMap::from([("user=ada", 1)]));
}

#[test]
fn no_report_has_more_entries_than_it_may_and_what_had_no_room_is_counted() {
    let mut vm = Vm::new(FakeHost::new(1));
    for number in 0..1_000 {
        vm.refuse(&format!("user={number}"));
        vm.reports.banned(ban(&number.to_string()));
    }
    let report = vm.told();
    assert_eq!(report.limited.len(), REPORTED_MAX);
    assert_eq!(report.bans.len(), REPORTED_MAX);
    assert_eq!(report.lost, 2 * (1_000 - REPORTED_MAX as u64));
    assert_eq!(report.bans[0], ban("0"), "the first ones are told");
    vm.tick();
    assert_eq!(vm.calls(), 1, "what is lost is told once");
}

#[test]
fn a_body_is_never_longer_than_a_sidecar_reads() {
    let mut vm = Vm::new(FakeHost::new(1));
    let long = |number: u64| format!("user={number:01000}");
    for number in 0..REPORTED_MAX as u64 {
        vm.refuse(&long(number));
        // Control characters take six bytes each in JSON.
        vm.reports.banned(ban(&format!("{}{number}", "\u{1}".repeat(1_000))));
    }
    let (mut names, mut bans) = (BTreeSet::new(), 0);
    loop {
        let calls = vm.calls();
        vm.tick();
        if vm.calls() == calls {
            break;
        }
        assert!(vm.host.vm.calls.borrow().last().unwrap().body.len() < 256 * 1024);
        let report = vm.report();
        names.extend(report.limited.into_iter().map(|limited| limited.key));
        bans += report.bans.len();
        assert_eq!(report.lost, 0);
        vm.answer(&OK, b"{}");
    }
    assert_eq!((names.len(), bans), (REPORTED_MAX, REPORTED_MAX));
    assert!(vm.calls() > 5);
}

#[test]
fn names_that_nobody_could_type_are_counted_and_not_kept() {
    let mut vm = Vm::new(FakeHost::new(1));
    let endless = "x".repeat(NAMES_MAX + 1);
    vm.refuse(&endless);
    vm.refuse(&endless);
    vm.reports.banned(ban(&endless));
    vm.refuse("user=ada");
    let report = vm.told();
    assert_eq!((counted(&report), report.bans.len()), (BTreeMap::from([("user=ada", 1)]), 0));
    assert_eq!(report.lost, 2);
}

#[test]
fn a_key_that_has_no_text_is_lost_and_not_told_as_another_one() {
    let mut vm = Vm::new(FakeHost::new(1));
    vm.refuse("user=ada");
    vm.reports.limited("per-user", 7, &|| None);
    let report = vm.told();
    assert_eq!((counted(&report), report.lost), (BTreeMap::from([("user=ada", 1)]), 1));
}

#[test]
fn a_key_that_is_known_is_not_written_out_again() {
    let mut vm = Vm::new(FakeHost::new(1));
    let written = Cell::new(0);
    for _ in 0..1_000 {
        vm.reports.limited("per-user", 7, &|| {
            written.set(written.get() + 1);
            Some("user=ada".to_owned())
        });
    }
    assert_eq!(written.get(), 1);
    assert_eq!(counted(&vm.told()), BTreeMap::from([("user=ada", 1_000)]));
}

#[test]
fn nobody_is_said_to_have_been_refused_more_often_than_he_was_and_the_worst_are_never_missing() {
    for seed in 0..3 {
        let mut vm = Vm::new(FakeHost::new(seed));
        let mut truth: BTreeMap<String, u64> = BTreeMap::new();
        let total = 8_000;
        for _ in 0..total {
            let draw = vm.host.draw();
            // A few who hammer, and many who come once or twice.
            let name = if draw.is_multiple_of(4) { draw / 4 % 3 } else { 10 + draw / 4 % 2_000 };
            let key = format!("user={name}");
            vm.refuse(&key);
            *truth.entry(key).or_default() += 1;
        }
        let report = vm.told();
        let told = counted(&report);
        for (key, count) in &told {
            assert!(*count <= truth[*key] && *count > 0, "{key}: {count} of {}", truth[*key]);
        }
        for (key, count) in &truth {
            if *count > total / REPORTED_MAX as u64 {
                let least = count.saturating_sub(total / REPORTED_MAX as u64);
                assert!(
                    told.get(key.as_str()).is_some_and(|told| *told >= least),
                    "{key}: {count}"
                );
            }
        }
    }
}

/// A way that loses calls, answers and receipts at random: what a sidecar that counts each number
/// once has in the end is what happened.
#[test]
fn whatever_gets_lost_each_ban_and_refusal_is_counted_once() {
    for seed in 0..20 {
        let mut vm = Vm::new(FakeHost::new(seed));
        let mut heard: BTreeMap<u64, Value> = BTreeMap::new();
        let (mut refused, mut banned) = (0, 0);
        let host = vm.host.clone();
        let draw = |below: u64| host.draw() % below;
        for step in 0..600 {
            let calm = step >= 500;
            if !calm {
                refused += 1;
                vm.refuse(&format!("user={}", draw(5)));
                if draw(10) == 0 {
                    banned += 1;
                    vm.reports.banned(ban(&banned.to_string()));
                }
            }
            vm.host.vm.dies_after.set((!calm && draw(4) == 0).then(|| draw(6) as u32));
            let calls = vm.calls();
            vm.tick();
            if vm.calls() > calls && (calm || draw(3) > 0) {
                let report = vm.report();
                let text = serde_json::to_value(&report).unwrap();
                let before = heard.insert(report.number, text.clone());
                assert!(before.is_none_or(|before| before == text), "a number says one thing");
                if calm || draw(3) > 0 {
                    vm.answer(&OK, b"{}");
                }
            }
            vm.host.vm.dies_after.set(None);
        }
        let sum = |field: &str, value: &dyn Fn(&Value) -> u64| -> u64 {
            heard.values().flat_map(|r| r[field].as_array().unwrap()).map(value).sum()
        };
        assert_eq!(sum("limited", &|limited| limited["count"].as_u64().unwrap()), refused);
        assert_eq!(sum("bans", &|_| 1), banned, "seed {seed}");
        assert_eq!(
            heard.values().map(|report| &report["lost"]).filter(|l| **l != json!(0)).count(),
            0
        );
        assert_eq!(
            heard.keys().copied().collect::<Vec<_>>(),
            (1..=heard.len() as u64).collect::<Vec<_>>()
        );
    }
}
