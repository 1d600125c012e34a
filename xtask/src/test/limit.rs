//! The time that a step may take. Without it a step that hangs would use up all the time that CI
//! gives to the whole run, and nobody would see which one it was.

use crate::children;
use crate::workspace::seconds;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// A step whose commands were ended has this long to tidy up behind itself: docker-compose takes
/// everything down again.
const TIDY_WITHIN: Duration = Duration::from_secs(120);

/// Watches a step until it is dropped.
#[derive(Debug)]
pub(super) struct Limit {
    /// Closed when the step is over.
    _over: Sender<()>,
}

impl Limit {
    /// At the limit the step's commands are ended, so that it fails. One that does not even end then
    /// ends the whole run.
    pub(super) fn watch(step: &'static str, limit: Duration) -> Self {
        Self::below(std::process::id(), step, limit)
    }

    fn below(pid: u32, step: &'static str, limit: Duration) -> Self {
        let (sender, over) = channel::<()>();
        std::thread::spawn(move || {
            let passed = |span| over.recv_timeout(span) == Err(RecvTimeoutError::Timeout);
            if !passed(limit) {
                return;
            }
            eprintln!("`{step}` has taken {}: ending what it runs", seconds(limit));
            children::kill_group_below(pid);
            if passed(TIDY_WITHIN) {
                eprintln!("`{step}` does not end; everything ends here");
                children::kill_group_below(pid);
                std::process::exit(1);
            }
        });
        Self { _over: sender }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_hangs_is_ended_at_the_limit() {
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", "tail -f /dev/null; exit 7"]).spawn().unwrap();
        let _limit = Limit::below(shell.id(), "a step", Duration::from_secs(1));
        assert_eq!(shell.wait().unwrap().code(), Some(7));
    }
}
