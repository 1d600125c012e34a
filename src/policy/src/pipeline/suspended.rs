//! A request that waits in the middle of its judgement.

use super::Passage;
use crate::event::Events;
use crate::model::Policy;
use crate::reason::Reason;
use crate::reply::Edits;
use crate::stage::ban::Somebody;
use crate::stage::limit::Detached;
use crate::store::Store;
use crate::time::{Moment, Nanos};
use alloc::string::String;

/// What a walk writes down on its way.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) edits: Edits,
    pub(super) cookie: Option<String>,
    /// Of one that is to wait for its turn, whose bans must hold then; `None` for nobody.
    pub(super) who: Option<Somebody>,
}

/// A request that waits, the stages before it behind it. Consumed by [`super::resume`], so that it
/// goes on at most once.
#[derive(Debug)]
#[must_use = "the request waits for it"]
pub struct Suspended {
    pub(super) admitted: Detached,
    pub(super) service: String,
    pub(super) held: Held,
}

/// What it waits for.
#[derive(Debug)]
pub(super) enum Held {
    /// Keys, before authentication.
    ForKeys,
    /// Its turn, before the breaker.
    ForTurn(Nanos, Notes),
}

impl Suspended {
    /// When it is to go on, on the monotonic clock; `None` for one that waits for keys.
    #[must_use]
    pub const fn until(&self) -> Option<Nanos> {
        match self.held {
            Held::ForTurn(turn, _) => Some(turn),
            Held::ForKeys => None,
        }
    }

    /// For a request that ends while it waits: the client left, or its time is up. Its turns are
    /// given back where nobody has queued up behind them; what else it took stays taken, as for one
    /// whose token is refused. `policy` is the one that it would be resumed by.
    #[must_use]
    pub fn abandon(
        self,
        policy: &Policy,
        store: &mut dyn Store,
        events: &mut dyn Events,
        now: Moment,
    ) -> Passage {
        let reason = match self.held {
            Held::ForKeys => Reason::KeysUnavailable,
            Held::ForTurn(..) => Reason::RateLimited,
        };
        let at = now.monotonic;
        self.admitted.attach(&policy.rate_limits, at).leave(store, events, at);
        // Nothing let it pass.
        Passage { service: self.service, ..Passage::unseen() }.refused(reason)
    }
}
