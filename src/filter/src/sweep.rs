//! Forgetting somebody in every limit: a walk through whole tables, in slices that no request
//! notices.
//!
//! It is a command like others, but for its length, so the commands behind it wait for its end.
//! Erasing twice is as good as once: whoever takes the line over begins the sweep anew.

use policy::stage::limit::admin::{Progress, Sweep};
use policy::store::Store;
use policy::sync::{COMMANDS_MAX, Command, DoneOutcome};

/// Looks at sets in one slice: a millisecond on Envoy, where two microseconds pass for each.
const SLICE_LOOKS: usize = 512;
/// Slices in a row that may fail. Shared data that cannot be had for so many ticks is gone.
const FAILURES_MAX: u32 = 3;

/// A sweep and how much of it is one slice.
pub(crate) struct Slices {
    sweep: Sweep,
    sets: usize,
}

impl Slices {
    /// A sweep that looks for so many names in each set.
    pub(crate) fn new(sweep: Sweep, names: usize) -> Self {
        Self { sweep, sets: (SLICE_LOOKS / names.max(1)).max(1) }
    }
}

/// A sweep that is under way.
pub(crate) struct Sweeping {
    /// The number of its command.
    pub(crate) id: u64,
    slices: Slices,
    failures: u32,
    behind: Vec<Command>,
}

impl Sweeping {
    /// The sweep that command `id` asks for, and the commands after it.
    pub(crate) fn new(id: u64, slices: Slices, behind: Vec<Command>) -> Self {
        Self { id, slices, failures: 0, behind }
    }

    /// Does one slice. Gives the outcome when it was the last.
    pub(crate) fn go_on(&mut self, store: &mut dyn Store) -> Option<DoneOutcome> {
        let Slices { sweep, sets } = &mut self.slices;
        match sweep.step(*sets, store) {
            Ok(Progress::More) => {
                self.failures = 0;
                None
            }
            Ok(Progress::Done { .. }) => Some(DoneOutcome::Applied),
            Err(_) => {
                self.failures += 1;
                (self.failures >= FAILURES_MAX).then_some(DoneOutcome::Failed)
            }
        }
    }

    /// Has other commands wait in place of those that waited: the sidecar always sends all that are
    /// not done.
    pub(crate) fn replace(&mut self, commands: Vec<Command>) {
        let others = commands.into_iter().filter(|command| command.id != self.id);
        self.behind = others.take(COMMANDS_MAX).collect();
    }

    /// The commands that waited.
    pub(crate) fn behind(self) -> Vec<Command> {
        self.behind
    }
}
