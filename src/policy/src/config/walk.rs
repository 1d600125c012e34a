//! Checks a document against the shape: structure only, every mistake, each with its path; and fills
//! in the defaults, so that what reads the result needs to know none.

use super::Mistake;
use super::kind::{Absent, Choice, Kind, LATER, OFF, Object};
use super::text::{Format, FractionError, fraction_of, parse_fraction, parse_span};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use serde_json::{Map, Number, Value};

/// Longest excerpt of a given text in a message.
const EXCERPT_CHARS_MAX: usize = 64;
/// Longest key that a path shows whole; Istio's cluster names have about 100 characters.
const KEY_LEN_MAX: usize = 256;
/// Most edits between an unknown key and the known one that it may have meant.
const TYPO_EDITS_MAX: usize = 2;
/// Longest unknown key that is compared with the known ones; no known key comes near it.
const TYPO_LEN_MAX: usize = 40;

/// Adds the mistakes of `value`, which stands at `path`, and returns what is good of it with the
/// defaults filled in. What is bad comes back as `Null`, in its place.
pub(super) fn walk(value: &Value, kind: &Kind, path: &str, mistakes: &mut Vec<Mistake>) -> Value {
    let what = match (kind, value) {
        (Kind::Later, _) if is_empty(value) => return Value::Null,
        (Kind::Later, _) => LATER.to_string(),
        (Kind::Never { why, .. }, _) => (*why).to_string(),
        (_, Value::Null) => "has no value (null)".to_string(),
        (Kind::List { of, min, max }, Value::Array(entries)) => {
            if (*min..=*max).contains(&entries.len()) {
                return walk_list(entries, of, path, mistakes);
            }
            format!("has {} entries", entries.len())
        }
        (Kind::Map { keys, of, max }, Value::Object(map)) => {
            if map.len() <= *max {
                return walk_map(map, (*keys, of), path, mistakes);
            }
            format!("has {} entries", map.len())
        }
        (Kind::Object(object), Value::Object(map)) => {
            return walk_object(map, object, path, mistakes);
        }
        (Kind::Foreign, Value::Object(_)) => return value.clone(),
        _ => match scalar(value, kind) {
            Ok(good) => return good,
            Err(what) => what,
        },
    };
    mistakes.push(Mistake::new(path, what, kind.allowed()));
    Value::Null
}

/// A value without parts. A fraction comes back in thousandths.
fn scalar(value: &Value, kind: &Kind) -> Result<Value, String> {
    let fault = match (kind, value) {
        (Kind::Text(format), Value::String(text)) => format.fault(text),
        (Kind::Words { later, .. }, Value::String(word)) if later.contains(&word.as_str()) => {
            Some(format!("is {LATER}"))
        }
        // Envoy's YAML reader takes a bare `off` for false.
        (Kind::Words { now, .. }, Value::Bool(false)) if now.contains(&OFF) => {
            return Ok(Value::from(OFF));
        }
        (Kind::Words { now, .. }, Value::String(word)) => {
            (!now.contains(&word.as_str())).then(|| "is not known".to_string())
        }
        (Kind::Integer { min, max }, Value::Number(number)) => match whole(number) {
            None => Some("is not a whole number".to_string()),
            Some(n) if n < i128::from(*min) => Some("is too small".to_string()),
            Some(n) if n > i128::from(*max) => Some("is too large".to_string()),
            Some(n) => return Ok(u64::try_from(n).map_or(Value::Null, Value::from)),
        },
        (Kind::Span { min, max }, Value::String(text)) => match parse_span(text) {
            None => Some("is not a duration".to_string()),
            Some(span) if span < *min => Some("is too short".to_string()),
            Some(span) if span > *max => Some("is too long".to_string()),
            Some(_) => None,
        },
        (Kind::Fraction { min, max }, Value::Number(_) | Value::String(_)) => {
            match fraction(value, (*min, *max)) {
                Ok(thousandths) => return Ok(Value::from(thousandths)),
                Err(fault) => Some(fault.to_string()),
            }
        }
        (Kind::Bool, Value::Bool(_)) => None,
        _ => Some(format!("is not {}", kind.noun())),
    };
    fault.map_or_else(|| Ok(value.clone()), |fault| Err(format!("{} {fault}", shown(value, kind))))
}

/// A fraction in thousandths, within a range.
fn fraction(value: &Value, (min, max): (u32, u32)) -> Result<u32, &'static str> {
    let read = match value {
        Value::Number(number) => fraction_of(number),
        Value::String(text) => parse_fraction(text),
        _ => Err(FractionError::NoNumber),
    };
    match read {
        Err(FractionError::NoNumber) => Err("is not a number"),
        Err(FractionError::TooFine) => Err("has more than three decimal places"),
        Err(FractionError::Negative) => Err("is too small"),
        Ok(thousandths) if thousandths < min => Err("is too small"),
        Ok(thousandths) if thousandths > max => Err("is too large"),
        Ok(thousandths) => Ok(thousandths),
    }
}

fn walk_list(entries: &[Value], of: &Kind, path: &str, mistakes: &mut Vec<Mistake>) -> Value {
    let walked = entries.iter().enumerate();
    Value::Array(
        walked.map(|(i, entry)| walk(entry, of, &format!("{path}[{i}]"), mistakes)).collect(),
    )
}

