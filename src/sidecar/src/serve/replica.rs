//! The state that this sidecar hands to its filter: what is in every bucket, and which bucket
//! changed when.
//!
//! For every bucket the number of its last change is kept, and nothing of the changes before: so the
//! log is as short as it can be, whatever happened, and a filter that has everything up to a number
//! gets exactly the buckets that changed since. No two buckets share a number, so that a filter can
//! stop anywhere and go on from there.

mod held;
#[cfg(test)]
mod tests;

use crate::store::{Change, Identity, Revocation, Store, StoreError};
pub(crate) use held::Held;
use policy::replica::Bucket;
use policy::replica::batch::{BYTES_SOON, Batch, Begin, End};
use policy::replica::revocations::Print;
use policy::sync::Position;
use std::collections::VecDeque;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tracing::warn;

/// The state, in memory and in its store.
pub(crate) struct Replica {
    store: Arc<dyn Store>,
    keys: [u64; 2],
    /// One change at a time: numbers are given in the order of the changes.
    changing: Mutex<()>,
    held: RwLock<Held>,
    met: Mutex<Met>,
    /// What the store last failed with; `None` once it is known to work.
    trouble: Mutex<Option<String>>,
}

/// Which filters this process knows, and under which name it hands its state to them.
#[derive(Debug)]
struct Met {
    /// How far the state has come; here too, so that nobody waits for a change to learn it.
    number: u64,
    /// The number with which this process began: no filter it has not met can have a higher one.
    loaded: u64,
    /// The store's name for filters. A random one once a filter had a position that this store never
    /// reached: the store is an older copy, and numbers alone would not tell the two histories apart.
    store: u64,
    /// The latest instances, the newest last.
    instances: VecDeque<String>,
}

impl Replica {
    /// Loads a store.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub(crate) fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let held = Held::new(store.load()?);
        let Identity { store: name, keys } = store.identity();
        let met = Met {
            number: held.number,
            loaded: held.number,
            store: name,
            instances: VecDeque::new(),
        };
        Ok(Self {
            keys,
            store,
            changing: Mutex::default(),
            held: RwLock::new(held),
            met: Mutex::new(met),
            trouble: Mutex::default(),
        })
    }

    /// What is in memory, at this moment. Not to be kept: changes wait meanwhile.
    pub(crate) fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Store::revocation`].
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn revocation(&self, print: &Print) -> Result<Option<Revocation>, StoreError> {
        self.noted(self.store.revocation(print))
    }

    /// See [`Store::revocations`].
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn revocations(
        &self,
        after: Option<&Print>,
        limit: usize,
    ) -> Result<Vec<(Print, Revocation)>, StoreError> {
        self.noted(self.store.revocations(after, limit))
    }

    /// The keys of fingerprints.
    pub(crate) const fn keys(&self) -> [u64; 2] {
        self.keys
    }

    /// Takes note of a filter and its position, before anything is made of that. Where the position
    /// is one that this store never had, every filter begins afresh.
    pub(crate) fn meet(&self, instance: &str, theirs: &Position) {
        let mut met = lock(&self.met);
        let known = met.instances.iter().any(|known| known == instance);
        let most = if known { met.number } else { met.loaded };
        if theirs.number > most && *theirs == Position::of(met.store, theirs.number) {
            warn!(
                instance,
                theirs = theirs.number,
                ours = met.number,
                "the filter has more than this store ever had: an older copy of the store was put \
                 in its place; everything is handed over anew"
            );
            met.rename();
        }
        if !known {
            if met.instances.len() >= INSTANCES_MAX {
                met.instances.pop_front();
            }
            met.instances.push_back(instance.to_owned());
        }
    }

    /// How far this state has come.
    pub(crate) fn position(&self) -> Position {
        let met = lock(&self.met);
        Position::of(met.store, met.number)
    }

    /// What is wrong with the store, by what it did last.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
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
        let _one = lock(&self.changing);
        self.recover_locked()?;
        let (changes, planned) = plan(&self.held())?;
        if changes.is_empty() {
            return Ok((planned, self.position()));
        }
        let mut touched: Vec<Bucket> = changes.iter().map(Change::bucket).collect();
        touched.sort_unstable();
        touched.dedup();
        let number = self.noted(self.store.commit(&changes, &touched))?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.apply(changes, &touched, number);
        let mut met = lock(&self.met);
        met.number = number;
        Ok((planned, Position::of(met.store, number)))
    }

    /// After a failure: whether the last change was made is known from the store alone, so that what
    /// is in memory is loaded again. Blocks; does nothing while all is well.
    ///
    /// # Errors
    /// When the store still fails.
    pub(crate) fn recover(&self) -> Result<Position, StoreError> {
        let _one = lock(&self.changing);
        self.recover_locked()?;
        Ok(self.position())
    }

    fn recover_locked(&self) -> Result<(), StoreError> {
        if self.trouble().is_none() {
            return Ok(());
        }
        // A store that can be read and not written is still in trouble; this changes nothing in it.
        self.noted(self.store.commit(&[], &[]))?;
        let fresh = Held::new(self.noted(self.store.load())?);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut met = lock(&self.met);
        if fresh.number < met.number {
            met.rename();
        }
        met.number = fresh.number;
        held.replace(fresh);
        drop((met, held));
        *lock(&self.trouble) = None;
        Ok(())
    }

    /// Keeps what the store failed with.
    fn noted<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &done {
            *lock(&self.trouble) = Some(error.to_string());
        }
        done
    }

    /// What a filter that has `theirs` gets next: at most some [`BYTES_SOON`] bytes.
    pub(crate) fn batch(&self, theirs: &Position) -> Batch {
        let held = self.held();
        let store = lock(&self.met).store;
        let ours = Position::of(store, held.number);
        // A filter that is ahead of this store had a copy that was lost: it begins anew.
        let follows = theirs.store == ours.store && theirs.number <= ours.number;
        let (begin, from) =
            if follows { (Begin::Continue, theirs.number) } else { (Begin::Afresh, 0) };
        let mut batch = Batch {
            store,
            number: held.number,
            keys: self.keys,
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
/// Filters that are known at once: there is one, and a few more while Envoys are replaced. One that
/// is forgotten costs no more than that everything is handed over anew.
const INSTANCES_MAX: usize = 64;

impl Met {
    fn rename(&mut self) {
        // Without randomness any other name than the store's own still tells the two apart.
        let name = getrandom::u64().unwrap_or_else(|_| self.store.wrapping_add(1));
        self.store = name.max(1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
