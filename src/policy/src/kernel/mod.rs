//! The kernels: small pure state machines over numbers. Each knows nothing of requests or stores.

use crate::time::Nanos;

pub mod adaptive;
pub mod breaker;
pub mod key_set;
pub mod leak;
pub mod load;
pub mod penalty;
pub mod token_bucket;
pub mod window;

#[cfg(test)]
mod testing;

/// So much later than its own clock a worker may find another's record written: it reads the clock, is
/// held up (a machine with more threads than processors stops one for tens of milliseconds), and the
/// other one writes first. What is farther ahead has another cause.
pub(crate) const LATE: Nanos = Nanos::SECOND;

/// How a limit stands after a judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whole tokens left, rounded down: half a token admits nobody.
    pub remaining: u32,
    /// Until all tokens are back, rounded up.
    pub reset: Nanos,
}

/// What a limit's kernel says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement<S> {
    /// The tokens were there.
    Admitted {
        /// To be stored.
        state: S,
        /// After the taking.
        standing: Standing,
    },
    /// They were not; the request changes nothing.
    Refused {
        /// To be stored in place of what was there, which lies beyond all that these numbers allow:
        /// they have changed since, or the clock was ahead. Without it every look would begin the
        /// same wait anew.
        mended: Option<S>,
        /// Unchanged by the request.
        standing: Standing,
        /// After exactly this wait the same request is admitted if nobody else comes; `None` when it
        /// never can be.
        retry: Option<Nanos>,
    },
}
