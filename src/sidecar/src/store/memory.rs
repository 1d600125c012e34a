//! A store for tests that forgets everything, and fails when it is told to.

use super::{
    About, ApiKey, Ban, BanKey, Change, Contents, Identity, Overridden, Print, Revocation, Store,
    StoreError,
};
use policy::replica::Bucket;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    inner: Mutex<Inner>,
    /// Refuses every call.
    pub(crate) broken: AtomicBool,
    /// Refuses changes; can be read.
    pub(crate) read_only: AtomicBool,
    /// Makes changes durable, and then says that it has not.
    pub(crate) lying: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    number: u64,
    revocations: BTreeMap<Print, Revocation>,
    keys: BTreeMap<[u8; 32], About>,
    bans: BTreeMap<BanKey, Ban>,
    overrides: BTreeMap<String, Overridden>,
    buckets: BTreeMap<Bucket, u64>,
}

impl Memory {
    fn check(&self) -> Result<(), StoreError> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(StoreError::Failed("told to fail".into())),
            false => Ok(()),
        }
    }
}

impl Store for Memory {
    fn identity(&self) -> Identity {
        Identity { store: 0xab, keys: [1, 2] }
    }

    fn load(&self) -> Result<Contents, StoreError> {
        self.check()?;
        let inner = self.inner.lock().unwrap();
        let key =
            |(sha256, about): (&[u8; 32], &About)| ApiKey { sha256: *sha256, about: about.clone() };
        Ok(Contents {
            number: inner.number,
            revocations: inner.revocations.iter().map(|(p, r)| (*p, r.times())).collect(),
            keys: inner.keys.iter().map(key).collect(),
            bans: inner.bans.clone().into_iter().collect(),
            overrides: inner.overrides.clone().into_iter().collect(),
            buckets: inner.buckets.iter().map(|(b, n)| (*b, *n)).collect(),
        })
    }

    fn commit(&self, changes: &[Change], touched: &[Bucket]) -> Result<u64, StoreError> {
        self.check()?;
        if self.read_only.load(Ordering::Relaxed) {
            return Err(StoreError::Failed("the disk is full".into()));
        }
        let mut inner = self.inner.lock().unwrap();
        for change in changes {
            match change.clone() {
                Change::PutRevocation(print, revocation) => {
                    inner.revocations.insert(print, revocation);
                }
                Change::DropRevocation(print) => {
                    inner.revocations.remove(&print);
                }
                Change::PutKey(ApiKey { sha256, about }) => {
                    inner.keys.insert(sha256, about);
                }
                Change::DropKey(sha256) => {
                    inner.keys.remove(&sha256);
                }
                Change::PutBan(key, ban) => drop(inner.bans.insert(key, ban)),
                Change::DropBan(key) => drop(inner.bans.remove(&key)),
                Change::PutOverride(limit, change) => {
                    inner.overrides.insert(limit, change);
                }
                Change::DropOverride(limit) => drop(inner.overrides.remove(&limit)),
                Change::File(..) => {}
            }
        }
        for bucket in touched {
            inner.number += 1;
            let number = inner.number;
            inner.buckets.insert(*bucket, number);
        }
        if self.lying.load(Ordering::Relaxed) {
            return Err(StoreError::Failed("told to lie".into()));
        }
        Ok(inner.number)
    }

    fn revocation(&self, print: &Print) -> Result<Option<Revocation>, StoreError> {
        self.check()?;
        Ok(self.inner.lock().unwrap().revocations.get(print).cloned())
    }

    fn revocations(
        &self,
        after: Option<&Print>,
        limit: usize,
    ) -> Result<Vec<(Print, Revocation)>, StoreError> {
        self.check()?;
        let inner = self.inner.lock().unwrap();
        let from = after.map_or(Unbounded, |after| Excluded(*after));
        let page = inner.revocations.range((from, Unbounded)).take(limit);
        Ok(page.map(|(print, revocation)| (*print, revocation.clone())).collect())
    }
}
