//! The state in memory: what is in every bucket, and when each last changed.

use crate::store::{ApiKey, Ban, BanKey, Change, Contents, Overridden, Times};
use policy::model::Secret;
use policy::replica::revocations::{self, Print, Record};
use policy::replica::{Bucket, Table, api_keys, bans, files, overrides};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// What is in memory.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(super) number: u64,
    revocations: BTreeMap<Print, Times>,
    keys: BTreeMap<[u8; 32], ApiKey>,
    bans: BTreeMap<BanKey, Ban>,
    overrides: BTreeMap<String, Overridden>,
    files: BTreeMap<String, Secret>,
    /// Buckets of files whose content is known: something in them changed since the start.
    read: HashSet<Bucket>,
    pub(super) by_number: BTreeMap<u64, Bucket>,
    by_bucket: HashMap<Bucket, u64>,
}

impl Held {
    pub(super) fn new(contents: Contents) -> Self {
        let Contents { number, revocations, keys, bans, overrides, buckets } = contents;
        Self {
            number,
            revocations: revocations.into_iter().collect(),
            keys: keys.into_iter().map(|key| (key.sha256, key)).collect(),
            bans: bans.into_iter().collect(),
            overrides: overrides.into_iter().collect(),
            files: BTreeMap::new(),
            read: HashSet::new(),
            by_number: buckets.iter().map(|(bucket, number)| (*number, *bucket)).collect(),
            by_bucket: buckets.into_iter().collect(),
        }
    }

    /// Takes what the store has. Files are not in it, and stay as they were read.
    pub(super) fn replace(&mut self, fresh: Self) {
        let files = std::mem::take(&mut self.files);
        let read = std::mem::take(&mut self.read);
        *self = Self { files, read, ..fresh };
    }

    /// Revocations by fingerprint.
    pub(crate) const fn revocations(&self) -> &BTreeMap<Print, Times> {
        &self.revocations
    }

    /// API keys by hash.
    pub(crate) const fn keys(&self) -> &BTreeMap<[u8; 32], ApiKey> {
        &self.keys
    }

    /// Bans by fingerprint, those that are over or lifted included.
    pub(crate) const fn bans(&self) -> &BTreeMap<BanKey, Ban> {
        &self.bans
    }

    /// Overrides by the limit's name.
    pub(crate) const fn overrides(&self) -> &BTreeMap<String, Overridden> {
        &self.overrides
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

    pub(super) fn apply(&mut self, changes: Vec<Change>, touched: &[Bucket], number: u64) {
        self.read.extend(touched.iter().filter(|bucket| bucket.table == Table::Files));
        for change in changes {
            match change {
                Change::PutRevocation(print, revocation) => {
                    self.revocations.insert(print, revocation.times());
                }
                Change::DropRevocation(print) => drop(self.revocations.remove(&print)),
                Change::PutKey(key) => drop(self.keys.insert(key.sha256, key)),
                Change::DropKey(sha256) => drop(self.keys.remove(&sha256)),
                Change::PutBan(key, ban) => drop(self.bans.insert(key, ban)),
                Change::DropBan(key) => drop(self.bans.remove(&key)),
                Change::PutOverride(limit, change) => {
                    self.overrides.insert(limit, change);
                }
                Change::DropOverride(limit) => drop(self.overrides.remove(&limit)),
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
    pub(super) fn content(&self, bucket: Bucket) -> Option<Vec<u8>> {
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
            Table::Bans => {
                let here = in_bucket::<24, _>(&self.bans, bucket);
                let records: Vec<_> = here.flat_map(|(key, ban)| ban.records(key)).collect();
                bans::encode(&records)
            }
            Table::Overrides => {
                let here = self.overrides.iter();
                let here = here.filter(|(limit, _)| overrides::bucket(limit) == bucket);
                let here = here.map(|(limit, Overridden { change, .. })| (limit.as_str(), change));
                overrides::encode(&here.collect())
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
