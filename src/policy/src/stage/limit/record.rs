//! Limits' records in shared data: one kind for each algorithm, changed by its kernel.
//!
//! A record begins with whose it is, so that an administrator's sweep finds all records of somebody.

use crate::event::{Event, Events};
use crate::kernel::adaptive::{self, Levels};
use crate::kernel::leak::{self, Queued, Stretch, Turns};
use crate::kernel::token_bucket::{self, FullAt};
use crate::kernel::window::{self, Counts};
use crate::kernel::{Judgement, Standing};
use crate::model::{Adaptive, Bucket, Leak, Limit, LimitAlgorithm, LimitMode, Window};
use crate::stage::Pause;
use crate::stage::limit::lease::{Back, Leases, Plan, numbers};
use crate::stage::limit::state::Ending;
use crate::store::{Store, StoreError};
use crate::table::{Keep, Place, Reader, Record, amend};
use crate::time::Nanos;
use alloc::vec::Vec;

/// What a limit says to a request, whatever its algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judged {
    /// Admitted.
    Admitted { standing: Standing, took: Took },
    /// Refused; nothing was taken.
    Refused { standing: Standing, retry: Option<Nanos> },
    /// Refused because nobody more may wait: there was a place in the queue.
    Full { standing: Standing, retry: Option<Nanos> },
    /// Refused, and without the load it would have been admitted.
    Overloaded { standing: Standing, retry: Option<Nanos> },
}

/// What a request has taken of a limit: what is needed to give it back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Took {
    /// Tokens, at this time.
    Tokens(Nanos),
    /// A turn, and its place in the queue.
    Turn(Nanos, Stretch),
}

/// What a judgement is about.
pub(super) struct Ask<'a> {
    pub(super) limit: &'a Limit,
    pub(super) place: &'a Place,
    pub(super) who: [u32; 2],
    pub(super) load: u32,
    pub(super) pause: Pause,
    pub(super) now: Nanos,
}

/// A judgement by shared data, and for how many more requests tokens were taken.
pub(super) type Answered = Result<(Judged, u32), StoreError>;

