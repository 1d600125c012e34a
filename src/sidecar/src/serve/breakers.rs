//! Circuit breakers over HTTP: what they are, from Envoy's statistics; and their reset, which is
//! done when the filter says so.

use super::App;
use super::guard::{Named, RequestId, name, require_admin};
use super::order::{Outcome, order, settle};
use super::problem::{Problem, json_reply};
use super::state::Audit;
use super::stats::Stats;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use policy::sync::{Action, DoneOutcome};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long Envoy may take to print its statistics.
const STATS_WITHIN: Duration = Duration::from_secs(2);
/// Longest name of a service, generous for Istio's `outbound|80||host` names.
const SERVICE_MAX: usize = 512;
/// The gauge that has a 1 for the state that a breaker is in.
const STATE: &str = "gateway_breaker_state";

/// `GET /gateway/circuit-breakers`.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let stats = stats(&app).await?;
    let breakers: Vec<Value> =
        services(&stats).into_iter().map(|service| describe(&stats, service)).collect();
    Ok(json_reply(StatusCode::OK, &json!({ "breakers": breakers })))
}

/// `GET /gateway/circuit-breakers/{service}`.
pub(super) async fn one(State(app): State<Arc<App>>, service: Named) -> Result<Response, Problem> {
    let service = name(service)?;
    let stats = stats(&app).await?;
    if !services(&stats).contains(&service.as_str()) {
        return Err(Problem::UnknownBreaker(service));
    }
    Ok(json_reply(StatusCode::OK, &describe(&stats, &service)))
}

/// `POST /gateway/circuit-breakers/{service}/reset`.
pub(super) async fn reset(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    service: Named,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let service = name(service)?;
    if service.len() > SERVICE_MAX {
        return Err(Problem::UnknownBreaker(service.chars().take(SERVICE_MAX).collect()));
    }
    let audit = audit(&id, &service);
    let order = order(&app, action(&service), &audit);
    let (command, reason) = match settle(&app, order, &audit).await {
        Outcome::Done(done) => return answer(&app, service, &done.outcome).await,
        Outcome::Waits(command, reason) => (command, reason),
        Outcome::Full => return Err(Problem::QueueFull),
        Outcome::Stopping => return Err(Problem::Stopping),
    };
    let body = json!({
        "service": service, "status": "accepted", "command": command, "reason": reason,
    });
    Ok(json_reply(StatusCode::ACCEPTED, &body))
}

async fn answer(app: &App, service: String, outcome: &DoneOutcome) -> Result<Response, Problem> {
    match outcome {
        DoneOutcome::Applied => {
            let state = match stats(app).await {
                Ok(stats) => describe(&stats, &service),
                // The filter has said that it is closed; Envoy's numbers are a courtesy.
                Err(_) => json!({ "service": service, "state": "closed" }),
            };
            Ok(json_reply(StatusCode::OK, &state))
        }
        DoneOutcome::Unknown => Err(Problem::UnknownBreaker(service)),
        DoneOutcome::Failed => Err(Problem::NotApplied),
    }
}

/// `POST /gateway/circuit-breakers/reset`: every breaker that Envoy knows of.
pub(super) async fn reset_all(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let before = stats(&app).await?;
    let names = services(&before);
    let orders: Vec<_> = names
        .iter()
        .map(|service| {
            let audit = audit(&id, service);
            (*service, order(&app, action(service), &audit), audit)
        })
        .collect();
    let mut waits = false;
    let mut results = Vec::new();
    for (service, order, audit) in orders {
        let mut result = Map::new();
        result.insert("service".into(), service.into());
        let outcome = match settle(&app, order, &audit).await {
            Outcome::Done(done) => match done.outcome {
                DoneOutcome::Applied => "applied",
                DoneOutcome::Unknown => "unused",
                DoneOutcome::Failed => "failed",
            },
            Outcome::Waits(command, reason) => {
                waits = true;
                result.insert("command".into(), command.into());
                result.insert("reason".into(), reason.into());
                "accepted"
            }
            Outcome::Full => return Err(Problem::QueueFull),
            Outcome::Stopping => return Err(Problem::Stopping),
        };
        result.insert("status".into(), outcome.into());
        results.push(result);
    }
    if results.iter().any(|result| result.get("status") == Some(&"failed".into())) {
        return Err(Problem::NotApplied);
    }
    if let (false, Ok(after)) = (waits, stats(&app).await) {
        for result in &mut results {
            let state =
                result.get("service").and_then(Value::as_str).map(|name| state(&after, name));
            result.insert("state".into(), state.into());
        }
    }
    let code = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(json_reply(code, &json!({ "breakers": results })))
}

fn audit(id: &RequestId, service: &str) -> Audit {
    Audit { id: id.clone(), what: "reset-breaker", which: service.to_owned() }
}

fn action(service: &str) -> Action {
    Action::ResetBreaker { service: service.to_owned() }
}

async fn stats(app: &App) -> Result<Stats, Problem> {
    app.envoy.stats(STATS_WITHIN).await.map_err(Problem::EnvoyUnavailable)
}

fn services(stats: &Stats) -> Vec<&str> {
    stats.label_values(STATE, "service")
}

/// Where no state has a 1 nobody has called the service yet, and its breaker lets traffic flow.
fn state(stats: &Stats, service: &str) -> &'static str {
    let is = |state| stats.get(STATE, &[("service", service), ("state", state)]).unwrap_or(0) > 0;
    if is("open") {
        "open"
    } else if is("half_open") {
        "half_open"
    } else {
        "closed"
    }
}

fn describe(stats: &Stats, service: &str) -> Value {
    let count = |metric: &str, label: &str| {
        let mut counts = Map::new();
        for value in stats.label_values(metric, label) {
            if let Some(count) = stats.get(metric, &[("service", service), (label, value)]) {
                counts.insert(value.to_owned(), count.into());
            }
        }
        Value::Object(counts)
    };
    json!({
        "service": service,
        "state": state(stats, service),
        "calls": count("gateway_breaker_calls_total", "kind"),
        "transitions": count("gateway_breaker_transitions_total", "to"),
    })
}
