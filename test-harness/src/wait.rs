//! Waiting for a condition with a deadline: the only kind of waiting that tests do.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Between two looks at a condition: short against everything that is waited for, long enough to
/// leave the processors to what is being tested.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value. The condition is looked at once more at the deadline.
///
/// # Errors
/// The condition's own error at once; at the deadline an error that names `what`.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let late = Instant::now() >= end;
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if late {
            bail!("waited {deadline:?} in vain for: {what}");
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// As [`until`].
pub fn until_true(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, deadline, || Ok(condition()?.then_some(())))
}
