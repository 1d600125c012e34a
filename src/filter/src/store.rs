//! The core's shared state on Envoy's shared data.
//!
//! Envoy's rules (one counter for all versions, starting at 1): version 0 overwrites blindly and is
//! never used; on a missing key any version creates; so "only if absent" presents the one version
//! that no existing key has in practice.

use crate::host::{Host, Status};
use policy::store::{Store, StoreError, Swap, Versioned};

/// Creates a missing key and loses against an existing one.
const ONLY_IF_ABSENT: u32 = u32::MAX;
/// What Envoy reads as "overwrite whatever is there".
const BLIND: u32 = 0;

/// Shared data as a [`Store`].
#[derive(Clone, Debug)]
pub(crate) struct SharedData<H>(pub(crate) H);

impl<H: Host> Store for SharedData<H> {
    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        match self.0.shared(key) {
            Ok((_, BLIND)) => Err(StoreError::Unavailable),
            Ok((bytes, cas)) => Ok(Some(Versioned { bytes, cas })),
            Err(Status::NotFound) => Ok(None),
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    fn swap(
        &mut self,
        key: &[u8],
        value: &[u8],
        expected: Option<u32>,
    ) -> Result<Swap, StoreError> {
        let cas = match expected {
            None => ONLY_IF_ABSENT,
            Some(BLIND) => return Err(StoreError::Unavailable),
            Some(cas) => cas,
        };
        match self.0.set_shared(key, value, cas) {
            Ok(()) => Ok(Swap::Done),
            Err(Status::CasMismatch) => Ok(Swap::Lost),
            Err(_) => Err(StoreError::Unavailable),
        }
    }
}
