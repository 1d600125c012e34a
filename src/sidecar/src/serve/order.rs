//! Commands for the filter: put into the queue with an audit line, and waited for. What becomes of
//! one is audited too, whether or not anybody waits.

use super::App;
use super::channel::{QueueFull, Taken};
use super::hear::{DONE_WITHIN, Heard, hear};
use super::state::Audit;
use policy::sync::{Action, Done, DoneOutcome};
use tokio::time::Instant;
use tracing::info;

/// A command that was put into the queue.
#[derive(Debug)]
pub(super) struct Order {
    taken: Taken,
    connected: bool,
    until: Instant,
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The filter has said it.
    Done(Done),
    /// The number of the command that waits, and why.
    Waits(u64, &'static str),
    /// The queue had no room.
    Full,
    /// The sidecar stops.
    Stopping,
}

/// Puts a command into the queue.
pub(super) fn order(app: &App, action: Action, audit: &Audit) -> Result<Order, QueueFull> {
    let connected = app.channel.status().connected;
    let until = Instant::now() + DONE_WITHIN;
    let taken = app.channel.put(action)?;
    say(audit, taken.id, "ordered");
    Ok(Order { taken, connected, until })
}

/// Waits for the filter where there is one.
pub(super) async fn settle(app: &App, order: Result<Order, QueueFull>, audit: &Audit) -> Outcome {
    let (command, outcome) = match order {
        Err(QueueFull) => (0, Outcome::Full),
        Ok(Order { taken: Taken { id: command, done }, connected, until }) => {
            let done = async { done.await.ok() };
            let outcome = match hear(&app.channel, connected, done, until).await {
                Heard::Done(done) => Outcome::Done(done),
                Heard::Waits(reason) => Outcome::Waits(command, reason),
                Heard::Stopping => Outcome::Stopping,
            };
            (command, outcome)
        }
    };
    let said = match &outcome {
        Outcome::Done(done) => match done.outcome {
            DoneOutcome::Applied => "applied",
            DoneOutcome::Unknown => "nothing there",
            DoneOutcome::Failed => "failed",
        },
        Outcome::Waits(..) => "queued",
        Outcome::Full => "refused: queue full",
        Outcome::Stopping => "unknown: the sidecar stops",
    };
    say(audit, command, said);
    outcome
}

fn say(audit: &Audit, command: u64, outcome: &str) {
    info!(
        audit = true,
        request_id = audit.id.0,
        who = "admin-token",
        what = audit.what,
        which = audit.which,
        command,
        outcome,
        "change ordered"
    );
}
