//! The state that this sidecar hands to its filter: what is in every bucket, and which bucket
//! changed when.
//!
//! For every bucket the number of its last change is kept, and nothing of the changes before: so the
//! log is as short as it can be, whatever happened, and a filter that has everything up to a number
//! gets exactly the buckets that changed since. No two buckets share a number, so that a filter can
//! stop anywhere and go on from there.

#[cfg(test)]
mod tests;

use crate::store::{ApiKey, Change, Contents, Identity, Store, StoreError, Times};
use policy::model::Secret;
use policy::replica::batch::{BYTES_SOON, Batch, Begin, End};
use policy::replica::revocations::{self, Print, Record};
use policy::replica::{Bucket, Table, api_keys, files};
use policy::sync::Position;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

/// The state, in memory and in its store.
pub(crate) struct Replica {
    store: Arc<dyn Store>,
    identity: Identity,
    /// One change at a time: numbers are given in the order of the changes.
    changing: Mutex<()>,
    held: RwLock<Held>,
    /// What the store last said.
    trouble: Mutex<Option<String>>,
}

/// What is in memory.
#[derive(Debug, Default)]
pub(crate) struct Held {
    number: u64,
    revocations: BTreeMap<Print, Times>,
    keys: BTreeMap<[u8; 32], ApiKey>,
    files: BTreeMap<String, Secret>,
    /// Buckets of files whose content is known: something in them changed since the start.
    read: HashSet<Bucket>,
    by_number: BTreeMap<u64, Bucket>,
    by_bucket: HashMap<Bucket, u64>,
}

impl Replica {
    /// Loads a store.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub(crate) fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let held = Held::new(store.load()?);
        Ok(Self {
            identity: store.identity(),
            store,
            changing: Mutex::default(),
            held: RwLock::new(held),
            trouble: Mutex::default(),
        })
    }

    /// What is in memory, at this moment. Not to be kept: changes wait meanwhile.
    pub(crate) fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, for what is not in memory.
    pub(crate) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The keys of fingerprints.
    pub(crate) fn keys(&self) -> [u64; 2] {
        self.identity.keys
    }

    /// How far this state has come.
    pub(crate) fn position(&self) -> Position {
        self.position_at(self.held().number)
    }

    fn position_at(&self, number: u64) -> Position {
        Position { store: format!("{:016x}", self.identity.store), number }
    }

    /// What is wrong with the store, by its last change.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Plans changes on what is there, makes them durable and then visible, all or none. Gives what
    /// the plan gave, and the position that includes them. Blocks.
    ///
    /// # Errors
    /// The plan's, or the store's.
    pub(crate) fn change<T, E: From<StoreError>>(
        &self,
        plan: impl FnOnce(&Held) -> Result<(Vec<Change>, T), E>,
    ) -> Result<(T, Position), E> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.recover_locked()?;
        let (changes, planned) = plan(&self.held())?;
        if changes.is_empty() {
            return Ok((planned, self.position()));
        }
        let mut touched: Vec<Bucket> = changes.iter().map(Change::bucket).collect();
        touched.sort_unstable();
        touched.dedup();
        let committed = self.store.commit(&changes, &touched);
        self.note(&committed);
        let number = committed?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.apply(changes, &touched, number);
        Ok((planned, self.position_at(number)))
    }

    /// After a failure: whether the last change was made is known from the store alone, so that what
    /// is in memory is loaded again. Blocks; does nothing while all is well.
    ///
    /// # Errors
    /// When the store still fails.
    pub(crate) fn recover(&self) -> Result<Position, StoreError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.recover_locked()?;
        Ok(self.position())
    }

    fn recover_locked(&self) -> Result<(), StoreError> {
        if self.trouble().is_none() {
            return Ok(());
        }
        let loaded = self.store.load();
        self.note(&loaded);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.replace(loaded?);
        Ok(())
    }

    fn note<T>(&self, done: &Result<T, StoreError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) =
            done.as_ref().err().map(ToString::to_string);
    }

    /// What a filter that has `theirs` gets next: at most some [`BYTES_SOON`] bytes.
    pub(crate) fn batch(&self, theirs: &Position) -> Batch {
        let held = self.held();
        let ours = self.position_at(held.number);
        // A filter that is ahead of this store had a copy that was lost: it begins anew.
        let follows = theirs.store == ours.store && theirs.number <= ours.number;
        let (begin, from) =
            if follows { (Begin::Continue, theirs.number) } else { (Begin::Afresh, 0) };
        let mut batch = Batch {
            store: self.identity.store,
            number: held.number,
            keys: self.identity.keys,
            begin,
            end: End::Complete,
            buckets: Vec::new(),
        };
        let mut size = 0_usize;
        let mut last = from;
        for (number, bucket) in held.by_number.range((Excluded(from), Unbounded)) {
            if size >= BYTES_SOON {
                (batch.number, batch.end) = (last, End::More);
                break;
            }
            last = *number;
            let Some(bytes) = held.content(*bucket) else { continue };
            size = size.saturating_add(bytes.len()).saturating_add(BUCKET_HEAD);
            batch.buckets.push((*bucket, bytes));
        }
        batch
    }
}

