//! What a table must keep and what it may forget.

use super::*;
use crate::event::Event;
use crate::store::Swap;
use crate::testing::FakeStore;

/// A record whose number is also its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(u64);

impl Record for Count {
    const KIND: u8 = 9;
    const SIZE: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn decode(body: &[u8]) -> Option<Self> {
        Reader(body).u64().map(Self)
    }

    fn weight(&self, _now: Nanos) -> u64 {
        self.0
    }
}

fn place(tag: u64) -> Place {
    Place { table: 1, sets: 1, tag }
}

fn add(store: &mut FakeStore, tag: u64, by: u64) -> Result<u64, StoreError> {
    amend::<Count, _>(store, &mut |_: Event<'_>| {}, &place(tag), Nanos::ZERO, |old| {
        let new = old.map_or(0, |count| count.0) + by;
        Keep::Put(Count(new), new)
    })
}

#[test]
fn records_of_one_set_do_not_disturb_each_other() {
    let mut store = FakeStore::default();
    for tag in 1..=8 {
        assert_eq!(add(&mut store, tag, tag), Ok(tag));
    }
    for tag in 1..=8 {
        assert_eq!(add(&mut store, tag, 1), Ok(tag + 1));
    }
    assert_eq!(store.values.len(), 1);
}

#[test]
fn a_full_set_forgets_the_record_that_forgives_least() {
    let mut store = FakeStore::default();
    for tag in 1..=8 {
        add(&mut store, tag, 10 * tag).unwrap();
    }
    for sprayed in 100..10_000 {
        add(&mut store, sprayed, 1).unwrap();
    }
    for tag in 2..=8 {
        assert_eq!(add(&mut store, tag, 0), Ok(10 * tag), "a heavy record survives the spray");
    }
    let bytes = &store.values.values().next().unwrap().bytes;
    assert_eq!(bytes.len(), HEAD + WAYS * (TAG + 8), "a set never grows beyond its ways");
}

#[test]
fn lost_writes_are_tried_again_and_a_hopeless_one_is_given_up() {
    let mut store = FakeStore { rivals: 3, ..FakeStore::default() };
    assert_eq!(add(&mut store, 1, 5), Ok(5));
    assert_eq!(store.swaps, 4);
    store.rivals = usize::MAX;
    assert_eq!(add(&mut store, 1, 5), Err(StoreError::Contended));
    store.rivals = 0;
    store.down = true;
    assert_eq!(add(&mut store, 1, 5), Err(StoreError::Unavailable));
}

#[test]
fn bytes_of_another_kind_version_or_length_read_as_absent_and_are_counted() {
    for bytes in [
        &b"\x02\x09\x00\x00"[..],
        b"\x01\x08\x00\x00",
        b"\x01\x09\x01\x00",
        b"\x01\x09\xff\x00",
        b"\x01",
        b"rubbish that somebody else wrote",
    ] {
        let mut store = FakeStore::default();
        assert_eq!(store.swap(&place(1).key(), bytes, None), Ok(Swap::Done));
        let mut unreadable = 0;
        let mut count = |event: Event<'_>| {
            unreadable += usize::from(event == Event::RecordUnreadable);
        };
        let seen = amend::<Count, _>(&mut store, &mut count, &place(1), Nanos::ZERO, |old| {
            Keep::Put(Count(1), old)
        });
        assert_eq!((seen, unreadable), (Ok(None), 1));
    }
}

#[test]
fn sets_are_chosen_by_the_fingerprint_and_stay_within_the_table() {
    let mut store = FakeStore::default();
    for tag in 1..=1_000_u64 {
        let place = Place { table: 3, sets: 16, tag: tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) };
        amend::<Count, _>(&mut store, &mut |_: Event<'_>| {}, &place, Nanos::ZERO, |_| {
            Keep::Put(Count(1), ())
        })
        .unwrap();
    }
    assert_eq!(store.values.len(), 16);
}
