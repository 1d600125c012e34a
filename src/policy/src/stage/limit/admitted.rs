//! The proof that limits have admitted a request: what it took, how to give that back, and how it
//! waits without its policy.

use super::lease::Leases;
use super::record::{self, Took};
use super::{Refusal, Subject, Verdict, judge, tell, verdict};
use crate::event::Events;
use crate::kernel::Standing;
use crate::model::{Limit, LimitAlgorithm, LimitMode};
use crate::stage::Means;
use crate::store::Store;
use crate::table::Place;
use crate::time::Nanos;
use alloc::vec::Vec;

/// Something that was taken and can be given back.
#[derive(Clone, Copy, Debug)]
struct Taken<'p> {
    limit: &'p Limit,
    place: Place,
    took: Took,
}

/// How a limit stands, for the client's headers.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'p> {
    /// The limit.
    pub limit: &'p Limit,
    /// Its standing.
    pub standing: Standing,
}

impl<'p> Nearest<'p> {
    /// Of two limits the one nearer to exhaustion: the smaller share of its size left; on a tie
    /// the longer window (as in Kong).
    #[must_use]
    pub fn nearer(self, other: Nearest<'p>) -> Nearest<'p> {
        let share = |of: &Nearest<'_>, by: &Nearest<'_>| {
            u64::from(of.standing.remaining) * u64::from(by.limit.algorithm.size())
        };
        let (own, theirs) = (share(&self, &other), share(&other, &self));
        let longer = other.limit.algorithm.per() > self.limit.algorithm.per();
        if theirs < own || (theirs == own && longer) { other } else { self }
    }
}

/// A turn that a limit has given to a request.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'p> {
    /// The limit.
    pub limit: &'p Limit,
    /// When it is the request's turn; not after now means that it was at once.
    pub at: Nanos,
}

impl<'p> Turn<'p> {
    fn later(self, other: Turn<'p>) -> Turn<'p> {
        if other.at > self.at { other } else { self }
    }
}

/// The proof that every limit of one phase has admitted the request.
#[derive(Debug, Default)]
pub struct Admitted<'p> {
    taken: Vec<Taken<'p>>,
    nearest: Option<Nearest<'p>>,
    turn: Option<Turn<'p>>,
}

