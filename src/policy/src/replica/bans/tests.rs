//! Bans as they are handed over: names that do not collide, records that are read back, and bytes
//! that nobody wrote.

use super::*;
use crate::replica::revocations;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;

const KEYS: [u64; 2] = [3, 4];

fn name(kind: Kind, provider: Option<&'static str>, name: &'static str) -> Name<'static> {
    Name { kind, provider, name }
}

fn record(number: u8) -> Record {
    let verdict = if number.is_multiple_of(2) { Verdict::Banned } else { Verdict::Lifted };
    Record {
        print: [number; 16],
        provider: u64::from(number),
        serial: u64::MAX - u64::from(number),
        verdict,
        until_ms: u64::from(number) << 56,
    }
}

#[test]
fn names_never_collide_whatever_stands_in_them() {
    let parts = ["", "a", "b", "ab", "a|b", "a\0b", "\0", "a\0", "\u{1}", "::1", "None", "ip"];
    let mut seen = BTreeMap::new();
    for kind in Kind::ALL {
        for part in parts {
            let name = Name { kind, provider: None, name: part };
            let before = seen.insert(name.print(KEYS), format!("{name:?}"));
            assert_eq!(before, None, "{name:?}");
            assert_ne!(name.print([4, 3]), name.print(KEYS), "other keys, other fingerprints");
        }
    }
    let print = name(Kind::User, None, "ada").print(KEYS);
    let (high, low) = print.split_at(8);
    assert_ne!(high, low, "the halves are two fingerprints, not one twice");
    // A name of another table is another name, though the keys are the same.
    let revoked = revocations::Kind::Subject;
    let revoked = revocations::Name { kind: revoked, issuer: None, id: "ada" };
    assert_ne!(revoked.print(KEYS), print);
}

#[test]
fn users_of_one_name_share_a_bucket_and_differ_by_provider() {
    let [any, one, other] = [None, Some("one"), Some("other")].map(|p| name(Kind::User, p, "ada"));
    assert_eq!(any.print(KEYS), one.print(KEYS));
    assert_eq!(bucket(&one.print(KEYS)), bucket(&other.print(KEYS)));
    assert_eq!(any.provider_print(KEYS), 0);
    let empty = name(Kind::User, Some(""), "ada");
    let prints = [any, one, other, empty].map(|name| name.provider_print(KEYS));
    assert_eq!(BTreeSet::from(prints).len(), 4, "no provider reads as every provider");
}

#[test]
fn every_kind_has_a_word_of_its_own() {
    let words: BTreeSet<_> = Kind::ALL.map(Kind::name).into();
    assert_eq!(words.len(), Kind::ALL.len());
}

#[test]
fn prints_fill_buckets_evenly_and_a_bucket_is_one_of_the_bans() {
    let buckets = usize::try_from(Table::Bans.buckets()).unwrap();
    let mut filled = alloc::vec![0_u32; buckets];
    for number in 0..BANS_MAX {
        let text = number.to_string();
        let print = Name { kind: Kind::User, provider: None, name: &text }.print(KEYS);
        let bucket = bucket(&print);
        assert_eq!(bucket.table, Table::Bans);
        filled[usize::try_from(bucket.index).unwrap()] += 1;
    }
    // 24 on average: a look copies a kilobyte at most times, and never many.
    assert!(filled.iter().max() < Some(&64), "{:?}", filled.iter().max());
}

#[test]
fn records_are_read_back_and_a_broken_tail_is_nothing() {
    let records = [record(1), record(2), record(3), record(0)];
    let bytes = encode(&records);
    assert_eq!(bytes.len(), 4 * SIZE);
    for cut in 0..=bytes.len() {
        let read: Vec<_> = decode(&bytes[..cut]).collect();
        assert_eq!(read, records[..cut / SIZE], "what is read is a beginning of what was there");
    }
    assert_eq!(encode(&[]), Vec::<u8>::new(), "nobody is banned: nothing is stored");
}

/// Whoever cannot be told to be banned is not: a broken record must lock nobody out.
#[test]
fn only_a_clear_yes_is_a_ban() {
    let mut bytes = encode(&[record(2)]);
    for verdict in 0..=u8::MAX {
        bytes[SIZE - 4] = verdict;
        let read = decode(&bytes).next().unwrap().verdict;
        assert_eq!(read == Verdict::Banned, verdict == 1, "{verdict}");
    }
}

#[test]
fn any_bytes_read_as_records_that_are_written_as_they_were() {
    let mut state = 11_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (state >> 33).to_le_bytes()[0]
    };
    for length in 0..(4 * SIZE) {
        let bytes: Vec<u8> = (0..length).map(|_| next()).collect();
        let records: Vec<_> = decode(&bytes).collect();
        assert_eq!(records.len(), length / SIZE);
        let again: Vec<_> = decode(&encode(&records)).collect();
        assert_eq!(again, records);
    }
}
