//! How the kernels' states are written into records, and what the loss of one would forgive.

use crate::kernel::adaptive::Levels;
use crate::kernel::leak::Turns;
use crate::kernel::token_bucket::FullAt;
use crate::kernel::window::Counts;
use crate::stage::limit::record::State;
use crate::table::Reader;
use crate::time::Nanos;
use alloc::vec::Vec;

impl State for FullAt {
    const KIND: u8 = b'l';
    const SIZE: usize = 8 + 4;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ns.to_le_bytes());
        out.extend_from_slice(&self.frac.to_le_bytes());
    }

    fn decode(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { ns: read.u64()?, frac: read.u32()? })
    }

    fn weight(&self, now: Nanos) -> u64 {
        // The fuller the bucket, the less its loss forgives; a full one forgives nothing.
        self.ns.saturating_sub(now.0)
    }
}

impl State for Turns {
    const KIND: u8 = b'q';
    const SIZE: usize = FullAt::SIZE;

    fn encode(&self, out: &mut Vec<u8>) {
        self.next.encode(out);
    }

    fn decode(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { next: FullAt::decode(read)? })
    }

    fn weight(&self, now: Nanos) -> u64 {
        self.next.weight(now)
    }
}

/// A state that does not tell by itself until when it says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending<S> {
    pub(super) state: S,
    /// From here on it says no more than none would.
    pub(super) end: Nanos,
}

impl State for Ending<Counts> {
    const KIND: u8 = b'w';
    const SIZE: usize = 8 + 8 + 4 * COUNTS;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.end.0.to_le_bytes());
        out.extend_from_slice(&self.state.epoch.to_le_bytes());
        for count in self.state.counts {
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    fn decode(read: &mut Reader<'_>) -> Option<Self> {
        let end = Nanos(read.u64()?);
        let mut state = Counts { epoch: read.u64()?, ..Counts::default() };
        for count in &mut state.counts {
            *count = read.u32()?;
        }
        Some(Self { state, end })
    }

    fn weight(&self, now: Nanos) -> u64 {
        // All windows of a limit are equally long: who has used most is forgiven most.
        if now < self.end { self.state.total() } else { 0 }
    }
}

/// Sub-windows that a record holds.
const COUNTS: usize = crate::kernel::window::PARTS + 1;

impl State for Ending<Levels> {
    const KIND: u8 = b'a';
    const SIZE: usize = 4 * 8;

    fn encode(&self, out: &mut Vec<u8>) {
        let Levels { at, scaled, full } = self.state;
        for number in [self.end.0, at, scaled, full] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(read: &mut Reader<'_>) -> Option<Self> {
        let end = Nanos(read.u64()?);
        let state = Levels { at: read.u64()?, scaled: read.u64()?, full: read.u64()? };
        Some(Self { state, end })
    }

    fn weight(&self, now: Nanos) -> u64 {
        (self.end - now).0
    }
}
