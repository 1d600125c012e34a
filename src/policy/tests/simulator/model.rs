//! The model: what was let through, and the bounds that it must keep. It knows nothing of how limits
//! are kept.

use policy::model::{Bucket, KeyPart, Leak, Limit, LimitAlgorithm, Policy, Window};
use std::collections::BTreeMap;

/// A generator of numbers (SplitMix64); the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Whether something happens that does so `of` times in a thousand.
    pub(crate) fn chance(&mut self, of: u64) -> bool {
        self.below(1_000) < of
    }
}

/// What a client sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) path: &'static str,
    pub(crate) client: u32,
    pub(crate) user: u32,
}

/// The key of a request at a limit; `None` when the limit does not count it.
fn key(limit: &Limit, request: &Request) -> Option<u64> {
    let paths = &limit.matches.paths;
    if !paths.is_empty() && !paths.iter().any(|path| path.matches(request.path.as_bytes())) {
        return None;
    }
    let parts = limit.key.iter().map(|part| match part {
        KeyPart::Ip => u64::from(request.client) << 32,
        KeyPart::User | KeyPart::Header(_) => u64::from(request.user),
        _ => 0,
    });
    Some(parts.sum())
}

/// One key of one limit, by the limit's place in the policy.
type Key = (usize, u64);

/// All that was let through, for one time in which the limits' numbers stay as they are.
#[derive(Default)]
pub(crate) struct Book {
    /// When how many tokens were taken for good.
    taken: BTreeMap<Key, Vec<(u64, u32)>>,
    /// The turns that were used.
    turns: BTreeMap<Key, Vec<u64>>,
}

/// What the bounds may leave out of account, in the simulation and on a real machine.
#[derive(Clone, Copy, Default)]
pub(crate) struct Slack {
    /// How old a worker's reading of the clock was at most when it had decided.
    pub(crate) stale: u64,
    /// The share of the rate that the load left to adaptive limits at most, in thousandths.
    pub(crate) share: u32,
}

impl Book {
    /// Writes down a request that was let through: when it was judged, and its turn.
    pub(crate) fn admit(&mut self, policy: &Policy, request: &Request, judged: u64, turn: u64) {
        for (index, limit) in policy.rate_limits.iter().enumerate() {
            let Some(key) = key(limit, request) else { continue };
            match limit.algorithm {
                LimitAlgorithm::LeakyBucket(_) => {
                    self.turns.entry((index, key)).or_default().push(turn);
                }
                _ => self.taken.entry((index, key)).or_default().push((judged, limit.cost)),
            }
        }
    }

    /// All that one limit has let through.
    pub(crate) fn total(&self, limit: usize) -> u64 {
        let of = |key: &Key| key.0 == limit;
        let taken = self.taken.iter().filter(|(key, _)| of(key)).flat_map(|(_, taken)| taken);
        let turns = self.turns.iter().filter(|(key, _)| of(key)).map(|(_, turns)| turns.len());
        taken.map(|(_, cost)| u64::from(*cost)).sum::<u64>() + turns.sum::<usize>() as u64
    }

    /// Holds everything against the limits' numbers. `lossy` names limits whose tables overflow, and
    /// a key of them that must not be forgiven anything
    /// all the same.
    pub(crate) fn check(
        mut self,
        policy: &Policy,
        slack: Slack,
        lossy: &[(&str, Option<u64>)],
    ) -> Result<(), String> {
        let exempt = |limit: &Limit, key: u64| {
            lossy.iter().any(|(name, kept)| *name == limit.name && *kept != Some(key))
        };
        for ((index, key), taken) in &mut self.taken {
            let limit = &policy.rate_limits[*index];
            if exempt(limit, *key) {
                continue;
            }
            taken.sort_unstable();
            let kept = match &limit.algorithm {
                LimitAlgorithm::TokenBucket(bucket) => regulated(taken, bucket, 1_000, slack),
                LimitAlgorithm::Adaptive(own) => regulated(taken, &own.bucket, slack.share, slack),
                LimitAlgorithm::SlidingWindow(window) => windowed(taken, window, slack),
                LimitAlgorithm::LeakyBucket(_) => Ok(()),
            };
            kept.map_err(|wrong| format!("{}, key {key:x}: {wrong}", limit.name))?;
        }
        for ((index, key), turns) in &mut self.turns {
            let limit = &policy.rate_limits[*index];
            let LimitAlgorithm::LeakyBucket(leak) = &limit.algorithm else { continue };
            if exempt(limit, *key) {
                continue;
            }
            turns.sort_unstable();
            spaced(turns, leak).map_err(|wrong| format!("{}, key {key:x}: {wrong}", limit.name))?;
        }
        Ok(())
    }
}

/// No interval of any length `t` holds more than `burst + rate * t`, which is to say: a level that
/// rises with what is taken and drains at the rate stays within the burst.
fn regulated(
    taken: &[(u64, u32)],
    bucket: &Bucket,
    share: u32,
    slack: Slack,
) -> Result<(), String> {
    // In thousandths of a token's nanoseconds.
    let token = u128::from(bucket.per.0) * 1_000;
    let rate = u128::from(bucket.requests) * u128::from(share);
    let most = u128::from(bucket.burst) * token + rate * u128::from(slack.stale);
    let (mut level, mut last) = (0_u128, 0);
    for (at, cost) in taken {
        level = level.saturating_sub(u128::from(at - last) * rate) + u128::from(*cost) * token;
        last = *at;
        if level > most {
            let beyond = (level - most).div_ceil(token);
            return Err(format!("{beyond} tokens too many at {at} ns"));
        }
    }
    Ok(())
}

/// No span of the window's length holds more than its requests.
fn windowed(taken: &[(u64, u32)], window: &Window, slack: Slack) -> Result<(), String> {
    let length = window.per.0 - 2 * slack.stale;
    let (mut first, mut sum) = (0, 0_u64);
    for (at, cost) in taken {
        sum += u64::from(*cost);
        while at - taken[first].0 >= length {
            sum -= u64::from(taken[first].1);
            first += 1;
        }
        if sum > u64::from(window.requests) {
            return Err(format!("{sum} in the window that ends at {at} ns"));
        }
    }
    Ok(())
}

/// Between two turns lies their distance, each rounded to a nanosecond.
fn spaced(turns: &[u64], leak: &Leak) -> Result<(), String> {
    let distance = leak.per.0 / u64::from(leak.requests);
    for pair in turns.windows(2) {
        if pair[1] - pair[0] + 1 < distance {
            return Err(format!("turns at {} and {} ns", pair[0], pair[1]));
        }
    }
    Ok(())
}
