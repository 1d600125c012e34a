//! API keys that were made at run time, by the hash of their secret.

use super::{Bucket, Table};
use crate::store::{Store, StoreError};
use crate::verify::{Digest, Same};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What is known of a key beside its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is called.
    pub id: String,
    /// What its holder may do.
    pub permissions: Vec<String>,
    /// The tier, if any.
    pub tier: Option<String>,
    /// Seconds since 1970 from which on it is no longer good.
    pub expires: Option<u64>,
    /// Prefixes of client addresses that may use it; empty means any.
    pub cidrs: Vec<String>,
}

/// Bytes before an entry's JSON: the hash and the length.
const HEAD: usize = 32 + 2;

/// The bucket of a hash.
#[must_use]
pub const fn bucket(sha256: &[u8; 32]) -> Bucket {
    let [a, b, c, d, ..] = *sha256;
    Bucket::of(Table::ApiKeys, u32::from_be_bytes([a, b, c, d]))
}

/// The bytes of a bucket. An entry beyond 64 KiB is left out; the admin API bounds it far below.
#[must_use]
pub fn encode<'a>(entries: impl IntoIterator<Item = (&'a [u8; 32], &'a Entry)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (sha256, entry) in entries {
        let json = serde_json::to_vec(entry).unwrap_or_default();
        let Ok(length) = u16::try_from(json.len()) else { continue };
        out.extend_from_slice(sha256);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&json);
    }
    out
}

/// Finds the entry of a hash. The bucket was chosen by 12 bits of it; all hashes in the bucket are
/// compared in constant time.
///
/// # Errors
/// When shared data cannot be had.
pub fn find(
    sha256: &[u8; 32],
    digest: &dyn Digest,
    store: &mut dyn Store,
) -> Result<Option<Entry>, StoreError> {
    let bytes = bucket(sha256).read(store)?;
    let mut found = None;
    let mut rest = bytes.as_slice();
    while let Some((head, tail)) = rest.split_at_checked(HEAD) {
        let Some((hash, length)) = head.split_at_checked(32) else { break };
        let length = length.try_into().map_or(0, u16::from_le_bytes);
        let Some((json, next)) = tail.split_at_checked(usize::from(length)) else { break };
        if digest.same(hash, sha256) == Same::Yes {
            found = serde_json::from_slice(json).ok();
        }
        rest = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
