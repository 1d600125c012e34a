//! A batch of the sidecar's state on its way into shared data: buckets first, then the record that
//! says that they are there, in slices that no request notices.
//!
//! Buckets are overwritten without a look at what is there, because the sidecar alone says what they
//! hold and only the holder of the lease writes them. Whoever finds after a slice that the lease is
//! gone calls [`spoil`]. A holder that dies leaves buckets that are newer than the record; its
//! successor is sent the same buckets again, because the number in the record has not moved.

use crate::host::{Host, Status};
use crate::store::SharedData;
use policy::replica::batch::{self, BatchError, Begin, End, Entries, Head};
use policy::replica::{Bans, Bucket, STATE_KEY, Seeded, State, Table};
use policy::store::{Change, Store, StoreError, Swap, update};
use policy::sync::Position;

/// Buckets emptied by one slice: a millisecond on Envoy, where two microseconds pass for each.
const SLICE_EMPTIED: usize = 512;
/// Buckets written by one slice: twice as many as a batch of common size has, which takes two
/// milliseconds.
const SLICE_WRITTEN: usize = 2048;
/// Bytes written by one slice, and whatever bucket lies across the end: half a millisecond of copying.
const SLICE_BYTES: usize = 1024 * 1024;
/// What Envoy reads as "overwrite whatever is there".
const BLIND: u32 = 0;

/// A batch that is being stored.
pub(crate) struct Handover {
    body: Vec<u8>,
    head: Head,
    /// What the record said last, and the version that it must still have when it is written.
    record: Option<State>,
    cas: Option<u32>,
    stage: Stage,
    written: Written,
    /// Whether it has brought any.
    bans: Bans,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Buckets of another store are still to be emptied, from this one on.
    Emptying(u32),
    /// The batch's buckets are still to be written, from this byte on.
    Storing(usize),
}

/// Whether a batch has brought anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Something has changed.
    Something,
    /// All was there.
    Nothing,
}

/// What a slice has achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The next slice goes on.
    More,
    /// Every bucket is there: [`Handover::announce`] it.
    Stored,
}

/// Why a batch is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It cannot be read.
    Unreadable(BatchError),
    /// It continues something else than what is here, or leads nowhere.
    OutOfPlace,
    /// Somebody else has written the record since the batch was asked for.
    Overtaken,
    /// Shared data cannot be had.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the record says, and its version; `None` when it was never written.
fn record<H: Host>(host: &H) -> Result<(Option<State>, Option<u32>), StoreError> {
    let found = SharedData(host.clone()).read(STATE_KEY)?;
    Ok(found.map_or((None, None), |value| (State::from_bytes(&value.bytes), Some(value.cas))))
}

/// How far the copy is, for the sidecar.
pub(crate) fn position(state: Option<&State>) -> Position {
    state.map(State::position).unwrap_or_default()
}

/// Declares the copy worthless: whoever holds the lease now begins it afresh. For a VM that was
/// writing when it lost the lease: its successor may have written the same buckets in between.
///
/// # Errors
/// When shared data cannot be had.
pub(crate) fn spoil<H: Host>(host: &H) -> Result<(), StoreError> {
    let mut store = SharedData(host.clone());
    update(&mut store, STATE_KEY, |_| Change::Write(State::UNKNOWN.to_bytes(), ()))
}

impl Handover {
    /// Looks at the answer to a fetch that said `asked`. Nothing is written but, for a batch that
    /// begins afresh, that the copy is not complete.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing is written.
    pub(crate) fn begin<H: Host>(
        host: &H,
        body: Vec<u8>,
        asked: &Position,
    ) -> Result<Self, Refusal> {
        let head = batch::check(&body).map_err(Refusal::Unreadable)?;
        let (present, cas) = record(host)?;
        if position(present.as_ref()) != *asked {
            return Err(Refusal::Overtaken);
        }
        let storing = Stage::Storing(Entries::new(&body).at());
        let (written, stage) = (Written::Nothing, storing);
        let bans = Bans::None;
        let mut handover = Self { body, head, record: present, cas, stage, written, bans };
        match head.begin {
            Begin::Continue => handover.fits(present.as_ref())?,
            Begin::Afresh => handover.renounce(host)?,
        }
        Ok(handover)
    }

    /// Whether what was here is worth nothing since [`Handover::begin`].
    pub(crate) fn renounced(&self) -> bool {
        self.head.begin == Begin::Afresh
    }

    /// Whether the copy was complete before.
    pub(crate) fn before(&self) -> Seeded {
        self.record.map_or(Seeded::NotYet, |before| before.seeded)
    }

