//! Waiting for a condition with a deadline: the only kind of waiting that tests do.

use anyhow::{Result, bail};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at a condition: short against everything that is waited for, long enough to
/// leave the processors to what is being tested.
const LOOK_EVERY: Duration = Duration::from_millis(10);

thread_local! {
    /// What makes the waiting of this thread vain.
    static GIVE_UP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Waits until `condition` gives a value. The condition is looked at once more at the deadline.
///
/// # Errors
/// The condition's own error at once; at the deadline, or once [`unless`] says so, an error that
/// names `what`.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let vain = GIVE_UP.with_borrow(Clone::clone);
    whatever_comes(what, deadline, || {
        let value = condition()?;
        if value.is_none() && vain.as_ref().is_some_and(|asked| asked.load(Ordering::Relaxed)) {
            bail!("asked not to wait any longer for: {what}");
        }
        Ok(value)
    })
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

/// Runs `body` on this thread; once `asked` is true, its waiting gives up. The ends of processes are
/// waited for all the same: whoever gives up still leaves nothing behind.
pub fn unless<T>(asked: &Arc<AtomicBool>, body: impl FnOnce() -> T) -> T {
    let before = GIVE_UP.replace(Some(Arc::clone(asked)));
    let result = body();
    GIVE_UP.set(before);
    result
}

/// As [`until`], whatever [`unless`] says.
pub(crate) fn whatever_comes<T>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_not_to_wait_gives_up_only_there() {
        let long = Duration::from_secs(600);
        let asked = Arc::new(AtomicBool::new(false));
        let error = unless(&asked, || {
            until_true("nothing", long, || {
                asked.store(true, Ordering::Relaxed);
                Ok(false)
            })
        });
        assert_eq!(error.unwrap_err().to_string(), "asked not to wait any longer for: nothing");
        unless(&asked, || until_true("something", long, || Ok(true))).unwrap();
        let mut looks = 0;
        let mut third = || {
            looks += 1;
            Ok((looks == 3).then_some(()))
        };
        unless(&asked, || whatever_comes("the third look", long, &mut third)).unwrap();
        looks = 0;
        until_true("the third look", long, || {
            looks += 1;
            Ok(looks == 3)
        })
        .unwrap();
    }
}
