//! Shared state as the core sees it: small values under fixed keys, read and compare-and-set.
//!
//! In the filter this is Envoy's shared data (`docs/decisions`), in tests a map. The write loop
//! lives here so that every record is written the same way; the closure may run again.

use alloc::vec::Vec;

/// How often a lost compare-and-set is tried again. Measured on Envoy with all requests on one key,
/// 5 % of tries lose; eight in a row do not happen short of a broken host.
pub const ATTEMPTS_MAX: usize = 8;

/// A value and the token that a compare-and-set must present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes; empty means removed, which reads as absent.
    pub bytes: Vec<u8>,
    /// The version of exactly these bytes.
    pub cas: u32,
}

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Written.
    Done,
    /// Somebody else wrote first; nothing was changed.
    Lost,
}

/// Why shared state could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The host refused the call.
    Unavailable,
    /// [`ATTEMPTS_MAX`] writes in a row were lost.
    Contended,
}

/// Shared state. No delete and no listing, because Envoy has neither.
pub trait Store {
    /// Reads a value; `None` when it was never written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the host refuses.
    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, StoreError>;

    /// Writes `value` if the stored version is still `expected`; `None` means "only if absent".
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the host refuses.
    fn swap(&mut self, key: &[u8], value: &[u8], expected: Option<u32>)
    -> Result<Swap, StoreError>;
}

/// What the closure of [`update`] wants done.
pub enum Change<T> {
    /// Nothing is written.
    Keep(T),
    /// The value is replaced.
    Write(Vec<u8>, T),
}

/// Reads, decides, writes; again when somebody else was faster, at most [`ATTEMPTS_MAX`] times.
///
/// `decide` sees `None` for an absent or removed value and may run several times; only the outcome
/// of its last run counts.
///
/// # Errors
/// [`StoreError::Contended`] when every write was lost, [`StoreError::Unavailable`] from the store.
pub fn update<T>(
    store: &mut dyn Store,
    key: &[u8],
    mut decide: impl FnMut(Option<&[u8]>) -> Change<T>,
) -> Result<T, StoreError> {
    edit(store, key, |value| match decide((!value.is_empty()).then_some(value.as_slice())) {
        Change::Keep(outcome) => Edit::Keep(outcome),
        Change::Write(bytes, outcome) => {
            *value = bytes;
            Edit::Write(outcome)
        }
    })
}

/// What the closure of [`edit`] wants done with the bytes that it holds.
pub enum Edit<T> {
    /// Nothing is written, whatever became of the bytes.
    Keep(T),
    /// They are written as they stand now.
    Write(T),
}

/// [`update`] on the bytes themselves: what was read is changed in place and written, without a
/// second copy. An absent value is an empty one.
///
/// # Errors
/// See [`update`].
pub fn edit<T>(
    store: &mut dyn Store,
    key: &[u8],
    mut decide: impl FnMut(&mut Vec<u8>) -> Edit<T>,
) -> Result<T, StoreError> {
    for _ in 0..ATTEMPTS_MAX {
        let (mut bytes, expected) = match store.read(key)? {
            None => (Vec::new(), None),
            Some(found) => (found.bytes, Some(found.cas)),
        };
        match decide(&mut bytes) {
            Edit::Keep(outcome) => return Ok(outcome),
            Edit::Write(outcome) => {
                if store.swap(key, &bytes, expected)? == Swap::Done {
                    return Ok(outcome);
                }
            }
        }
    }
    Err(StoreError::Contended)
}
