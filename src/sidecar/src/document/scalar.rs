//! What a bare scalar means. Three readers stand between a YAML file and the gateway, and they
//! disagree: a check that reads as another reader does would pass what the gateway refuses.

use serde_json::{Number, Value};

/// Whose rules turn a bare scalar into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// YAML 1.2, core schema: ours, for a bare policy.
    Core,
    /// Envoy's loader (yaml-cpp): `off`, `no`, `y` are booleans; integers past 32 bits and all
    /// fractions arrive as strings.
    Envoy,
    /// Kubernetes (YAML 1.1): `off`, `no`, `y` are booleans.
    Kubernetes,
}

impl Reader {
    /// The value of an unquoted scalar.
    pub(crate) fn read(self, text: &str) -> Value {
        if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Value::Null;
        }
        if let Some(truth) = self.boolean(text) {
            return Value::Bool(truth);
        }
        let number = match self {
            Self::Core => integer(text, Octal::Letter).or_else(|| fraction(text)),
            Self::Envoy => integer(text, Octal::Zero).filter(within_32_bits),
            Self::Kubernetes => integer(text, Octal::Zero).or_else(|| fraction(text)),
        };
        number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
    }

    fn boolean(self, text: &str) -> Option<bool> {
        let cased = |word: &str| {
            let mut chars = word.chars();
            let capital: String = chars
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(chars)
                .collect();
            text == word || text == capital || text == word.to_ascii_uppercase()
        };
        let (yes, no): (&[&str], &[&str]) = match self {
            Self::Core => (&["true"], &["false"]),
            Self::Envoy | Self::Kubernetes => {
                (&["true", "yes", "on", "y"], &["false", "no", "off", "n"])
            }
        };
        if yes.iter().any(|word| cased(word)) {
            return Some(true);
        }
        no.iter().any(|word| cased(word)).then_some(false)
    }
}

/// How octal numbers are written.
#[derive(Clone, Copy)]
enum Octal {
    /// `0o17` (YAML 1.2).
    Letter,
    /// `017` (YAML 1.1).
    Zero,
}

fn integer(text: &str, octal: Octal) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // `from_str_radix` takes a sign of its own, which YAML does not allow here.
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let of = |digits: &str, radix| {
        let plain = digits.starts_with(|first: char| first.is_ascii_alphanumeric());
        plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
    };
    let magnitude = if let Some(hexadecimal) = digits.strip_prefix("0x") {
        of(hexadecimal, 16)
    } else {
        match octal {
            Octal::Letter => match digits.strip_prefix("0o") {
                Some(rest) => of(rest, 8),
                None => of(digits, 10),
            },
            Octal::Zero if digits.len() > 1 && digits.starts_with('0') => of(digits, 8),
            Octal::Zero => of(digits, 10),
        }
    }?;
    if negative {
        Some(0i64.checked_sub_unsigned(magnitude)?.into())
    } else {
        Some(magnitude.into())
    }
}

fn fraction(text: &str) -> Option<Number> {
    let shape = text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    let digits = text.contains(|c: char| c.is_ascii_digit());
    if !shape || !digits {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

fn within_32_bits(number: &Number) -> bool {
    number.as_i64().is_some_and(|value| i32::try_from(value).is_ok())
}
