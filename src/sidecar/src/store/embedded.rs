//! The store in one file of the data directory, by redb: every change is a transaction, on the disk
//! before it is answered.
//!
//! A file that is there is never replaced: one that cannot be read ends the sidecar with a message.

mod file;

use super::{
    About, ApiKey, Ban, Change, Contents, Identity, Overridden, Print, Revocation, Store,
    StoreError, Times,
};
use policy::replica::{Bucket, Table};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError, WriteTransaction,
};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// The format of what stands in the tables; a file with a higher one is refused.
pub(crate) const FORMAT: u64 = 2;
/// The file in the data directory.
pub(crate) const FILE: &str = "state.redb";

/// [`FORMAT`], the identity and the number of the last change.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// By fingerprint: `before` and `until` (u32, little-endian), then JSON. The times stand in front so
/// that a million can be loaded without reading JSON.
const REVOCATIONS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("revocations");
/// By hash: JSON.
const API_KEYS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("api-keys");
/// By fingerprints: JSON.
const BANS: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("bans");
/// By the limit's name: JSON.
const OVERRIDES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("overrides");
/// By table and index: the number of the last change.
const BUCKETS: TableDefinition<'_, u64, u64> = TableDefinition::new("buckets");

/// The names in [`META`].
mod meta {
    pub(crate) const FORMAT: &str = "format";
    pub(super) const STORE: &str = "store";
    pub(super) const KEY_0: &str = "key-0";
    pub(super) const KEY_1: &str = "key-1";
    pub(super) const NUMBER: &str = "number";
}

/// A store in a file, which no other process can open meanwhile.
#[derive(Debug)]
pub(crate) struct Embedded {
    file: PathBuf,
    identity: Identity,
    /// `None` while it could not be opened again.
    database: RwLock<Option<Database>>,
    /// redb refuses everything after a failure of the disk, until it is opened again.
    failed: AtomicBool,
}

impl Embedded {
    /// Opens the store of a directory; makes it when there is none.
    ///
    /// # Errors
    /// A [`StoreError`]; a file that was there is as it was.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let file = directory.join(FILE);
        if !file.try_exists().map_err(failed)? {
            file::make(directory, &file)?;
        }
        let (database, identity) = file::open(&file)?;
        let database = RwLock::new(Some(database));
        Ok(Self { file, identity, database, failed: AtomicBool::new(false) })
    }

    /// Works on the database; opens it again first when the last work failed.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let done = match database.as_ref() {
            Some(database) => work(database),
            None => Err(StoreError::Failed("it could not be opened again".to_owned())),
        };
        if done.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        done
    }

    /// Behaves as after a failure of the disk.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // Closed first: nobody can open it twice.
        drop(place.take());
        let (database, identity) = file::open(&self.file)?;
        if identity != self.identity {
            return Err(StoreError::Corrupt("another store has taken its place".to_owned()));
        }
        *place = Some(database);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }
}

impl Store for Embedded {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn load(&self) -> Result<Contents, StoreError> {
        self.with(load)
    }

    fn commit(&self, changes: &[Change], touched: &[Bucket]) -> Result<u64, StoreError> {
        self.with(|database| commit(database, changes, touched))
    }

    fn revocation(&self, print: &Print) -> Result<Option<Revocation>, StoreError> {
        self.with(|database| {
            let read = database.begin_read().map_err(failed)?;
            let table = read.open_table(REVOCATIONS).map_err(missing)?;
            let value = table.get(print).map_err(storage)?;
            value.map(|value| whole(value.value())).transpose()
        })
    }

    fn revocations(
        &self,
        after: Option<&Print>,
        limit: usize,
    ) -> Result<Vec<(Print, Revocation)>, StoreError> {
        self.with(|database| {
            let read = database.begin_read().map_err(failed)?;
            let table = read.open_table(REVOCATIONS).map_err(missing)?;
            let from = after.map_or(Unbounded, Excluded);
            let rows = table.range::<&[u8; 16]>((from, Unbounded)).map_err(storage)?;
            rows.take(limit)
                .map(|row| {
                    let (print, value) = row.map_err(storage)?;
                    Ok((*print.value(), whole(value.value())?))
                })
                .collect()
        })
    }
}

fn load(database: &Database) -> Result<Contents, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let meta = read.open_table(META).map_err(missing)?;
    let number = meta.get(meta::NUMBER).map_err(storage)?.map_or(0, |value| value.value());
    let mut contents = Contents { number, ..Contents::default() };
    for row in read.open_table(REVOCATIONS).map_err(missing)?.iter().map_err(storage)? {
        let (print, value) = row.map_err(storage)?;
        let (times, _) = split(value.value())?;
        contents.revocations.push((*print.value(), times));
    }
    for row in read.open_table(API_KEYS).map_err(missing)?.iter().map_err(storage)? {
        let (sha256, value) = row.map_err(storage)?;
        let about: About = serde_json::from_slice(value.value()).map_err(unreadable)?;
        contents.keys.push(ApiKey { sha256: *sha256.value(), about });
    }
    for row in read.open_table(BANS).map_err(missing)?.iter().map_err(storage)? {
        let (key, value) = row.map_err(storage)?;
        let ban: Ban = serde_json::from_slice(value.value()).map_err(unreadable)?;
        contents.bans.push((*key.value(), ban));
    }
    for row in read.open_table(OVERRIDES).map_err(missing)?.iter().map_err(storage)? {
        let (limit, value) = row.map_err(storage)?;
        let change: Overridden = serde_json::from_slice(value.value()).map_err(unreadable)?;
        contents.overrides.push((limit.value().to_owned(), change));
    }
    for row in read.open_table(BUCKETS).map_err(missing)?.iter().map_err(storage)? {
        let (bucket, number) = row.map_err(storage)?;
        let bucket = bucket_of(bucket.value())
            .ok_or_else(|| StoreError::Corrupt("it has an unknown bucket".to_owned()))?;
        contents.buckets.push((bucket, number.value()));
    }
    Ok(contents)
}

