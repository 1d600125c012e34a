//! The order of the stages, written once (contract, section 4).

use crate::event::Events;
use crate::facts::Facts;
use crate::model::Policy;
use crate::reply::{Edits, Header, Reply};
use crate::store::Store;
use crate::time::{Moment, Nanos};
use crate::verify::Verify;

/// What the stages may use beside the facts.
pub struct Means<'a> {
    /// Shared state.
    pub store: &'a mut dyn Store,
    /// Token verification.
    pub verify: &'a mut dyn Verify,
    /// Where events go.
    pub events: &'a mut dyn Events,
    /// The two random keys of this process's fingerprints, created once in shared state.
    pub seed: [u64; 2],
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Step {
    /// Forward it, with these edits, made all at once and last.
    Forward(Edits, Passage),
    /// Answer it. There is no way from here to forwarding.
    Reply(Reply, Passage),
}

/// What a judged request carries until its log entry: limits taken, the breaker's permit, labels.
#[derive(Debug)]
pub struct Passage {}

/// How a request ended, as the host tells it in its log phase.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The status that the client got; 0 when there was none.
    pub status: u16,
    /// Envoy's response flags (bits of `response.flags`).
    pub flags: u64,
    /// Envoy's `response.code_details`.
    pub details: &'a [u8],
    /// The cluster that the request really went to.
    pub service: Option<&'a str>,
    /// From the first request byte to the end.
    pub duration: Nanos,
}

/// Judges one request: every stage once, in the order below.
pub fn judge(policy: &Policy, facts: &Facts<'_>, means: &mut Means<'_>, now: Moment) -> Step {
    let _ = (policy, facts, means, now);
    Step::Forward(Edits::default(), Passage {})
}

impl Passage {
    /// For a stream whose request headers this filter never saw (Envoy answered first).
    #[must_use]
    pub fn unseen() -> Self {
        Self {}
    }

    /// Headers to add to the response. `present` tells whether the response has a header already:
    /// one that the upstream set itself is kept.
    pub fn response_headers(
        &self,
        policy: &Policy,
        present: &mut dyn FnMut(&str) -> bool,
    ) -> alloc::vec::Vec<Header> {
        let _ = (policy, present);
        alloc::vec::Vec::new()
    }

    /// Settles the request: breaker outcome, metrics. Called once, from the log phase.
    pub fn finish(
        self,
        policy: &Policy,
        outcome: &Outcome<'_>,
        store: &mut dyn Store,
        events: &mut dyn Events,
        seed: [u64; 2],
        now: Moment,
    ) {
        let _ = (policy, outcome, store, events, seed, now);
    }
}

/// Closes a service's breaker by an operator's order; `false` when there is no record of it.
///
/// # Errors
/// When shared state cannot be had.
pub fn reset_breaker(
    service: &str,
    store: &mut dyn Store,
    events: &mut dyn Events,
    seed: [u64; 2],
    now: Moment,
) -> Result<ResetOutcome, crate::store::StoreError> {
    let _ = (service, store, events, seed, now);
    Ok(ResetOutcome::Unknown)
}

/// What a reset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetOutcome {
    /// The breaker is closed now.
    Closed,
    /// Nobody has called the service yet, or it has no breaker.
    Unknown,
}
