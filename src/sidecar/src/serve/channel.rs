//! The sidecar's end of the long poll: which commands wait for the filter, and who waits for them.
//!
//! Commands are sent in the order of their numbers, again and again until the filter says that they
//! are done. State is not sent here: a poll is answered when the filter lacks some, and the filter's
//! next position is the receipt. Nothing here speaks HTTP.

mod queue;
#[cfg(test)]
mod tests;

use policy::sync::{Action, COMMANDS_MAX, Command, Done, PolicyInForce, Poll, Position, Wants};
pub(crate) use queue::Counts;
use queue::{Pending, Sent, State, Told};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::info;

/// Commands that may wait for a filter: all breakers of a large gateway, twice.
pub(crate) const QUEUE_MAX: usize = 1024;
/// A superseded poll is held at least this long, so that two pollers cannot drive each other round.
const SUPERSEDED_AFTER: Duration = Duration::from_millis(50);
/// A filter that has not polled for this long is not connected: it polls again within milliseconds.
const CONNECTED_FOR: Duration = Duration::from_secs(2);
/// The queue and what is known of the filter.
#[derive(Debug)]
pub(crate) struct Channel {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    started: Instant,
}

/// The filter as its last poll showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Another one after a restart of Envoy.
    pub(crate) instance: String,
    /// The policy in force.
    pub(crate) policy: PolicyInForce,
}

/// A command that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its first number.
    pub(crate) id: u64,
    /// Tells what came of it; closed without a word when the sidecar stops.
    pub(crate) done: oneshot::Receiver<Done>,
}

/// The queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// What is known of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Whether a poll is held, or was a moment ago.
    pub(crate) connected: bool,
    /// Since the last contact, or since the start when there was none.
    pub(crate) age: Duration,
    /// The filter, once it has polled.
    pub(crate) filter: Option<Filter>,
    /// What its policy needs.
    pub(crate) wants: Wants,
    /// Commands that wait.
    pub(crate) pending: usize,
    /// Commands that are done.
    pub(crate) counts: Counts,
}

enum Due {
    Answer(Vec<Command>),
    Wait(Option<Instant>),
}

impl Channel {
    /// An empty queue, and the state that there is.
    pub(crate) fn new(ours: Position) -> Self {
        let state = Mutex::new(State { ours, ..State::default() });
        Self { state, changed: watch::Sender::new(0), started: Instant::now() }
    }

    /// There is more state: held polls are answered at once. `ours` says how far the state has come;
    /// it is asked while nobody else is, so that no answer replaces a later one.
    pub(crate) fn offer(&self, ours: impl FnOnce() -> Position) {
        let mut state = self.lock();
        let ours = ours();
        if state.ours != ours {
            state.ours = ours;
            drop(state);
            self.wake();
        }
    }

