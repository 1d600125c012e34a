//! The load of the machine as the gateway holds it: what the sidecar says, with hysteresis.
//!
//! It rises at once, because a machine in trouble cannot wait. It falls late and slowly, so that
//! limits which follow it do not swing: a relief that the limits themselves have brought must not let
//! everything back in at once.

use crate::time::Nanos;

/// A full load, in thousandths.
const FULL: u32 = 1_000;
/// A sample this little below changes nothing. Twice the noise of a load measured over a second.
const BAND: u32 = 50;
/// Thousandths per second that the load may fall: ten seconds from full to none.
const FALL: u64 = 100;
/// One thousandth less takes so long.
const STEP: Nanos = Nanos(Nanos::SECOND.0 / FALL);
/// A load older than this is none: whoever told it is gone. Five polls of the sidecar.
const FRESH: Nanos = Nanos::from_secs(5);
/// The format of the record. Another version reads as absent.
const VERSION: u8 = 1;
/// Bytes of the record: version, load, time.
pub const SIZE: usize = 1 + 4 + 8;

/// The load as it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Thousandths, at most 1000.
    pub permille: u32,
    /// When it was heard, on the monotonic clock; while it falls up to 10 ms earlier.
    pub at: Nanos,
}

/// Takes a sample (thousandths; more than 1000 is full) into what is held.
#[must_use]
pub fn hear(old: Option<Held>, sample: u32, now: Nanos) -> Held {
    let sample = sample.min(FULL);
    let Some(old) = old.filter(|old| old.is_fresh(now)) else {
        return Held { permille: sample, at: now };
    };
    if sample >= old.permille {
        return Held { permille: sample, at: now };
    }
    if old.permille - sample <= BAND {
        return Held { at: now, ..old };
    }
    let steps = (now - old.at).0 / STEP.0;
    let fallen = old.permille.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
    if fallen <= sample {
        return Held { permille: sample, at: now };
    }
    // The rest of a step counts for the next sample, however often samples come.
    Held { permille: fallen, at: (old.at + STEP.times(steps)).min(now) }
}

impl Held {
    /// The load in force; 0 when it is too old, or from a clock that was ahead.
    #[must_use]
    pub fn load(&self, now: Nanos) -> u32 {
        if self.is_fresh(now) { self.permille.min(FULL) } else { 0 }
    }

    fn is_fresh(&self, now: Nanos) -> bool {
        now - self.at <= FRESH && self.at - now <= FRESH
    }

    /// The record in shared data.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut bytes = [VERSION; SIZE];
        let rest = self.permille.to_le_bytes().into_iter().chain(self.at.0.to_le_bytes());
        bytes.iter_mut().skip(1).zip(rest).for_each(|(at, byte)| *at = byte);
        bytes
    }

    /// Reads a record; `None` when it is of another version, or makes no sense.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (permille, at) = rest.split_first_chunk::<4>()?;
        let permille = u32::from_le_bytes(*permille);
        let at = u64::from_le_bytes(at.try_into().ok()?);
        (*version == VERSION && permille <= FULL).then_some(Self { permille, at: Nanos(at) })
    }
}

#[cfg(test)]
mod tests;
