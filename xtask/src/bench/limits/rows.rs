//! The rows of the suite: who limits, how often, and by which keys.

use serde_json::{Value, json};

/// The request header that every limit of the suite counts by.
pub(super) const KEY_HEADER: &str = "x-bench-key";
/// So many keys that requests of one moment have different ones, and few enough that no table
/// throws one out.
pub(super) const MANY: u32 = 1024;
/// How many limits a request meets.
pub(super) const COUNTS: [u32; 3] = [1, 3, 6];

/// Tokens of a bucket that nothing empties in a run, though it fills slower than leases need.
const DEEP: u32 = 100_000_000;
/// Below the rate from which workers lease tokens.
const SLOW: u32 = 500;
/// Above it, and above what this machine can ask for.
const FAST: u32 = 1_000_000;

/// By which keys the requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// Each request by another one of many: nobody contends.
    Many,
    /// All by one, each request in shared data: all workers contend.
    One,
    /// All by one, of which workers lease tokens.
    Leased,
}

impl Keys {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Many, Self::One, Self::Leased];

    /// As the table calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Many => "many keys",
            Self::One => "one key",
            Self::Leased => "one key, leased",
        }
    }

    /// As raw numbers call it.
    const fn slug(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::One => "one",
            Self::Leased => "leased",
        }
    }

    /// A limit that refuses nothing.
    pub(super) fn limit(self, number: u32) -> Value {
        let (requests, burst) = match self {
            Self::Many | Self::One => (SLOW, DEEP),
            Self::Leased => (FAST, FAST),
        };
        limit(&format!("limit-{number}"), requests, burst)
    }
}

/// A token bucket per key.
pub(super) fn limit(name: &str, requests: u32, burst: u32) -> Value {
    json!({
        "name": name,
        "key": [format!("header:{KEY_HEADER}")],
        "algorithm": "token_bucket",
        "requests": requests,
        "per": "1s",
        "burst": burst,
    })
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The router alone.
    Router,
    /// `local_ratelimit` with a bucket per key and one for all.
    Native(Keys),
    /// Our filter with the policy `{version: 1}`: the fixed cost of being asked.
    Empty,
    /// Our filter with so many limits and nothing else.
    Limits {
        /// How many.
        count: u32,
        /// By which keys.
        keys: Keys,
    },
}

impl Row {
    /// All of them, in the order of the table.
    pub(super) fn all() -> Vec<Self> {
        let limits = Keys::ALL
            .into_iter()
            .flat_map(|keys| COUNTS.into_iter().map(move |count| Self::Limits { count, keys }));
        [Self::Router, Self::Native(Keys::Many), Self::Native(Keys::One), Self::Empty]
            .into_iter()
            .chain(limits)
            .collect()
    }

    /// The keys that it is loaded with.
    pub(super) const fn keys(self) -> Keys {
        match self {
            Self::Router | Self::Empty => Keys::Many,
            Self::Native(keys) | Self::Limits { keys, .. } => keys,
        }
    }

    /// Whether anything is limited.
    pub(super) const fn is_limited(self) -> bool {
        matches!(self, Self::Native(_) | Self::Limits { .. })
    }

    /// As the table calls it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Router => "router alone".to_owned(),
            Self::Native(keys) => format!("`local_ratelimit`, {}", keys.name()),
            Self::Empty => "gateway, empty policy".to_owned(),
            Self::Limits { count: 1, keys } => format!("gateway, 1 limit, {}", keys.name()),
            Self::Limits { count, keys } => format!("gateway, {count} limits, {}", keys.name()),
        }
    }

    /// As folders and raw numbers call it.
    pub(super) fn slug(self) -> String {
        match self {
            Self::Router => "router".to_owned(),
            Self::Native(keys) => format!("native-{}", keys.slug()),
            Self::Empty => "empty".to_owned(),
            Self::Limits { count, keys } => format!("gateway-{count}-{}", keys.slug()),
        }
    }
}
