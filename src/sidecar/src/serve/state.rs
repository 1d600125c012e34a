//! What the calls that change state have in common: a change is planned and made durable away from
//! the threads that serve, handed to the filter, and answered when the filter has it.

use super::App;
use super::guard::RequestId;
use super::hear::{DONE_WITHIN, Heard, hear};
use super::moment;
use super::problem::{Problem, json_reply};
use super::replica::Held;
use crate::store::{Change, StoreError};
use axum::http::StatusCode;
use axum::response::Response;
use policy::sync::Position;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, error, info};

/// How often what has expired is dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// Most entries dropped in one transaction: a change from outside waits no longer for it than for
/// another change.
const EXPIRE_MAX: usize = 10_000;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        error!(%error, "the store failed");
        Self::Store
    }
}

/// A change that is durable and on its way to the filter.
#[derive(Debug)]
pub(super) struct Handed<T> {
    /// What the plan gave.
    pub(super) planned: T,
    position: Position,
    connected: bool,
    begun: Instant,
}

/// Plans a change and makes it durable; see [`super::replica::Replica::change`]. It goes on when
/// whoever asked has gone.
pub(super) async fn change<T: Send + 'static>(
    app: &Arc<App>,
    plan: impl FnOnce(&App, &Held) -> Result<(Vec<Change>, T), Problem> + Send + 'static,
) -> Result<Handed<T>, Problem> {
    let begun = Instant::now();
    let changing = Arc::clone(app);
    let changed = tokio::task::spawn_blocking(move || {
        let changed = changing.replica.change(|held| plan(&changing, held));
        let connected = changing.channel.status().connected;
        if let Ok((_, position)) = &changed {
            changing.channel.offer(position.clone());
        }
        changed.map(|(planned, position)| Handed { planned, position, connected, begun })
    });
    changed.await.map_err(|error| {
        error!(%error, "a change broke off");
        Problem::Store
    })?
}

/// What an audit line says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit<'a> {
    /// The request.
    pub(super) id: &'a RequestId,
    /// What was done.
    pub(super) what: &'static str,
    /// To what; never a secret, and nobody's name.
    pub(super) which: &'a str,
}

/// Waits for the filter, writes the audit line and answers: `done` when it is in force, else 202
/// with the reason.
pub(super) async fn answer<T>(
    app: &App,
    handed: Handed<T>,
    audit: Audit<'_>,
    done: StatusCode,
    mut body: Map<String, Value>,
) -> Response {
    let received = app.channel.received(&handed.position);
    let until = handed.begun + DONE_WITHIN;
    let heard = hear(&app.channel, handed.connected, received, until).await;
    let (status, reason) = match heard {
        Heard::Done(()) => (done, None),
        Heard::Waits(reason) => (StatusCode::ACCEPTED, Some(reason)),
        Heard::Stopping => (StatusCode::ACCEPTED, Some("the sidecar stops: applied when it runs")),
    };
    info!(
        audit = true,
        request_id = audit.id.0,
        who = "admin-token",
        what = audit.what,
        which = audit.which,
        number = handed.position.number,
        outcome = reason.unwrap_or("applied"),
        "state changed"
    );
    let micros = u64::try_from(handed.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    debug!(request_id = audit.id.0, micros, "from the order until it was in force");
    body.insert("in_force".to_owned(), reason.is_none().into());
    if let Some(reason) = reason {
        body.insert("reason".to_owned(), reason.into());
    }
    json_reply(status, &Value::Object(body))
}

/// A change that needs no answer beyond itself.
pub(super) fn gone(id: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("id".to_owned(), id.into());
    body.insert("deleted".to_owned(), true.into());
    body
}

/// A time as it is shown; `null` for never.
pub(super) fn shown(secs: Option<impl Into<u64>>) -> Value {
    secs.map_or(Value::Null, |secs| json!(moment::print(secs.into())))
}

/// What has expired by now, at most [`EXPIRE_MAX`] of each kind.
pub(super) fn expired(held: &Held, now: u64) -> Vec<Change> {
    let over = |until: u32| until != u32::MAX && u64::from(until) <= now;
    let revocations = held.revocations().iter().filter(|(_, times)| over(times.until));
    let revocations = revocations.take(EXPIRE_MAX).map(|(print, _)| Change::DropRevocation(*print));
    let keys = held
        .keys()
        .values()
        .filter(|key| key.about.entry.expires.is_some_and(|expires| expires <= now));
    let keys = keys.take(EXPIRE_MAX).map(|key| Change::DropKey(key.sha256));
    revocations.chain(keys).collect()
}

/// Drops what has expired, now and then, for as long as the process runs; and looks whether a store
/// that failed works again.
pub(super) fn start(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EXPIRE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if app.replica.trouble().is_some() {
                recover(&app).await;
            }
            expire(&app, moment::now()).await;
        }
    });
}

/// Tries a store again that has failed. The log has said what failed; health says whether it still
/// does.
async fn recover(app: &Arc<App>) {
    let recovering = Arc::clone(app);
    let recovered = tokio::task::spawn_blocking(move || recovering.replica.recover()).await;
    if let Ok(Ok(position)) = recovered {
        app.channel.offer(position);
    }
}

/// Drops everything that has expired. What fails is tried again next time; the log has said it.
pub(super) async fn expire(app: &Arc<App>, now: u64) {
    loop {
        let dropped = change(app, move |_, held| {
            let changes = expired(held, now);
            let count = changes.len();
            Ok((changes, count))
        });
        match dropped.await {
            Ok(handed) if handed.planned > 0 => {
                info!(count = handed.planned, "expired entries dropped");
            }
            _ => return,
        }
    }
}
