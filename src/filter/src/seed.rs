//! Random numbers that all VMs of one Envoy process share: the two keys of the core's fingerprints,
//! and a name for the process. Made by whoever asks first, kept in shared data.

use crate::host::Host;
use crate::store::SharedData;
use policy::store::{Change, update};
use std::cell::Cell;

/// Where they are. The version is in the key: two versions of the filter that run side by side
/// must not overwrite each other's, because every record's place depends on them.
const KEY: &[u8] = b"filter/seed/1";
/// Three little-endian u64: two keys and the name.
const SIZE: usize = 24;

/// What is random per Envoy process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seed {
    /// The keys of fingerprints.
    pub(crate) keys: [u64; 2],
    /// Another value after every start of Envoy.
    pub(crate) instance: u64,
}

impl Seed {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let whole: &[u8; SIZE] = bytes.try_into().ok()?;
        let mut numbers =
            whole.chunks_exact(8).filter_map(|eight| eight.try_into().ok().map(u64::from_le_bytes));
        let keys = [numbers.next()?, numbers.next()?];
        Some(Self { keys, instance: numbers.next()? })
    }
}

/// The seed as one VM knows it: read once, then remembered.
#[derive(Debug, Default)]
pub(crate) struct Cached(Cell<Option<Seed>>);

impl Cached {
    /// The process's seed. While shared data cannot be had this is a zero seed that is not
    /// remembered: whatever it would be used for cannot be had either.
    pub(crate) fn get<H: Host>(&self, host: &H) -> Seed {
        if let Some(seed) = self.0.get() {
            return seed;
        }
        let found = obtain(host);
        self.0.set(found);
        found.unwrap_or_default()
    }
}

fn obtain<H: Host>(host: &H) -> Option<Seed> {
    let mut fresh = [0_u8; SIZE];
    host.random(&mut fresh).ok()?;
    let mut store = SharedData(host.clone());
    update(&mut store, KEY, |present| match present.and_then(Seed::from_bytes) {
        Some(seed) => Change::Keep(Some(seed)),
        None => Change::Write(fresh.to_vec(), Seed::from_bytes(&fresh)),
    })
    .ok()
    .flatten()
}
