//! What a value in a policy may be, as data: the walker checks by it, the schema is rendered from it,
//! and defaults are read from it, so that none of the three can say something else.

use super::text::{Format, show_fraction, show_span};
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The words that every option of a later version is refused with.
pub(super) const LATER: &str = "not supported by this version";

/// The word that YAML 1.1 readers, Envoy's among them, take for `false` when it stands without quotes.
pub(super) const OFF: &str = "off";

/// An object: its keys, and nothing else.
#[derive(Debug)]
pub(super) struct Object {
    /// All keys, in the order of the documentation.
    pub(super) fields: &'static [Field],
    /// Which of them exclude or need each other.
    pub(super) choice: Choice,
}

/// What holds between keys of one object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    /// Nothing.
    Free,
    /// Of these exactly one must be given.
    One(&'static [&'static str]),
    /// Of these one must be given, or several.
    Some(&'static [&'static str]),
}

/// One key of an object.
#[derive(Debug)]
pub(super) struct Field {
    /// The key.
    pub(super) name: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
    /// What it means to leave it out.
    pub(super) absent: Absent,
    /// One sentence for the schema.
    pub(super) doc: &'static str,
}

/// What it means to leave a key out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Absent {
    /// That is a mistake.
    Required,
    /// Nothing: the part is not there.
    Nothing,
    /// The same as this value, written as JSON.
    Is(&'static str),
    /// Something that depends on other keys, in words.
    As(&'static str),
}

/// What a value may be.
#[derive(Debug)]
pub(super) enum Kind {
    /// A string in a certain form.
    Text(Format),
    /// One of a few words; `later` are those of the contract that this version refuses.
    Words {
        /// Words that work.
        now: &'static [&'static str],
        /// Words that will.
        later: &'static [&'static str],
    },
    /// A whole number, both ends included; Envoy hands numbers over as floats, so 5.0 is 5.
    Integer {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// A fraction in thousandths, both ends included, as a number or as text.
    Fraction {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// `true` or `false`.
    Bool,
    /// A duration such as `250ms`, both ends included.
    Span {
        /// The shortest.
        min: Nanos,
        /// The longest.
        max: Nanos,
    },
    /// A list.
    List {
        /// What each entry is.
        of: &'static Kind,
        /// The fewest entries.
        min: usize,
        /// The most entries.
        max: usize,
    },
    /// An object with keys of the user's choice.
    Map {
        /// The form of the keys.
        keys: Format,
        /// What each value is.
        of: &'static Kind,
        /// The most entries.
        max: usize,
    },
    /// An object with known keys.
    Object(&'static Object),
    /// An object that somebody else understands (a JWK Set). Its content is never printed.
    Foreign,
    /// A part of the contract that no stage implements yet: refused unless it is empty.
    Later,
    /// A key that people may try here.
    Never {
        /// Why it cannot work.
        why: &'static str,
        /// What does.
        instead: &'static str,
    },
}

impl Object {
    /// The field of that name.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// All keys that do something, for messages.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let working = self.fields.iter().filter(|field| field.kind.works());
        working.map(|field| field.name).collect()
    }
}

impl Kind {
    /// Whether it can be used at all.
    pub(super) fn works(&self) -> bool {
        !matches!(self, Self::Later | Self::Never { .. })
    }

    /// The bare noun: what a value of another type is not.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Words { .. } => "a string",
            Self::Integer { .. } => "a whole number",
            Self::Fraction { .. } => "a number",
            Self::Bool => "a truth value",
            Self::Span { .. } => "a duration",
            Self::List { .. } => "a list",
            Self::Map { .. } | Self::Object(_) | Self::Foreign => "an object",
            Self::Later | Self::Never { .. } => "empty",
        }
    }

    /// What is allowed, for messages.
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Text(format) => format.allowed().to_string(),
            Self::Words { now, .. } if now.len() == 1 => now.join(""),
            Self::Words { now, .. } => format!("one of {}", now.join(", ")),
            Self::Integer { min, max } if min == max => format!("the number {min}"),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Fraction { min, max } => format!(
                "a number from {} to {}, in steps of {}",
                show_fraction(*min),
                show_fraction(*max),
                show_fraction(1)
            ),
            Self::Bool => "true or false".to_string(),
            Self::Span { min, max } => format!(
                "a duration such as 250ms, 60s, 10m, 1h or 1d, from {} to {}",
                show_span(*min),
                show_span(*max)
            ),
            Self::List { of, min, max } => {
                format!("a list of {min} to {max} entries, each {}", of.allowed())
            }
            Self::Map { keys, of, max } => {
                let (keys, of) = (keys.allowed(), of.allowed());
                format!("an object of at most {max} entries, each key {keys}, each value {of}")
            }
            Self::Object(object) => format!("an object with keys of {}", object.names().join(", ")),
            Self::Foreign => "an object".to_string(),
            Self::Later => "leave it out, or empty".to_string(),
            Self::Never { instead, .. } => (*instead).to_string(),
        }
    }

    /// Whether what was given may be a secret, so that no message may show it.
    pub(super) fn is_private(&self) -> bool {
        match self {
            // A secret often stands by mistake where its variable's name, its file or its hash belongs.
            Self::Text(format) => {
                matches!(format, Format::Secret | Format::Variable | Format::File | Format::Sha256)
            }
            Self::Object(_) | Self::Foreign | Self::Later | Self::Never { .. } => true,
            _ => false,
        }
    }
}
