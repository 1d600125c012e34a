//! What became of a saved policy, told in the terminal: the renderer's log lines, as sentences.

use serde_json::Value;

/// Reads the log of the command that renders a saved policy, from where it stopped.
#[derive(Debug, Default)]
pub(super) struct Saved {
    read: usize,
}

impl Saved {
    /// Sentences for the whole lines that are new in `log`.
    pub(super) fn news(&mut self, log: &str) -> Vec<String> {
        if log.len() < self.read {
            // It had grown too long and began anew.
            self.read = 0;
        }
        let fresh = log.get(self.read..).unwrap_or_default();
        let whole = fresh.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole;
        fresh.get(..whole).unwrap_or_default().lines().filter_map(sentence).collect()
    }
}

/// A log line as a sentence; `None` for what is no log line.
fn sentence(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let file = text("file");
    let Some(wrong) = line.get("wrong").and_then(Value::as_str) else {
        let detail = [text("warning"), text("error")].join("");
        let colon = if detail.is_empty() { "" } else { ": " };
        return Some(format!("{}{colon}{detail}", text("message")));
    };
    let number = line.get("line").and_then(Value::as_u64).unwrap_or_default();
    Some(format!("{file}:{number}: {}: {wrong}; allowed: {}", text("path"), text("allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        let log = "{\"message\":\"mistake in the policy\",\"file\":\"p.yaml\",\"line\":3,\
                   \"path\":\"https.mode\",\"wrong\":\"unknown\",\"allowed\":\"off\"}\n";
        let news = Saved::default().news(log);
        assert_eq!(news, ["p.yaml:3: https.mode: unknown; allowed: off"]);
    }

    #[test]
    fn each_line_is_told_once_and_half_a_line_waits() {
        let mut saved = Saved::default();
        let first = "{\"message\":\"policy rendered\"}\n";
        assert_eq!(saved.news(&format!("{first}{{\"mess")), ["policy rendered"]);
        assert!(saved.news(&format!("{first}{{\"mess")).is_empty());
        assert_eq!(saved.news(&format!("{first}{{\"message\":\"again\"}}\n")), ["again"]);
        assert_eq!(saved.news(first), ["policy rendered"], "a log that begins anew");
    }
}
