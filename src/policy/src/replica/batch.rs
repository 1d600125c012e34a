//! A piece of the sidecar's state on its way to the filter, as bytes: what is not JSON because a
//! million revocations would take seconds to read.
//!
//! All numbers are little-endian. Head: version (u8), flags (u8), store, number, two keys (u64
//! each); then the buckets: table (u8), index (u32), length (u32), bytes. A batch that is not the last
//! has a higher number than what it continues, or the filter would fetch for ever.

use super::{Bucket, Table};
use alloc::vec::Vec;

/// The format of a batch; another one is refused.
const VERSION: u8 = 1;
/// Bytes of the head.
const HEAD: usize = 2 + 4 * 8;
/// Bytes of a bucket beside what it holds.
const ENTRY: usize = 1 + 4 + 4;
/// The flag of [`End::Complete`].
const COMPLETE: u8 = 1;
/// The flag of [`Begin::Afresh`].
const AFRESH: u8 = 2;
/// A sidecar ends a batch when it is longer than this. The worker that stores it serves no request for
/// a millisecond meanwhile; with a million revocations there are a hundred of them.
pub const BYTES_SOON: usize = 256 * 1024;
/// A filter reads no batch beyond this: one bucket may come on top of [`BYTES_SOON`].
pub const BYTES_MAX: usize = 32 * 1024 * 1024;

/// A piece of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The sidecar's store.
    pub store: u64,
    /// After this batch every change up to this number is there.
    pub number: u64,
    /// The keys of fingerprints.
    pub keys: [u64; 2],
    /// Whether it replaces everything that was there.
    pub begin: Begin,
    /// Whether more is waiting.
    pub end: End,
    /// Buckets and what they hold from now on.
    pub buckets: Vec<(Bucket, Vec<u8>)>,
}

/// How a batch goes with what the filter has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It continues it.
    Continue,
    /// The filter has another store's state, or none: every bucket is emptied first.
    Afresh,
}

/// Whether a batch is the last one for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The filter has everything.
    Complete,
    /// It fetches again.
    More,
}

/// What a batch says of itself, without its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// See [`Batch::store`].
    pub store: u64,
    /// See [`Batch::number`].
    pub number: u64,
    /// See [`Batch::keys`].
    pub keys: [u64; 2],
    /// See [`Batch::begin`].
    pub begin: Begin,
    /// See [`Batch::end`].
    pub end: End,
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// They end too early, or a length lies.
    Truncated,
    /// Another version of the format, or a flag that it does not have.
    Version,
    /// It is of no store.
    NoStore,
    /// A table or bucket that does not exist.
    UnknownBucket,
    /// More buckets than there are.
    TooMany,
}

impl Batch {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let afresh = u8::from(self.begin == Begin::Afresh) * AFRESH;
        let complete = u8::from(self.end == End::Complete) * COMPLETE;
        let held: usize = self.buckets.iter().map(|(_, bytes)| ENTRY + bytes.len()).sum();
        let mut out = Vec::with_capacity(HEAD + held);
        out.extend_from_slice(&[VERSION, complete | afresh]);
        let [k0, k1] = self.keys;
        for number in [self.store, self.number, k0, k1] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for (bucket, bytes) in &self.buckets {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            out.push(bucket.table.number());
            out.extend_from_slice(&bucket.index.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// A [`BatchError`]; nothing of a broken batch is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let Head { store, number, keys, begin, end } = check(bytes)?;
        let mut buckets = Vec::new();
        let mut entries = Entries::new(bytes);
        while let Some((bucket, held)) = entries.read()? {
            buckets.push((bucket, held.to_vec()));
        }
        Ok(Self { store, number, keys, begin, end, buckets })
    }
}

/// Reads a whole batch and keeps nothing but its head.
///
/// # Errors
/// A [`BatchError`]. After this, [`Entries`] of the same bytes give no error.
pub fn check(bytes: &[u8]) -> Result<Head, BatchError> {
    let mut rest = bytes;
    let [version, flags] = take(&mut rest)?;
    if version != VERSION || flags & !(COMPLETE | AFRESH) != 0 {
        return Err(BatchError::Version);
    }
    let mut number = || take(&mut rest).map(u64::from_le_bytes);
    let (store, up_to, keys) = (number()?, number()?, [number()?, number()?]);
    if store == 0 {
        return Err(BatchError::NoStore);
    }
    let mut entries = Entries::new(bytes);
    let mut count = 0;
    while entries.read()?.is_some() {
        count += 1;
        if count > Table::BUCKETS {
            return Err(BatchError::TooMany);
        }
    }
    let begin = if flags & AFRESH == 0 { Begin::Continue } else { Begin::Afresh };
    let end = if flags & COMPLETE == 0 { End::More } else { End::Complete };
    Ok(Head { store, number: up_to, keys, begin, end })
}

/// The buckets of a batch one after the other, without a copy, so that reading can stop and go on.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    /// From the first bucket on.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self::from(bytes, HEAD)
    }

    /// From where [`Entries::at`] was.
    #[must_use]
    pub const fn from(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next bucket begins.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The next bucket and what it holds; `None` at the end.
    ///
    /// # Errors
    /// A [`BatchError`]; it stays where it is then.
    pub fn read(&mut self) -> Result<Option<(Bucket, &'a [u8])>, BatchError> {
        let whole = self.bytes.get(self.at..).ok_or(BatchError::Truncated)?;
        if whole.is_empty() {
            return Ok(None);
        }
        let mut rest = whole;
        let [table] = take(&mut rest)?;
        let index = u32::from_le_bytes(take(&mut rest)?);
        let length = u32::from_le_bytes(take(&mut rest)?);
        let known = Table::ALL.into_iter().find(|known| known.number() == table);
        let table = known.filter(|table| index < table.buckets());
        let bucket = Bucket { table: table.ok_or(BatchError::UnknownBucket)?, index };
        let length = usize::try_from(length).map_err(|_| BatchError::Truncated)?;
        let held = rest.get(..length).ok_or(BatchError::Truncated)?;
        self.at += ENTRY + length;
        Ok(Some((bucket, held)))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BatchError> {
    let (bytes, next) = rest.split_first_chunk::<N>().ok_or(BatchError::Truncated)?;
    *rest = next;
    Ok(*bytes)
}

#[cfg(test)]
mod tests;
