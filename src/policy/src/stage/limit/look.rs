//! How a key stands, seen without taking anything: for administrators, and for those who are refused
//! and must be told when all limits will let them pass.

use super::lease::{Held, Leasing, numbers};
use super::record::{Kept, Tokens, standing};
use super::state::Ending;
use crate::event::{Event, Events};
use crate::kernel::adaptive::{self, Levels};
use crate::kernel::leak::{self, Turns};
use crate::kernel::token_bucket::FullAt;
use crate::kernel::window::Counts;
use crate::kernel::{Judgement, Standing};
use crate::model::{Limit, LimitAlgorithm};
use crate::stage::Means;
use crate::store::{Store, StoreError};
use crate::table::{self, Place};
use crate::time::Nanos;

/// What a limit would say to a request.
pub(super) enum Look {
    /// That it may pass, or nothing that is known.
    Passes,
    /// That it may not, for so long; `None` for ever.
    Refuses(Option<Nanos>),
}

/// Looks at a limit on behalf of a request that another one has refused. One that refuses too is
/// remembered; one that would pass costs a read of shared data with each such request.
pub(super) fn look(limit: &Limit, place: &Place, means: &mut Means<'_>, now: Nanos) -> Look {
    match means.leases.held(place, now) {
        Held::Refusal(retry) => return Look::Refuses(retry),
        Held::Lease => return Look::Passes,
        Held::Nothing => {}
    }
    // Whoever takes of the limit will count what is wrong with its record.
    let mut deaf = |_: Event<'_>| {};
    let seen = see(limit, place, means.load, means.store, &mut deaf, now);
    let Ok(Seen { standing, retry, .. }) = seen else { return Look::Passes };
    if retry == Some(Nanos::ZERO) {
        return Look::Passes;
    }
    // What is remembered of a leased limit answers requests, and violations must not be.
    if limit.penalty.is_none() || numbers(limit).1 == Leasing::Not {
        means.leases.note(place, standing, retry, now);
    }
    Look::Refuses(retry)
}

/// What is seen of a key.
pub(super) struct Seen {
    /// Whether there is a record.
    pub(super) known: bool,
    pub(super) standing: Standing,
    /// Until a request would be admitted, zero for at once; `None` for never.
    pub(super) retry: Option<Nanos>,
}

/// Looks at a key and leaves everything as it is. The load counts for adaptive limits only.
pub(super) fn see(
    limit: &Limit,
    place: &Place,
    load: u32,
    store: &mut dyn Store,
    events: &mut dyn Events,
    now: Nanos,
) -> Result<Seen, StoreError> {
    let (algorithm, _) = numbers(limit);
    match &algorithm {
        LimitAlgorithm::TokenBucket(bucket) => {
            let found = table::read::<Kept<FullAt>>(store, events, place)?;
            Ok(by_tokens(bucket, found, limit.cost, now))
        }
        LimitAlgorithm::SlidingWindow(window) => {
            let found = table::read::<Kept<Ending<Counts>>>(store, events, place)?;
            Ok(by_tokens(window, found, limit.cost, now))
        }
        LimitAlgorithm::LeakyBucket(settings) => {
            let found = table::read::<Kept<Turns>>(store, events, place)?;
            let state = found.map(|kept| kept.state).unwrap_or_default();
            let look = leak::take(state, settings, 0, now);
            let asked = leak::take(state, settings, limit.cost, now);
            Ok(Seen { known: found.is_some(), standing: standing(look), retry: retry(asked) })
        }
        LimitAlgorithm::Adaptive(settings) => {
            let found = table::read::<Kept<Ending<Levels>>>(store, events, place)?;
            let state = found.map(|kept| kept.state.state).unwrap_or_default();
            let (standing, _) = by_levels(adaptive::take(state, settings, 0, load, now));
            let (_, retry) = by_levels(adaptive::take(state, settings, limit.cost, load, now));
            Ok(Seen { known: found.is_some(), standing, retry })
        }
    }
}

fn by_tokens<K: Tokens>(kernel: &K, found: Option<Kept<K::State>>, cost: u32, now: Nanos) -> Seen {
    let state = found.map(|kept| kept.state).unwrap_or_default();
    let look = kernel.take(state, 0, now);
    let retry = retry(kernel.take(state, cost, now));
    Seen { known: found.is_some(), standing: standing(look), retry }
}

fn retry<S>(judgement: Judgement<S>) -> Option<Nanos> {
    match judgement {
        Judgement::Admitted { .. } => Some(Nanos::ZERO),
        Judgement::Refused { retry, .. } => retry,
    }
}

fn by_levels(judgement: adaptive::Judgement) -> (Standing, Option<Nanos>) {
    match judgement {
        adaptive::Judgement::Admitted { standing, .. } => (standing, Some(Nanos::ZERO)),
        adaptive::Judgement::Refused { standing, retry, .. }
        | adaptive::Judgement::Overloaded { standing, retry, .. } => (standing, retry),
    }
}
