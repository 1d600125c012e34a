//! What a table must keep and what it may forget.

use super::*;
use crate::event::Event;
use crate::store::Swap;
use crate::testing::FakeStore;

/// A record whose number is also its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(u64);

impl Count {
    /// The number that makes no sense.
    const ODD: u64 = u64::MAX;
}

impl Record for Count {
    const KIND: u8 = 9;
    const SIZE: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn decode(body: &[u8]) -> Option<Self> {
        Reader(body).u64().filter(|number| *number != Self::ODD).map(Self)
    }

    fn weight(&self, _now: Nanos) -> u64 {
        self.0
    }

    fn who(&self) -> [u32; 2] {
        // Even ones are 7's, those that three divides come from 9.
        [if self.0.is_multiple_of(2) { 7 } else { 0 }, if self.0.is_multiple_of(3) { 9 } else { 0 }]
    }
}

fn place(tag: u64) -> Place {
    Place { table: 1, sets: 1, shape: 3, tag }
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
    let most = set_bytes_max::<Count>();
    assert_eq!((bytes.len(), most), (most, 136), "a set never grows beyond its ways");
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
        &b"\x01\x09\x00\x00\x03\x00\x00\x00"[..],
        b"\x03\x09\x00\x00\x03\x00\x00\x00",
        b"\x02\x08\x00\x00\x03\x00\x00\x00",
        b"\x02\x09\x01\x00\x03\x00\x00\x00",
        b"\x02\x09\xff\x00\x03\x00\x00\x00",
        b"\x02\x09\x00\x00\x03\x00\x00",
        b"\x02",
        b"rubbish that somebody else wrote",
    ] {
        let mut store = FakeStore::default();
        assert_eq!(store.swap(&place(1).set().key(), bytes, None), Ok(Swap::Done));
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
        let place =
            Place { table: 3, sets: 16, shape: 3, tag: tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) };
        amend::<Count, _>(&mut store, &mut |_: Event<'_>| {}, &place, Nanos::ZERO, |_| {
            Keep::Put(Count(1), ())
        })
        .unwrap();
    }
    assert_eq!(store.values.len(), 16);
}

