//! One VM's view of the sidecar's state in shared data: how far it has come, without reading it for
//! each request.
//!
//! Whoever changes what other VMs remember adds one to a gauge that the whole process shares. A look
//! reads the gauge, which costs a tenth of what a shared value costs, and the record only when the
//! gauge has moved.

pub(crate) mod handover;
#[cfg(test)]
mod tests;

use crate::host::{Host, Status};
use crate::metrics::Metrics;
use policy::replica::{Bans, STATE_KEY, State};
use std::cell::Cell;

/// Where the numbers begin that stand for a gauge that cannot be had: no gauge gets there.
const GAUGELESS: u64 = 1 << 63;

/// The view.
pub(crate) struct View<H: Host> {
    host: H,
    metrics: Metrics<H>,
    gauge: Cell<Option<u32>>,
    last: Cell<Option<Seen>>,
    /// How often the gauge could not be had.
    gaugeless: Cell<u64>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Another number than the last means that shared state may have changed. While the gauge cannot
    /// be had, every look gives another one.
    pub(crate) generation: u64,
    /// How far the copy is; `None` before anything was handed over, and when it cannot be read.
    pub(crate) state: Option<State>,
}

impl Seen {
    /// Whether somebody may be banned by what was handed over.
    pub(crate) fn may_ban(&self) -> bool {
        self.state.is_some_and(|state| state.bans == Bans::Some)
    }
}

impl<H: Host> View<H> {
    /// A view that has seen nothing.
    pub(crate) fn new(host: &H, metrics: &Metrics<H>) -> Self {
        Self {
            host: host.clone(),
            metrics: metrics.clone(),
            gauge: Cell::new(None),
            last: Cell::new(None),
            gaugeless: Cell::new(0),
        }
    }

    /// What is there now. The gauge is read first: a change that comes in between is seen early, and
    /// again by the next look.
    pub(crate) fn look(&self) -> Seen {
        let gauge = self.gauge().and_then(|gauge| self.host.metric(gauge).ok());
        let generation = gauge.unwrap_or_else(|| {
            self.gaugeless.set(self.gaugeless.get().wrapping_add(1));
            GAUGELESS | self.gaugeless.get()
        });
        if let Some(last) = self.last.get().filter(|last| last.generation == generation) {
            return last;
        }
        let (state, readable) = match self.host.shared(STATE_KEY) {
            Ok((bytes, _)) => (State::from_bytes(&bytes), true),
            Err(Status::NotFound) => (None, true),
            Err(_) => (None, false),
        };
        let seen = Seen { generation, state };
        // What could not be read is read again, however long the gauge stands still.
        self.last.set(Some(seen).filter(|_| readable));
        seen
    }

    /// Tells every VM that shared state has changed. Called after the write.
    pub(crate) fn changed(&self) {
        if let Some(gauge) = self.gauge() {
            // Without it the others see no gauge either, and look each time.
            let _untold = self.host.increment_metric(gauge, 1);
        }
    }

    /// The gauge's number, asked for once.
    fn gauge(&self) -> Option<u32> {
        if self.gauge.get().is_none() {
            self.gauge.set(self.metrics.state_generation());
        }
        self.gauge.get()
    }
}
