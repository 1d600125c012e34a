//! Sidecars that lie, and what is no sidecar.

use super::{FILE, REVOKED, held, record, started};
use crate::plugin::TICK;
use crate::sync::tests::{Header, OK};
use crate::testing::FakeHost;
use policy::replica::batch::{Batch, Begin, End};
use serde_json::json;

/// Answers a fetch with what is no batch: nothing is written and it is said once.
#[track_caller]
fn check_untaken(answers: &[(&[Header<'_>], Vec<u8>)]) {
    let (node, mut sidecar) = started();
    sidecar.serve(&node);
    sidecar.set(FILE, b"three");
    for (headers, body) in answers {
        assert!(sidecar.answer(&node));
        node.host.process.shared_writes.set(0);
        node.answer(headers, body);
        // The lease is renewed; nothing else.
        assert!(node.host.process.shared_writes.get() <= 1, "{body:?}");
        assert_eq!(held(&node.host, REVOKED), b"one");
        assert_eq!(record(&node.host).map(|state| state.number), Some(2));
        node.host.pass(TICK);
        node.tick();
    }
    assert_eq!(node.host.logged("state not taken"), 1);
    sidecar.serve(&node);
    sidecar.check(&node.host);
}

#[test]
fn what_no_sidecar_says_is_no_state() {
    let [ok, marker] = OK;
    let good = started().1.batch("", 0).encode();
    check_untaken(&[
        (&[ok], good.clone()),
        (&[], Vec::new()),
        (&[ok, marker, marker], good.clone()),
    ]);
    check_untaken(&[(&[(b":status", b"401"), marker], Vec::new())]);
    check_untaken(&[(&[(b":status", b"503"), marker], good.clone())]);
    check_untaken(&[(&[ok, (b"x-tracseq-sync", b"1")], good)]);
}

#[test]
fn bytes_that_are_no_batch_change_nothing() {
    let mut sidecar = started().1;
    sidecar.set(FILE, b"three");
    let good = sidecar.batch("0000000000000007", 2).encode();
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
    // A batch without buckets is one, and a good one: it ends where the first bucket begins.
    bad.retain(|bytes| bytes.len() != 34);
    let spoiled = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    // Version, flags, table, bucket, length.
    let wrong = [(0, 2), (1, 4), (1, 255), (34, 0), (34, 6), (35, 64), (38, 1), (39, 6), (42, 255)];
    bad.extend(wrong.map(|(at, byte)| spoiled(at, byte)));
    bad.push([&good[..], &[0]].concat());
    bad.push(vec![1; policy::replica::batch::BYTES_MAX + 1]);
    let host = FakeHost::new(9);
    bad.extend((0..200).map(|length| (0..length).map(|_| host.draw() as u8).collect()));
    let answers: Vec<(&[Header<'_>], _)> = bad.into_iter().map(|bytes| (&OK[..], bytes)).collect();
    check_untaken(&answers);
}

#[test]
fn a_batch_that_leads_nowhere_is_not_taken() {
    let (_, mut sidecar) = started();
    sidecar.set(FILE, b"three");
    let good = sidecar.batch("0000000000000007", 2);
    let wrong = [
        Batch { store: 8, ..good.clone() },
        Batch { keys: [5, 7], ..good.clone() },
        Batch { number: 1, ..good.clone() },
        // More is to come, and it says so for ever.
        Batch { number: 2, end: End::More, ..good },
    ];
    let answers: Vec<(&[Header<'_>], _)> =
        wrong.iter().map(|batch| (&OK[..], batch.encode())).collect();
    check_untaken(&answers);
    check_untaken(&[(&OK, Batch { store: 0, begin: Begin::Afresh, ..wrong[0].clone() }.encode())]);
}

#[test]
fn a_sidecar_that_has_nothing_new_and_says_otherwise_does_not_make_us_spin() {
    let (node, sidecar) = started();
    sidecar.serve(&node);
    let state = json!({"store": "0000000000000007", "number": 99});
    let liar = json!({"protocol": 3, "commands": [], "state": state}).to_string();
    for _ in 0..5 {
        node.answer(&OK, liar.as_bytes());
        assert!(sidecar.answer(&node));
        node.answer(&OK, liar.as_bytes());
        let calls = node.polls();
        assert!(sidecar.answer(&node));
        assert_eq!(node.polls(), calls);
        node.host.pass(TICK);
        node.tick();
        assert_eq!(node.polls(), calls + 1);
    }
}
