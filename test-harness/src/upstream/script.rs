//! What a scripted service was told to do, and what it has seen.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// Requests that are remembered: more than any test looks at, bounded under load.
pub const SEEN_MAX: usize = 1000;
/// Rules that are kept; a script that needs more is a program.
pub const RULES_MAX: usize = 100;

/// One thing to do: to which requests, how often, what. Also the JSON of `POST /_script`, for
/// example `{"path": "/api/auth", "times": 5, "status": 503}` or `{"fault": "reset"}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Only requests whose path begins so.
    pub path: Option<String>,
    /// Only this method.
    pub method: Option<String>,
    /// Only this many times; for ever when not set.
    pub times: Option<u32>,
    /// Waits before it does anything else.
    pub delay_ms: u64,
    /// The status; 200 when not set.
    pub status: Option<u16>,
    /// The body; a description of the request when not set.
    pub body: Option<String>,
    /// Headers of the answer, as `[["name", "value"]]`; the same name may come again.
    pub headers: Vec<(String, String)>,
    /// The `grpc-status` of an answer to a gRPC request; 0 when not set.
    pub grpc_status: Option<u32>,
    /// Breaks the answer.
    pub fault: Option<Fault>,
}

/// Ways not to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No answer until the script is cleared; then a normal one.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// The connection is reset (RST) without an answer.
    Reset,
    /// The answer promises more body than it has, then the connection ends.
    Truncate,
}

impl Rule {
    /// Answers with this status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Waits so long, then answers normally.
    #[must_use]
    pub fn delay_ms(delay_ms: u64) -> Self {
        Self { delay_ms, ..Self::default() }
    }

    /// Breaks the answer.
    #[must_use]
    pub fn fault(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// Answers with this JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::default().header("content-type", "application/json").body(&body.to_string())
    }

    /// Only so often.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Only requests whose path begins so.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// With this header, in addition to those before.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    fn fits(&self, method: &str, path: &str) -> bool {
        let by_path = self.path.as_ref().is_none_or(|p| path.starts_with(p.as_str()));
        let by_method = self.method.as_ref().is_none_or(|m| m == method);
        by_path && by_method && self.times != Some(0)
    }
}

/// A request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Headers in order; values lossy.
    pub headers: Vec<(String, String)>,
    /// When its head had arrived, on this process's clock.
    #[serde(skip)]
    pub at: Instant,
}

impl Seen {
    /// A header's first value; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

/// Script and memory of one service.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: String,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<VecDeque<Seen>>,
    count: AtomicU64,
    answered: Mutex<Option<Instant>>,
    released: Notify,
}

impl Script {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rules: Mutex::default(),
            seen: Mutex::default(),
            count: AtomicU64::new(0),
            answered: Mutex::default(),
            released: Notify::new(),
        }
    }

    /// Adds a rule; one too many is not taken.
    pub(super) fn add(&self, rule: Rule) -> bool {
        let mut rules = lock(&self.rules);
        let room = rules.len() < RULES_MAX;
        if room {
            rules.push(rule);
        }
        room
    }

    pub(super) fn clear(&self) {
        lock(&self.rules).clear();
        self.released.notify_waiters();
    }

    /// Puts one rule in the place of all others, with no moment between. What hangs goes on hanging.
    pub(super) fn replace(&self, rule: Rule) {
        *lock(&self.rules) = vec![rule];
    }

    /// The rule for a request, used up by one.
    pub(super) fn pick(&self, method: &str, path: &str) -> Rule {
        let mut rules = lock(&self.rules);
        let Some(rule) = rules.iter_mut().find(|r| r.fits(method, path)) else {
            return Rule::default();
        };
        rule.times = rule.times.map(|n| n.saturating_sub(1));
        let picked = rule.clone();
        rules.retain(|r| r.times != Some(0));
        picked
    }

    /// Waits until the script is cleared.
    pub(super) async fn released(&self) {
        self.released.notified().await;
    }

    pub(super) fn record(&self, request: Seen) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut seen = lock(&self.seen);
        if seen.len() >= SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(request);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).iter().cloned().collect()
    }

    pub(super) fn record_answer(&self) {
        *lock(&self.answered) = Some(Instant::now());
    }

    pub(super) fn answered(&self) -> Option<Instant> {
        *lock(&self.answered)
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What is guarded is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
