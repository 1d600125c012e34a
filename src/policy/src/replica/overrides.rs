//! Numbers of limits that an administrator changed at run time, by the limit's name.

use super::{Bucket, Table};
use crate::fingerprint;
use crate::store::{Store, StoreError};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What takes the place of a limit's own numbers. What is `None` stays as the policy has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// `per`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_ms: Option<u64>,
    /// `burst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// `mode`: `enforce` or `shadow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// The bucket of a limit. Not keyed: names come from the policy.
#[must_use]
pub fn bucket(limit: &str) -> Bucket {
    let [a, b, c, d, ..] = fingerprint::of([0, 0], "override", limit).to_be_bytes();
    Bucket::of(Table::Overrides, u32::from_be_bytes([a, b, c, d]))
}

/// The bytes of a bucket.
#[must_use]
pub fn encode(overrides: &BTreeMap<&str, &Override>) -> Vec<u8> {
    if overrides.is_empty() {
        return Vec::new();
    }
    serde_json::to_vec(overrides).unwrap_or_default()
}

/// The overrides of a bucket. Bytes that are not its format read as nothing; one entry that cannot be
/// read leaves the others in force.
#[must_use]
pub fn decode(bytes: &[u8]) -> BTreeMap<String, Override> {
    let all: BTreeMap<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
    // A list would be taken for the numbers in their order, which nobody has written.
    let all = all.into_iter().filter(|(_, value)| value.is_object());
    let read = |(limit, value)| Some((limit, serde_json::from_value(value).ok()?));
    all.filter_map(read).collect()
}

/// The override of a limit, if there is one that can be read.
///
/// # Errors
/// When shared data cannot be had.
pub fn read(limit: &str, store: &mut dyn Store) -> Result<Option<Override>, StoreError> {
    Ok(decode(&bucket(limit).read(store)?).remove(limit))
}

#[cfg(test)]
mod tests;