impl<'p> Admitted<'p> {
    /// The enforced limit nearest to exhaustion.
    #[must_use]
    pub const fn nearest(&self) -> Option<Nearest<'p>> {
        self.nearest
    }

    /// The latest turn that an enforced limit has given.
    #[must_use]
    pub const fn turn(&self) -> Option<Turn<'p>> {
        self.turn
    }

    /// Both phases together.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.taken.extend(later.taken);
        self.nearest = match (self.nearest, later.nearest) {
            (Some(one), Some(other)) => Some(one.nearer(other)),
            (one, other) => one.or(other),
        };
        self.turn = match (self.turn, later.turn) {
            (Some(one), Some(other)) => Some(one.later(other)),
            (one, other) => one.or(other),
        };
        self
    }

    /// Gives everything back, for a request that was refused further on. Of turns only the last in
    /// a queue is given back: the distance to the others must stay.
    pub fn give_back(self, means: &mut Means<'_>, now: Nanos) {
        let Means { leases, store, events, .. } = means;
        for Taken { limit, place, took } in self.taken {
            record::give_back(limit, &place, took, leases, *store, *events, now);
        }
    }

    /// Gives turns back, for a request that ends while it waits. What else was taken stays taken:
    /// hanging up is not free.
    pub fn leave(self, store: &mut dyn Store, events: &mut dyn Events, now: Nanos) {
        let mut leases = Leases::default();
        for Taken { limit, place, took } in self.taken {
            if matches!(took, Took::Turn(..)) {
                record::give_back(limit, &place, took, &mut leases, store, events, now);
            }
        }
    }

    /// Takes anew the turns whose time is over, because somebody waited for something else meanwhile: all
    /// who did would go on at one instant. Only a refusal is told: the request was counted before.
    ///
    /// # Errors
    /// When a queue is full now, with what else was taken (to be given back).
    pub fn renew(
        mut self,
        subject: &Subject<'_>,
        means: &mut Means<'_>,
        now: Nanos,
    ) -> Result<Self, (Refusal<'p>, Self)> {
        let mut taken = core::mem::take(&mut self.taken).into_iter();
        self.turn = None;
        while let Some(one) = taken.next() {
            let Taken { limit, place, took } = one;
            let is_leaky = matches!(limit.algorithm, LimitAlgorithm::LeakyBucket(_));
            let is_over = matches!(took, Took::Turn(at, _) if at < now);
            if !is_over || !is_leaky || limit.mode == LimitMode::Shadow {
                self.keep(one);
                continue;
            }
            // Where nobody stands behind it, it can be used still.
            let Means { leases, store, events, .. } = means;
            record::give_back(limit, &place, took, leases, *store, *events, now);
            let judged = judge(limit, &place, subject, means, now);
            let (outcome, verdict) = verdict(limit, judged);
            match verdict {
                Verdict::Took(took, standing) => {
                    // How the limit stood then says nothing any more.
                    self.nearest = self.nearest.filter(|near| !core::ptr::eq(near.limit, limit));
                    self.take(limit, place, took, standing);
                }
                Verdict::Passed => {}
                Verdict::Refused(refusal) => {
                    tell(limit, &place, outcome, subject, means);
                    self.taken.extend(taken);
                    return Err((refusal, self));
                }
            }
        }
        Ok(self)
    }

    pub(super) fn take(&mut self, limit: &'p Limit, place: Place, took: Took, standing: Standing) {
        self.keep(Taken { limit, place, took });
        if limit.mode == LimitMode::Enforce {
            let here = Nearest { limit, standing };
            self.nearest = Some(self.nearest.map_or(here, |before| before.nearer(here)));
        }
    }

    fn keep(&mut self, taken: Taken<'p>) {
        self.taken.push(taken);
        let Taken { limit, took, .. } = taken;
        if let Took::Turn(at, _) = took
            && limit.mode == LimitMode::Enforce
        {
            let turn = Turn { limit, at };
            self.turn = Some(self.turn.map_or(turn, |before| before.later(turn)));
        }
    }
}

/// [`Admitted`] without its policy, for a request that waits.
#[derive(Debug, Default)]
pub struct Detached {
    taken: Vec<(usize, Place, Took)>,
    nearest: Option<(usize, Standing)>,
    turn: Option<(usize, Nanos)>,
    at: Nanos,
}

impl<'p> Admitted<'p> {
    /// Lets go of the policy, whose limits these are.
    #[must_use]
    pub fn detach(self, limits: &'p [Limit], now: Nanos) -> Detached {
        let index = |limit: &Limit| limits.iter().position(|one| core::ptr::eq(one, limit));
        let taken = self.taken.iter();
        let taken = taken
            .filter_map(|taken| Some((index(taken.limit)?, taken.place, taken.took)))
            .collect();
        let nearest = self.nearest.and_then(|near| Some((index(near.limit)?, near.standing)));
        let turn = self.turn.and_then(|turn| Some((index(turn.limit)?, turn.at)));
        Detached { taken, nearest, turn, at: now }
    }
}

impl Detached {
    /// The proof again; `limits` are those that it was detached from, in the same order, whatever
    /// has become of their numbers.
    #[must_use]
    pub fn attach(self, limits: &[Limit], now: Nanos) -> Admitted<'_> {
        let waited = now - self.at;
        let taken = self.taken.into_iter();
        let taken = taken
            .filter_map(|(index, place, took)| {
                Some(Taken { limit: limits.get(index)?, place, took })
            })
            .collect();
        let nearest = self.nearest.and_then(|(index, standing)| {
            let standing = Standing { reset: standing.reset - waited, ..standing };
            Some(Nearest { limit: limits.get(index)?, standing })
        });
        let turn = self.turn.and_then(|(index, at)| Some(Turn { limit: limits.get(index)?, at }));
        Admitted { taken, nearest, turn }
    }
}
