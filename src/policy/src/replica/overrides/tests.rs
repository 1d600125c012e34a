//! Overrides as they are handed over.

use super::*;
use crate::store::Versioned;
use crate::testing::FakeStore;
use alloc::format;

fn over(requests: u32) -> Override {
    Override { requests: Some(requests), ..Override::default() }
}

fn whole() -> Override {
    Override {
        requests: Some(u32::MAX),
        per_ms: Some(u64::MAX),
        burst: Some(0),
        mode: Some("shadow".into()),
    }
}

fn with(limit: &str, bytes: &[u8]) -> FakeStore {
    let mut store = FakeStore::default();
    let value = Versioned { bytes: bytes.to_vec(), cas: 1 };
    store.values.insert(bucket(limit).key().to_vec(), value);
    store
}

#[track_caller]
fn check(bytes: &[u8], limit: &str, expected: Option<&Override>) {
    assert_eq!(read(limit, &mut with(limit, bytes)), Ok(expected.cloned()));
}

#[test]
fn an_override_is_found_by_the_whole_name_of_its_limit() {
    let names = ["a", "ab", "", "per user", "a\"b", "ü"];
    let all: Vec<Override> = (0..).map(over).take(names.len()).collect();
    let bytes = encode(&names.into_iter().zip(&all).collect());
    for (name, over) in names.into_iter().zip(&all) {
        check(&bytes, name, Some(over));
    }
    check(&bytes, "A", None);
    check(&encode(&BTreeMap::from([("x", &whole())])), "x", Some(&whole()));
}

#[test]
fn without_overrides_nothing_is_stored_and_nothing_is_found() {
    assert_eq!(encode(&BTreeMap::new()), Vec::<u8>::new());
    check(b"", "a", None);
    assert_eq!(read("a", &mut FakeStore::default()), Ok(None));
}

#[test]
fn what_is_not_stated_stays_as_the_policy_has_it() {
    check(br#"{"a":{}}"#, "a", Some(&Override::default()));
    check(br#"{"a":{"burst":null,"requests":7}}"#, "a", Some(&over(7)));
}

#[test]
fn bytes_that_nobody_wrote_override_nothing() {
    let (one, two) = (whole(), over(1));
    let good = encode(&BTreeMap::from([("a", &one), ("b", &two)]));
    for cut in 0..good.len() {
        check(&good[..cut], "a", None);
    }
    let bad =
        ["[]", "7", "null", "\"a\"", "{\"a\":7}", "{\"a\":[]}", "{\"a\":null}", "{}{}", "\u{0}"];
    for bytes in bad {
        check(bytes.as_bytes(), "a", None);
    }
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    check(deep.as_bytes(), "a", None);
    check(&[0xff; 100], "a", None);
}

/// A filter that is older than its sidecar must not lose the overrides beside one that it does not
/// understand, nor take half of that one.
#[test]
fn one_that_cannot_be_read_leaves_the_others_in_force() {
    let wrong = [
        r#"{"requests":-1}"#,
        r#"{"requests":1.5}"#,
        r#"{"requests":4294967296}"#,
        r#"{"requests":"1"}"#,
        r#"{"requests":1,"queue":2}"#,
        r#"{"per_ms":18446744073709551616}"#,
        r#"{"mode":1}"#,
        "[]",
        "[5]",
    ];
    for wrong in wrong {
        let bytes = format!(r#"{{"a":{wrong},"b":{{"requests":2}}}}"#);
        check(bytes.as_bytes(), "a", None);
        check(bytes.as_bytes(), "b", Some(&over(2)));
    }
}

#[test]
fn when_shared_data_cannot_be_had_nothing_is_said() {
    let mut store = FakeStore { down: true, ..FakeStore::default() };
    assert_eq!(read("a", &mut store), Err(StoreError::Unavailable));
}
