//! What a revocation names, whom it means, and how long.

use super::*;
use crate::store::Versioned;
use crate::testing::FakeStore;
use alloc::string::ToString;
use alloc::vec;
use std::collections::BTreeMap;
use std::format;

const KEYS: [u64; 2] = [3, 4];
const NOW: u64 = 1_000;
const TOKEN: Token<'_> =
    Token { id: Some("t1"), subject: Some("ada"), issuer: Some("idp"), issued: Some(500) };

fn name(kind: Kind, issuer: Option<&'static str>, id: &'static str) -> Name<'static> {
    Name { kind, issuer, id }
}

/// Looks a token up where exactly this is revoked.
fn judge(token: &Token<'_>, name: Name<'_>, before: u32, until: u32) -> Verdict {
    let print = name.print(KEYS);
    // Among others: a record of another name, and one of the same name without effect.
    let other = Record { print: [0xee; 16], before: u32::MAX, until: u32::MAX };
    let over = Record { print, before: u32::MAX, until: 1 };
    let bytes = encode(&[other, over, Record { print, before, until }]);
    let mut store = FakeStore::default();
    store.values.insert(bucket(&print).key().to_vec(), Versioned { bytes, cas: 1 });
    look(token, KEYS, &mut store, NOW).unwrap()
}

#[track_caller]
fn check(token: &Token<'_>, name: Name<'_>, before: u32, until: u32, revoked: bool) {
    let expected = if revoked { Verdict::Revoked } else { Verdict::Good };
    assert_eq!(judge(token, name, before, until), expected, "{token:?} {name:?} {before} {until}");
}

const EVER: u32 = u32::MAX;

#[test]
fn a_revocation_means_the_tokens_that_it_names_and_no_others() {
    use Kind::{Issuer, Subject, Token};
    for (kind, issuer, id, revoked) in [
        (Token, None, "t1", true),
        (Token, Some("idp"), "t1", true),
        (Token, Some("other"), "t1", false),
        (Token, None, "t2", false),
        (Token, None, "ada", false),
        (Subject, None, "ada", true),
        (Subject, Some("idp"), "ada", true),
        (Subject, Some("other"), "ada", false),
        (Subject, None, "t1", false),
        (Subject, None, "Ada", false),
        (Issuer, None, "idp", true),
        (Issuer, None, "ada", false),
        (Issuer, Some("idp"), "idp", false),
    ] {
        check(&TOKEN, name(kind, issuer, id), EVER, EVER, revoked);
    }
}

#[test]
fn a_token_without_a_name_is_not_found_by_it_and_costs_no_read() {
    let bare = Token { issued: Some(500), ..Token::default() };
    for kind in [Kind::Token, Kind::Subject, Kind::Issuer] {
        check(&bare, name(kind, None, ""), EVER, EVER, false);
    }
    let mut store = FakeStore::default();
    assert_eq!(look(&bare, KEYS, &mut store, NOW), Ok(Verdict::Good));
    assert_eq!(store.reads, 0);
    assert_eq!(look(&TOKEN, KEYS, &mut store, NOW), Ok(Verdict::Good));
    assert_eq!(store.reads, 5);
    let no_issuer = Token { issuer: None, ..TOKEN };
    check(&no_issuer, name(Kind::Subject, Some("idp"), "ada"), EVER, EVER, false);
    check(&no_issuer, name(Kind::Subject, None, "ada"), EVER, EVER, true);
}

#[test]
fn an_empty_name_is_a_name() {
    let empty = Token { subject: Some(""), issuer: Some(""), ..TOKEN };
    check(&empty, name(Kind::Subject, None, ""), EVER, EVER, true);
    check(&empty, name(Kind::Subject, Some(""), ""), EVER, EVER, true);
    check(&empty, name(Kind::Issuer, None, ""), EVER, EVER, true);
    check(&TOKEN, name(Kind::Subject, Some(""), "ada"), EVER, EVER, false);
}