    /// Waits until the present filter has the state up to `number`; `None` when the sidecar stops.
    pub(crate) async fn received(&self, number: u64) -> Option<()> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.lock();
                if state.theirs.store == state.ours.store && state.theirs.number >= number {
                    return Some(());
                }
                if state.stopping {
                    return None;
                }
            }
            // The sender lives as long as `self`.
            changed.changed().await.ok()?;
        }
    }

    /// Puts a command into the queue; held polls are answered with it at once.
    ///
    /// # Errors
    /// When [`QUEUE_MAX`] commands wait already.
    pub(crate) fn put(&self, action: Action) -> Result<Taken, QueueFull> {
        let (waiter, done) = oneshot::channel();
        let mut state = self.lock();
        if state.pending.len() >= QUEUE_MAX {
            return Err(QueueFull);
        }
        let id = state.next_id();
        let waiter = (!state.stopping).then_some(waiter);
        state.pending.push_back(Pending { id, action, sent: None, attempts: 1, waiter });
        drop(state);
        self.wake();
        Ok(Taken { id, done })
    }

    /// Takes a poll's acknowledgements, then holds it until there is something to say or `wait` is
    /// over. Dropping the future (a client that is gone) ends the hold.
    pub(crate) async fn poll(&self, poll: Poll, wait: Duration) -> (Vec<Command>, Position) {
        let mut changed = self.changed.subscribe();
        let ticket = self.begin(&poll);
        let held = Held(self);
        self.wake();
        let start = Instant::now();
        let mut deadline = start + wait;
        let commands = loop {
            let now = Instant::now();
            let wake_at = match self.due(ticket, &poll, now) {
                Some(Due::Answer(commands)) => break commands,
                Some(Due::Wait(until)) => until.map_or(deadline, |until| until.min(deadline)),
                None => {
                    deadline = deadline.min((start + SUPERSEDED_AFTER).max(now));
                    deadline
                }
            };
            if now >= deadline || self.lock().stopping {
                break Vec::new();
            }
            // A wait for news with a deadline: the timer only ends it.
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {} // the deadline
            }
        };
        drop(held);
        (commands, self.lock().ours.clone())
    }

    /// Answers held polls and lets go of whoever waits: the sidecar ends.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for pending in &mut state.pending {
            pending.waiter = None;
        }
        drop(state);
        self.wake();
    }

    /// Whether [`Self::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// The connection at this moment.
    pub(crate) fn status(&self) -> Status {
        let now = Instant::now();
        let state = self.lock();
        let age = if state.held > 0 {
            Duration::ZERO
        } else {
            now.saturating_duration_since(state.contact.unwrap_or(self.started))
        };
        Status {
            connected: state.filter.is_some() && age <= CONNECTED_FOR,
            age,
            filter: state.filter.clone(),
            wants: state.wants.clone(),
            pending: state.pending.len(),
            counts: state.counts,
        }
    }

    fn begin(&self, poll: &Poll) -> u64 {
        let mut state = self.lock();
        for done in &poll.done {
            state.acknowledge(done);
        }
        let filter = Filter { instance: poll.instance.clone(), policy: poll.policy.clone() };
        if state.filter.as_ref() != Some(&filter) {
            info!(instance = %filter.instance, policy = %filter.policy.name,
                  hash = %filter.policy.hash, generation = filter.policy.generation,
                  "filter connected, or its policy changed");
            state.filter = Some(filter);
        }
        state.wants.clone_from(&poll.wants);
        state.theirs.clone_from(&poll.state);
        state.contact = Some(Instant::now());
        state.held = state.held.saturating_add(1);
        state.newest = state.newest.wrapping_add(1);
        state.newest
    }

    /// `None` when a newer poll has taken over.
    fn due(&self, ticket: u64, poll: &Poll, now: Instant) -> Option<Due> {
        let mut state = self.lock();
        if state.newest != ticket {
            return None;
        }
        state.forget_idle_reads();
        let (commands, news) = (state.commands_due(&poll.instance, now), state.news_due(poll, now));
        let first = commands.into_iter().chain(news).min();
        if first.is_none_or(|at| at > now) {
            return Some(Due::Wait(first));
        }
        if news.is_some_and(|at| at <= now) {
            let (instance, theirs) = (poll.instance.clone(), poll.state.clone());
            state.told = Some(Told { instance, theirs, ours: state.ours.clone(), at: now });
        }
        if commands.is_none_or(|at| at > now) {
            return Some(Due::Answer(Vec::new()));
        }
        // All from the first on, in order: a number below one that is done would never be done.
        let mut commands = Vec::new();
        for pending in state.pending.iter_mut().take(COMMANDS_MAX) {
            pending.sent = Some(Sent { instance: poll.instance.clone(), at: now });
            commands.push(Command { id: pending.id, action: pending.action.clone() });
        }
        Some(Due::Answer(commands))
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poll in our hands; ends however its future ends.
struct Held<'a>(&'a Channel);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.held = state.held.saturating_sub(1);
        state.contact = Some(Instant::now());
    }
}
