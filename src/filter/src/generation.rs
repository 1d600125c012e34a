//! Which policy is in force in this Envoy, and the how-manieth it is.
//!
//! While an old listener drains, its plugin lives on in the same VMs and still ticks. So there is
//! one record for the process, and a plugin may change it only when it was configured later than
//! the plugin that wrote it: an old one can never flip it back. (A VM that Envoy loads again while an
//! old listener drains would count as later; a VM is loaded again only after a crash.)

use crate::host::Host;
use crate::store::SharedData;
use policy::store::{Change, StoreError, update};
use policy::time::Nanos;

/// Where the record is.
const KEY: &[u8] = b"filter/generation";
/// The first byte of the record; another one reads as absent.
const VERSION: u8 = 1;
/// Version, generation, hash, since.
const SIZE: usize = 1 + 4 + 8 + 8;

/// What a plugin found out about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its policy is the one in force.
    Newest {
        /// The number of the policy in force; the first is 1.
        generation: u32,
        /// Whether this very call brought it into force.
        raised: Raised,
    },
    /// A policy that was configured later is in force.
    Outdated,
}

/// Whether a call wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    /// It did: this plugin counts the change.
    ByThisCall,
    /// Somebody else did, earlier.
    Before,
}

struct Record {
    generation: u32,
    hash: u64,
    since: Nanos,
}

impl Record {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SIZE || bytes.first() != Some(&VERSION) {
            return None;
        }
        Some(Self {
            generation: u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?),
            hash: u64::from_le_bytes(bytes.get(5..13)?.try_into().ok()?),
            since: Nanos(u64::from_le_bytes(bytes.get(13..21)?.try_into().ok()?)),
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE);
        out.push(VERSION);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.since.0.to_le_bytes());
        out
    }
}

/// Compares a plugin's policy with the one in force and brings it into force when it is newer.
///
/// # Errors
/// When shared data cannot be had.
pub(crate) fn stand<H: Host>(
    host: &H,
    hash: u64,
    configured: Nanos,
) -> Result<Standing, StoreError> {
    let mut store = SharedData(host.clone());
    update(&mut store, KEY, |present| {
        let record = present.and_then(Record::from_bytes);
        let before = record.as_ref().map_or(0, |r| r.generation);
        match record {
            Some(Record { hash: in_force, generation, .. }) if in_force == hash => {
                Change::Keep(Standing::Newest { generation, raised: Raised::Before })
            }
            Some(record) if configured <= record.since => Change::Keep(Standing::Outdated),
            _ => {
                let generation = before.saturating_add(1);
                let next = Record { generation, hash, since: configured };
                let standing = Standing::Newest { generation, raised: Raised::ByThisCall };
                Change::Write(next.to_bytes(), standing)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHost;

    fn generation(host: &FakeHost, hash: u64, configured: u64) -> Option<(u32, Raised)> {
        match stand(host, hash, Nanos(configured)).unwrap() {
            Standing::Newest { generation, raised } => Some((generation, raised)),
            Standing::Outdated => None,
        }
    }

    #[test]
    fn each_policy_is_counted_once_however_many_vms_tick() {
        let host = FakeHost::new(1);
        assert_eq!(generation(&host, 7, 10), Some((1, Raised::ByThisCall)));
        assert_eq!(generation(&host, 7, 11), Some((1, Raised::Before)));
        assert_eq!(generation(&host, 8, 20), Some((2, Raised::ByThisCall)));
        assert_eq!(generation(&host, 8, 21), Some((2, Raised::Before)));
    }

    #[test]
    fn a_draining_plugin_never_flips_it_back() {
        let host = FakeHost::new(1);
        assert_eq!(generation(&host, 7, 10), Some((1, Raised::ByThisCall)));
        assert_eq!(generation(&host, 8, 20), Some((2, Raised::ByThisCall)));
        assert_eq!(generation(&host, 7, 10), None);
        assert_eq!(generation(&host, 7, 20), None);
        assert_eq!(generation(&host, 8, 20), Some((2, Raised::Before)));
    }

    #[test]
    fn going_back_to_an_earlier_policy_is_a_new_generation() {
        let host = FakeHost::new(1);
        assert_eq!(generation(&host, 7, 10), Some((1, Raised::ByThisCall)));
        assert_eq!(generation(&host, 8, 20), Some((2, Raised::ByThisCall)));
        assert_eq!(generation(&host, 7, 30), Some((3, Raised::ByThisCall)));
        assert_eq!(generation(&host, 8, 21), None);
    }
}
