//! Which keys are refused most, in bounded memory: Metwally's space-saving counts.
//!
//! A key that finds no room takes the place of the one that was refused least, and its count, which
//! it may have had itself before it was forgotten. So no key that makes up more than a 256th of all
//! refusals is missing. What is reported is a count without that inheritance: refusals that
//! certainly happened.

use super::NAMES_MAX;
use hashbrown::HashMap;
use policy::sync::{Limited, REPORTED_MAX};

/// The counts, by tag.
#[derive(Default)]
pub(super) struct Counts(HashMap<u64, Count>);

struct Count {
    limit: String,
    /// `None` for one that is too long to be told.
    key: Option<String>,
    /// At least the true count.
    count: u64,
    /// At most so much of it was somebody else's.
    error: u64,
}

/// What a refusal has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The key had room.
    Nothing,
    /// Another one had to go for it, or it is one that cannot be told.
    Something,
}

impl Counts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a refusal.
    pub(super) fn count(
        &mut self,
        limit: &str,
        tag: u64,
        key: &dyn Fn() -> Option<String>,
    ) -> Lost {
        if let Some(known) = self.0.get_mut(&tag) {
            known.count = known.count.saturating_add(1);
            return Lost::Nothing;
        }
        let mut error = 0;
        let mut lost = Lost::Nothing;
        if self.0.len() >= REPORTED_MAX {
            let least = self.0.iter().min_by_key(|(tag, known)| (known.count, **tag));
            let least = least.map(|(tag, _)| *tag);
            error = least.and_then(|tag| self.0.remove(&tag)).map_or(0, |gone| gone.count);
            lost = Lost::Something;
        }
        let key = key().filter(|key| limit.len() + key.len() <= NAMES_MAX);
        if key.is_none() {
            lost = Lost::Something;
        }
        let count = error.saturating_add(1);
        self.0.insert(tag, Count { limit: limit.to_owned(), key, count, error });
        lost
    }

    /// Takes out what can be told, the most refused keys first, as long as it fits.
    pub(super) fn take(&mut self, mut fits: impl FnMut(&Limited) -> bool) -> Vec<Limited> {
        let mut tags: Vec<(u64, u64)> =
            self.0.iter().map(|(tag, known)| (known.count - known.error, *tag)).collect();
        tags.sort_unstable_by(|one, other| other.cmp(one));
        let mut taken = Vec::new();
        for (count, tag) in tags {
            let Some(Count { limit, key, .. }) = self.0.get_mut(&tag) else { continue };
            if let Some(key) = key {
                let limited = Limited { limit: limit.clone(), key: key.clone(), count };
                if !fits(&limited) {
                    break;
                }
                taken.push(limited);
            }
            self.0.remove(&tag);
        }
        taken
    }
}