fn walk_map(
    map: &Map<String, Value>,
    (keys, of): (Format, &Kind),
    path: &str,
    mistakes: &mut Vec<Mistake>,
) -> Value {
    let mut good = Map::new();
    for (key, entry) in map {
        let at = join(path, key);
        let walked = walk(entry, of, &at, mistakes);
        if let Some(fault) = keys.fault(key) {
            let what = format!("the key {} {fault}", excerpt(key));
            mistakes.push(Mistake::new(&at, what, format!("as a key {}", keys.allowed())));
        } else {
            good.insert(key.clone(), walked);
        }
    }
    Value::Object(good)
}

/// The keys of one object: those known, those missing, those unknown.
fn walk_object(
    map: &Map<String, Value>,
    object: &Object,
    path: &str,
    mistakes: &mut Vec<Mistake>,
) -> Value {
    let mut good = Map::new();
    for field in object.fields {
        let at = join(path, field.name);
        match (map.get(field.name), field.absent) {
            (Some(value), _) => {
                good.insert(field.name.to_string(), walk(value, &field.kind, &at, mistakes));
            }
            (None, Absent::Required) => {
                mistakes.push(Mistake::new(&at, "is missing".to_string(), field.kind.allowed()));
            }
            (None, Absent::Is(default)) => {
                // A default that does not parse is caught by the tests of the tables.
                let value = serde_json::from_str(default).unwrap_or_default();
                let value = walk(&value, &field.kind, &at, mistakes);
                good.insert(field.name.to_string(), value);
            }
            (None, Absent::Nothing | Absent::As(_)) => {}
        }
    }
    for key in map.keys().filter(|key| object.field(key).is_none()) {
        let names: Vec<&str> = object.fields.iter().map(|field| field.name).collect();
        let what = match nearest(key, &names) {
            Some(name) => format!("unknown key; did you mean `{name}`?"),
            None => "unknown key".to_string(),
        };
        let allowed = format!("one of {}", object.names().join(", "));
        mistakes.push(Mistake::new(&join(path, key), what, allowed));
    }
    choice(map, object, path, mistakes);
    Value::Object(good)
}

/// Checks the alternatives; an empty value of a later version counts as absent. Where a key was
/// refused already, it may have been the one: nothing more is said.
fn choice(map: &Map<String, Value>, object: &Object, path: &str, mistakes: &mut Vec<Mistake>) {
    let (names, how) = match object.choice {
        Choice::Free => return,
        Choice::One(names) => (names, "exactly"),
        Choice::Some(names) => (names, "at least"),
    };
    let is_later =
        |name: &str| object.field(name).is_some_and(|field| matches!(field.kind, Kind::Later));
    let given =
        |name: &&&str| map.get(**name).is_some_and(|value| !(is_later(name) && is_empty(value)));
    let named: Vec<&str> = names.iter().filter(given).copied().collect();
    let refused = |(key, value): (&String, &Value)| match object.field(key).map(|field| &field.kind)
    {
        None | Some(Kind::Never { .. }) => true,
        Some(Kind::Later) => !is_empty(value),
        Some(_) => false,
    };
    let several = matches!(object.choice, Choice::One(_)) && named.len() > 1;
    let none = named.is_empty() && !map.iter().any(refused);
    if several || none {
        let what = match none {
            true => "none of its alternatives is given".to_string(),
            false => format!("{} exclude each other", named.join(" and ")),
        };
        let allowed = format!("{how} one of {}", names.join(", "));
        mistakes.push(Mistake::new(path, what, allowed));
    }
}

/// The path of a key. It is a line of a message: a key that would break it, or fill it, is shortened
/// and escaped.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.len() <= KEY_LEN_MAX && !key.contains(char::is_control);
    let key = if plain { key.to_string() } else { excerpt(key) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A whole number, however it was written down: 5 and 5.0 are the same.
pub(super) fn whole(number: &Number) -> Option<i128> {
    /// Above this every float is a whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if let Some(n) = number.as_i64() {
        return Some(i128::from(n));
    }
    if let Some(n) = number.as_u64() {
        return Some(i128::from(n));
    }
    // Casts from floats saturate.
    let float = number.as_f64()?;
    let truncated = float as i128;
    let all_whole = !(-EXACT_MAX..=EXACT_MAX).contains(&float);
    (all_whole || truncated as f64 == float).then_some(truncated)
}

/// Whether a value of a later version says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        _ => false,
    }
}

/// What was given, as a message may show it.
fn shown(value: &Value, kind: &Kind) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "an object".to_string(),
        Value::String(_) if kind.is_private() => "this text".to_string(),
        Value::Number(_) | Value::Bool(_) if kind.is_private() => "this value".to_string(),
        Value::String(text) => excerpt(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
    }
}

/// A text in quotes, shortened, with everything odd escaped.
pub(super) fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    if short.len() == text.len() { format!("{text:?}") } else { format!("{short:?}...") }
}

/// The known key that an unknown one may have meant.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    if key.len() > TYPO_LEN_MAX {
        return None;
    }
    let plain = key.to_ascii_lowercase().replace('-', "_");
    let rated = known.iter().map(|name| (edits(&plain, name), *name));
    let (distance, name) = rated.min_by_key(|(distance, _)| *distance)?;
    // Half of a short word changed is another word, not a slip.
    (distance <= TYPO_EDITS_MAX && distance * 2 < name.len()).then_some(name)
}

/// Levenshtein's distance: insertions, deletions and replacements of bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((above, diagonal), to) in row.iter().skip(1).zip(&row).zip(b.bytes()) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(from != to));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
