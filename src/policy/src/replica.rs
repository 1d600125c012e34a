//! The sidecar's state in shared data: revocations, API keys, files, bans, overrides. One copy per
//! Envoy, read by every worker.
//!
//! Shared data has no delete, so each table is a fixed number of *buckets*, each one value. The
//! sidecar decides what is in a bucket and sends it whole; the filter stores it unseen. So a change,
//! its repetition and the first filling are the same thing: these buckets have these bytes now.
//! Only what the sidecar's store holds is in them, and its bounds are theirs.

pub mod api_keys;
pub mod bans;
pub mod batch;
pub mod files;
pub mod overrides;
pub mod revocations;

use crate::store::{Store, StoreError};
use crate::sync::Position;
use alloc::vec::Vec;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// [`revocations`].
    Revocations,
    /// [`api_keys`].
    ApiKeys,
    /// [`files`].
    Files,
    /// [`bans`].
    Bans,
    /// [`overrides`].
    Overrides,
}

impl Table {
    /// All of them, in the order of their numbers on the wire.
    pub const ALL: [Self; 5] =
        [Self::Revocations, Self::ApiKeys, Self::Files, Self::Bans, Self::Overrides];
    /// The buckets of all tables together.
    pub const BUCKETS: u32 = Self::Revocations.buckets()
        + Self::ApiKeys.buckets()
        + Self::Files.buckets()
        + Self::Bans.buckets()
        + Self::Overrides.buckets();

    /// The number on the wire and in shared data.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Revocations => 1,
            Self::ApiKeys => 2,
            Self::Files => 3,
            Self::Bans => 4,
            Self::Overrides => 5,
        }
    }

    /// How many buckets it has, a power of two. With a million revocations a bucket holds 16 on
    /// average, so that reading one copies some 400 bytes.
    #[must_use]
    pub const fn buckets(self) -> u32 {
        match self {
            Self::Revocations => 1 << 16,
            Self::ApiKeys | Self::Bans => 1 << 12,
            Self::Files | Self::Overrides => 1 << 6,
        }
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Its table.
    pub table: Table,
    /// Its number, below [`Table::buckets`].
    pub index: u32,
}

impl Bucket {
    /// The bucket of a hash: its leading bits.
    #[must_use]
    pub const fn of(table: Table, hash: u32) -> Self {
        Self { table, index: hash >> (32 - table.buckets().trailing_zeros()) }
    }

    /// The `at`-th bucket of all tables, one after the other; `None` from [`Table::BUCKETS`] on.
    #[must_use]
    pub fn nth(at: u32) -> Option<Self> {
        let mut index = at;
        for table in Table::ALL {
            if index < table.buckets() {
                return Some(Self { table, index });
            }
            index -= table.buckets();
        }
        None
    }

    /// Where it is in shared data. The format's version is in the key, so that two versions of the
    /// filter that run side by side do not overwrite each other's.
    #[must_use]
    pub fn key(self) -> [u8; 15] {
        let mut key = *b"replica/2/\0\0\0\0\0";
        let [a, b, c, d] = self.index.to_be_bytes();
        let tail = [self.table.number(), a, b, c, d];
        for (place, byte) in key.iter_mut().skip(10).zip(tail) {
            *place = byte;
        }
        key
    }

    /// What it holds in shared data; empty when it was never written.
    ///
    /// # Errors
    /// When shared data cannot be had.
    pub fn read(self, store: &mut dyn Store) -> Result<Vec<u8>, StoreError> {
        Ok(store.read(&self.key())?.map(|value| value.bytes).unwrap_or_default())
    }
}

/// What the copy is of, and how far it has come: one record in shared data, written by the VM that
/// copies, after the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The sidecar's store, never 0: that stands for none ([`State::UNKNOWN`]).
    pub store: u64,
    /// Every change up to this number is here.
    pub number: u64,
    /// The keys of the fingerprints in [`Table::Revocations`].
    pub keys: [u64; 2],
    /// Whether everything has been handed over once.
    pub seeded: Seeded,
    /// Whether anything was ever handed over in [`Table::Bans`].
    pub bans: Bans,
}

/// Whether a copy was complete at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// It was; since then it may lag, never lack.
    Yes,
    /// Something may be missing.
    NotYet,
}

/// Whether requests must be looked up among the banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bans {
    /// There may be some.
    Some,
    /// There has never been one, so that nobody's address need be asked for.
    None,
}

/// Where [`State`] is.
pub const STATE_KEY: &[u8] = b"replica/2/state";
/// Store, number, two keys, bans, seeded.
const STATE_SIZE: usize = 4 * 8 + 2;

impl State {
    /// Buckets of whatever store, complete or not: what a copy says of itself while it is begun
    /// afresh. No sidecar continues it.
    pub const UNKNOWN: Self =
        Self { store: 0, number: 0, keys: [0, 0], seeded: Seeded::NotYet, bans: Bans::Some };

    /// What the sidecar is told of it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::of(self.store, self.number)
    }

    /// Reads the record; `None` before anything was handed over, or when it makes no sense.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != STATE_SIZE {
            return None;
        }
        let &[.., bans, seeded] = bytes else { return None };
        let mut numbers = bytes.chunks_exact(8).filter_map(|eight| eight.try_into().ok());
        let mut number = || numbers.next().map(u64::from_le_bytes);
        Some(Self {
            store: number()?,
            number: number()?,
            keys: [number()?, number()?],
            seeded: if seeded == 1 { Seeded::Yes } else { Seeded::NotYet },
            // Whatever is not a clear no.
            bans: if bans == 0 { Bans::None } else { Bans::Some },
        })
    }

    /// The record's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let [k0, k1] = self.keys;
        let mut out = Vec::with_capacity(STATE_SIZE);
        for number in [self.store, self.number, k0, k1] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.bans == Bans::Some));
        out.push(u8::from(self.seeded == Seeded::Yes));
        out
    }
}

#[cfg(test)]
mod tests;
