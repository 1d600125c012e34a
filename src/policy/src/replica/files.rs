//! Files that the policy names, as the sidecar read them.

use super::{Bucket, Table};
use crate::fingerprint;
use crate::store::{Store, StoreError};
use alloc::string::String;
use alloc::vec::Vec;

/// Largest file that is handed over: a key set of 64 keys with certificate chains fits.
pub const BYTES_MAX: usize = 256 * 1024;
/// Most files of one policy: one per provider and secret.
pub const FILES_MAX: usize = 64;

/// The bucket of a path. Not keyed: paths come from the policy.
#[must_use]
pub fn bucket(path: &str) -> Bucket {
    let [a, b, c, d, ..] = fingerprint::of([0, 0], "file", path).to_be_bytes();
    Bucket::of(Table::Files, u32::from_be_bytes([a, b, c, d]))
}

/// The bytes of a bucket.
#[must_use]
pub fn encode<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, bytes) in files {
        for part in [path.as_bytes(), bytes] {
            let Ok(length) = u32::try_from(part.len()) else { return out };
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

/// The files of a bucket. A broken tail reads as nothing.
#[must_use]
pub fn decode(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut rest = bytes;
    let mut part = || -> Option<&[u8]> {
        let (length, tail) = rest.split_at_checked(4)?;
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (part, next) = tail.split_at_checked(length)?;
        rest = next;
        Some(part)
    };
    let mut files = Vec::new();
    while let (Some(path), Some(bytes)) = (part(), part()) {
        files.push((String::from_utf8_lossy(path).into_owned(), bytes.to_vec()));
    }
    files
}

/// A file's bytes; `None` when it was not handed over.
///
/// # Errors
/// When shared data cannot be had.
pub fn read(path: &str, store: &mut dyn Store) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes = bucket(path).read(store)?;
    Ok(decode(&bytes).into_iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes))
}

#[cfg(test)]
mod tests;