/// Bytes before those of a bucket in a batch.
const BUCKET_HEAD: usize = 9;

impl Held {
    fn new(contents: Contents) -> Self {
        let Contents { number, revocations, keys, buckets } = contents;
        Self {
            number,
            revocations: revocations.into_iter().collect(),
            keys: keys.into_iter().map(|key| (key.sha256, key)).collect(),
            files: BTreeMap::new(),
            read: HashSet::new(),
            by_number: buckets.iter().map(|(bucket, number)| (*number, *bucket)).collect(),
            by_bucket: buckets.into_iter().collect(),
        }
    }

    /// Takes what the store has. Files are not in it, and stay as they were read.
    fn replace(&mut self, contents: Contents) {
        let files = std::mem::take(&mut self.files);
        let read = std::mem::take(&mut self.read);
        *self = Self { files, read, ..Self::new(contents) };
    }

    /// Revocations by fingerprint.
    pub(crate) const fn revocations(&self) -> &BTreeMap<Print, Times> {
        &self.revocations
    }

    /// API keys by hash.
    pub(crate) const fn keys(&self) -> &BTreeMap<[u8; 32], ApiKey> {
        &self.keys
    }

    /// Files as they were last read, by path.
    pub(crate) const fn files(&self) -> &BTreeMap<String, Secret> {
        &self.files
    }

    /// Whether a filter may have something in a bucket that is not known here: it was handed over
    /// before the start.
    pub(crate) fn is_unknown(&self, bucket: Bucket) -> bool {
        bucket.table == Table::Files
            && self.by_bucket.contains_key(&bucket)
            && !self.read.contains(&bucket)
    }

    fn apply(&mut self, changes: Vec<Change>, touched: &[Bucket], number: u64) {
        self.read.extend(touched.iter().filter(|bucket| bucket.table == Table::Files));
        for change in changes {
            match change {
                Change::PutRevocation(print, revocation) => {
                    self.revocations.insert(print, revocation.times());
                }
                Change::DropRevocation(print) => drop(self.revocations.remove(&print)),
                Change::PutKey(key) => drop(self.keys.insert(key.sha256, key)),
                Change::DropKey(sha256) => drop(self.keys.remove(&sha256)),
                Change::File(path, Some(bytes)) => drop(self.files.insert(path, bytes)),
                Change::File(path, None) => drop(self.files.remove(&path)),
            }
        }
        for (bucket, number) in touched.iter().rev().zip((1..=number).rev()) {
            if let Some(before) = self.by_bucket.insert(*bucket, number) {
                self.by_number.remove(&before);
            }
            self.by_number.insert(number, *bucket);
        }
        self.number = number;
    }

    /// What is in a bucket; `None` where that is not known: files are read again after a start, and
    /// a filter keeps those that it has until then.
    fn content(&self, bucket: Bucket) -> Option<Vec<u8>> {
        Some(match bucket.table {
            Table::Revocations => {
                let here = in_bucket::<16, _>(&self.revocations, bucket);
                let records: Vec<Record> = here
                    .map(|(print, Times { before, until })| Record {
                        print: *print,
                        before: *before,
                        until: *until,
                    })
                    .collect();
                revocations::encode(&records)
            }
            Table::ApiKeys => {
                let here = in_bucket::<32, _>(&self.keys, bucket);
                api_keys::encode(here.map(|(sha256, key)| (sha256, &key.about.entry)))
            }
            Table::Files if !self.read.contains(&bucket) => return None,
            Table::Files => {
                let here = self.files.iter().filter(|(path, _)| files::bucket(path) == bucket);
                files::encode(here.map(|(path, bytes)| (path.as_str(), bytes.reveal())))
            }
        })
    }
}

/// The entries of a bucket: those whose keys have its number as their leading bits.
fn in_bucket<const N: usize, T>(
    entries: &BTreeMap<[u8; N], T>,
    bucket: Bucket,
) -> impl Iterator<Item = (&[u8; N], &T)> {
    let bits = 32_u32.saturating_sub(bucket.table.buckets().trailing_zeros());
    let first = |index: u64| {
        let leading = u32::try_from(index << bits).ok()?;
        let mut key = [0; N];
        for (place, byte) in key.iter_mut().zip(leading.to_be_bytes()) {
            *place = byte;
        }
        Some(key)
    };
    let from = first(bucket.index.into()).map_or(Unbounded, Included);
    // Behind the last bucket there is nothing.
    let to = first(u64::from(bucket.index).saturating_add(1)).map_or(Unbounded, Excluded);
    entries.range((from, to))
}
