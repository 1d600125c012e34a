//! The sidecar's end of the long poll: which commands wait for the filter, and who waits for them.
//!
//! Commands are sent in the order of their numbers, again and again until the filter says that they
//! are done. State is not sent here: a poll is answered when the filter lacks some, and the filter's
//! next position is the receipt. Nothing here speaks HTTP.

#[cfg(test)]
mod tests;

use policy::sync::{
    Action, COMMANDS_MAX, Command, Done, DoneOutcome, PolicyInForce, Poll, Position, Wants,
};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

/// Commands that may wait for a filter: all breakers of a large gateway, twice.
pub(crate) const QUEUE_MAX: usize = 1024;
/// How long an answer may be without its acknowledgement before it is sent again. The filter
/// acknowledges with its next poll, at once; this keeps one that does not from spinning.
const RESEND_AFTER: Duration = Duration::from_millis(250);
/// A superseded poll is held at least this long, so that two pollers cannot drive each other round.
const SUPERSEDED_AFTER: Duration = Duration::from_millis(50);
/// A filter that has not polled for this long is not connected: it polls again within milliseconds.
const CONNECTED_FOR: Duration = Duration::from_secs(2);
/// How often a command is tried that the filter could not do for want of shared state.
const ATTEMPTS_MAX: u32 = 3;

/// The queue and what is known of the filter.
#[derive(Debug)]
pub(crate) struct Channel {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    pending: VecDeque<Pending>,
    newest: u64,
    held: u32,
    contact: Option<Instant>,
    filter: Option<Filter>,
    /// What the filter needs, and what it has, by its last poll.
    wants: Wants,
    theirs: Position,
    /// What there is to have.
    ours: Position,
    told: Option<Told>,
    stopping: bool,
    counts: Counts,
}

/// An answer that said that there is more state.
#[derive(Debug)]
struct Told {
    instance: String,
    theirs: Position,
    ours: Position,
    at: Instant,
}

/// What became of commands since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In force.
    pub(crate) applied: u64,
    /// For services without a breaker record.
    pub(crate) unknown: u64,
    /// Given up for want of shared state.
    pub(crate) failed: u64,
}

/// The filter as its last poll showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Another one after a restart of Envoy.
    pub(crate) instance: String,
    /// The policy in force.
    pub(crate) policy: PolicyInForce,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    action: Action,
    sent: Option<Sent>,
    attempts: u32,
    waiter: Option<oneshot::Sender<DoneOutcome>>,
}

#[derive(Debug)]
struct Sent {
    instance: String,
    at: Instant,
}

/// A command that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its first number.
    pub(crate) id: u64,
    /// Tells when it is done; closed without a word when the sidecar stops.
    pub(crate) done: oneshot::Receiver<DoneOutcome>,
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

impl State {
    /// Rises across restarts of the sidecar too, because it follows the clock: the filter does no
    /// number a second time, whoever sent it.
    fn next_id(&mut self) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(clock.as_micros()).unwrap_or(0);
        self.last_id = clock.max(self.last_id.saturating_add(1));
        self.last_id
    }

    /// When commands are to be sent; `None` when there are none.
    fn commands_due(&self, instance: &str, now: Instant) -> Option<Instant> {
        let window = self.pending.iter().take(COMMANDS_MAX);
        // A command that was sent to this very Envoy a moment ago may just be on its way back.
        window
            .map(|pending| match &pending.sent {
                Some(sent) if sent.instance == instance => sent.at + RESEND_AFTER,
                _ => now,
            })
            .min()
    }

    /// When the filter is to hear that there is state that it lacks; `None` when it lacks none.
    fn news_due(&self, poll: &Poll, now: Instant) -> Option<Instant> {
        if poll.state == self.ours {
            return None;
        }
        // It has just heard of that, and still lacks it: whatever keeps it from fetching, asking
        // again at once would not help.
        match &self.told {
            Some(told)
                if told.instance == poll.instance
                    && told.theirs == poll.state
                    && told.ours == self.ours =>
            {
                Some(told.at + RESEND_AFTER)
            }
            _ => Some(now),
        }
    }

    fn acknowledge(&mut self, done: &Done) {
        let Some(index) = self.pending.iter().position(|pending| pending.id == done.id) else {
            return;
        };
        let Some(mut pending) = self.pending.remove(index) else { return };
        if done.outcome == DoneOutcome::Failed && pending.attempts < ATTEMPTS_MAX {
            pending.id = self.next_id();
            pending.attempts = pending.attempts.saturating_add(1);
            pending.sent = None;
            self.pending.push_back(pending);
            return;
        }
        let Action::ResetBreaker { service } = &pending.action;
        let count = match done.outcome {
            DoneOutcome::Applied => &mut self.counts.applied,
            DoneOutcome::Unknown => &mut self.counts.unknown,
            DoneOutcome::Failed => &mut self.counts.failed,
        };
        *count = count.saturating_add(1);
        match done.outcome {
            DoneOutcome::Applied => info!(command = done.id, %service, "command applied"),
            DoneOutcome::Unknown => info!(command = done.id, %service, "command had no breaker"),
            DoneOutcome::Failed => warn!(command = done.id, %service, "command given up"),
        }
        if let Some(waiter) = pending.waiter.take() {
            // Whoever asked may have gone; the outcome is in force and counted all the same.
            let _gone = waiter.send(done.outcome.clone());
        }
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
