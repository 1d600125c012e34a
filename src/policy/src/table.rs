//! Fixed tables of hashed sets in shared state.
//!
//! Shared data has no delete, so the key space is fixed: a table is a fixed number of *sets*, each
//! one value that holds up to [`WAYS`] records. A record is found by its fingerprint; when a set
//! is full, the record goes whose loss forgives least. One read and one compare-and-set a decision,
//! on the bytes as they came: only the record in question is unpacked.
//!
//! A set's bytes: format version, kind, number of records, zero, shape (u32, little-endian); then
//! the records in any order, each its fingerprint (u64, little-endian) and its fixed-size body. What
//! does not read so counts as absent, and is counted; a set of another *shape* is one that a policy
//! of other meaning has left, and is absent without a word.

use crate::event::{Event, Events};
use crate::store::{Edit, Store, StoreError, edit};
use crate::time::Nanos;
use alloc::vec::Vec;

/// Records a set can hold. Eight keep a set within one short value, and with random fingerprints a
/// table that is half full overflows in fewer than 1 of 20 sets.
pub const WAYS: usize = 8;
/// The format of a set. Another version reads as absent, and is counted.
pub const FORMAT: u8 = 2;
const HEAD: usize = 8;
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

    /// Whose it is: short fingerprints of an identity and of an address, zero for nobody. They say
    /// whom an administrator's sweep may mean, not who somebody is.
    fn who(&self) -> [u32; 2];
}

/// The most bytes that one set of such records takes: what a policy's memory is reckoned from.
#[must_use]
pub const fn set_bytes_max<R: Record>() -> usize {
    HEAD + WAYS * (TAG + R::SIZE)
}

/// Where a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: u64,
    /// Sets of the table, a power of two.
    pub sets: u32,
    /// What the records mean. Where a set of another shape stands, there is no record yet.
    pub shape: u32,
    /// The record's fingerprint, never zero.
    pub tag: u64,
}

impl Place {
    /// The set that the record belongs to.
    #[must_use]
    pub fn set(&self) -> Set {
        // Fingerprints are uniform: the low bits choose the set as well as any.
        let number = u32::try_from(self.tag & u64::from(self.sets.saturating_sub(1))).unwrap_or(0);
        Set { table: self.table, number, shape: self.shape }
    }
}

/// One set of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// The table.
    pub table: u64,
    /// Its number, below the table's number of sets.
    pub number: u32,
    /// See [`Place::shape`].
    pub shape: u32,
}

impl Set {
    /// The shared-data key of the set: `t`, the table, the number of the set.
    fn key(&self) -> [u8; 13] {
        let mut key = [b't'; 13];
        let bytes = self.table.to_le_bytes().into_iter().chain(self.number.to_le_bytes());
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
/// See [`crate::store::update`].
pub fn amend<R: Record, T>(
    store: &mut dyn Store,
    events: &mut dyn Events,
    place: &Place,
    now: Nanos,
    mut decide: impl FnMut(Option<R>) -> Keep<R, T>,
) -> Result<T, StoreError> {
    let mut lost = Lost::default();
    let outcome = edit(store, &place.set().key(), |bytes| {
        lost = Lost::default();
        let mut records = Records::<R>::open(bytes, place.shape, &mut lost);
        let slot = records.slot(place.tag);
        match decide(records.at(slot, &mut lost)) {
            Keep::Same(outcome) => Edit::Keep(outcome),
            Keep::Put(record, outcome) => {
                records.put(slot, place.tag, record, &mut lost, now);
                Edit::Write(outcome)
            }
        }
    });
    lost.tell(events);
    outcome
}

/// Reads one record and leaves everything as it is.
///
/// # Errors
/// [`StoreError::Unavailable`] from the store.
pub fn read<R: Record>(
    store: &mut dyn Store,
    events: &mut dyn Events,
    place: &Place,
) -> Result<Option<R>, StoreError> {
    let found = store.read(&place.set().key())?;
    let Some(mut bytes) = found.map(|value| value.bytes) else { return Ok(None) };
    let mut lost = Lost::default();
    let records = Records::open(&mut bytes, place.shape, &mut lost);
    let record = records.at(records.slot(place.tag), &mut lost);
    lost.tell(events);
    Ok(record)
}

/// Removes one record; gives back what it was. The set keeps its bytes until they are needed.
///
/// # Errors
/// See [`crate::store::update`].
pub fn erase<R: Record>(
    store: &mut dyn Store,
    events: &mut dyn Events,
    place: &Place,
) -> Result<Option<R>, StoreError> {
    let mut lost = Lost::default();
    let outcome = edit(store, &place.set().key(), |bytes| {
        lost = Lost::default();
        let mut records = Records::<R>::open(bytes, place.shape, &mut lost);
        let slot = records.slot(place.tag);
        let record = records.at(slot, &mut lost);
        match slot {
            None => Edit::Keep(record),
            Some(slot) => {
                records.remove(slot);
                records.count();
                Edit::Write(record)
            }
        }
    });
    lost.tell(events);
    outcome
}

/// Removes all records of one set that are somebody's ([`Record::who`]; a zero means nobody, and
/// either of the two will do); tells how many they were.
///
/// # Errors
/// See [`crate::store::update`].
pub fn erase_of<R: Record>(
    store: &mut dyn Store,
    events: &mut dyn Events,
    set: &Set,
    who: [u32; 2],
) -> Result<usize, StoreError> {
    let mut lost = Lost::default();
    let outcome = edit(store, &set.key(), |bytes| {
        lost = Lost::default();
        let mut records = Records::<R>::open(bytes, set.shape, &mut lost);
        let erased = records.remove_of(who);
        if erased == 0 { Edit::Keep(erased) } else { Edit::Write(erased) }
    });
    lost.tell(events);
    outcome
}

/// What a set could not keep.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    unreadable: bool,
    evicted: bool,
}

impl Lost {
    /// Told once, for the attempt that counted.
    fn tell(self, events: &mut dyn Events) {
        if self.unreadable {
            events.on(Event::RecordUnreadable);
        }
        if self.evicted {
            events.on(Event::RecordEvicted);
        }
    }
}

/// The records of a set, in its bytes.
struct Records<'a, R> {
    /// A header that fits, and behind it nothing but whole records.
    bytes: &'a mut Vec<u8>,
    record: core::marker::PhantomData<R>,
}