impl Ask<'_> {
    /// Asks shared data.
    pub(super) fn judge(
        &self,
        algorithm: &LimitAlgorithm,
        plan: Plan,
        store: &mut dyn Store,
        events: &mut dyn Events,
    ) -> Answered {
        match algorithm {
            LimitAlgorithm::TokenBucket(bucket) => self.tokens(bucket, plan, store, events),
            LimitAlgorithm::SlidingWindow(window) => self.tokens(window, plan, store, events),
            LimitAlgorithm::LeakyBucket(leak) => Ok((self.turn(leak, store, events)?, 0)),
            LimitAlgorithm::Adaptive(settings) => Ok((self.scaled(settings, store, events)?, 0)),
        }
    }

    fn keep<S, T>(&self, state: S, outcome: T) -> Keep<Kept<S>, T> {
        Keep::Put(Kept { who: self.who, state }, outcome)
    }

    fn tokens<K: Tokens>(
        &self,
        kernel: &K,
        plan: Plan,
        store: &mut dyn Store,
        events: &mut dyn Events,
    ) -> Answered {
        let Self { limit, now, .. } = *self;
        amend::<Kept<K::State>, _>(store, events, self.place, now, |old| {
            let mut state = old.map(|kept| kept.state).unwrap_or_default();
            if let Some((left, taken)) = plan.rest {
                let tokens = left.saturating_mul(limit.cost);
                state = kernel.give_back(state, tokens, taken, now);
            }
            match kernel.take(state, limit.cost, now) {
                Judgement::Admitted { state, standing } => {
                    let took = Took::Tokens(now);
                    let extra = plan.extra(standing.remaining, limit.cost);
                    let more = (extra > 0)
                        .then(|| kernel.take(state, extra.saturating_mul(limit.cost), now));
                    let (state, standing, extra) = match more {
                        Some(Judgement::Admitted { state, standing }) => (state, standing, extra),
                        Some(Judgement::Refused { .. }) | None => (state, standing, 0),
                    };
                    self.keep(state, (Judged::Admitted { standing, took }, extra))
                }
                Judgement::Refused { mended, standing, retry } => {
                    let refused = (Judged::Refused { standing, retry }, 0);
                    match mended.or(plan.rest.map(|_| state)) {
                        Some(state) => self.keep(state, refused),
                        None => Keep::Same(refused),
                    }
                }
            }
        })
    }

    fn turn(
        &self,
        leak: &Leak,
        store: &mut dyn Store,
        events: &mut dyn Events,
    ) -> Result<Judged, StoreError> {
        let Self { limit, now, .. } = *self;
        let may_wait = self.pause == Pause::Room || limit.mode == LimitMode::Shadow;
        amend::<Kept<Turns>, _>(store, events, self.place, now, |old| {
            let state = old.map(|kept| kept.state).unwrap_or_default();
            match leak::take(state, leak, limit.cost, now) {
                // Who cannot wait is refused as if the queue were full, and has taken nothing.
                Judgement::Admitted { state: Queued { at, .. }, .. } if at > now && !may_wait => {
                    let standing = standing(leak::take(state, leak, 0, now));
                    Keep::Same(Judged::Full { standing, retry: Some(at - now) })
                }
                Judgement::Admitted { state: Queued { turns, at, place }, standing } => {
                    self.keep(turns, Judged::Admitted { standing, took: Took::Turn(at, place) })
                }
                Judgement::Refused { mended, standing, retry } => {
                    let refused = Judged::Refused { standing, retry };
                    match mended {
                        Some(queued) => self.keep(queued.turns, refused),
                        None => Keep::Same(refused),
                    }
                }
            }
        })
    }

    fn scaled(
        &self,
        settings: &Adaptive,
        store: &mut dyn Store,
        events: &mut dyn Events,
    ) -> Result<Judged, StoreError> {
        let Self { limit, now, .. } = *self;
        amend::<Kept<Ending<Levels>>, _>(store, events, self.place, now, |old| {
            let state = old.map(|kept| kept.state.state).unwrap_or_default();
            let ending = |state, standing: Standing| Ending { state, end: now + standing.reset };
            match adaptive::take(state, settings, limit.cost, self.load, now) {
                adaptive::Judgement::Admitted { state, standing } => {
                    let took = Took::Tokens(now);
                    self.keep(ending(state, standing), Judged::Admitted { standing, took })
                }
                adaptive::Judgement::Refused { mended, standing, retry } => {
                    let refused = Judged::Refused { standing, retry };
                    match mended {
                        Some(state) => self.keep(ending(state, standing), refused),
                        None => Keep::Same(refused),
                    }
                }
                adaptive::Judgement::Overloaded { mended, standing, retry } => {
                    let refused = Judged::Overloaded { standing, retry };
                    match mended {
                        Some(state) => self.keep(ending(state, standing), refused),
                        None => Keep::Same(refused),
                    }
                }
            }
        })
    }
}

/// How a limit stands, whatever it says to the request.
pub(super) fn standing<S>(judgement: Judgement<S>) -> Standing {
    match judgement {
        Judgement::Admitted { standing, .. } | Judgement::Refused { standing, .. } => standing,
    }
}

/// Gives back what one request has taken, for one that was refused further on.
pub(super) fn give_back(
    limit: &Limit,
    place: &Place,
    took: Took,
    leases: &mut Leases,
    store: &mut dyn Store,
    events: &mut dyn Events,
    now: Nanos,
) {
    let (algorithm, _) = numbers(limit);
    let done = match (&algorithm, took) {
        (_, Took::Tokens(taken)) if leases.put_back(place, taken, now) == Back::Held => Ok(()),
        (LimitAlgorithm::TokenBucket(bucket), Took::Tokens(taken)) => {
            leases.relent(place);
            change::<FullAt>(place, store, events, now, |state| {
                bucket.give_back(state, limit.cost, taken, now)
            })
        }
        (LimitAlgorithm::SlidingWindow(window), Took::Tokens(taken)) => {
            leases.relent(place);
            change::<Ending<Counts>>(place, store, events, now, |state| {
                window.give_back(state, limit.cost, taken, now)
            })
        }
        (LimitAlgorithm::Adaptive(settings), Took::Tokens(taken)) => {
            // What has come back by itself meanwhile must not come back twice. Rounded up.
            let rate = u128::from(settings.bucket.requests);
            let earned = u128::from((now - taken).0) * rate;
            let earned = earned.div_ceil(u128::from(settings.bucket.per.0.max(1)));
            let tokens = limit.cost.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            change::<Ending<Levels>>(place, store, events, now, |old| Ending {
                state: adaptive::give_back(old.state, tokens),
                ..old
            })
        }
        (LimitAlgorithm::LeakyBucket(_), Took::Turn(_, stretch)) => {
            change::<Turns>(place, store, events, now, |old| leak::give_back(old, stretch))
        }
        // The limit has become another one since.
        (LimitAlgorithm::LeakyBucket(_), Took::Tokens(_)) | (_, Took::Turn(..)) => Ok(()),
    };
    if done.is_err() {
        events.on(Event::StoreFailed);
    }
}

