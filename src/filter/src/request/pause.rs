//! The part of a request's life in which it waits: for keys, or for its turn.

use super::{Action, Phase, Stream};
use crate::host::Host;
use crate::store::SharedData;
use crate::tokens::Patience;
use crate::waiting::{Awaited, GRACE, ROUNDS_MAX, Waiter};
use policy::pipeline::{Passage, Suspended};
use policy::time::{Moment, Nanos};
use std::rc::Weak;

/// A request that nobody would wake cannot wait.
struct Unlisted;

impl<H: Host> Stream<H> {
    /// Whether this request may wait for keys (again).
    pub(super) fn patience(&self, now: Nanos) -> Patience {
        let (rounds, deadline) = self.waited.get();
        if rounds > 0 && (rounds >= ROUNDS_MAX || deadline <= now) {
            return Patience::None;
        }
        self.plugin.patience()
    }

    /// Holds the request until its turn, or until there is news of its keys.
    pub(super) fn wait(&self, suspended: Suspended, now: Moment) -> Action {
        let Ok(mut place) = self.suspended.try_borrow_mut() else {
            return self.refuse_suspended(Some(suspended));
        };
        let listed = match suspended.until() {
            Some(turn) => self.line_up(turn),
            None => self.await_keys(now.monotonic),
        };
        if listed.is_err() {
            drop(place);
            return self.refuse_suspended(Some(suspended));
        }
        *place = Some(suspended);
        drop(place);
        self.phase.set(Phase::Waiting);
        self.plugin.set_timer(now.monotonic);
        Action::Pause
    }

    fn line_up(&self, at: Nanos) -> Result<(), Unlisted> {
        let turn = self.plugin.waiting.line_up(self.waiter(), at).ok_or(Unlisted)?;
        self.turn.set(Some(turn));
        Ok(())
    }

    fn await_keys(&self, now: Nanos) -> Result<(), Unlisted> {
        let tokens = self.plugin.tokens.as_ref().and_then(|tokens| tokens.try_borrow_mut().ok());
        let awaited = tokens.and_then(|mut tokens| tokens.awaited());
        let (provider, timeout) = awaited.ok_or(Unlisted)?;
        let (rounds, deadline) = match self.waited.get() {
            (0, _) => (1, now + timeout + GRACE),
            (rounds, deadline) => (rounds + 1, deadline),
        };
        self.waited.set((rounds, deadline));
        self.plugin.waiting.add(self.waiter(), Awaited { provider, deadline });
        Ok(())
    }

    fn waiter(&self) -> Waiter<H> {
        Waiter { stream: Weak::clone(&self.me), context: self.context }
    }

    /// Judges a request again that waits, and lets it go on or answers it. The host was told that
    /// this stream is meant, and it is in no list any more.
    pub(crate) fn go_on(&self) {
        if self.phase.get() != Phase::Waiting {
            return;
        }
        self.turn.set(None);
        let suspended = self.suspended.try_borrow_mut().ok().and_then(|mut place| place.take());
        self.phase.set(Phase::Judged);
        let action = match suspended {
            Some(suspended) => self.judge(Some(suspended)),
            None => self.refuse_blindly(),
        };
        if action == Action::Continue && self.plugin.host.continue_request().is_err() {
            self.refuse_blindly();
        }
    }

    /// Answers a request that waits because nobody will come to wake it.
    pub(crate) fn give_up(&self) {
        if self.phase.get() == Phase::Waiting {
            self.stop_waiting();
            self.phase.set(Phase::Judged);
            self.refuse_blindly();
        }
    }

    /// It waits no longer, whatever becomes of it.
    pub(super) fn stop_waiting(&self) {
        let suspended = self.suspended.try_borrow_mut().ok().and_then(|mut place| place.take());
        if let Some(suspended) = suspended {
            self.plugin.waiting.remove(self.context, self.turn.take());
            self.keep(self.abandoned(suspended));
        }
    }

    pub(super) fn refuse_suspended(&self, suspended: Option<Suspended>) -> Action {
        if let Some(suspended) = suspended {
            self.keep(self.abandoned(suspended));
        }
        self.refuse_blindly()
    }

    /// Gives the place in the queue back, where nobody has lined up behind it.
    fn abandoned(&self, suspended: Suspended) -> Passage {
        let plugin = &self.plugin;
        let host = &plugin.host;
        let mut store = SharedData(host.clone());
        let mut events = plugin.metrics.clone();
        let now = host.moment().ok().or(self.began.get()).unwrap_or_default();
        suspended.abandon(&plugin.policy.policy(), &mut store, &mut events, now)
    }
}