impl<'a, R: Record> Records<'a, R> {
    const SLOT: usize = TAG + R::SIZE;

    /// Takes the bytes as they are, or starts an empty set in their place.
    fn open(bytes: &'a mut Vec<u8>, shape: u32, lost: &mut Lost) -> Self {
        match Self::known(bytes, shape) {
            Known::Fits => {}
            Known::Absent => Self::reset(bytes, shape),
            Known::Unreadable => {
                lost.unreadable = true;
                Self::reset(bytes, shape);
            }
        }
        Self { bytes, record: core::marker::PhantomData }
    }

    fn known(bytes: &[u8], shape: u32) -> Known {
        if bytes.is_empty() {
            return Known::Absent;
        }
        let Some((&[format, kind, count, _, s0, s1, s2, s3], body)) = bytes.split_first_chunk()
        else {
            return Known::Unreadable;
        };
        if format != FORMAT {
            return Known::Unreadable;
        }
        if u32::from_le_bytes([s0, s1, s2, s3]) != shape {
            return Known::Absent;
        }
        let count = usize::from(count);
        if kind == R::KIND && count <= WAYS && body.len() == count * Self::SLOT {
            Known::Fits
        } else {
            Known::Unreadable
        }
    }

    fn reset(bytes: &mut Vec<u8>, shape: u32) {
        bytes.clear();
        // Room for the one record that mostly follows.
        bytes.reserve_exact(HEAD + Self::SLOT);
        bytes.extend_from_slice(&[FORMAT, R::KIND, 0, 0]);
        bytes.extend_from_slice(&shape.to_le_bytes());
    }

    fn slots(&self) -> impl Iterator<Item = (&[u8; TAG], &[u8])> {
        let body = self.bytes.get(HEAD..).unwrap_or_default();
        body.chunks_exact(Self::SLOT).filter_map(|slot| slot.split_first_chunk::<TAG>())
    }

    fn slot(&self, tag: u64) -> Option<usize> {
        let tag = tag.to_le_bytes();
        self.slots().position(|(own, _)| *own == tag)
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.bytes.len().saturating_sub(HEAD) / Self::SLOT
    }

    /// The record in a slot.
    fn at(&self, slot: Option<usize>, lost: &mut Lost) -> Option<R> {
        let body = HEAD + slot? * Self::SLOT + TAG;
        let record = self.bytes.get(body..body + R::SIZE).and_then(R::decode);
        lost.unreadable |= record.is_none();
        record
    }

    /// Puts a record in, for its predecessor, into a free place, or for the lightest. It goes to the
    /// end, where room has just been made: the bytes never have to grow for it.
    fn put(&mut self, slot: Option<usize>, tag: u64, record: R, lost: &mut Lost, now: Nanos) {
        if let Some(slot) = slot {
            self.remove(slot);
        } else if self.len() >= WAYS {
            let weights =
                self.slots().map(|(_, body)| R::decode(body).map_or(0, |r| r.weight(now)));
            if let Some((slot, weight)) = weights.enumerate().min_by_key(|(_, weight)| *weight) {
                lost.evicted = weight > 0;
                self.remove(slot);
            }
        }
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        record.encode(self.bytes);
        self.count();
    }

    /// Takes a record out; the last one takes its place. The count is left to the caller.
    fn remove(&mut self, slot: usize) {
        let at = HEAD + slot * Self::SLOT;
        let last = self.bytes.len().saturating_sub(Self::SLOT);
        if at < last {
            self.bytes.copy_within(last.., at);
        }
        self.bytes.truncate(last);
    }

    fn remove_of(&mut self, who: [u32; 2]) -> usize {
        let is_of = |body: &[u8]| {
            let own = R::decode(body).map(|record| record.who()).unwrap_or_default();
            own.iter().zip(who).any(|(own, who)| who != 0 && *own == who)
        };
        let mut erased = 0;
        // Each turn removes one; there are at most `WAYS`.
        loop {
            let found = self.slots().position(|(_, body)| is_of(body));
            let Some(slot) = found else { return erased };
            self.remove(slot);
            self.count();
            erased += 1;
        }
    }

    fn count(&mut self) {
        let count = u8::try_from(self.len()).unwrap_or(0);
        if let Some(byte) = self.bytes.get_mut(2) {
            *byte = count;
        }
    }
}

/// How bytes read.
enum Known {
    /// They are a set of the wanted shape.
    Fits,
    /// There are none, or they are of another shape.
    Absent,
    /// Nobody writes such a set.
    Unreadable,
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
