//! What the core's own tests share: a store that is a map, with a rival writer.

use crate::fingerprint::Fingerprint;
use crate::model::SecretSource;
use crate::store::{Store, StoreError, Swap, Versioned};
use crate::verify::{Digest, Same, Secrets};
use alloc::vec::Vec;
use std::collections::BTreeMap;

/// A store in memory that behaves as Envoy's shared data does, and misbehaves on order.
#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) values: BTreeMap<Vec<u8>, Versioned>,
    pub(crate) next: u32,
    /// The next this many swaps are lost to a rival who writes the same value again.
    pub(crate) rivals: usize,
    /// After so many swaps that are not lost, `rivals` becomes this.
    pub(crate) rivals_after: Option<(usize, usize)>,
    /// Every call is refused.
    pub(crate) down: bool,
    pub(crate) reads: usize,
    pub(crate) swaps: usize,
}

impl Store for FakeStore {
    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.reads += 1;
        if self.down {
            return Err(StoreError::Unavailable);
        }
        Ok(self.values.get(key).cloned())
    }

    fn swap(
        &mut self,
        key: &[u8],
        value: &[u8],
        expected: Option<u32>,
    ) -> Result<Swap, StoreError> {
        self.swaps += 1;
        if self.down {
            return Err(StoreError::Unavailable);
        }
        self.next += 1;
        let cas = self.next;
        if self.rivals > 0 {
            self.rivals -= 1;
            let bytes = self.values.get(key).map(|found| found.bytes.clone()).unwrap_or_default();
            self.values.insert(key.to_vec(), Versioned { bytes, cas });
            return Ok(Swap::Lost);
        }
        if self.values.get(key).map(|found| found.cas) != expected {
            return Ok(Swap::Lost);
        }
        self.rivals_after = self.rivals_after.and_then(|(swaps, rivals)| {
            if swaps <= 1 {
                self.rivals = rivals;
            }
            swaps.checked_sub(1).filter(|swaps| *swaps > 0).map(|swaps| (swaps, rivals))
        });
        self.values.insert(key.to_vec(), Versioned { bytes: value.to_vec(), cas });
        Ok(Swap::Done)
    }
}

/// Hashes that are good enough to tell inputs apart: cryptography is the crate `token`'s business.
pub(crate) struct FakeDigest;

impl Digest for FakeDigest {
    fn sha256(&self, bytes: &[u8]) -> [u8; 32] {
        self.hmac_sha256(b"", bytes)
    }

    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        for (number, eight) in out.chunks_exact_mut(8).enumerate() {
            let mut print = Fingerprint::new([number as u64, 7], "fake");
            print.part(key);
            print.part(message);
            eight.copy_from_slice(&print.finish().to_be_bytes());
        }
        out
    }

    fn same(&self, one: &[u8], other: &[u8]) -> Same {
        if one == other { Same::Yes } else { Same::No }
    }
}

/// Secrets as a policy states them, and one file that was handed over.
pub(crate) struct FakeSecrets;

impl Secrets for FakeSecrets {
    fn reveal<'a>(&'a self, source: &'a SecretSource) -> Option<&'a [u8]> {
        match source {
            SecretSource::Known(secret) => Some(secret.reveal()),
            SecretSource::File(path) => (path == "/there").then_some(b"from a file"),
        }
    }
}
