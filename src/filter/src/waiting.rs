//! Streams that wait for keys: a bounded list per plugin, each with a deadline.
//!
//! A stream is woken by the answer to a call of this VM, by a tick that finds the fetch of another
//! VM over, or by its deadline. Whoever wakes it judges it again; it may have to wait once more.

use crate::host::Host;
use crate::request::Stream;
use policy::time::Nanos;
use std::cell::RefCell;
use std::rc::Weak;

/// Most streams of one plugin that wait in one VM. Each holds its request's headers in Envoy; beyond this a token
/// is judged by the keys that are there.
pub(crate) const STREAMS_MAX: usize = 1024;
/// How often one stream waits at most: a fetch that was under way, one more for a key that came
/// after it, and one that was lost.
pub(crate) const ROUNDS_MAX: u32 = 3;
/// How much longer than a fetch may take a stream waits for its end.
pub(crate) const GRACE: Nanos = Nanos::SECOND;
/// How often a plugin looks after waiting streams: their requests wait for that.
pub(crate) const TICK: Nanos = Nanos::from_millis(20);

/// The streams of one plugin that wait.
pub(crate) struct Waiting<H: Host>(RefCell<Vec<Wait<H>>>);

/// One of them.
pub(crate) struct Wait<H: Host> {
    pub(crate) stream: Weak<Stream<H>>,
    /// Its context.
    pub(crate) context: u32,
    /// The provider whose keys it waits for.
    pub(crate) provider: usize,
    /// When it waits no longer.
    pub(crate) deadline: Nanos,
}

impl<H: Host> Default for Waiting<H> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<H: Host> Waiting<H> {
    /// Whether one more may wait.
    pub(crate) fn has_room(&self) -> bool {
        let Ok(mut all) = self.0.try_borrow_mut() else { return false };
        if all.len() >= STREAMS_MAX {
            all.retain(|wait| wait.stream.strong_count() > 0);
        }
        all.len() < STREAMS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.try_borrow().is_ok_and(|all| all.is_empty())
    }

    /// Adds one. A list that cannot be had now has no room, so nobody comes here then.
    pub(crate) fn add(&self, wait: Wait<H>) {
        if let Ok(mut all) = self.0.try_borrow_mut() {
            all.push(wait);
        }
    }

    /// A stream waits no longer.
    pub(crate) fn remove(&self, context: u32) {
        if let Ok(mut all) = self.0.try_borrow_mut() {
            all.retain(|wait| wait.context != context);
        }
    }

    /// Takes out those whose deadline has passed or for whose provider `settled` says so, which is
    /// asked once per provider; those that are gone are dropped.
    pub(crate) fn take(&self, now: Nanos, settled: impl Fn(usize) -> bool) -> Vec<Wait<H>> {
        let Ok(mut all) = self.0.try_borrow_mut() else { return Vec::new() };
        let mut answers: Vec<(usize, bool)> = Vec::new();
        let mut ready = Vec::new();
        for wait in std::mem::take(&mut *all) {
            if wait.stream.strong_count() == 0 {
                continue;
            }
            let known = answers.iter().find(|(provider, _)| *provider == wait.provider);
            let is_settled = known.map(|(_, answer)| *answer).unwrap_or_else(|| {
                let answer = settled(wait.provider);
                answers.push((wait.provider, answer));
                answer
            });
            if is_settled || wait.deadline <= now { ready.push(wait) } else { all.push(wait) }
        }
        ready
    }
}
