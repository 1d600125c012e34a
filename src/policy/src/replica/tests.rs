//! Buckets, their keys, and the record that says how far the copy has come.

use super::*;
use crate::store::Versioned;
use crate::testing::FakeStore;
use alloc::vec;
use std::collections::BTreeSet;

#[test]
fn every_bucket_has_a_key_of_its_own_and_none_is_the_states() {
    let all: BTreeSet<_> = (0..).map_while(Bucket::nth).map(Bucket::key).collect();
    assert_eq!(all.len(), usize::try_from(Table::BUCKETS).unwrap());
    assert!(!all.iter().any(|key| key == STATE_KEY));
    assert_eq!(Bucket::nth(Table::BUCKETS), None);
}

#[test]
fn the_leading_bits_of_a_hash_choose_a_bucket_that_exists() {
    for table in Table::ALL {
        for (hash, index) in [(0, 0), (u32::MAX, table.buckets() - 1), (1, 0)] {
            assert_eq!(Bucket::of(table, hash), Bucket { table, index });
        }
    }
}

#[test]
fn a_bucket_that_was_never_written_is_empty_and_one_that_cannot_be_read_is_not() {
    let bucket = Bucket { table: Table::Files, index: 7 };
    let mut store = FakeStore::default();
    assert_eq!(bucket.read(&mut store), Ok(vec![]));
    store.values.insert(bucket.key().to_vec(), Versioned { bytes: vec![1], cas: 1 });
    assert_eq!(bucket.read(&mut store), Ok(vec![1]));
    store.down = true;
    assert_eq!(bucket.read(&mut store), Err(StoreError::Unavailable));
}

#[test]
fn the_state_is_read_back_and_broken_bytes_are_none() {
    for (seeded, bans) in [(Seeded::Yes, Bans::None), (Seeded::NotYet, Bans::Some)] {
        let state = State { store: u64::MAX, number: 7, keys: [1, 2], seeded, bans };
        let bytes = state.to_bytes();
        assert_eq!(State::from_bytes(&bytes), Some(state));
        for cut in 0..bytes.len() {
            assert_eq!(State::from_bytes(&bytes[..cut]), None);
        }
        assert_eq!(State::from_bytes(&[bytes.as_slice(), b"x"].concat()), None);
    }
    assert_eq!(State::from_bytes(&State::UNKNOWN.to_bytes()), Some(State::UNKNOWN));
}

#[test]
fn only_a_clear_yes_is_seeded() {
    let mut bytes = State { seeded: Seeded::Yes, ..State::UNKNOWN }.to_bytes();
    for last in 0..=u8::MAX {
        *bytes.last_mut().unwrap() = last;
        let seeded = State::from_bytes(&bytes).unwrap().seeded;
        assert_eq!(seeded == Seeded::Yes, last == 1, "{last}");
    }
}
