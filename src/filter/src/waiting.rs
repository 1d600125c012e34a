//! Streams that wait, for keys or for their turn: two bounded lists per plugin in one VM.
//!
//! A stream that waits for keys is woken by the answer to a call of this VM, by a tick that finds the
//! fetch of another VM over, or by its deadline. One that waits for its turn in a leaky bucket is
//! woken by the tick that the timer was set to for it. Whoever wakes a stream judges it again; it may
//! have to wait once more.

#[cfg(test)]
mod tests;

use crate::host::Host;
use crate::request::Stream;
use policy::stage::Pause;
use policy::time::Nanos;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Weak;

/// Most streams of one plugin that wait for keys in one VM. Each holds its request's headers in
/// Envoy; beyond this a token is judged by the keys that are there.
pub(crate) const STREAMS_MAX: usize = 1024;
/// Most streams of one plugin that wait for their turn in one VM, whatever the limits' queues add up
/// to: each holds a connection and its request in Envoy, and one tick may have to let all of them go
/// on. Beyond this whoever would have to wait is refused, and counted as such.
pub(crate) const PAUSED_MAX: usize = 4096;
/// How often one stream waits for keys at most: a fetch that was under way, one more for a key that
/// came after it, and one that was lost.
pub(crate) const ROUNDS_MAX: u32 = 3;
/// How much longer than a fetch may take a stream waits for its end.
pub(crate) const GRACE: Nanos = Nanos::SECOND;
/// How often a plugin looks after streams that wait for keys: their requests wait for that.
pub(crate) const TICK: Nanos = Nanos::from_millis(20);

/// The streams of one plugin that wait.
pub(crate) struct Waiting<H: Host>(RefCell<Lists<H>>);

struct Lists<H: Host> {
    keys: Vec<(Waiter<H>, Awaited)>,
    turns: BTreeMap<Turn, Waiter<H>>,
    /// How many have waited for a turn so far.
    count: u64,
}

/// One of them.
pub(crate) struct Waiter<H: Host> {
    pub(crate) stream: Weak<Stream<H>>,
    /// Its context.
    pub(crate) context: u32,
}

/// Keys that a stream waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    /// Whose they are.
    pub(crate) provider: usize,
    /// When it waits no longer.
    pub(crate) deadline: Nanos,
}

/// When a stream's turn is; of two at one instant the one that came first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    at: Nanos,
    number: u64,
}

impl<H: Host> Default for Waiting<H> {
    fn default() -> Self {
        let lists = Lists { keys: Vec::new(), turns: BTreeMap::new(), count: 0 };
        Self(RefCell::new(lists))
    }
}

impl<H: Host> Waiting<H> {
    /// Whether one more may wait for keys.
    pub(crate) fn has_room(&self) -> bool {
        // A stream that goes leaves the list itself.
        self.0.try_borrow().is_ok_and(|lists| lists.keys.len() < STREAMS_MAX)
    }

    /// Whether one more may wait for its turn.
    pub(crate) fn pause(&self) -> Pause {
        let room = self.0.try_borrow().is_ok_and(|lists| lists.turns.len() < PAUSED_MAX);
        if room { Pause::Room } else { Pause::Full }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.try_borrow().is_ok_and(|lists| lists.keys.is_empty() && lists.turns.is_empty())
    }

    /// When somebody has to be looked after, seen from now; `None` when nobody waits.
    pub(crate) fn next(&self, now: Nanos) -> Option<Nanos> {
        let lists = self.0.try_borrow().ok()?;
        let turn = lists.turns.first_key_value().map(|(turn, _)| turn.at);
        let keys = (!lists.keys.is_empty()).then(|| now + TICK);
        turn.into_iter().chain(keys).min()
    }

    /// Adds one that waits for keys. A list that cannot be had now has no room, so nobody comes here
    /// then.
    pub(crate) fn add(&self, waiter: Waiter<H>, awaited: Awaited) {
        if let Ok(mut lists) = self.0.try_borrow_mut() {
            lists.keys.push((waiter, awaited));
        }
    }

    /// Adds one that waits for its turn. Says where, to take it out again; `None` when there is no
    /// room.
    pub(crate) fn line_up(&self, waiter: Waiter<H>, at: Nanos) -> Option<Turn> {
        let mut lists = self.0.try_borrow_mut().ok()?;
        if lists.turns.len() >= PAUSED_MAX {
            return None;
        }
        let turn = Turn { at, number: lists.count };
        lists.count = lists.count.wrapping_add(1);
        lists.turns.insert(turn, waiter);
        Some(turn)
    }

    /// A stream waits no longer: for its turn, or, without one, for keys.
    pub(crate) fn remove(&self, context: u32, turn: Option<Turn>) {
        let Ok(mut lists) = self.0.try_borrow_mut() else { return };
        match turn {
            Some(turn) => {
                lists.turns.remove(&turn);
            }
            None => lists.keys.retain(|(waiter, _)| waiter.context != context),
        }
    }

    /// Takes out those whose deadline has passed or for whose provider `settled` says so, which is
    /// asked once per provider; those that are gone are dropped.
    pub(crate) fn take(&self, now: Nanos, settled: impl Fn(usize) -> bool) -> Vec<Waiter<H>> {
        let Ok(mut lists) = self.0.try_borrow_mut() else { return Vec::new() };
        let mut answers: Vec<(usize, bool)> = Vec::new();
        let mut ready = Vec::new();
        for (waiter, awaited) in std::mem::take(&mut lists.keys) {
            if waiter.stream.strong_count() == 0 {
                continue;
            }
            let known = answers.iter().find(|(provider, _)| *provider == awaited.provider);
            let is_settled = known.map(|(_, answer)| *answer).unwrap_or_else(|| {
                let answer = settled(awaited.provider);
                answers.push((awaited.provider, answer));
                answer
            });
            if is_settled || awaited.deadline <= now {
                ready.push(waiter);
            } else {
                lists.keys.push((waiter, awaited));
            }
        }
        ready
    }

    /// Takes out those whose turn has come, in the order of their turns. One that is still to come,
    /// be it by a nanosecond, stays: spacing is what they wait for.
    pub(crate) fn take_turns(&self, now: Nanos) -> Vec<Waiter<H>> {
        let Ok(mut lists) = self.0.try_borrow_mut() else { return Vec::new() };
        let mut ready = Vec::new();
        while let Some(first) = lists.turns.first_entry().filter(|first| first.key().at <= now) {
            ready.push(first.remove());
        }
        ready
    }

    /// Takes out all: nobody will come to wake them.
    pub(crate) fn take_all(&self) -> Vec<Waiter<H>> {
        let Ok(mut lists) = self.0.try_borrow_mut() else { return Vec::new() };
        let keys = std::mem::take(&mut lists.keys).into_iter().map(|(waiter, _)| waiter);
        let turns = std::mem::take(&mut lists.turns).into_values();
        turns.chain(keys).collect()
    }
}
