//! Files as they are handed over.

use super::*;
use crate::store::Versioned;
use crate::testing::FakeStore;
use alloc::string::ToString;
use alloc::vec;

#[test]
fn files_are_read_back_whatever_stands_in_them() {
    let files: [(&str, &[u8]); 4] =
        [("/a", b"1"), ("/b", b""), ("/c/d", b"\0\xff\n"), ("", b"no name")];
    let bytes = encode(files);
    let expected: Vec<_> =
        files.iter().map(|(path, bytes)| (path.to_string(), bytes.to_vec())).collect();
    assert_eq!(decode(&bytes), expected);
    for cut in 0..bytes.len() {
        let read = decode(&bytes[..cut]);
        assert!(read.len() < files.len());
        assert!(expected.starts_with(&read), "what is read is a beginning of what was there");
    }
    assert_eq!(decode(&u32::MAX.to_le_bytes()), vec![]);
}

#[test]
fn a_file_is_found_by_its_exact_path() {
    let path = "/run/secrets/jwt";
    let others = ["/run/secrets/jw", "/run/secrets/jwt2"];
    let mut store = FakeStore::default();
    let mut files: Vec<(&str, &[u8])> = others.iter().map(|path| (*path, &b"no"[..])).collect();
    files.push((path, b"yes"));
    let bytes = encode(files);
    store.values.insert(bucket(path).key().to_vec(), Versioned { bytes, cas: 1 });
    assert_eq!(read(path, &mut store), Ok(Some(b"yes".to_vec())));
    assert_eq!(read("/absent", &mut store), Ok(None));
    store.down = true;
    assert_eq!(read(path, &mut store), Err(StoreError::Unavailable));
}