fn commit(database: &Database, changes: &[Change], touched: &[Bucket]) -> Result<u64, StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    make_changes(&transaction, changes)?;
    let number = {
        let mut meta = transaction.open_table(META).map_err(missing)?;
        let mut buckets = transaction.open_table(BUCKETS).map_err(missing)?;
        let last = meta.get(meta::NUMBER).map_err(storage)?.map(|value| value.value());
        let mut number = last.ok_or_else(|| StoreError::Corrupt("it has no number".to_owned()))?;
        for bucket in touched {
            number = number.saturating_add(1);
            buckets.insert(bucket_key(*bucket), number).map_err(storage)?;
        }
        meta.insert(meta::NUMBER, number).map_err(storage)?;
        number
    };
    // Durability::Immediate, redb's default: on the disk when this returns.
    transaction.commit().map_err(failed)?;
    Ok(number)
}

fn make_changes(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), StoreError> {
    let mut revocations = transaction.open_table(REVOCATIONS).map_err(missing)?;
    let mut keys = transaction.open_table(API_KEYS).map_err(missing)?;
    let mut bans = transaction.open_table(BANS).map_err(missing)?;
    let mut overrides = transaction.open_table(OVERRIDES).map_err(missing)?;
    for change in changes {
        match change {
            Change::PutRevocation(print, revocation) => {
                let value = joined(revocation)?;
                revocations.insert(print, value.as_slice()).map_err(storage)?;
            }
            Change::DropRevocation(print) => {
                revocations.remove(print).map_err(storage)?;
            }
            Change::PutKey(ApiKey { sha256, about }) => {
                let value = serde_json::to_vec(about).map_err(failed)?;
                keys.insert(sha256, value.as_slice()).map_err(storage)?;
            }
            Change::DropKey(sha256) => {
                keys.remove(sha256).map_err(storage)?;
            }
            Change::PutBan(key, ban) => {
                let value = serde_json::to_vec(ban).map_err(failed)?;
                bans.insert(key, value.as_slice()).map_err(storage)?;
            }
            Change::DropBan(key) => {
                bans.remove(key).map_err(storage)?;
            }
            Change::PutOverride(limit, change) => {
                let value = serde_json::to_vec(change).map_err(failed)?;
                overrides.insert(limit.as_str(), value.as_slice()).map_err(storage)?;
            }
            Change::DropOverride(limit) => {
                overrides.remove(limit.as_str()).map_err(storage)?;
            }
            Change::File(..) => {}
        }
    }
    Ok(())
}

fn joined(revocation: &Revocation) -> Result<Vec<u8>, StoreError> {
    let Times { before, until } = revocation.times();
    let mut value = before.to_le_bytes().to_vec();
    value.extend_from_slice(&until.to_le_bytes());
    value.extend(serde_json::to_vec(revocation).map_err(failed)?);
    Ok(value)
}

fn split(value: &[u8]) -> Result<(Times, &[u8]), StoreError> {
    let parts = value.split_first_chunk::<4>().and_then(|(before, rest)| {
        let (until, json) = rest.split_first_chunk::<4>()?;
        let (before, until) = (u32::from_le_bytes(*before), u32::from_le_bytes(*until));
        Some((Times { before, until }, json))
    });
    parts.ok_or_else(|| StoreError::Corrupt("a revocation is too short".to_owned()))
}

fn whole(value: &[u8]) -> Result<Revocation, StoreError> {
    let (_, json) = split(value)?;
    serde_json::from_slice(json).map_err(unreadable)
}

fn bucket_key(bucket: Bucket) -> u64 {
    u64::from(bucket.table.number()) << 32 | u64::from(bucket.index)
}

fn bucket_of(key: u64) -> Option<Bucket> {
    let table = Table::ALL.into_iter().find(|table| u64::from(table.number()) == key >> 32)?;
    let index = u32::try_from(key & 0xffff_ffff).ok().filter(|index| *index < table.buckets())?;
    Some(Bucket { table, index })
}

fn opening(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
        DatabaseError::Storage(error) => storage(error),
        error => StoreError::Corrupt(error.to_string()),
    }
}

fn storage(error: StorageError) -> StoreError {
    match error {
        StorageError::Corrupted(why) => StoreError::Corrupt(why),
        StorageError::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Corrupt(error.to_string())
        }
        error => StoreError::Failed(error.to_string()),
    }
}

fn missing(error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => storage(error),
        error => StoreError::Corrupt(error.to_string()),
    }
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("an entry: {error}"))
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}