fn change<S: State>(
    place: &Place,
    store: &mut dyn Store,
    events: &mut dyn Events,
    now: Nanos,
    step: impl Fn(S) -> S,
) -> Result<(), StoreError> {
    amend::<Kept<S>, _>(store, events, place, now, |old| match old {
        // Evicted or reset since: nothing was taken, there is nothing to give back to.
        None => Keep::Same(()),
        Some(kept) => {
            let state = step(kept.state);
            if state == kept.state { Keep::Same(()) } else { Keep::Put(Kept { state, ..kept }, ()) }
        }
    })
}

/// An algorithm whose tokens can be taken in advance.
pub(super) trait Tokens {
    /// What is kept of a key.
    type State: State;

    /// Takes tokens, or says when.
    fn take(&self, old: Self::State, cost: u32, now: Nanos) -> Judgement<Self::State>;

    /// Gives back tokens that were taken at `taken`: never more than would be there now had they
    /// stayed, so that the limit's bound holds for those that were spent.
    fn give_back(&self, old: Self::State, cost: u32, taken: Nanos, now: Nanos) -> Self::State;
}

impl Tokens for Bucket {
    type State = FullAt;

    fn take(&self, old: FullAt, cost: u32, now: Nanos) -> Judgement<FullAt> {
        token_bucket::take(old, self, cost, now)
    }

    fn give_back(&self, old: FullAt, cost: u32, taken: Nanos, now: Nanos) -> FullAt {
        let back = token_bucket::give_back(old, self, cost, now);
        // A bucket that was full without them has earned their place again meanwhile.
        let later = FullAt { ns: back.ns.saturating_add((now - taken).0), ..back };
        if (later.ns, later.frac) < (old.ns, old.frac) { later } else { old }
    }
}

impl Tokens for Window {
    type State = Ending<Counts>;

    fn take(&self, old: Ending<Counts>, cost: u32, now: Nanos) -> Judgement<Ending<Counts>> {
        let ending = |state, standing: Standing| Ending { state, end: now + standing.reset };
        match window::take(old.state, self, cost, now) {
            Judgement::Admitted { state, standing } => {
                Judgement::Admitted { state: ending(state, standing), standing }
            }
            Judgement::Refused { mended, standing, retry } => {
                let mended = mended.map(|state| ending(state, standing));
                Judgement::Refused { mended, standing, retry }
            }
        }
    }

    fn give_back(
        &self,
        old: Ending<Counts>,
        cost: u32,
        taken: Nanos,
        now: Nanos,
    ) -> Ending<Counts> {
        Ending { state: window::give_back(old.state, self, cost, taken, now), ..old }
    }
}

/// What a kernel keeps of one key.
pub(super) trait State: Copy + Default + PartialEq {
    /// Tells the algorithms' records apart.
    const KIND: u8;
    /// Bytes.
    const SIZE: usize;

    /// Appends exactly [`State::SIZE`] bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads them.
    fn decode(read: &mut Reader<'_>) -> Option<Self>;

    /// See [`Record::weight`].
    fn weight(&self, now: Nanos) -> u64;
}

/// A record: whose it is, and how he stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept<S> {
    pub(super) who: [u32; 2],
    pub(super) state: S,
}

impl<S: State> Record for Kept<S> {
    const KIND: u8 = S::KIND;
    const SIZE: usize = 4 + 4 + S::SIZE;

    fn encode(&self, out: &mut Vec<u8>) {
        for print in self.who {
            out.extend_from_slice(&print.to_le_bytes());
        }
        self.state.encode(out);
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut read = Reader(body);
        let who = [read.u32()?, read.u32()?];
        Some(Self { who, state: S::decode(&mut read)? })
    }

    fn weight(&self, now: Nanos) -> u64 {
        self.state.weight(now)
    }

    fn who(&self) -> [u32; 2] {
        self.who
    }
}