#[test]
fn tokens_issued_before_the_time_are_meant_and_one_without_a_time_always() {
    for kind_and_id in [(Kind::Subject, "ada"), (Kind::Issuer, "idp"), (Kind::Token, "t1")] {
        let (kind, id) = kind_and_id;
        let named = name(kind, None, id);
        check(&TOKEN, named, 501, EVER, true);
        check(&TOKEN, named, 500, EVER, false);
        check(&TOKEN, named, 499, EVER, false);
        let undated = Token { issued: None, ..TOKEN };
        check(&undated, named, 0, EVER, true);
        check(&undated, named, 500, EVER, true);
        let future = Token { issued: Some(u64::MAX), ..TOKEN };
        check(&future, named, EVER - 1, EVER, false);
        check(&future, named, EVER, EVER, true);
        let first = Token { issued: Some(0), ..TOKEN };
        check(&first, named, 0, EVER, false);
        check(&first, named, 1, EVER, true);
    }
}

#[test]
fn a_revocation_ends_when_the_tokens_that_it_means_have_expired() {
    let named = name(Kind::Token, None, "t1");
    check(&TOKEN, named, EVER, 1_001, true);
    check(&TOKEN, named, EVER, 1_000, false);
    check(&TOKEN, named, EVER, 999, false);
    check(&TOKEN, named, EVER, 0, false);
    check(&TOKEN, named, EVER, EVER, true);
}

#[test]
fn beyond_the_year_2106_a_revocation_without_end_still_holds() {
    let named = name(Kind::Token, None, "t1");
    let print = named.print(KEYS);
    let mut store = FakeStore::default();
    let bytes = encode(&[Record { print, before: EVER, until: EVER }]);
    store.values.insert(bucket(&print).key().to_vec(), Versioned { bytes, cas: 1 });
    let far = u64::from(u32::MAX) + 1;
    assert_eq!(look(&TOKEN, KEYS, &mut store, far), Ok(Verdict::Revoked));
}

#[test]
fn names_never_collide_whatever_stands_in_them() {
    let parts = ["", "a", "b", "ab", "a|b", "a\0b", "\0", "a\0", "\u{1}", "null", "None"];
    let mut seen = BTreeMap::new();
    for kind in [Kind::Token, Kind::Subject, Kind::Issuer] {
        for id in parts {
            for issuer in [None].into_iter().chain(parts.map(Some)) {
                let name = Name { kind, issuer, id };
                let before = seen.insert(name.print(KEYS), format!("{name:?}"));
                assert_eq!(before, None, "{name:?}");
            }
        }
    }
    // Other keys, other fingerprints: nobody outside can aim at one.
    let named = name(Kind::Token, None, "t1");
    assert_ne!(named.print([3, 4]), named.print([4, 3]));
    let print = named.print(KEYS);
    let (high, low) = print.split_at(8);
    assert_ne!(high, low, "the halves are two fingerprints, not one twice");
}

#[test]
fn a_hundred_thousand_names_share_no_fingerprint_and_fill_buckets_evenly() {
    let mut prints: Vec<Print> = Vec::new();
    let mut filled = vec![0_u32; usize::try_from(Table::Revocations.buckets()).unwrap()];
    for number in 0..100_000_u32 {
        let id = number.to_string();
        let print = Name { kind: Kind::Token, issuer: None, id: &id }.print(KEYS);
        filled[usize::try_from(bucket(&print).index).unwrap()] += 1;
        prints.push(print);
    }
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 100_000);
    assert!(filled.iter().max() < Some(&16), "1.5 on average");
}

#[test]
fn records_are_read_back_and_a_broken_tail_is_nothing() {
    let record = |number: u8| Record {
        print: [number; 16],
        before: u32::from(number),
        until: u32::MAX - u32::from(number),
    };
    let records = [record(1), record(2), record(3)];
    let bytes = encode(&records);
    assert_eq!(bytes.len(), 3 * 24);
    for cut in 0..=bytes.len() {
        let read: Vec<_> = decode(&bytes[..cut]).collect();
        assert_eq!(read, records[..cut / 24], "what is read is a beginning of what was there");
    }
}

#[test]
fn when_shared_data_cannot_be_had_nothing_is_said() {
    let mut store = FakeStore { down: true, ..FakeStore::default() };
    assert_eq!(look(&TOKEN, KEYS, &mut store, NOW), Err(StoreError::Unavailable));
}
