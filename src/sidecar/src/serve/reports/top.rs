//! The most refused keys of a limit, in bounded memory: the space-saving algorithm over counts that
//! fade, so that they stand for about the last quarter of an hour.

use std::collections::HashMap;
use std::time::Duration;

/// Keys of one limit that are counted at once.
pub(super) const TOP_MAX: usize = 100;
/// Counts fade by a factor of e in this time: a steady stream counts as what came within it.
const SPAN: Duration = Duration::from_secs(15 * 60);
/// A count below this is forgotten.
const LEAST: f64 = 0.5;

/// Counters of one limit.
#[derive(Debug, Default)]
pub(super) struct Top {
    counters: HashMap<String, Counter>,
    /// When the counts were right.
    at: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    count: f64,
    /// By how much it may be too high: what was counted for the key that had its place before.
    over: f64,
}

/// A key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::serve) struct Refused {
    /// The key as text.
    pub(in crate::serve) key: String,
    /// How often it was refused, rounded.
    pub(in crate::serve) count: u64,
    /// By how much that may be too high.
    pub(in crate::serve) over: u64,
}

impl Top {
    /// Counts refusals of a key. `now` is since any fixed moment.
    pub(super) fn add(&mut self, key: &str, count: u64, now: Duration) {
        self.fade(now);
        let count = count as f64;
        if let Some(counter) = self.counters.get_mut(key) {
            counter.count += count;
            return;
        }
        let mut counter = Counter { count, over: 0.0 };
        if self.counters.len() >= TOP_MAX
            && let Some((least, place)) = self.least()
        {
            counter = Counter { count: place.count + count, over: place.count };
            self.counters.remove(&least);
        }
        self.counters.insert(key.to_owned(), counter);
    }

    /// The keys, the most refused first.
    pub(super) fn list(&mut self, now: Duration) -> Vec<Refused> {
        self.fade(now);
        let mut all: Vec<(&String, &Counter)> = self.counters.iter().collect();
        all.sort_by(|(key, one), (other, two)| {
            two.count.total_cmp(&one.count).then_with(|| key.cmp(other))
        });
        all.into_iter()
            .map(|(key, counter)| Refused {
                key: key.clone(),
                count: counter.count.round() as u64,
                over: counter.over.round() as u64,
            })
            .collect()
    }

    /// What all keys together were refused.
    pub(super) fn weight(&mut self, now: Duration) -> f64 {
        self.fade(now);
        self.counters.values().map(|counter| counter.count).sum()
    }

    fn least(&self) -> Option<(String, Counter)> {
        let least =
            self.counters.iter().min_by(|(_, one), (_, two)| one.count.total_cmp(&two.count))?;
        Some((least.0.clone(), *least.1))
    }

    fn fade(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        if passed.is_zero() {
            return;
        }
        self.at = now;
        let left = (-passed.as_secs_f64() / SPAN.as_secs_f64()).exp();
        self.counters.retain(|_, counter| {
            counter.count *= left;
            counter.over *= left;
            counter.count >= LEAST
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_steady_stream_counts_as_a_quarter_of_an_hour_of_it() {
        let mut top = Top::default();
        for second in 0..10_000 {
            top.add("steady", 2, at(second));
        }
        let count = top.list(at(10_000))[0].count;
        assert!((1790..=1810).contains(&count), "{count}");
        assert_eq!(top.list(at(10_000) + 10 * SPAN), []);
    }

    #[test]
    fn memory_is_bounded_and_the_most_refused_are_found_among_many() {
        let mut top = Top::default();
        let heavy = |index: u64| format!("heavy-{index}");
        for round in 0..200 {
            for index in 0..10 {
                top.add(&heavy(index), 20 + index, at(1));
            }
            for index in 0..200 {
                top.add(&format!("light-{round}-{index}"), 1, at(1));
            }
            assert!(top.counters.len() <= TOP_MAX);
        }
        let list = top.list(at(1));
        for (place, index) in (0..10).rev().enumerate() {
            assert_eq!(list[place].key, heavy(index));
            // Never too low, and by no more too high than it says.
            let exact = 200 * (20 + index);
            assert!((exact..=exact + list[place].over).contains(&list[place].count));
        }
        assert_eq!(list.len(), TOP_MAX);
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_loses_nothing() {
        let mut top = Top::default();
        top.add("a", 5, at(100));
        top.add("a", 5, at(50));
        assert_eq!(top.list(at(100))[0], Refused { key: "a".into(), count: 10, over: 0 });
    }
}
