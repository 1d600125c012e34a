//! Who talks to the sidecar, and what was done for it: one record in shared data.
//!
//! A VM that dies stops renewing and loses the lease. What it had done is in the record, so that its
//! successor neither does it again nor forgets to report it.

use policy::store::{Change, Store, StoreError, update};
use policy::sync::{COMMANDS_MAX, Done, DoneOutcome};
use policy::time::Nanos;

/// Where the record is.
const KEY: &[u8] = b"filter/sync";
/// The first byte of the record; another one reads as absent.
const VERSION: u8 = 1;
/// Version and four u64.
const HEAD: usize = 1 + 4 * 8;
/// A number and an outcome.
const ENTRY: usize = 8 + 1;
/// How long a lease lasts without renewal: four ticks, so that one late tick loses nothing.
pub(crate) const TERM: Nanos = Nanos::from_secs(2);
/// Outcomes that are remembered: those of one whole answer, which is all that can be unreported.
const REMEMBERED_MAX: usize = COMMANDS_MAX;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    holder: u64,
    expires: Nanos,
    /// When the sidecar last answered, or when somebody first waited for it.
    pub(crate) answered: Nanos,
    /// Commands up to this number have been reported, and the sidecar has answered since.
    reported: u64,
    /// The last commands done, in rising order. Questions are not among them: their answers would
    /// have no room here.
    done: Vec<Done>,
}

impl Lease {
    /// Makes the lease mine if it is mine, nobody's or expired; `None` when somebody else holds it.
    ///
    /// # Errors
    /// When shared data cannot be had.
    pub(crate) fn hold(
        store: &mut dyn Store,
        me: u64,
        now: Nanos,
    ) -> Result<Option<Self>, StoreError> {
        update(store, KEY, |present| {
            let mut lease = present.and_then(Self::from_bytes).unwrap_or(Self {
                holder: me,
                expires: now,
                answered: now,
                reported: 0,
                done: Vec::new(),
            });
            // Nobody writes an expiry further away than a term from his own clock reading, which may
            // be a little later than ours; whoever has one must not rule for ever.
            let live = now < lease.expires && lease.expires <= now + TERM + TERM;
            if lease.holder != me && live {
                return Change::Keep(None);
            }
            lease.holder = me;
            lease.expires = now + TERM;
            Change::Write(lease.to_bytes(), Some(lease))
        })
    }

    /// Changes the record if the lease is still mine, and renews it; `None` when it is not.
    ///
    /// # Errors
    /// When shared data cannot be had.
    pub(crate) fn change(
        store: &mut dyn Store,
        me: u64,
        now: Nanos,
        how: impl Fn(&mut Self),
    ) -> Result<Option<Self>, StoreError> {
        update(store, KEY, |present| {
            let mine = present.and_then(Self::from_bytes).filter(|lease| lease.holder == me);
            let Some(mut lease) = mine else { return Change::Keep(None) };
            how(&mut lease);
            lease.expires = now + TERM;
            Change::Write(lease.to_bytes(), Some(lease))
        })
    }

    /// Lets go of the lease if it is mine.
    ///
    /// # Errors
    /// When shared data cannot be had.
    pub(crate) fn release(store: &mut dyn Store, me: u64) -> Result<(), StoreError> {
        update(store, KEY, |present| {
            match present.and_then(Self::from_bytes).filter(|lease| lease.holder == me) {
                Some(lease) => {
                    let free = Self { expires: Nanos::ZERO, ..lease };
                    Change::Write(free.to_bytes(), ())
                }
                None => Change::Keep(()),
            }
        })
    }

    /// Whether a command was done, and with what outcome. One that is too long ago to be remembered
    /// counts as applied: it was done, or a later one would not have been.
    pub(crate) fn outcome(&self, id: u64) -> Option<DoneOutcome> {
        let last = self.done.last().map_or(0, |done| done.id).max(self.reported);
        if id > last {
            return None;
        }
        let found = self.done.iter().find(|done| done.id == id);
        Some(found.map_or(DoneOutcome::Applied, |done| done.outcome.clone()))
    }

    /// Remembers that a command was done.
    pub(crate) fn note(&mut self, done: Done) {
        if self.done.len() >= REMEMBERED_MAX {
            self.done.remove(0);
        }
        self.done.push(done);
    }

    /// What the sidecar has not been told yet.
    pub(crate) fn unreported(&self) -> Vec<Done> {
        self.done.iter().filter(|done| done.id > self.reported).cloned().collect()
    }

    /// The sidecar has answered a poll that told of everything up to `id`.
    pub(crate) fn was_told(&mut self, id: u64, now: Nanos) {
        self.reported = self.reported.max(id);
        self.answered = now;
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, entries) = bytes.split_at_checked(HEAD)?;
        let (version, numbers) = head.split_first()?;
        if *version != VERSION || entries.len() % ENTRY != 0 {
            return None;
        }
        let number = |at: usize| {
            let eight = numbers.get(at * 8..at * 8 + 8)?;
            eight.try_into().ok().map(u64::from_le_bytes)
        };
        let done = entries.chunks_exact(ENTRY).map(entry).collect::<Option<Vec<Done>>>()?;
        Some(Self {
            holder: number(0)?,
            expires: Nanos(number(1)?),
            answered: Nanos(number(2)?),
            reported: number(3)?,
            done,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.done.len() * ENTRY);
        out.push(VERSION);
        for number in [self.holder, self.expires.0, self.answered.0, self.reported] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for done in &self.done {
            out.extend_from_slice(&done.id.to_le_bytes());
            out.push(match done.outcome {
                DoneOutcome::Applied => 0,
                DoneOutcome::Unknown => 1,
                DoneOutcome::Failed => 2,
            });
        }
        out
    }
}

fn entry(bytes: &[u8]) -> Option<Done> {
    let (outcome, id) = bytes.split_last()?;
    let outcome = match outcome {
        0 => DoneOutcome::Applied,
        1 => DoneOutcome::Unknown,
        2 => DoneOutcome::Failed,
        _ => return None,
    };
    let id = u64::from_le_bytes(id.try_into().ok()?);
    Some(Done { id, outcome, standings: Vec::new() })
}
