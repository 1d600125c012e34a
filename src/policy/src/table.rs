//! Fixed tables of hashed sets in shared state.
//!
//! Shared data has no delete, so the key space is fixed: a table is a fixed number of *sets*, each
//! one value that holds up to [`WAYS`] records. A record is found by its fingerprint; when a set
//! is full, the record goes whose loss forgives least. One read and one compare-and-set a decision.
//!
//! A set's bytes: format version, kind, number of records, zero; then the records, each its
//! fingerprint (u64, little-endian) and its fixed-size body. What does not read so counts as absent.

use crate::event::{Event, Events};
use crate::store::{Change, Store, StoreError, update};
use crate::time::Nanos;
use alloc::vec::Vec;

/// Records a set can hold. Eight keep a set within one short value, and with random fingerprints a
/// table that is half full overflows in fewer than 1 of 20 sets.
pub const WAYS: usize = 8;
/// The format of a set. Another version reads as absent, and is counted.
pub const FORMAT: u8 = 1;
const HEAD: usize = 4;
const TAG: usize = 8;

/// A fixed-size record.
pub trait Record: Copy {
    /// Tells tables of different records apart.
    const KIND: u8;
    /// Bytes of a body.
    const SIZE: usize;

    /// Appends exactly [`Record::SIZE`] bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a body; `None` when it makes no sense.
    fn decode(body: &[u8]) -> Option<Self>;

    /// How much its loss would forgive: zero for a record that says no more than none would.
    fn weight(&self, now: Nanos) -> u64;
}

/// Where a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: u64,
    /// Sets of the table, a power of two.
    pub sets: u32,
    /// The record's fingerprint, never zero.
    pub tag: u64,
}

impl Place {
    /// The shared-data key of the set: `t`, the table, the number of the set.
    fn key(&self) -> [u8; 13] {
        // Fingerprints are uniform: the low bits choose the set as well as any.
        let set = u32::try_from(self.tag & u64::from(self.sets.saturating_sub(1))).unwrap_or(0);
        let mut key = [b't'; 13];
        let bytes = self.table.to_le_bytes().into_iter().chain(set.to_le_bytes());
        key.iter_mut().skip(1).zip(bytes).for_each(|(at, byte)| *at = byte);
        key
    }
}

/// What a decision wants done with its record.
pub enum Keep<R, T> {
    /// The set stays as it is.
    Same(T),
    /// The record becomes this.
    Put(R, T),
}

/// Reads a record, decides, writes it back; bounded retries. `decide` may run several times.
///
/// # Errors
/// See [`update`].
pub fn amend<R: Record, T>(
    store: &mut dyn Store,
    events: &mut dyn Events,
    place: &Place,
    now: Nanos,
    mut decide: impl FnMut(Option<R>) -> Keep<R, T>,
) -> Result<T, StoreError> {
    let mut unreadable = false;
    let mut evicted = false;
    let outcome = update(store, &place.key(), |value| {
        let mut set = Set::<R>::read(value);
        unreadable = set.unreadable;
        evicted = false;
        match decide(set.find(place.tag)) {
            Keep::Same(outcome) => Change::Keep(outcome),
            Keep::Put(record, outcome) => {
                evicted = set.put(place.tag, record, now);
                Change::Write(set.write(), outcome)
            }
        }
    });
    if unreadable {
        events.on(Event::RecordUnreadable);
    }
    if evicted {
        events.on(Event::RecordEvicted);
    }
    outcome
}

/// A set, unpacked.
struct Set<R> {
    records: Vec<(u64, R)>,
    unreadable: bool,
}

impl<R: Record> Set<R> {
    fn read(value: Option<&[u8]>) -> Self {
        let records = value.map_or(Some(Vec::new()), Self::parse);
        Self { unreadable: records.is_none(), records: records.unwrap_or_default() }
    }

    fn parse(bytes: &[u8]) -> Option<Vec<(u64, R)>> {
        let (head, body) = bytes.split_at_checked(HEAD)?;
        let &[format, kind, count, _] = head else { return None };
        let size = usize::from(count).checked_mul(TAG + R::SIZE)?;
        if format != FORMAT || kind != R::KIND || usize::from(count) > WAYS || body.len() != size {
            return None;
        }
        body.chunks_exact(TAG + R::SIZE)
            .map(|chunk| {
                let (tag, body) = chunk.split_at_checked(TAG)?;
                Some((u64::from_le_bytes(tag.try_into().ok()?), R::decode(body)?))
            })
            .collect()
    }

    fn find(&self, tag: u64) -> Option<R> {
        self.records.iter().find(|(own, _)| *own == tag).map(|(_, record)| *record)
    }

    /// Puts a record in; tells whether a live one had to go for it.
    fn put(&mut self, tag: u64, record: R, now: Nanos) -> bool {
        if let Some((_, slot)) = self.records.iter_mut().find(|(own, _)| *own == tag) {
            *slot = record;
            return false;
        }
        if self.records.len() < WAYS {
            self.records.push((tag, record));
            return false;
        }
        let lightest = self.records.iter_mut().min_by_key(|(_, record)| record.weight(now));
        let Some(slot) = lightest else { return false };
        let lost = slot.1.weight(now);
        *slot = (tag, record);
        lost > 0
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.records.len() * (TAG + R::SIZE));
        let count = u8::try_from(self.records.len()).unwrap_or(0);
        out.extend_from_slice(&[FORMAT, R::KIND, count, 0]);
        for (tag, record) in &self.records {
            out.extend_from_slice(&tag.to_le_bytes());
            record.encode(&mut out);
        }
        out
    }
}

/// Reads fixed-size little-endian numbers off the front of a body.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    /// The next u32.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next u64.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
