//! A JWK Set (RFC 7517 section 5): strictly when it stands in the policy, where a mistake can be
//! mended before it matters; entry by entry when somebody else published it.

use crate::jwk::{self, PublicKey};
use crate::keys::{SET_KEYS_MAX, mistake};
use crate::load::{LoadError, Loaded};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use policy::config::Mistake;
use policy::model::Algorithm;
use serde_json::{Map, Value};

/// The keys of a set in which nothing may be wrong; `path` names the set.
pub(crate) fn strict(
    set: &Map<String, Value>,
    algorithms: &[Algorithm],
    path: &str,
) -> Result<Vec<PublicKey>, Vec<Mistake>> {
    let at = format!("{path}.keys");
    let Some(Value::Array(entries)) = set.get("keys") else {
        let wrong = "there is no list of keys".into();
        return Err(vec![mistake(at, wrong, "a JWK Set (RFC 7517 section 5)")]);
    };
    let allowed = "1 to 64 keys, of which at least one fits the provider's algorithms";
    if entries.len() > SET_KEYS_MAX {
        return Err(vec![mistake(at, format!("{} keys are too many", entries.len()), allowed)]);
    }
    let mut found = Found::read(entries, algorithms, &at);
    let mut mistakes = twice(entries, &at);
    mistakes.append(&mut found.mistakes);
    if found.keys.is_empty() && mistakes.is_empty() {
        mistakes.push(mistake(at, "no key fits the provider's algorithms".into(), allowed));
    }
    if mistakes.is_empty() { Ok(found.keys) } else { Err(mistakes) }
}

/// The usable keys of a set that was handed over.
pub(crate) fn lenient(
    set: &Map<String, Value>,
    algorithms: &[Algorithm],
) -> Result<(Vec<PublicKey>, Loaded), LoadError> {
    let Some(Value::Array(entries)) = set.get("keys") else { return Err(LoadError::NoList) };
    if entries.len() > SET_KEYS_MAX {
        return Err(LoadError::TooMany { keys: entries.len() });
    }
    let mut found = Found::read(entries, algorithms, "keys");
    found.drop_ambiguous();
    let loaded =
        Loaded { used: found.entries(), for_others: found.for_others, left_out: found.mistakes };
    if found.keys.is_empty() {
        return Err(LoadError::NoneUsable(loaded));
    }
    Ok((found.keys, loaded))
}

/// What a list of entries holds.
struct Found {
    keys: Vec<PublicKey>,
    for_others: usize,
    mistakes: Vec<Mistake>,
}

impl Found {
    fn read(entries: &[Value], algorithms: &[Algorithm], path: &str) -> Self {
        let mut found = Self { keys: Vec::new(), for_others: 0, mistakes: Vec::new() };
        for (index, entry) in entries.iter().enumerate() {
            let at = format!("{path}[{index}]");
            let before = found.mistakes.len();
            let keys = jwk::read(entry, index, &at, algorithms, &mut found.mistakes);
            if keys.is_empty() && found.mistakes.len() == before {
                found.for_others += 1;
            }
            found.keys.extend(keys);
        }
        found
    }

    /// Leaves out all keys that a token could not tell apart although it names one: whichever were
    /// taken might be the wrong one, or an intruder's.
    fn drop_ambiguous(&mut self) {
        let alike = |one: &PublicKey, other: &PublicKey| {
            let same = one.kid == other.kid && one.algorithm == other.algorithm;
            same && one.kid.is_some() && one.entry != other.entry
        };
        let clash = |one: &&PublicKey| self.keys.iter().any(|other| alike(one, other));
        let mut dropped: Vec<usize> = self.keys.iter().filter(clash).map(|key| key.entry).collect();
        dropped.dedup();
        self.keys.retain(|key| !dropped.contains(&key.entry));
        self.mistakes.extend(dropped.into_iter().map(|index| {
            let wrong = "another key has the same kid".into();
            mistake(format!("keys[{index}].kid"), wrong, "each kid once for an algorithm")
        }));
    }

    /// How many entries the keys come from: one serves several algorithms, one after the other.
    fn entries(&self) -> usize {
        let mut entries: Vec<usize> = self.keys.iter().map(|key| key.entry).collect();
        entries.dedup();
        entries.len()
    }
}

/// Two keys of one name: whoever rotates keys by hand forgets to take the old one out, and a token
/// cannot say which of them it means.
fn twice(entries: &[Value], path: &str) -> Vec<Mistake> {
    let name = |entry: &Value| entry.get("kid").and_then(Value::as_str).map(String::from);
    let names: Vec<Option<String>> = entries.iter().map(name).collect();
    let again = |(index, name): (usize, &Option<String>)| {
        let name = name.as_ref()?;
        let earlier = names.iter().take(index).flatten().any(|other| other == name);
        earlier.then(|| {
            mistake(
                format!("{path}[{index}].kid"),
                format!("{name:?} is the kid of an earlier key too"),
                "each kid once in a set",
            )
        })
    };
    names.iter().enumerate().filter_map(again).collect()
}
