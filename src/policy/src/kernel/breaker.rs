//! The circuit breaker as a pure state machine: closed, open, half-open.
//!
//! Semantics of resilience4j, with two differences that its users asked for: a result carries the
//! generation it was admitted under, so a late one is dropped; and a probe's permit is a lease with
//! an expiry, so that a lost outcome (client gone, VM reloaded) can never wedge half-open. A permit
//! must be returned at most once, which its holder sees to by being consumed.

use crate::model::Breaker as Settings;
use crate::time::Nanos;

/// Most probes that may be in flight in half-open: their leases are part of the record, and eight
/// are more than a struggling service should see.
pub const PROBES_MAX: usize = 8;

/// Where a breaker stands. *Closed* lets traffic flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Traffic flows.
    #[default]
    Closed,
    /// Traffic is refused.
    Open,
    /// A few probes flow.
    HalfOpen,
}

impl State {
    /// All states, for metrics.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A breaker as it is kept. The default is a closed one that has seen nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Where it stands.
    pub state: State,
    /// Raised by every change of state; results of earlier generations are dropped.
    pub generation: u32,
    /// Consecutive failures while closed.
    pub failures: u32,
    /// Successes while half-open.
    pub successes: u32,
    /// How often it opened since it was last closed, less one: the exponent of the back-off.
    pub reopenings: u32,
    /// Monotonic time of the last change of state.
    pub since: Nanos,
    /// While open: when the next probe may pass.
    pub until: Nanos,
    /// While half-open: when each probe's lease ends; zero is free.
    pub leases: [Nanos; PROBES_MAX],
}

/// What an admitted call must present with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The breaker's generation at admission.
    pub generation: u32,
    /// The lease, when the call is a probe.
    pub probe: Option<Probe>,
}

/// A lease on one place in half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its place.
    pub slot: usize,
    /// When it ends; also its identity, so that an old holder cannot return a newer lease.
    pub expires: Nanos,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may pass.
    Pass(Permit),
    /// It may not; the next probe passes after this time at the latest.
    Refuse(Nanos),
}

/// How an admitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// Well.
    Success,
    /// Badly.
    Failure,
    /// Neither; the permit is given back and nothing is counted.
    Ignored,
}

impl Breaker {
    /// Asks to let one call pass. An open breaker whose time has come turns half-open here, at the
    /// first call at or after the deadline.
    #[must_use]
    pub fn admit(mut self, settings: &Settings, now: Nanos) -> (Self, Admission) {
        if self.state == State::Open {
            // A policy that came into force since may ask for a shorter time than it was opened for.
            let until = self.until.min(self.since + settings.max_timeout);
            let wait = (until - now).min(settings.max_timeout);
            if wait > Nanos::ZERO {
                return (self, Admission::Refuse(wait));
            }
            self = self.change(State::HalfOpen, now);
        }
        if self.state == State::Closed {
            return (self, Admission::Pass(Permit { generation: self.generation, probe: None }));
        }
        self.probe(settings, now)
    }

    fn probe(mut self, settings: &Settings, now: Nanos) -> (Self, Admission) {
        let places = usize::try_from(settings.half_open_calls).unwrap_or(PROBES_MAX).max(1);
        let mut earliest = settings.timeout;
        for (slot, lease) in self.leases.iter_mut().take(places).enumerate() {
            if *lease <= now {
                // A lease lasts as long as the breaker stays open: a lost probe delays the next
                // one by `timeout`, never longer. At least a nanosecond, so that zero stays free.
                *lease = now + settings.timeout.max(Nanos(1));
                let probe = Some(Probe { slot, expires: *lease });
                let permit = Permit { generation: self.generation, probe };
                return (self, Admission::Pass(permit));
            }
            earliest = earliest.min(*lease - now);
        }
        (self, Admission::Refuse(earliest))
    }

    /// Takes a call's result. A result from an earlier generation changes nothing. That of a probe
    /// whose lease has ended still counts, or a service that answers more slowly than `timeout`
    /// would be neither closed nor opened again; only its place may be somebody else's by now.
    #[must_use]
    pub fn record(
        mut self,
        settings: &Settings,
        permit: Permit,
        result: CallResult,
        now: Nanos,
    ) -> Self {
        if permit.generation != self.generation {
            return self;
        }
        match self.state {
            State::Closed => self.record_closed(settings, result, now),
            State::HalfOpen => {
                let Some(probe) = permit.probe else { return self };
                let lease = self.leases.get_mut(probe.slot);
                if let Some(lease) = lease.filter(|lease| **lease == probe.expires) {
                    *lease = Nanos::ZERO;
                }
                self.record_probe(settings, result, now)
            }
            State::Open => self,
        }
    }

    fn record_closed(mut self, settings: &Settings, result: CallResult, now: Nanos) -> Self {
        match result {
            CallResult::Ignored => self,
            CallResult::Success => {
                self.failures = 0;
                self
            }
            CallResult::Failure => {
                self.failures = self.failures.saturating_add(1);
                let trips = self.failures >= settings.failure_threshold;
                if trips { self.open(settings, 0, now) } else { self }
            }
        }
    }

    fn record_probe(mut self, settings: &Settings, result: CallResult, now: Nanos) -> Self {
        match result {
            CallResult::Ignored => self,
            CallResult::Failure => {
                let reopenings = self.reopenings.saturating_add(1);
                self.open(settings, reopenings, now)
            }
            CallResult::Success => {
                self.successes = self.successes.saturating_add(1);
                let healthy = self.successes >= settings.success_threshold;
                if healthy { self.reset(now) } else { self }
            }
        }
    }

    /// Closes the breaker and forgets its failures, whatever its state: the last of a recovery's
    /// successes, or an operator's order. Results of calls in flight are dropped.
    #[must_use]
    pub fn reset(self, now: Nanos) -> Self {
        let closed = self.change(State::Closed, now);
        Self { reopenings: 0, ..closed }
    }

    fn open(self, settings: &Settings, reopenings: u32, now: Nanos) -> Self {
        let factor = u64::from(settings.backoff).saturating_pow(reopenings);
        let wait = settings.timeout.times(factor).min(settings.max_timeout.max(settings.timeout));
        let open = self.change(State::Open, now);
        Self { reopenings, until: now + wait, ..open }
    }

    /// Every change of state passes here: a new generation with nothing counted.
    fn change(self, state: State, now: Nanos) -> Self {
        Self {
            state,
            generation: self.generation.wrapping_add(1),
            failures: 0,
            successes: 0,
            reopenings: self.reopenings,
            since: now,
            until: Nanos::ZERO,
            leases: [Nanos::ZERO; PROBES_MAX],
        }
    }
}

#[cfg(test)]
mod tests;
