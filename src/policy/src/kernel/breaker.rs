//! The circuit breaker as a pure state machine.

/// Most probes that may be in flight in half-open.
pub const PROBES_MAX: usize = 8;

/// Where a breaker stands. *Closed* lets traffic flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Traffic flows.
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
