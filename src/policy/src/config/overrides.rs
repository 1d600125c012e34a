//! A limit with the numbers that an administrator gave it at run time: checked as the policy is,
//! in the same words, and always against the numbers of the policy, never against another override.

use super::Mistake;
use super::kind::Kind;
use super::numbers::{foreign_keys, misfits};
use super::section::Section;
use super::shape::OVERRIDE;
use super::walk::walk;
use crate::model::{Adaptive, Bucket, Leak, Limit, LimitAlgorithm, LimitMode, Window};
use crate::replica::overrides::Override;
use crate::sync::LimitInForce;
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use serde_json::{Map, Value};

impl Limit {
    /// The limit with what an override changes; what it leaves out stays as it is here. A burst that
    /// is the same as `requests` follows `requests`.
    ///
    /// # Errors
    /// Every mistake, as `key: what is wrong; allowed: what is allowed`, with `; ` in between.
    pub fn with(&self, change: &Override) -> Result<Self, String> {
        let now = Settings { algorithm: self.algorithm, cost: self.cost, mode: self.mode };
        let changed = now.with(change).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("; ")
        })?;
        Ok(Self { algorithm: changed.algorithm, mode: changed.mode, ..self.clone() })
    }
}

impl LimitInForce {
    /// The same for a limit of which only this is known.
    ///
    /// # Errors
    /// Every mistake, with the key as its path; one without a path when the limit itself makes no
    /// sense, because the filter is of another version.
    pub fn with(&self, change: &Override) -> Result<Self, Vec<Mistake>> {
        let strange = || {
            let wrong = format!("the filter's limit {:?} cannot be understood", self.name);
            vec![Mistake::new("", wrong, "a filter and a sidecar of one version".to_string())]
        };
        let settings = Settings::of(self).ok_or_else(strange)?.with(change)?;
        let burst = match settings.algorithm {
            LimitAlgorithm::TokenBucket(bucket) => Some(bucket.burst),
            LimitAlgorithm::Adaptive(adaptive) => Some(adaptive.bucket.burst),
            LimitAlgorithm::SlidingWindow(_) | LimitAlgorithm::LeakyBucket(_) => None,
        };
        Ok(Self {
            requests: settings.algorithm.requests(),
            per_ms: settings.algorithm.per().as_millis(),
            burst,
            mode: settings.mode.name().to_string(),
            ..self.clone()
        })
    }
}

/// What can be changed of a limit, and what it must fit.
struct Settings {
    algorithm: LimitAlgorithm,
    cost: u32,
    mode: LimitMode,
}

impl Settings {
    fn of(limit: &LimitInForce) -> Option<Self> {
        let (requests, per) = (limit.requests, Nanos::from_millis(limit.per_ms));
        let bucket = || Some(Bucket { requests, per, burst: limit.burst? });
        let algorithm = match limit.algorithm.as_str() {
            "token_bucket" => LimitAlgorithm::TokenBucket(bucket()?),
            "sliding_window" => LimitAlgorithm::SlidingWindow(Window { requests, per }),
            "leaky_bucket" => {
                LimitAlgorithm::LeakyBucket(Leak { requests, per, queue: limit.queue? })
            }
            // How it follows the load does not touch what it may be changed to.
            "adaptive" => LimitAlgorithm::Adaptive(Adaptive {
                bucket: bucket()?,
                threshold: 999,
                floor: 1000,
            }),
            _ => return None,
        };
        Some(Self { algorithm, cost: limit.cost, mode: mode(&limit.mode)? })
    }

    fn with(&self, change: &Override) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let document = document(change);
        let walked = walk(&document, &Kind::Object(&OVERRIDE), "", &mut mistakes);
        let section = Section::new(&walked, "");
        let algorithm = changed(&self.algorithm, &section, &mut mistakes);
        if mistakes.is_empty() {
            let misfits = misfits(&algorithm, self.cost).into_iter();
            mistakes.extend(misfits.map(|misfit| {
                let key = misfit.keys.first().copied().unwrap_or_default();
                Mistake::new(key, misfit.wrong, misfit.allowed)
            }));
        }
        let mode = section.text("mode").and_then(mode).unwrap_or(self.mode);
        if mistakes.is_empty() {
            Ok(Self { algorithm, cost: self.cost, mode })
        } else {
            Err(mistakes)
        }
    }
}

fn mode(word: &str) -> Option<LimitMode> {
    [LimitMode::Enforce, LimitMode::Shadow].into_iter().find(|mode| mode.name() == word)
}

/// The override as a part of a policy would say it.
fn document(change: &Override) -> Value {
    let mut map = Map::new();
    let per = change.per_ms.map(|per| Value::from(format!("{per}ms")));
    for (key, value) in [
        ("requests", change.requests.map(Value::from)),
        ("per", per),
        ("burst", change.burst.map(Value::from)),
        ("mode", change.mode.as_deref().map(Value::from)),
    ] {
        map.extend(value.map(|value| (key.to_string(), value)));
    }
    Value::Object(map)
}

/// The algorithm with other numbers.
fn changed(
    old: &LimitAlgorithm,
    section: &Section<'_>,
    mistakes: &mut Vec<Mistake>,
) -> LimitAlgorithm {
    let requests = section.integer("requests").unwrap_or(old.requests());
    let per = section.span("per").unwrap_or(old.per());
    let bucket = |old: &Bucket| {
        let kept = if old.burst == old.requests { requests } else { old.burst };
        Bucket { requests, per, burst: section.integer("burst").unwrap_or(kept) }
    };
    let foreign = foreign_keys(old.name()).into_iter().filter(|foreign| section.has(foreign.key));
    mistakes
        .extend(foreign.map(|foreign| Mistake::new(foreign.key, foreign.wrong, foreign.allowed)));
    match old {
        LimitAlgorithm::TokenBucket(old) => LimitAlgorithm::TokenBucket(bucket(old)),
        LimitAlgorithm::SlidingWindow(_) => LimitAlgorithm::SlidingWindow(Window { requests, per }),
        LimitAlgorithm::LeakyBucket(old) => {
            LimitAlgorithm::LeakyBucket(Leak { requests, per, ..*old })
        }
        LimitAlgorithm::Adaptive(old) => {
            LimitAlgorithm::Adaptive(Adaptive { bucket: bucket(&old.bucket), ..*old })
        }
    }
}
