//! What the holder does with the state that it fetched.

#[cfg(test)]
mod tests;

use super::answer::{self, Trouble};
use super::lease::Lease;
use super::{State, Sync, Turn};
use crate::host::{Host, Level};
use crate::log;
use crate::replica::handover::{Handover, Progress, Refusal, Written, spoil};
use crate::store::SharedData;
use policy::event::{Event, Events};
use policy::replica::batch::End;
use policy::replica::{Seeded, State as Copied};
use policy::sync::Position;

impl<H: Host> Sync<H> {
    /// Takes a batch that was asked for from `asked` on.
    pub(super) fn on_batch(&self, state: &mut State, size: usize, asked: &Position, turn: Turn) {
        let body = match answer::batch(&self.host, size) {
            Ok(body) => body,
            Err(trouble) => return self.untaken(state, trouble),
        };
        if self.answered(0, turn).is_none() {
            return state.lose();
        }
        let seeded = self.view.look().state.is_some_and(|copy| copy.seeded == Seeded::Yes);
        match Handover::begin(&self.host, body, asked) {
            Ok(handover) => {
                if handover.renounced() {
                    self.view.changed();
                    if seeded {
                        let why = "revocations and API keys that only the last store had are gone";
                        let fields = [("why", why.into())];
                        log::line(&self.host, Level::Error, "sidecar has another store", &fields);
                    }
                }
                state.handover = Some(handover);
                self.hand_over(state, turn);
            }
            Err(refusal) => self.refused(state, refusal),
        }
    }

    /// Stores one slice of the batch; the lease was held a moment ago.
    pub(super) fn hand_over(&self, state: &mut State, turn: Turn) {
        let Some(mut handover) = state.handover.take() else { return };
        let progress = handover.go_on(&self.host);
        let Some(lease) = self.still(turn) else {
            // Whoever holds it now may have written the same buckets before us. When this cannot be
            // said either, shared data is gone and with it whatever could be wrong.
            if spoil(&self.host).is_ok() {
                self.view.changed();
            }
            return state.lose();
        };
        match progress {
            Ok(Progress::More) => state.handover = Some(handover),
            Ok(Progress::Stored) => match handover.announce(&self.host) {
                Ok((copied, end, written)) => {
                    state.untaken = None;
                    if written == Written::Something {
                        self.tell(&copied, handover.before());
                    }
                    match (end, written) {
                        (End::More, _) => self.fetch(state, turn),
                        (End::Complete, Written::Something) => self.poll(state, &lease, turn),
                        // A sidecar that has nothing new said that it had. When two answers crossed,
                        // that is over at once; when not, the next tick asks again.
                        (End::Complete, Written::Nothing) => {
                            if !std::mem::replace(&mut state.vain, true) {
                                self.poll(state, &lease, turn);
                            }
                        }
                    }
                }
                Err(refusal) => {
                    // Somebody else has told of newer buckets, which ours may just have overwritten:
                    // everything is asked for again.
                    if matches!(refusal, Refusal::Overtaken) {
                        let _gone_with_the_store = spoil(&self.host);
                    }
                    self.refused(state, refusal);
                }
            },
            Err(refusal) => self.refused(state, refusal),
        }
    }

    /// The lease, if it is still ours after a slice, however long that took.
    fn still(&self, turn: Turn) -> Option<Lease> {
        let now = self.host.moment().map_or(turn.now.monotonic, |now| now.monotonic);
        Lease::change(&mut SharedData(self.host.clone()), turn.me, now, |_| {}).ok().flatten()
    }

    /// Tells the other VMs and whoever watches.
    fn tell(&self, copied: &Copied, before: Seeded) {
        self.view.changed();
        self.metrics.state_number(copied.number);
        if (copied.seeded, before) == (Seeded::Yes, Seeded::NotYet) {
            let fields = [("number", copied.number.into())];
            log::line(&self.host, Level::Info, "the sidecar's state is here", &fields);
        }
    }

    fn refused(&self, state: &mut State, refusal: Refusal) {
        match refusal {
            Refusal::Unreadable(_) => self.untaken(state, Trouble::Unreadable),
            Refusal::OutOfPlace => self.untaken(state, Trouble::OutOfPlace),
            // The next poll tells the sidecar what is here now, and so must the gauge: whoever wrote
            // it may have died before.
            Refusal::Overtaken => self.view.changed(),
            Refusal::Store(_) => self.metrics.clone().on(Event::StoreFailed),
        }
    }
}
