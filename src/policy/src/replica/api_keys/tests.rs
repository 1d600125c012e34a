//! Keys as the sidecar hands them over, found by their hash and nothing less.

use super::*;
use crate::store::Versioned;
use crate::testing::FakeDigest;
use crate::testing::FakeStore;
use alloc::string::ToString;
use alloc::vec;

fn entry(id: &str) -> Entry {
    Entry {
        id: id.to_string(),
        permissions: vec!["samples:*:read".to_string()],
        tier: Some("internal".to_string()),
        expires: Some(7),
        cidrs: vec!["10.0.0.0/8".to_string()],
    }
}

/// Hashes of one bucket.
fn hash(last: u8) -> [u8; 32] {
    let mut hash = [0xab; 32];
    hash[31] = last;
    hash
}

fn with(bytes: Vec<u8>) -> FakeStore {
    let mut store = FakeStore::default();
    store.values.insert(bucket(&hash(0)).key().to_vec(), Versioned { bytes, cas: 1 });
    store
}

#[track_caller]
fn check(bytes: &[u8], last: u8, expected: Option<&Entry>) {
    let found = find(&hash(last), &FakeDigest, &mut with(bytes.to_vec()));
    assert_eq!(found, Ok(expected.cloned()));
}

#[test]
fn a_key_is_found_by_its_whole_hash_among_those_of_its_bucket() {
    let entries = [entry("one"), entry("two"), Entry::default()];
    let hashes = [hash(1), hash(2), hash(3)];
    let bytes = encode(hashes.iter().zip(&entries));
    for (last, entry) in (1..).zip(&entries) {
        check(&bytes, last, Some(entry));
    }
    check(&bytes, 4, None);
    check(&[], 1, None);
}

#[test]
fn a_bucket_is_chosen_by_the_first_bits_of_the_hash() {
    let mut other = hash(0);
    other[0] ^= 0x80;
    assert_eq!(bucket(&hash(0)), bucket(&hash(9)));
    assert_ne!(bucket(&hash(0)), bucket(&other));
}

#[test]
fn in_broken_bytes_nothing_is_found_that_was_not_there() {
    let entries = [entry("one"), entry("two")];
    let hashes = [hash(1), hash(2)];
    let bytes = encode(hashes.iter().zip(&entries));
    let first = bytes.len() / 2;
    for cut in 0..bytes.len() {
        check(&bytes[..cut], 2, None);
        check(&bytes[..cut], 1, (cut >= first).then_some(&entries[0]));
    }
    let mut lying = bytes.clone();
    lying[32..34].copy_from_slice(&u16::MAX.to_le_bytes());
    check(&lying, 1, None);
    let mut no_json = bytes;
    no_json[34] = b'x';
    check(&no_json, 1, None);
    check(&no_json, 2, Some(&entries[1]));
}

#[test]
fn an_entry_beyond_its_length_field_is_left_out_and_the_rest_kept() {
    let huge = Entry { permissions: vec!["x".repeat(70_000)], ..Entry::default() };
    let entries = [huge, entry("two")];
    let hashes = [hash(1), hash(2)];
    let bytes = encode(hashes.iter().zip(&entries));
    check(&bytes, 1, None);
    check(&bytes, 2, Some(&entries[1]));
}

#[test]
fn when_shared_data_cannot_be_had_no_key_is_called_unknown() {
    let mut store = FakeStore { down: true, ..FakeStore::default() };
    let found = find(&hash(1), &FakeDigest, &mut store);
    assert_eq!(found, Err(StoreError::Unavailable));
}
