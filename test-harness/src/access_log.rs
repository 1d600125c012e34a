//! The gateway's access log, one JSON object a request.

use serde_json::Value;

/// One line.
#[derive(Clone, Debug)]
pub struct Line(pub Value);

impl Line {
    /// A field as text; empty when it is missing.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// The status that the client got; 0 when it got none.
    #[must_use]
    pub fn status(&self) -> u64 {
        self.0.get("status").and_then(Value::as_u64).unwrap_or_default()
    }
}

/// The whole lines of a log; the last one may still be in the writing.
#[must_use]
pub fn lines(log: &str) -> Vec<Line> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).map(Line).collect()
}
