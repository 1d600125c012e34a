//! What the channel keeps under its lock: the commands that wait, and when each is due.

use super::Filter;
use policy::sync::{Action, COMMANDS_MAX, Done, DoneOutcome, Poll, Position, Wants};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// How long an answer may be without its acknowledgement before it is sent again. The filter
/// acknowledges with its next poll, at once; this keeps one that does not from spinning.
pub(super) const RESEND_AFTER: Duration = Duration::from_millis(250);
/// How often a command is tried that the filter could not do for want of shared state.
pub(super) const ATTEMPTS_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) last_id: u64,
    pub(super) pending: VecDeque<Pending>,
    pub(super) newest: u64,
    pub(super) held: u32,
    pub(super) contact: Option<Instant>,
    pub(super) filter: Option<Filter>,
    /// What the filter needs, and what it has, by its last poll.
    pub(super) wants: Wants,
    pub(super) theirs: Position,
    /// What there is to have.
    pub(super) ours: Position,
    pub(super) told: Option<Told>,
    pub(super) stopping: bool,
    pub(super) counts: Counts,
}

/// An answer that said that there is more state.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) instance: String,
    pub(super) theirs: Position,
    pub(super) ours: Position,
    pub(super) at: Instant,
}

/// What became of commands since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In force.
    pub(crate) applied: u64,
    /// About things that are not there.
    pub(crate) unknown: u64,
    /// Given up for want of shared state.
    pub(crate) failed: u64,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) action: Action,
    pub(super) sent: Option<Sent>,
    pub(super) attempts: u32,
    pub(super) waiter: Option<oneshot::Sender<Done>>,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) instance: String,
    pub(super) at: Instant,
}

impl State {
    /// Rises across restarts of the sidecar too, because it follows the clock: the filter does no
    /// number a second time, whoever sent it.
    pub(super) fn next_id(&mut self) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(clock.as_micros()).unwrap_or(0);
        self.last_id = clock.max(self.last_id.saturating_add(1));
        self.last_id
    }

    /// When commands are to be sent; `None` when there are none.
    pub(super) fn commands_due(&self, instance: &str, now: Instant) -> Option<Instant> {
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
    pub(super) fn news_due(&self, poll: &Poll, now: Instant) -> Option<Instant> {
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

    pub(super) fn acknowledge(&mut self, done: &Done) {
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
        let count = match done.outcome {
            DoneOutcome::Applied => &mut self.counts.applied,
            DoneOutcome::Unknown => &mut self.counts.unknown,
            DoneOutcome::Failed => &mut self.counts.failed,
        };
        *count = count.saturating_add(1);
        say(&pending.action, done);
        if let Some(waiter) = pending.waiter.take() {
            // Whoever asked may have gone; the outcome is in force and counted all the same.
            let _gone = waiter.send(done.clone());
        }
    }

    /// Forgets reads that nobody waits for any more: what they find is of use to nobody.
    pub(super) fn forget_idle_reads(&mut self) {
        self.pending.retain(|pending| {
            let waits = pending.waiter.as_ref().is_some_and(|waiter| !waiter.is_closed());
            waits || !matches!(pending.action, Action::ReadKey { .. })
        });
    }
}

/// Writes what became of a command; nobody's name is in it.
fn say(action: &Action, done: &Done) {
    let (what, which) = match action {
        Action::ResetBreaker { service } => ("reset-breaker", service),
        Action::ReadKey { limit, .. } => {
            debug!(command = done.id, %limit, outcome = ?done.outcome, "key read");
            return;
        }
        Action::ResetKey { limit, .. } => ("reset-key", limit),
        Action::ResetIdentity(named) => ("reset-identity", &named.kind),
    };
    match done.outcome {
        DoneOutcome::Applied => info!(command = done.id, what, %which, "command applied"),
        DoneOutcome::Unknown => info!(command = done.id, what, %which, "command found nothing"),
        DoneOutcome::Failed => warn!(command = done.id, what, %which, "command given up"),
    }
}
