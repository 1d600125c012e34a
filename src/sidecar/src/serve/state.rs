//! What the calls that change state have in common: a change is planned and made durable away from
//! the threads that serve, handed to the filter, and answered when the filter has it.

#[cfg(test)]
mod tests;

use super::App;
use super::guard::RequestId;
use super::hear::{DONE_WITHIN, Heard, hear};
use super::moment;
use super::problem::{Problem, json_reply};
use super::replica::Held;
use crate::store::{Ban, Change, StoreError};
use axum::http::StatusCode;
use axum::response::Response;
use policy::sync::Position;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    number: u64,
    connected: bool,
    begun: Instant,
    audit: Audit,
}

/// What an audit line says.
#[derive(Clone, Debug)]
pub(super) struct Audit {
    /// The request.
    pub(super) id: RequestId,
    /// What was done.
    pub(super) what: &'static str,
    /// To what; never a secret. Whom a ban or a reset is about is named here and in no other line.
    pub(super) which: String,
}

impl Audit {
    fn say(&self, number: u64, outcome: &str) {
        info!(
            audit = true,
            request_id = self.id.0,
            who = "admin-token",
            what = self.what,
            which = self.which,
            number,
            outcome,
            "state changed"
        );
    }
}

/// Plans a change and makes it durable; see [`super::replica::Replica::change`]. It goes on when
/// whoever asked has gone, and so does the audit line.
pub(super) async fn change<T: Send + 'static>(
    app: &Arc<App>,
    audit: Audit,
    plan: impl FnOnce(&App, &Held) -> Result<(Vec<Change>, T), Problem> + Send + 'static,
) -> Result<Handed<T>, Problem> {
    let begun = Instant::now();
    durably(app, move |app| {
        let (planned, Position { number, .. }) = app.replica.change(|held| plan(app, held))?;
        audit.say(number, "durable");
        let connected = app.channel.status().connected;
        app.channel.offer(|| app.replica.position());
        Ok(Handed { planned, number, connected, begun, audit })
    })
    .await
}

/// Does work that blocks to its end, whoever waits for it.
pub(super) async fn durably<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let working = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&working));
    done.await.map_err(|error| {
        error!(%error, "a change broke off");
        Problem::Store
    })?
}

/// Waits for the filter, writes what came of it beside the audit line, and answers: `done` when it is
/// in force, else 202 with the reason.
pub(super) async fn answer<T>(
    app: &App,
    handed: Handed<T>,
    done: StatusCode,
    mut body: Map<String, Value>,
) -> Response {
    let received = app.channel.received(handed.number);
    let until = handed.begun + DONE_WITHIN;
    let heard = hear(&app.channel, handed.connected, received, until).await;
    let (status, reason) = match heard {
        Heard::Done(()) => (done, None),
        Heard::Waits(reason) => (StatusCode::ACCEPTED, Some(reason)),
        Heard::Stopping => (StatusCode::ACCEPTED, Some("the sidecar stops: applied when it runs")),
    };
    handed.audit.say(handed.number, reason.unwrap_or("applied"));
    let micros = u64::try_from(handed.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    debug!(request_id = handed.audit.id.0, micros, "from the order until it was in force");
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
    let now_ms = now.saturating_mul(1000);
    let over = |ban: &Ban| ban.over_ms().is_some_and(|over| over <= now_ms);
    let bans = held.bans().iter().filter(|(_, ban)| over(ban));
    let bans = bans.take(EXPIRE_MAX).map(|(key, _)| Change::DropBan(*key));
    revocations.chain(keys).chain(bans).collect()
}

/// Up to when what has expired may be forgotten. A clock that runs ahead for a moment must not cost a
/// revocation, which nothing brings back: so two looks, one interval apart, must agree. That it stays
/// in the store meanwhile changes nothing, because filters go by its time.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// When it was last looked, by the clock that may run ahead; 0 before.
    last: AtomicU64,
    agreed: AtomicU64,
}

impl Expiry {
    /// Takes note of a look. To be called once in each interval.
    fn look(&self, now: u64) {
        let last = self.last.swap(now, Ordering::Relaxed);
        self.agreed.store(last.min(now), Ordering::Relaxed);
    }

    /// What expired before this is gone for good.
    pub(super) fn agreed(&self) -> u64 {
        self.agreed.load(Ordering::Relaxed)
    }
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
            tick(&app, moment::now()).await;
        }
    });
}

async fn tick(app: &Arc<App>, now: u64) {
    app.expiry.look(now);
    if app.replica.trouble().is_none() {
        expire(app, app.expiry.agreed()).await;
        return;
    }
    // The log has said what failed; health says whether it still does.
    let recovered = durably(app, |app| {
        app.replica.recover()?;
        app.channel.offer(|| app.replica.position());
        Ok(())
    });
    if recovered.await.is_ok() {
        info!("the store works again");
    }
}

/// Drops everything that has expired. What fails is tried again next time; the log has said it.
pub(super) async fn expire(app: &Arc<App>, now: u64) {
    loop {
        let dropped = durably(app, move |app| {
            let (count, _) = app.replica.change(|held| {
                let changes = expired(held, now);
                let count = changes.len();
                Ok::<_, Problem>((changes, count))
            })?;
            app.channel.offer(|| app.replica.position());
            Ok(count)
        });
        match dropped.await {
            Ok(count) if count > 0 => info!(count, "expired entries dropped"),
            _ => return,
        }
    }
}
