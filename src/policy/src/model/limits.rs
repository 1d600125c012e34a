//! `rate_limits`: what is counted, by what, and what becomes of those who do not listen.

use crate::pattern::PathPattern;
use crate::sync::LimitInForce;
use crate::table::WAYS;
use crate::time::Nanos;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// One rate limit.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Unique name.
    pub name: String,
    /// What requests it counts.
    pub matches: Match,
    /// What it counts them by; empty means all together.
    pub key: Vec<KeyPart>,
    /// How it counts.
    pub algorithm: LimitAlgorithm,
    /// Tokens that one request takes, at least 1 and never more than there can be.
    pub cost: u32,
    /// Enforce or shadow.
    pub mode: LimitMode,
    /// What to do when shared state cannot be had.
    pub on_unavailable: Unavailable,
    /// Sets of the limit's table in shared data; 1 for a limit with an empty key.
    pub table_sets: u32,
    /// What becomes of those who keep exceeding it; `None` leaves it at refusals.
    pub penalty: Option<Penalty>,
}

impl Limit {
    /// Whether the limit can be judged before anybody is authenticated.
    #[must_use]
    pub fn is_early(&self) -> bool {
        let identity = |part: &KeyPart| {
            matches!(part, KeyPart::User | KeyPart::ApiKey | KeyPart::Claim(_) | KeyPart::Tier)
        };
        !self.key.iter().any(identity) && self.matches.tiers.is_empty()
    }

    /// How many keys the limit's table has room for; 1 where all are counted together.
    #[must_use]
    pub fn keys_max(&self) -> u32 {
        if self.key.is_empty() { 1 } else { self.table_sets.saturating_mul(WAYS as u32) }
    }

    /// The limit as administrators see it.
    #[must_use]
    pub fn in_force(&self) -> LimitInForce {
        let (burst, queue) = match self.algorithm {
            LimitAlgorithm::TokenBucket(bucket) => (Some(bucket.burst), None),
            LimitAlgorithm::SlidingWindow(_) => (None, None),
            LimitAlgorithm::LeakyBucket(leak) => (None, Some(leak.queue)),
            LimitAlgorithm::Adaptive(adaptive) => (Some(adaptive.bucket.burst), None),
        };
        LimitInForce {
            name: self.name.clone(),
            algorithm: self.algorithm.name().to_string(),
            key: self.key.iter().map(ToString::to_string).collect(),
            requests: self.algorithm.requests(),
            per_ms: self.algorithm.per().as_millis(),
            burst,
            queue,
            cost: self.cost,
            mode: self.mode.name().to_string(),
            penalty: self.penalty.is_some(),
            keys_max: self.keys_max(),
        }
    }
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAlgorithm {
    /// `token_bucket`: a burst at once, then the rate.
    TokenBucket(Bucket),
    /// `sliding_window`: so many in any window.
    SlidingWindow(Window),
    /// `leaky_bucket`: at even distances; what comes faster waits its turn.
    LeakyBucket(Leak),
    /// `adaptive`: a token bucket whose rate follows the load.
    Adaptive(Adaptive),
}

impl LimitAlgorithm {
    /// The word in the policy.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TokenBucket(_) => "token_bucket",
            Self::SlidingWindow(_) => "sliding_window",
            Self::LeakyBucket(_) => "leaky_bucket",
            Self::Adaptive(_) => "adaptive",
        }
    }

    /// `requests`.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        match self {
            Self::TokenBucket(bucket) => bucket.requests,
            Self::SlidingWindow(window) => window.requests,
            Self::LeakyBucket(leak) => leak.requests,
            Self::Adaptive(adaptive) => adaptive.bucket.requests,
        }
    }

    /// `per`.
    #[must_use]
    pub const fn per(&self) -> Nanos {
        match self {
            Self::TokenBucket(bucket) => bucket.per,
            Self::SlidingWindow(window) => window.per,
            Self::LeakyBucket(leak) => leak.per,
            Self::Adaptive(adaptive) => adaptive.bucket.per,
        }
    }

    /// The most that `remaining` can be: the burst, the window's quota, the places of the queue and
    /// the one beside it.
    #[must_use]
    pub const fn size(&self) -> u32 {
        match self {
            Self::TokenBucket(bucket) => bucket.burst,
            Self::SlidingWindow(window) => window.requests,
            Self::LeakyBucket(leak) => leak.queue.saturating_add(1),
            Self::Adaptive(adaptive) => adaptive.bucket.burst,
        }
    }
}

/// The numbers of a token bucket: `requests` tokens come back every `per`, at most `burst` are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens per `per`, at least 1.
    pub requests: u32,
    /// The span, at least 1 ms.
    pub per: Nanos,
    /// The bucket's size, at least 1.
    pub burst: u32,
}

/// The numbers of a sliding window: in no span of `per`, wherever it begins, are there more than
/// `requests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tokens in a window, at least 1.
    pub requests: u32,
    /// The window, at least 10 ms, so that each of its parts has one.
    pub per: Nanos,
}

/// The numbers of a leaky bucket: a request every `per / requests`, which is at least 1 µs; up to
/// `queue` wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Requests per `per`, at least 1.
    pub requests: u32,
    /// The span, at least 1 ms.
    pub per: Nanos,
    /// How many may wait; 0 refuses whatever comes too soon.
    pub queue: u32,
}

/// A token bucket whose rate is scaled down while the load is above a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// The numbers at full rate.
    pub bucket: Bucket,
    /// From this load on the rate falls, in thousandths, 1 to 999.
    pub threshold: u32,
    /// At full load this much of the rate is left, in thousandths, 1 to 1000.
    pub floor: u32,
}

/// Repeated violations of a limit lead to a ban of whoever the limit's key tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// So many refusals, at least 1,
    pub violations: u32,
    /// within this time of the first of them,
    pub within: Nanos,
    /// ban for this long.
    pub ban: Nanos,
    /// Each further ban is this many times as long, at least 1.
    pub escalate: u32,
    /// The longest ban. For each such span without a ban one escalation is forgotten.
    pub max_ban: Nanos,
}

/// Which requests a limit counts; every list that is empty matches all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Path patterns.
    pub paths: Vec<PathPattern>,
    /// Upper-case methods.
    pub methods: Vec<String>,
    /// Services.
    pub services: Vec<String>,
    /// Tiers.
    pub tiers: Vec<String>,
}

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The service.
    Service,
    /// The endpoint's name.
    Endpoint,
    /// The identity: provider and user name, or the API key.
    User,
    /// The id of the identity's API key.
    ApiKey,
    /// The client's address.
    Ip,
    /// A request header, lower-case name.
    Header(String),
    /// A claim of the token.
    Claim(String),
    /// The identity's tier.
    Tier,
}

/// Whether a limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitMode {
    /// It does.
    Enforce,
    /// It counts and reports only.
    Shadow,
}

impl fmt::Display for KeyPart {
    /// As in the policy, header names in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Endpoint => f.write_str("endpoint"),
            Self::User => f.write_str("user"),
            Self::ApiKey => f.write_str("api_key"),
            Self::Ip => f.write_str("ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::Tier => f.write_str("tier"),
        }
    }
}

impl LimitMode {
    /// The word in the policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// The failure mode of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The request passes.
    Allow,
    /// The request is refused with `state-unavailable`.
    Refuse,
}
