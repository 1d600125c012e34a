//! Durations and points in time as a policy writes them.

use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};

/// Units of a duration, longest first, in nanoseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// The same as a regular expression.
pub(in crate::config) const SPAN_REGEX: &str = "^[0-9]+(ms|s|m|h|d)$";

/// Reads a duration; one too long for the clock saturates and is then out of every range.
pub(in crate::config) fn parse_span(text: &str) -> Option<Nanos> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if digits.is_empty() {
        return None;
    }
    let count = digits.parse::<u64>().unwrap_or(u64::MAX);
    Some(Nanos(*nanos).times(count))
}

/// Writes a duration in the longest unit that fits it exactly.
pub(in crate::config) fn show_span(span: Nanos) -> String {
    if span == Nanos::ZERO {
        return "0s".to_string();
    }
    let exact = UNITS.iter().find(|(_, nanos)| span.0.is_multiple_of(*nanos));
    exact.map_or_else(
        || format!("{}ns", span.0),
        |(unit, nanos)| format!("{}{unit}", span.0 / nanos),
    )
}

/// A point in time as a regular expression.
pub(super) const TIME_REGEX: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\
                                     ([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";

/// Reads a point in time (RFC 3339), with `T` and `Z` in upper case. No leap second: the clock that
/// it is compared with has none. What lies before 1970 or beyond the clock's end is none either.
pub(in crate::config) fn parse_time(text: &str) -> Option<Nanos> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    let month = part(&mut rest, b'-')?;
    let day = part(&mut rest, b'-')?;
    let hour = part(&mut rest, b'T')?;
    let minute = part(&mut rest, b':')?;
    let second = part(&mut rest, b':')?;
    let fraction = fraction(&mut rest)?;
    let offset = offset(rest)?;
    let legal = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !legal {
        return None;
    }
    let clock = (hour * 60 + minute) * 60 + second - offset * 60;
    let secs = days_before(year, month, day) * 86_400 + clock;
    let secs = u64::try_from(secs).ok()?;
    secs.checked_mul(Nanos::SECOND.0)?.checked_add(fraction).map(Nanos)
}

/// The separator and two digits.
fn part(rest: &mut &[u8], separator: u8) -> Option<i64> {
    let (first, next) = rest.split_first()?;
    *rest = next;
    if *first == separator { digits(rest, 2) } else { None }
}

/// Exactly so many digits.
fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (number, next) = rest.split_at_checked(count)?;
    *rest = next;
    number
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(*byte - b'0')))
}

/// `.` and one to nine digits, if there are any, as nanoseconds.
fn fraction(rest: &mut &[u8]) -> Option<u64> {
    /// More digits than nanoseconds have say nothing.
    const DIGITS_MAX: usize = 9;
    let Some(after) = rest.strip_prefix(b".") else { return Some(0) };
    let count = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > DIGITS_MAX {
        return None;
    }
    *rest = after;
    let number = u64::try_from(digits(rest, count)?).ok()?;
    let missing = u32::try_from(DIGITS_MAX - count).ok()?;
    Some(number * 10_u64.pow(missing))
}

/// `Z` or `+hh:mm`, in minutes; nothing may follow.
fn offset(rest: &[u8]) -> Option<i64> {
    let (sign, mut rest) = match rest.split_first()? {
        (b'Z', []) => return Some(0),
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let hours = digits(&mut rest, 2)?;
    let minutes = part(&mut rest, b':')?;
    let legal = rest.is_empty() && hours < 24 && minutes < 60;
    legal.then_some(sign * (hours * 60 + minutes))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, negative before.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    /// Days from the first of January of the year 1 to 1970-01-01.
    const EPOCH: i64 = 719_162;
    let full = year - 1;
    let years = full * 365 + full.div_euclid(4) - full.div_euclid(100) + full.div_euclid(400);
    let months: i64 = (1..month).map(|earlier| days_in(year, earlier)).sum();
    years + months + day - 1 - EPOCH
}
