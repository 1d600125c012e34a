//! From a written policy to a checked one: every mistake at once, each with its path.

mod build;
mod fingerprint;
mod kind;
mod numbers;
mod overrides;
mod schema;
mod section;
mod shape;
mod text;
mod walk;

use crate::model::Policy;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde_json::Value;

/// One mistake in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as `rate_limits[0].requests`; empty for the whole document.
    pub path: String,
    /// What is wrong, with what was given.
    pub wrong: String,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "(document)" } else { &self.path };
        write!(f, "{path}: {}; allowed: {}", self.wrong, self.allowed)
    }
}

/// Where `{env: NAME}` is looked up.
#[derive(Clone, Copy)]
pub enum Environment<'a> {
    /// The variables of this process or VM; one that is missing is a mistake.
    Given(&'a dyn Fn(&str) -> Option<String>),
    /// A check away from the gateway: every variable counts as set, secrets stay empty.
    Unknown,
}

impl Mistake {
    fn new(path: &str, wrong: String, allowed: String) -> Self {
        Self { path: path.to_string(), wrong, allowed }
    }
}

/// Checks a policy document.
///
/// # Errors
/// Every mistake, section by section in the order of the contract.
pub fn read(document: &Value, environment: Environment<'_>) -> Result<Policy, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let walked = walk::walk(document, &shape::POLICY, "", &mut mistakes);
    let policy = build::build(document, &walked, environment, &mut mistakes);
    if mistakes.is_empty() {
        return Ok(policy);
    }
    mistakes.sort_by_key(|mistake| shape::section_index(&mistake.path));
    Err(mistakes)
}

/// The JSON Schema (draft 2020-12) of a policy.
#[must_use]
pub fn schema() -> Value {
    schema::document()
}

/// Every variable that the document names by `{env: NAME}`, sorted, once each. It works on documents
/// with mistakes too.
#[must_use]
pub fn variables(document: &Value) -> Vec<String> {
    let mut names = Vec::new();
    shape::variables(document, &shape::POLICY, &mut names);
    names.sort();
    names.dedup();
    names
}
