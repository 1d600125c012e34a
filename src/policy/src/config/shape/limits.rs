//! The shape of `rate_limits`.

use super::{COUNT, DAY, LINES, METHODS, MILLI, PATHS, SERVICES, YEAR, field, object, words};
use crate::config::kind::Absent::{As, Is, Nothing, Required};
use crate::config::kind::{Kind, Object};
use crate::config::text::Format;
use crate::time::Nanos;

/// Most parts of a limit's key: all are hashed on every request.
const KEY_PARTS_MAX: usize = 8;
/// Largest bucket and rate: far above what one gateway serves, and safe in every algorithm's
/// arithmetic.
const REQUESTS_MAX: u32 = 1_000_000_000;
/// Most keys of one limit; at about 64 bytes each this is the memory that one limit may claim.
const KEYS_MAX: u32 = 1_048_576;
/// Longest queue of a leaky bucket: each place in it is a connection that Envoy holds open.
const QUEUE_MAX: u32 = 100_000;
/// Shortest time that violations are counted for, and shortest ban: `Retry-After` has whole seconds.
const BAN_MIN: Nanos = Nanos::SECOND;
/// Longest ban, as long as the longest span of a limit; who is to stay away for ever belongs on
/// `ip.deny` or is revoked.
const BAN_MAX: Nanos = YEAR;
/// Longest time that violations are counted for: one that lies further back is no pattern.
const WITHIN_MAX: Nanos = DAY;
/// Largest factor between two bans: more than this is the longest ban at once.
const ESCALATE_MAX: u32 = 100;

const TOKENS: Kind = Kind::Integer { min: 1, max: REQUESTS_MAX };
/// The longest span of a limit: yearly quotas are the longest that anybody sells.
const PER: Kind = Kind::Span { min: MILLI, max: YEAR };
const MODE: Kind = words(&["enforce", "shadow"], &[]);
const BAN: Kind = Kind::Span { min: BAN_MIN, max: BAN_MAX };
/// The queue of a leaky bucket.
pub(in crate::config) const QUEUE: Kind = Kind::Integer { min: 0, max: QUEUE_MAX };

/// One limit.
pub(super) static LIMIT: Object = object(&[
    field("name", Kind::Text(Format::Name), Required, "A unique name."),
    field("match", Kind::Object(&MATCH), Is("{}"), "Which requests it counts; without it, all."),
    field(
        "key",
        Kind::List { of: &Kind::Text(Format::KeyPart), min: 0, max: KEY_PARTS_MAX },
        Required,
        "What requests are counted by; [] counts all together. A part that a request lacks is `-`.",
    ),
    field(
        "algorithm",
        words(&["token_bucket", "sliding_window", "leaky_bucket", "adaptive"], &[]),
        Is("\"token_bucket\""),
        "`token_bucket`: a burst at once, then the rate. `sliding_window`: never more than `requests` \
         in any span of `per`, wherever it begins. `leaky_bucket`: one every `per / requests`; what \
         comes faster waits, up to `queue` requests. `adaptive`: a token bucket whose rate falls \
         while the machine is loaded.",
    ),
    field("requests", TOKENS, Required, "Tokens that come back every `per`."),
    field(
        "per",
        PER,
        Required,
        "The span of `requests`; at least 10ms for a `sliding_window`, at least 1µs for each of \
         `requests` for a `leaky_bucket`.",
    ),
    field(
        "burst",
        TOKENS,
        As("The same as `requests`."),
        "The size of the bucket; only for `token_bucket` and `adaptive`.",
    ),
    field(
        "queue",
        QUEUE,
        Nothing,
        "How many requests may wait for their turn, 0 for none; needed by a `leaky_bucket`, and only \
         for it.",
    ),
    field(
        "adaptive",
        Kind::Object(&ADAPTIVE),
        As("The defaults of its keys."),
        "How the rate follows the load; only for `adaptive`.",
    ),
    field(
        "cost",
        TOKENS,
        Is("1"),
        "Tokens that one request takes; at most the bucket, the window's `requests`, or `queue` and \
         one.",
    ),
    field(
        "mode",
        MODE,
        Is("\"enforce\""),
        "`shadow` counts and reports, and never refuses, delays or bans.",
    ),
    field(
        "scope",
        words(&["local"], &["leased", "strict"]),
        Is("\"local\""),
        "`local` counts what this Envoy serves.",
    ),
    field(
        "on_unavailable",
        words(&["allow", "refuse"], &["local"]),
        Is("\"allow\""),
        "What happens when shared state cannot be had.",
    ),
    field(
        "max_keys",
        Kind::Integer { min: 1, max: KEYS_MAX },
        Is("32768"),
        "Room for keys, where `key` is not []. Keys fall into sets by chance, so a table that is \
         nearly full forgets some: always the record whose loss forgives least.",
    ),
    field(
        "penalty",
        Kind::Object(&PENALTY),
        As("Nobody is banned."),
        "Bans whoever keeps being refused by this limit: the identity where `key` has `user` or \
         `api_key`, else the address where it has `ip`.",
    ),
]);

static MATCH: Object = object(&[
    field("paths", PATHS, Is("[]"), "Path patterns; empty means any."),
    field("methods", METHODS, Is("[]"), "Methods in upper case; empty means any."),
    field("services", SERVICES, Is("[]"), "Services; empty means any."),
    field("tiers", LINES, Is("[]"), "Tiers of the identity; empty means any."),
]);

/// What follows the load.
pub(in crate::config) static ADAPTIVE: Object = object(&[
    field(
        "threshold",
        Kind::Fraction { min: 1, max: 999 },
        Is("0.8"),
        "Up to this load, of 1, the rate is the full one; above it falls evenly.",
    ),
    field(
        "floor",
        Kind::Fraction { min: 1, max: 1000 },
        Is("0.1"),
        "The share of the rate that is left at a load of 1.",
    ),
]);

static PENALTY: Object = object(&[
    field("violations", COUNT, Required, "So many refusals lead to a ban,"),
    field(
        "within",
        Kind::Span { min: BAN_MIN, max: WITHIN_MAX },
        Required,
        "when they come within this time of the first of them.",
    ),
    field("ban", BAN, Required, "How long the first ban lasts."),
    field(
        "escalate",
        Kind::Integer { min: 1, max: ESCALATE_MAX },
        Is("2"),
        "Each further ban is so many times as long, up to `max_ban`.",
    ),
    field(
        "max_ban",
        BAN,
        Is("\"1h\""),
        "The longest ban. For each such span without a ban one step of `escalate` is forgotten.",
    ),
]);

/// What may be changed of a limit at run time.
pub(in crate::config) static OVERRIDE: Object = object(&[
    field("requests", TOKENS, Nothing, "As in the policy."),
    field("per", PER, Nothing, "As in the policy."),
    field("burst", TOKENS, Nothing, "As in the policy."),
    field("mode", MODE, Nothing, "As in the policy."),
]);
