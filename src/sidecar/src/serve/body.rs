//! Bodies of requests: how long they may be, how long they may take, and what stands in them, field
//! by field. A refusal names the field.

use super::moment;
use super::problem::Problem;
use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};
use std::time::Duration;

/// A body of a few megabytes on loopback is here at once.
const WITHIN: Duration = Duration::from_secs(5);

/// Reads a body.
///
/// # Errors
/// When it is longer than `bytes_max`, or does not come in time.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let collect = Limited::new(body, bytes_max).collect();
    let collected = tokio::time::timeout(WITHIN, collect);
    match collected.await.map_err(|_| Problem::BodyTimeout)? {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(bytes_max)),
        Err(_) => Err(Problem::BadRequest("The body broke off.".to_owned())),
    }
}

/// An object whose members are taken out one by one. `null` is as good as not there.
#[derive(Debug)]
pub(super) struct Fields {
    at: String,
    members: Map<String, Value>,
}

impl Fields {
    /// Reads an object from JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn read(body: &[u8]) -> Result<Self, Problem> {
        let value = serde_json::from_slice(body)
            .map_err(|error| Problem::BadRequest(format!("The body is not JSON: {error}.")))?;
        match value {
            Value::Object(members) => Ok(Self { at: String::new(), members }),
            _ => Err(Problem::BadRequest("The body is not a JSON object.".to_owned())),
        }
    }

    /// An object that stands at `at`.
    ///
    /// # Errors
    /// When it is something else.
    fn nested(at: String, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(members) => Ok(Self { at, members }),
            other => Err(wrong(at, &is(&other), "an object")),
        }
    }

    /// A refusal of one member.
    pub(super) fn refuse(&self, name: &str, wrong_: &str, allowed: &str) -> Problem {
        wrong(self.path(name), wrong_, allowed)
    }

    fn path(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// A text of 1 to `bytes_max` bytes without control characters.
    pub(super) fn text(&mut self, name: &str, bytes_max: usize) -> Result<Option<String>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        text(value, bytes_max)
            .map(Some)
            .map_err(|(wrong_, allowed)| self.refuse(name, &wrong_, &allowed))
    }

    /// A list of at most `count_max` such texts; empty when it is not there.
    pub(super) fn texts(
        &mut self,
        name: &str,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<String>, Problem> {
        let values = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) if values.len() <= count_max => values,
            Some(other) => {
                let allowed = format!("a list of at most {count_max} texts");
                return Err(self.refuse(name, &is(&other), &allowed));
            }
        };
        let texts = values.into_iter().enumerate().map(|(index, value)| {
            text(value, bytes_max).map_err(|(wrong_, allowed)| {
                self.refuse(&format!("{name}[{index}]"), &wrong_, &allowed)
            })
        });
        texts.collect()
    }

    /// A moment in seconds since 1970, from seconds or RFC 3339; below [`u32::MAX`]. A part of a
    /// second is cut off.
    pub(super) fn moment(&mut self, name: &str) -> Result<Option<u32>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let secs = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => moment::read(text),
            _ => None,
        };
        let secs = secs.and_then(|secs| u32::try_from(secs).ok()).filter(|secs| *secs < u32::MAX);
        secs.map(Some).ok_or_else(|| {
            let allowed = "a time before 2106, as \"2027-01-01T00:00:00Z\" or in whole seconds \
                           since 1970";
            self.refuse(name, &is(&value), allowed)
        })
    }

    /// A span in seconds, as the policy writes it: `90s`, `30m`, `24h`, `7d`.
    pub(super) fn span(&mut self, name: &str, secs_max: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let secs = value.as_str().and_then(moment::span).filter(|secs| *secs <= secs_max);
        secs.map(Some).ok_or_else(|| {
            let days = secs_max / 86_400;
            let allowed = format!("0s to {days}d, as 90s, 30m, 24h or 7d");
            self.refuse(name, &is(&value), &allowed)
        })
    }

    /// A whole number from 0 to [`u32::MAX`]; what it may be beyond that is asked elsewhere.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<u32>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| {
            let allowed = format!("a whole number from 0 to {}", u32::MAX);
            self.refuse(name, &is(&value), &allowed)
        })
    }

    /// A span in milliseconds, as the policy writes it: `250ms`, `90s`, `1m`.
    pub(super) fn span_ms(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let millis = value.as_str().and_then(moment::span_ms);
        millis.map(Some).ok_or_else(|| {
            self.refuse(name, &is(&value), "a whole number with ms, s, m, h or d, as 250ms or 1m")
        })
    }

    /// A list of 1 to `count_max` objects.
    pub(super) fn objects(
        &mut self,
        name: &str,
        count_max: usize,
    ) -> Result<Option<Vec<Self>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) if (1..=count_max).contains(&values.len()) => {
                let nested = values.into_iter().enumerate().map(|(index, value)| {
                    Self::nested(self.path(&format!("{name}[{index}]")), value)
                });
                nested.collect::<Result<_, _>>().map(Some)
            }
            Some(other) => {
                let allowed = format!("a list of 1 to {count_max} objects");
                Err(self.refuse(name, &is(&other), &allowed))
            }
        }
    }

    /// Refuses members that nobody asked for.
    pub(super) fn end(self, allowed: &str) -> Result<(), Problem> {
        match self.members.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(self.refuse(&name, "does not belong here", allowed))
            }
        }
    }
}

fn wrong(field: String, wrong: &str, allowed: &str) -> Problem {
    Problem::Field { field, wrong: wrong.to_owned(), allowed: allowed.to_owned() }
}

fn text(value: Value, bytes_max: usize) -> Result<String, (String, String)> {
    let allowed = || format!("a text of 1 to {bytes_max} bytes without control characters");
    match value {
        Value::String(text) if text.is_empty() => Err(("is empty".to_owned(), allowed())),
        Value::String(text) if text.len() > bytes_max => {
            Err((format!("has {} bytes", text.len()), allowed()))
        }
        Value::String(text) if text.chars().any(char::is_control) => {
            Err(("has a control character".to_owned(), allowed()))
        }
        Value::String(text) => Ok(text),
        other => Err((is(&other), allowed())),
    }
}

/// What a value is, in a few words.
fn is(value: &Value) -> String {
    match value {
        Value::Null => "is null".to_owned(),
        Value::Bool(value) => format!("is {value}"),
        Value::Number(number) => format!("is {number}"),
        Value::String(text) => {
            let short: String = text.chars().take(40).collect();
            format!("is `{short}`")
        }
        Value::Array(values) => format!("is a list of {}", values.len()),
        Value::Object(_) => "is an object".to_owned(),
    }
}
