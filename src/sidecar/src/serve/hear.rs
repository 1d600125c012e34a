//! How an administrator's change is answered: done when the filter has it in force, and with what it
//! waits for otherwise.

use super::channel::Channel;
use std::time::Duration;
use tokio::time::Instant;

/// How long an administrator waits for the filter. It answers within milliseconds or is gone.
pub(super) const DONE_WITHIN: Duration = Duration::from_secs(5);

/// What was heard of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<T> {
    /// The filter has done it.
    Done(T),
    /// It will be done later, and why not now.
    Waits(&'static str),
    /// The sidecar stops, and nobody will hear of it.
    Stopping,
}

/// Waits for the filter where there is one. `connected` is whether there was one when the change was
/// handed over; `done` ends with `None` when the sidecar stops.
pub(super) async fn hear<T>(
    channel: &Channel,
    connected: bool,
    done: impl Future<Output = Option<T>>,
    until: Instant,
) -> Heard<T> {
    if !connected && !channel.is_stopping() {
        return Heard::Waits("no filter is connected: applied when one connects");
    }
    match tokio::time::timeout_at(until, done).await {
        Ok(Some(done)) => Heard::Done(done),
        Ok(None) => Heard::Stopping,
        Err(_) => Heard::Waits("the filter has not answered yet: it stays queued"),
    }
}