    /// Whether it continues what is here.
    fn fits(&self, present: Option<&State>) -> Result<(), Refusal> {
        let Head { store, number, keys, end, .. } = self.head;
        let same = present.filter(|present| present.store == store && present.keys == keys);
        let further = same.is_some_and(|present| match end {
            End::Complete => number >= present.number,
            End::More => number > present.number,
        });
        if further { Ok(()) } else { Err(Refusal::OutOfPlace) }
    }

    /// Says that what is here is not complete from now on, before any bucket is touched. Where there
    /// has never been a record there is no bucket either, because of this very order.
    fn renounce<H: Host>(&mut self, host: &H) -> Result<(), Refusal> {
        if self.cas.is_some() {
            self.stage = Stage::Emptying(0);
        }
        if self.record != Some(State::UNKNOWN) {
            self.write(host, State::UNKNOWN)?;
            (self.record, self.cas) = record(host)?;
            if self.record != Some(State::UNKNOWN) {
                return Err(Refusal::Overtaken);
            }
        }
        self.written = Written::Something;
        Ok(())
    }

    fn write<H: Host>(&self, host: &H, state: State) -> Result<(), Refusal> {
        let mut store = SharedData(host.clone());
        match store.swap(STATE_KEY, &state.to_bytes(), self.cas)? {
            Swap::Done => Ok(()),
            Swap::Lost => Err(Refusal::Overtaken),
        }
    }

    /// Does one slice. The caller holds the lease before and makes sure of it after.
    ///
    /// # Errors
    /// When shared data cannot be had; the batch must be fetched again then.
    pub(crate) fn go_on<H: Host>(&mut self, host: &H) -> Result<Progress, Refusal> {
        let from = match self.stage {
            Stage::Emptying(from) => {
                self.stage = self.empty(host, from)?;
                return Ok(Progress::More);
            }
            Stage::Storing(from) => from,
        };
        let mut room = SLICE_WRITTEN;
        let mut entries = Entries::from(&self.body, from);
        let mut stored = Ok(Progress::More);
        while room > 0 && entries.at() - from < SLICE_BYTES {
            let Some((bucket, held)) = entries.read().map_err(Refusal::Unreadable)? else {
                stored = Ok(Progress::Stored);
                break;
            };
            overwrite(host, bucket, held)?;
            if bucket.table == Table::Bans && !held.is_empty() {
                self.bans = Bans::Some;
            }
            self.written = Written::Something;
            room -= 1;
        }
        self.stage = Stage::Storing(entries.at());
        stored
    }

    /// Empties some buckets and says what is next.
    fn empty<H: Host>(&self, host: &H, from: u32) -> Result<Stage, Refusal> {
        let mut at = from;
        for _ in 0..SLICE_EMPTIED {
            let Some(bucket) = Bucket::nth(at) else {
                return Ok(Stage::Storing(Entries::new(&self.body).at()));
            };
            empty(host, bucket)?;
            at += 1;
        }
        Ok(Stage::Emptying(at))
    }

    /// Writes the record: every bucket up to the batch's number is there.
    ///
    /// # Errors
    /// A [`Refusal`]; the batch must be fetched again then.
    pub(crate) fn announce<H: Host>(&self, host: &H) -> Result<(State, End, Written), Refusal> {
        let Head { store, number, keys, begin, end } = self.head;
        let before = self.record.filter(|_| begin == Begin::Continue);
        let complete = end == End::Complete || before.is_some_and(|b| b.seeded == Seeded::Yes);
        let seeded = if complete { Seeded::Yes } else { Seeded::NotYet };
        let had = before.is_some_and(|before| before.bans == Bans::Some);
        let bans = if had || self.bans == Bans::Some { Bans::Some } else { Bans::None };
        let state = State { store, number, keys, seeded, bans };
        if self.record == Some(state) {
            return Ok((state, end, self.written));
        }
        self.write(host, state)?;
        Ok((state, end, Written::Something))
    }
}

/// Empties a bucket. One that was never written stays so: Envoy never forgets a key.
fn empty<H: Host>(host: &H, bucket: Bucket) -> Result<(), StoreError> {
    match host.shared(&bucket.key()) {
        Ok((bytes, _)) if !bytes.is_empty() => overwrite(host, bucket, &[]),
        Ok(_) | Err(Status::NotFound) => Ok(()),
        Err(_) => Err(StoreError::Unavailable),
    }
}

fn overwrite<H: Host>(host: &H, bucket: Bucket, held: &[u8]) -> Result<(), StoreError> {
    host.set_shared(&bucket.key(), held, BLIND).map_err(|_| StoreError::Unavailable)
}
