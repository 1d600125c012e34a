//! Reads values out of a document that `walk` has checked and completed. What was bad is `Null`
//! there and reads as `None`: it has been reported already.

use super::text::parse_span;
use super::walk::join;
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Map, Value};

/// One object of the document; one that is not there, or was bad, reads as an empty one.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
}

/// A string with the place where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<'a> {
    /// Where.
    pub(super) path: String,
    /// What.
    pub(super) text: &'a str,
}

impl<'a> Section<'a> {
    /// The object at `path`.
    pub(super) fn new(value: &'a Value, path: &str) -> Self {
        Self { map: value.as_object(), path: path.to_string() }
    }

    /// Where the section stands.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where a key of it stands.
    pub(super) fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Whether the key is there, good or bad.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.is_some_and(|map| map.contains_key(name))
    }

    /// Whether the key is there and was bad.
    pub(super) fn is_bad(&self, name: &str) -> bool {
        self.has(name) && self.value(name).is_none()
    }

    /// The value of a key, unless it is absent or was bad.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map?.get(name).filter(|value| !value.is_null())
    }

    /// The object below a key.
    pub(super) fn section(&self, name: &str) -> Self {
        let map = self.value(name).and_then(Value::as_object);
        Self { map, path: self.at(name) }
    }

    /// The same, `None` when the key is absent or was bad.
    pub(super) fn section_if_there(&self, name: &str) -> Option<Self> {
        self.value(name).map(|value| Self::new(value, &self.at(name)))
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.value(name)?.as_str()
    }

    /// A string of its own; empty when it is absent or was bad.
    pub(super) fn string(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_string()
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Option<u32> {
        self.value(name)?.as_u64().and_then(|n| u32::try_from(n).ok())
    }

    /// A truth value.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_bool()
    }

    /// A duration.
    pub(super) fn span(&self, name: &str) -> Option<Nanos> {
        parse_span(self.text(name)?)
    }

    /// The entries of a list, with their places.
    fn entries(&self, name: &str) -> impl Iterator<Item = (String, &'a Value)> {
        let entries = self.value(name).and_then(Value::as_array).into_iter().flatten();
        let at = self.at(name);
        entries.enumerate().map(move |(index, value)| (format!("{at}[{index}]"), value))
    }

    /// The strings of a list.
    pub(super) fn texts(&self, name: &str) -> Vec<Placed<'a>> {
        let placed =
            |(path, value): (String, &'a Value)| Some(Placed { path, text: value.as_str()? });
        self.entries(name).filter_map(placed).collect()
    }

    /// The strings of a list, without their places.
    pub(super) fn strings(&self, name: &str) -> Vec<String> {
        self.texts(name).into_iter().map(|placed| placed.text.to_string()).collect()
    }

    /// The whole numbers of a list.
    pub(super) fn statuses(&self, name: &str) -> Vec<u16> {
        let status = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
        self.entries(name).filter_map(|(_, value)| status(value)).collect()
    }

    /// The objects of a list.
    pub(super) fn sections(&self, name: &str) -> Vec<Self> {
        self.entries(name).map(|(path, value)| Self { map: value.as_object(), path }).collect()
    }

    /// The keys of a map whose values are strings.
    pub(super) fn pairs(&self, name: &str) -> Vec<(&'a str, Placed<'a>)> {
        let at = self.at(name);
        let map = self.value(name).and_then(Value::as_object).into_iter().flatten();
        let placed = |(key, value): (&'a String, &'a Value)| {
            Some((key.as_str(), Placed { path: join(&at, key), text: value.as_str()? }))
        };
        map.filter_map(placed).collect()
    }
}
