//! Lists that can grow, page by page: `?limit=&cursor=` in, `total` and `next` out.

use super::problem::Problem;
use serde_json::{Map, Value};

/// Rows of a page that was not asked for otherwise.
const LIMIT: usize = 100;
/// Most rows of a page.
const LIMIT_MAX: usize = 1000;
/// Longest cursor: an API key's name.
const CURSOR_MAX: usize = 256;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Most rows.
    pub(super) limit: usize,
    cursor: Option<String>,
}

impl Query {
    /// Reads the query of a request.
    pub(super) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut out = Self { limit: LIMIT, cursor: None };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    let allowed = || format!("1 to {LIMIT_MAX}");
                    out.limit = limit.ok_or_else(|| refuse("limit", value, allowed()))?;
                }
                "cursor" => out.cursor = Some(value.to_owned()),
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return Err(Problem::Field {
                        field: name,
                        wrong: "is no parameter".to_owned(),
                        allowed: "limit, cursor".to_owned(),
                    });
                }
            }
        }
        Ok(out)
    }

    /// Reads the cursor.
    pub(super) fn cursor<T>(&self, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let cursor = read(text).filter(|_| text.len() <= CURSOR_MAX);
        let allowed = || "the `next` of the page before".to_owned();
        cursor.map(Some).ok_or_else(|| refuse("cursor", text, allowed()))
    }
}

fn refuse(name: &str, value: &str, allowed: String) -> Problem {
    let short: String = value.chars().take(40).collect();
    Problem::Field { field: name.to_owned(), wrong: format!("is `{short}`"), allowed }
}

/// One page.
#[derive(Debug)]
pub(super) struct Page {
    /// What the rows are.
    pub(super) name: &'static str,
    /// The rows.
    pub(super) rows: Vec<Value>,
    /// Rows of all pages, at this moment.
    pub(super) total: usize,
    /// The cursor of the page that follows.
    pub(super) next: Option<String>,
}

impl Page {
    /// The answer.
    pub(super) fn body(self) -> Value {
        let mut body = Map::new();
        body.insert(self.name.to_owned(), self.rows.into());
        body.insert("total".to_owned(), self.total.into());
        body.insert("next".to_owned(), self.next.into());
        Value::Object(body)
    }
}
