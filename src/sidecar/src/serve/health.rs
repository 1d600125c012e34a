//! What the gateway depends on, checked in the background: each thing on its own clock and with its
//! own time limit, so that one that hangs delays nobody else. Asking costs nothing.

use super::App;
use super::envoy::Service;
use super::problem::json_reply;
use crate::log;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// The dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Envoy's admin says that it is ready.
    Envoy,
    /// The filter polls.
    Filter,
    /// Every service has a host that gets traffic.
    Services,
    /// The last change of the store worked.
    Store,
    /// Every file that the policy names can be read.
    Files,
}

impl Check {
    const ALL: [Self; 5] = [Self::Envoy, Self::Filter, Self::Services, Self::Store, Self::Files];

    const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Filter => "filter",
            Self::Services => "services",
            Self::Store => "store",
            Self::Files => "files",
        }
    }

    /// Without Envoy nothing is served. Without the rest something is.
    const fn is_critical(self) -> bool {
        matches!(self, Self::Envoy)
    }

    /// How often it is looked at.
    const fn interval(self) -> Duration {
        match self {
            Self::Filter | Self::Store | Self::Files => Duration::from_millis(100),
            Self::Envoy => Duration::from_millis(500),
            Self::Services => Duration::from_secs(1),
        }
    }

    /// How long one look may take.
    const fn limit(self) -> Duration {
        match self {
            Self::Filter | Self::Envoy | Self::Store | Self::Files => Duration::from_secs(1),
            Self::Services => Duration::from_secs(2),
        }
    }

    async fn look(self, app: &App) -> Result<(), String> {
        match self {
            Self::Envoy => app.envoy.ready(self.limit()).await,
            Self::Filter => {
                let status = app.channel.status();
                match (status.connected, status.filter) {
                    (true, _) => Ok(()),
                    (false, None) => Err("no filter has polled since the sidecar started".into()),
                    (false, Some(_)) => Err("the filter has stopped polling".into()),
                }
            }
            Self::Store => app.replica.trouble().map_or(Ok(()), Err),
            Self::Files => {
                let trouble = app.files.trouble();
                if trouble.is_empty() { Ok(()) } else { Err(trouble.join("; ")) }
            }
            Self::Services => {
                let services = app.envoy.services(app.listen, self.limit()).await;
                app.board.set_services(services.as_deref().unwrap_or_default());
                let down: Vec<String> = services?
                    .into_iter()
                    .filter(|service| service.healthy == 0)
                    .map(|service| service.name)
                    .collect();
                if down.is_empty() {
                    return Ok(());
                }
                Err(format!("no host that gets traffic: {}", down.join(", ")))
            }
        }
    }
}

/// What is known of one check.
#[derive(Clone, Debug)]
struct Entry {
    healthy: Option<bool>,
    since: String,
    latency: Option<Duration>,
    /// The last error and when it was seen; kept when the check is healthy again.
    error: Option<(String, String)>,
}

/// The latest result of every check.
#[derive(Debug)]
pub(crate) struct Board {
    entries: [Mutex<Entry>; 5],
    services: Mutex<Vec<Service>>,
}

impl Board {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        let entry =
            || Mutex::new(Entry { healthy: None, since: log::now(), latency: None, error: None });
        let entries = [entry(), entry(), entry(), entry(), entry()];
        Self { entries, services: Mutex::default() }
    }

    /// Services as they were last seen; empty while Envoy does not tell.
    pub(crate) fn services(&self) -> Vec<Service> {
        lock(&self.services).clone()
    }

    fn set_services(&self, services: &[Service]) {
        *lock(&self.services) = services.to_vec();
    }

    fn entry(&self, check: Check) -> MutexGuard<'_, Entry> {
        let [envoy, filter, services, store, files] = &self.entries;
        lock(match check {
            Check::Envoy => envoy,
            Check::Filter => filter,
            Check::Services => services,
            Check::Store => store,
            Check::Files => files,
        })
    }

    /// Takes a result.
    pub(super) fn note(&self, check: Check, result: Result<(), String>, latency: Duration) {
        let mut entry = self.entry(check);
        let healthy = result.is_ok();
        if entry.healthy != Some(healthy) {
            entry.since = log::now();
            match &result {
                Ok(()) => info!(check = check.name(), "healthy"),
                Err(error) => warn!(check = check.name(), %error, "unhealthy"),
            }
        }
        entry.healthy = Some(healthy);
        entry.latency = Some(latency);
        if let Err(error) = result {
            entry.error = Some((error, log::now()));
        }
    }

    /// Whether the last result of a check was good.
    pub(crate) fn is_healthy(&self, check: Check) -> bool {
        self.entry(check).healthy == Some(true)
    }

    fn checks(&self) -> Value {
        let entries = Check::ALL.into_iter().map(|check| {
            let entry = self.entry(check).clone();
            let status = match entry.healthy {
                None => "unknown",
                Some(true) => "healthy",
                Some(false) => "unhealthy",
            };
            let mut value = Map::new();
            value.insert("status".into(), status.into());
            value.insert("since".into(), entry.since.into());
            value.insert("critical".into(), check.is_critical().into());
            if let Some(latency) = entry.latency {
                value.insert("latency_ms".into(), (latency.as_micros() as f64 / 1000.0).into());
            }
            if let Some((error, at)) = entry.error {
                if entry.healthy == Some(false) {
                    value.insert("error".into(), error.clone().into());
                }
                value.insert("last_error".into(), json!({ "at": at, "error": error }));
            }
            (check.name().to_owned(), Value::Object(value))
        });
        Value::Object(entries.collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts all checks; they end with the process.
pub(crate) fn start(app: &Arc<App>) {
    for check in Check::ALL {
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(check.interval());
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let start = Instant::now();
                let result = check.look(&app).await;
                app.board.note(check, result, start.elapsed());
            }
        });
    }
}

/// `GET /health`.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let bad = |critical| {
        Check::ALL
            .into_iter()
            .any(|check| check.is_critical() == critical && !app.board.is_healthy(check))
    };
    let (code, status) = if bad(true) {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    } else if bad(false) {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "healthy")
    };
    json_reply(code, &json!({ "status": status, "checks": app.board.checks() }))
}

/// `GET /livez`.
pub(super) async fn livez() -> Response {
    json_reply(StatusCode::OK, &json!({ "status": "alive" }))
}

/// `GET /readyz`: whether this gateway can take traffic and orders.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let missing: Vec<&str> = [Check::Envoy, Check::Filter]
        .into_iter()
        .filter(|check| !app.board.is_healthy(*check))
        .map(Check::name)
        .collect();
    if missing.is_empty() {
        return json_reply(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let body =
        json!({ "status": "not ready", "waiting_for": missing, "checks": app.board.checks() });
    json_reply(StatusCode::SERVICE_UNAVAILABLE, &body)
}
