//! The breaker stage: the kernel's record in shared data, one for each service.
//!
//! When shared data cannot be had the request passes: a breaker protects the upstream, and a
//! gateway that cannot count must not become the outage itself.

use crate::event::{CallKind, Event, Events};
use crate::fingerprint;
use crate::kernel::breaker::{Admission, Breaker, CallResult, PROBES_MAX, Permit, State};
use crate::model::Breaker as Settings;
use crate::store::{Store, StoreError};
use crate::table::{Keep, Place, Reader, Record, amend};
use crate::time::Nanos;
use alloc::vec::Vec;

/// Sets of the breaker table: 512 sets of 8 hold 1,000 services with room to spare.
pub(crate) const SETS: u32 = 512;

/// One breaker table for each process.
struct At<'a> {
    service: &'a str,
    place: Place,
}

impl<'a> At<'a> {
    fn new(service: &'a str, seed: [u64; 2]) -> Self {
        let table = fingerprint::of(seed, "table of all", "breaker");
        let tag = fingerprint::of(seed, "breaker", service);
        Self { service, place: Place { table, sets: SETS, shape: 0, tag } }
    }
}

impl Record for Breaker {
    const KIND: u8 = b'b';
    const SIZE: usize = 6 * 4 + 2 * 8 + PROBES_MAX * 8;

    fn encode(&self, out: &mut Vec<u8>) {
        let state: u32 = match self.state {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        };
        // Five numbers of four bytes, one spare to keep the times aligned.
        for number in [state, self.generation, self.failures, self.successes, self.reopenings, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [self.since, self.until].into_iter().chain(self.leases) {
            out.extend_from_slice(&time.0.to_le_bytes());
        }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut read = Reader(body);
        let state = match read.u32()? {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            _ => return None,
        };
        let mut breaker = Self {
            state,
            generation: read.u32()?,
            failures: read.u32()?,
            successes: read.u32()?,
            reopenings: read.u32()?,
            ..Self::default()
        };
        read.u32()?;
        breaker.since = Nanos(read.u64()?);
        breaker.until = Nanos(read.u64()?);
        for lease in &mut breaker.leases {
            *lease = Nanos(read.u64()?);
        }
        Some(breaker)
    }

    fn weight(&self, _now: Nanos) -> u64 {
        // Losing an open breaker forgives an outage; losing a quiet one forgives nothing.
        match self.state {
            State::Closed => u64::from(self.failures),
            State::HalfOpen => u64::MAX - 1,
            State::Open => u64::MAX,
        }
    }

    fn who(&self) -> [u32; 2] {
        // A service's, and nobody's.
        [0; 2]
    }
}

/// Asks the service's breaker to let one call pass.
///
/// # Errors
/// How long to wait for the next probe, when the breaker refuses.
pub fn admit(
    settings: &Settings,
    service: &str,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Nanos,
) -> Result<Option<Permit>, Nanos> {
    let at = At::new(service, seed);
    let asked = change(&at, store, events, now, |breaker| breaker.admit(settings, now));
    match asked {
        Ok(Admission::Pass(permit)) => Ok(Some(permit)),
        Ok(Admission::Refuse(wait)) => {
            events.on(Event::BreakerCall { service, kind: CallKind::NotPermitted });
            Err(wait)
        }
        Err(StoreError::Unavailable | StoreError::Contended) => {
            events.on(Event::StoreFailed);
            Ok(None)
        }
    }
}

/// How a finished call is settled.
#[derive(Clone, Copy, Debug)]
pub struct Settlement<'a> {
    /// The service whose breaker is told.
    pub service: &'a str,
    /// The permit; `None` for a call that reached a service other than the one it was judged for,
    /// which counts only while that service's breaker is closed.
    pub permit: Option<Permit>,
    /// How it ended.
    pub result: CallResult,
}

/// Tells a breaker how a call ended.
pub fn settle(
    settings: &Settings,
    settlement: &Settlement<'_>,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Nanos,
) {
    let at = At::new(settlement.service, seed);
    let told = change(&at, store, events, now, |breaker| {
        let generation = breaker.generation;
        let permit = settlement.permit.unwrap_or(Permit { generation, probe: None });
        (breaker.record(settings, permit, settlement.result, now), ())
    });
    if told.is_err() {
        events.on(Event::StoreFailed);
    }
}

/// Closes a breaker by an operator's order; `false` when it was never seen.
///
/// # Errors
/// When shared data cannot be had.
pub fn reset(
    service: &str,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Nanos,
) -> Result<Known, StoreError> {
    let at = At::new(service, seed);
    let mut from = None;
    let known = amend::<Breaker, _>(store, events, &at.place, now, |old| {
        from = old.map(|breaker| breaker.state);
        match old {
            None => Keep::Same(Known::No),
            Some(breaker) => Keep::Put(breaker.reset(now), Known::Yes),
        }
    })?;
    if let Some(from) = from.filter(|state| *state != State::Closed) {
        events.on(Event::BreakerTransition { service, from: Some(from), to: State::Closed });
    }
    Ok(known)
}

/// Whether a service has a breaker record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has.
    Yes,
    /// It was never called, or has no breaker.
    No,
}

/// Applies a step of the kernel. Writes only what changed; a first sight is written too, so that
/// operators see the service. One event for each change of state, by the writer that won.
fn change<T>(
    at: &At<'_>,
    store: &mut dyn Store,
    events: &mut dyn Events,
    now: Nanos,
    step: impl Fn(Breaker) -> (Breaker, T),
) -> Result<T, StoreError> {
    let mut states = (None, State::Closed);
    let outcome = amend::<Breaker, _>(store, events, &at.place, now, |old| {
        let (new, outcome) = step(old.unwrap_or_default());
        states = (old.map(|breaker| breaker.state), new.state);
        if old == Some(new) { Keep::Same(outcome) } else { Keep::Put(new, outcome) }
    })?;
    let (from, to) = states;
    if from != Some(to) {
        events.on(Event::BreakerTransition { service: at.service, from, to });
    }
    Ok(outcome)
}