/// Reads without writing.
fn see(store: &mut FakeStore, tag: u64) -> Option<u64> {
    let swaps = store.swaps;
    let seen = read::<Count>(store, &mut |_: Event<'_>| {}, &place(tag)).unwrap();
    assert_eq!(store.swaps, swaps);
    seen.map(|count| count.0)
}

#[test]
fn a_record_can_be_read_and_erased_and_its_neighbours_stay() {
    for erased in 1..=8 {
        let mut store = FakeStore::default();
        assert_eq!(see(&mut store, erased), None);
        for tag in 1..=8 {
            add(&mut store, tag, 10 * tag).unwrap();
        }
        let mut quiet = |event: Event<'_>| panic!("{event:?}");
        let gone = erase::<Count>(&mut store, &mut quiet, &place(erased));
        assert_eq!(gone, Ok(Some(Count(10 * erased))));
        assert_eq!(erase::<Count>(&mut store, &mut quiet, &place(erased)), Ok(None));
        for tag in 1..=8 {
            assert_eq!(see(&mut store, tag), (tag != erased).then_some(10 * tag));
        }
        // And its place is free: nobody has to go.
        amend::<Count, _>(&mut store, &mut quiet, &place(99), Nanos::ZERO, |_| {
            Keep::Put(Count(1), ())
        })
        .unwrap();
        assert_eq!(see(&mut store, 99), Some(1));
    }
}

#[test]
fn what_is_somebodys_goes_by_either_print_and_nobodys_stays() {
    let left = |who: [u32; 2]| {
        let mut store = FakeStore::default();
        for tag in 1..=8 {
            add(&mut store, tag, tag).unwrap();
        }
        let erased =
            erase_of::<Count>(&mut store, &mut |_: Event<'_>| {}, &place(1).set(), who).unwrap();
        let left: Vec<u64> = (1..=8).filter(|tag| see(&mut store, *tag).is_some()).collect();
        assert_eq!(left.len() + erased, 8);
        left
    };
    assert_eq!(left([7, 0]), [1, 3, 5, 7]);
    assert_eq!(left([0, 9]), [1, 2, 4, 5, 7, 8]);
    assert_eq!(left([7, 9]), [1, 5, 7]);
    assert_eq!(left([0, 0]), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(left([9, 7]), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_set_of_another_shape_is_empty_without_a_word_and_makes_room() {
    let mut store = FakeStore::default();
    for tag in 1..=8 {
        add(&mut store, tag, 10 * tag).unwrap();
    }
    let other = Place { shape: 4, ..place(1) };
    let mut quiet = |event: Event<'_>| panic!("{event:?}");
    assert_eq!(read::<Count>(&mut store, &mut quiet, &other), Ok(None));
    assert_eq!(erase::<Count>(&mut store, &mut quiet, &other), Ok(None));
    assert_eq!(see(&mut store, 1), Some(10), "looking from elsewhere spoils nothing");
    let seen = amend::<Count, _>(&mut store, &mut quiet, &other, Nanos::ZERO, |old| {
        Keep::Put(Count(5), old)
    });
    assert_eq!(seen, Ok(None));
    assert_eq!(read::<Count>(&mut store, &mut quiet, &other), Ok(Some(Count(5))));
    assert_eq!(see(&mut store, 1), None);
}

#[test]
fn a_record_that_makes_no_sense_is_counted_and_goes_first() {
    let mut store = FakeStore::default();
    for tag in 1..=8 {
        add(&mut store, tag, 10 * tag).unwrap();
    }
    // What the record of 5 holds becomes what `decode` refuses.
    let value = store.values.values_mut().next().unwrap();
    let at = value.bytes.windows(8).position(|bytes| bytes == 50_u64.to_le_bytes()).unwrap();
    value.bytes[at..at + 8].copy_from_slice(&Count::ODD.to_le_bytes());
    let mut unreadable = 0;
    let mut count = |event: Event<'_>| {
        assert_eq!(event, Event::RecordUnreadable);
        unreadable += 1;
    };
    assert_eq!(read::<Count>(&mut store, &mut count, &place(5)), Ok(None));
    assert_eq!(read::<Count>(&mut store, &mut count, &place(6)), Ok(Some(Count(60))));
    amend::<Count, _>(&mut store, &mut count, &place(99), Nanos::ZERO, |_| Keep::Put(Count(1), ()))
        .unwrap();
    assert_eq!(unreadable, 1);
    for tag in [1, 2, 3, 4, 6, 7, 8] {
        assert_eq!(see(&mut store, tag), Some(10 * tag));
    }
}

#[test]
fn any_order_of_doings_leaves_what_a_map_of_the_heaviest_would() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut store = FakeStore::default();
    let mut model = std::collections::BTreeMap::<u64, u64>::new();
    for step in 0..20_000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let tag = 1 + (random >> 40) % 12;
        if (random >> 20).is_multiple_of(4) {
            let gone = erase::<Count>(&mut store, &mut |_: Event<'_>| {}, &place(tag)).unwrap();
            assert_eq!(gone.map(|count| count.0), model.remove(&tag));
        } else {
            // Every weight is another, so that there is one lightest.
            let weight = 1 + step;
            if !model.contains_key(&tag) && model.len() == WAYS {
                let (lightest, _) = model.iter().min_by_key(|(_, weight)| **weight).unwrap();
                let lightest = *lightest;
                model.remove(&lightest);
            }
            model.insert(tag, weight);
            amend::<Count, _>(&mut store, &mut |_: Event<'_>| {}, &place(tag), Nanos::ZERO, |_| {
                Keep::Put(Count(weight), ())
            })
            .unwrap();
        }
        let seen = (1..=12).filter_map(|tag| Some((tag, see(&mut store, tag)?))).collect();
        assert_eq!(model, seen);
    }
}
