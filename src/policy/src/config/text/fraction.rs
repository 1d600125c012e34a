//! Fractions as a policy writes them, exactly in thousandths: 0.8 is 800, whoever reads it.

use alloc::format;
use alloc::string::{String, ToString};

/// Digits after the point that a thousandth has.
const PLACES: usize = 3;

/// A fraction as text, as a regular expression: Envoy's YAML hands fractions over as text.
pub(in crate::config) const FRACTION_REGEX: &str = "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)$";

/// Why a text is no fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum FractionError {
    /// It has something other than digits and a point.
    NoNumber,
    /// It is below zero.
    Negative,
    /// It says more than thousandths can hold.
    TooFine,
}

/// Reads a fraction written with digits and a point; one that is too large for its type saturates and
/// is then out of every range.
pub(in crate::config) fn parse_fraction(text: &str) -> Result<u32, FractionError> {
    if let Some(rest) = text.strip_prefix('-') {
        return parse_fraction(rest).and(Err(FractionError::Negative));
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let legal = whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit());
    if !legal || (whole.is_empty() && part.is_empty()) {
        return Err(FractionError::NoNumber);
    }
    let part = part.trim_end_matches('0');
    if part.len() > PLACES {
        return Err(FractionError::TooFine);
    }
    // The digits in thousandths, as if there were no point.
    let digits = format!("{whole}{part:0<PLACES$}");
    Ok(digits.parse().unwrap_or(u32::MAX))
}

/// Reads a number of a JSON document, by the shortest text that means it. Texts with an exponent are
/// beyond what a policy has room for.
pub(in crate::config) fn fraction_of(number: &serde_json::Number) -> Result<u32, FractionError> {
    let text = number.to_string();
    match text.split_once(['e', 'E']) {
        None => parse_fraction(&text),
        Some(_) if text.starts_with('-') => Err(FractionError::Negative),
        Some((_, exponent)) if exponent.starts_with('-') => Err(FractionError::TooFine),
        Some(_) => Ok(u32::MAX),
    }
}

/// Writes a fraction with as few digits as it needs.
pub(in crate::config) fn show_fraction(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
