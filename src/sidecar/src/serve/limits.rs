//! Rate limits over HTTP: what they are, what they did, and other numbers at run time. Single keys
//! are in `limits/keys.rs`.

mod keys;
#[cfg(test)]
mod tests;

use super::App;
use super::body::{self, Fields};
use super::guard::{Named, RequestId, name, require_admin};
use super::moment;
use super::problem::{Problem, json_reply};
use super::reports::Refused;
use super::state::{Audit, answer, change, shown};
use super::stats::Stats;
use crate::store::{Change, Overridden};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
pub(super) use keys::{forget, read, reset};
use policy::config::Mistake;
use policy::replica::overrides::Override;
use policy::sync::LimitInForce;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest body of a call.
const BODY_MAX: usize = 64 * 1024;
/// Most overrides: every limit of a few policies.
const OVERRIDES_MAX: usize = 1024;
/// Longest mode that is looked at; the words are shorter.
const MODE_MAX: usize = 64;
/// What an override may have.
const MEMBERS: &str = "requests, per, burst, mode";
/// How long Envoy may take to print its statistics.
const STATS_WITHIN: Duration = Duration::from_secs(2);
/// Parts of a key that tell of nobody: they are names of the policy.
const NOBODY: [&str; 3] = ["service", "endpoint", "tier"];

/// `GET /gateway/rate-limits`: every limit of the policy in force.
pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let status = app.channel.status();
    let stats = app.envoy.stats(STATS_WITHIN).await.ok();
    let with_names = app.admin_token.is_in(&headers);
    let limits = &status.wants.limits;
    let rows = limits.iter().map(|limit| {
        let mut row = describe(&app, limit);
        tell(&mut row, &app, &limit.name, stats.as_ref(), with_names);
        Value::Object(row)
    });
    let rows: Vec<Value> = rows.collect();
    let held = app.replica.held();
    let known = |name: &String| limits.iter().any(|limit| limit.name == *name);
    let unused = held.overrides().iter().filter(|(name, _)| !known(name));
    let unused: Vec<Value> =
        unused.map(|(name, one)| json!({ "name": name, "override": numbers(one) })).collect();
    let body = json!({
        "limits": rows,
        "unused_overrides": unused,
        "not_listed": app.reports.lost(),
        "connected": status.connected,
    });
    drop(held);
    json_reply(StatusCode::OK, &body)
}

/// `GET /gateway/rate-limits/{limit}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    which: Named,
) -> Result<Response, Problem> {
    let limit = in_policy(&app, name(which)?)?;
    let stats = app.envoy.stats(STATS_WITHIN).await.ok();
    let mut row = describe(&app, &limit);
    tell(&mut row, &app, &limit.name, stats.as_ref(), app.admin_token.is_in(&headers));
    Ok(json_reply(StatusCode::OK, &Value::Object(row)))
}

/// `PUT /gateway/rate-limits/{limit}`: other numbers than the policy's, from now on.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    which: Named,
    request: Request,
) -> Result<Response, Problem> {
    require_admin(&app, request.headers())?;
    let which = name(which)?;
    let body = body::read(request.into_body(), BODY_MAX).await?;
    let mut fields = Fields::read(&body)?;
    let wanted = Override {
        requests: fields.integer("requests")?,
        per_ms: fields.span_ms("per")?,
        burst: fields.integer("burst")?,
        mode: fields.text("mode", MODE_MAX)?,
    };
    fields.end(MEMBERS)?;
    if wanted == Override::default() {
        return Err(Problem::Field {
            field: "requests".to_owned(),
            wrong: "is missing".to_owned(),
            allowed: format!("at least one of {MEMBERS}"),
        });
    }
    let audit = Audit { id, what: "override-limit", which: said(&which, &wanted) };
    let handed = change(&app, audit, move |app, held| {
        let limit = in_policy(app, which)?;
        fits(&limit, &wanted)?;
        let new = !held.overrides().contains_key(&limit.name);
        if new && held.overrides().len() >= OVERRIDES_MAX {
            return Err(Problem::Full("overrides", OVERRIDES_MAX));
        }
        let one = Overridden { change: wanted, since: moment::now() };
        Ok((vec![Change::PutOverride(limit.name.clone(), one)], limit))
    })
    .await?;
    let body = describe(&app, &handed.planned);
    Ok(answer(&app, handed, StatusCode::OK, body).await)
}

/// What the audit log says of an override.
fn said(limit: &str, wanted: &Override) -> String {
    let limit: String = limit.chars().take(64).collect();
    let numbers = serde_json::to_string(wanted).unwrap_or_default();
    format!("{limit} {numbers}")
}

/// Asks the policy's own rules.
fn fits(limit: &LimitInForce, wanted: &Override) -> Result<(), Problem> {
    let Err(mistakes) = limit.with(wanted) else { return Ok(()) };
    let Some(Mistake { path, wrong, allowed }) = mistakes.into_iter().next() else { return Ok(()) };
    if ["requests", "per", "burst", "mode"].contains(&path.as_str()) {
        return Err(Problem::Field { field: path, wrong, allowed });
    }
    // It is about what only the policy has; what was sent does not fit that.
    let field = match wanted {
        Override { burst: Some(_), .. } => "burst",
        Override { requests: Some(_), .. } => "requests",
        _ => "per",
    };
    let wrong = format!("does not fit the policy's {path}: {wrong}");
    Err(Problem::Field { field: field.to_owned(), wrong, allowed })
}

/// `DELETE /gateway/rate-limits/{limit}`: back to the policy. What was overridden may be a limit that
/// the policy no longer has.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    which: Named,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let which = name(which)?;
    let audit = Audit { id, what: "delete-override", which: which.chars().take(64).collect() };
    let limit = which.clone();
    let handed = change(&app, audit, move |app, held| {
        if held.overrides().contains_key(&limit) {
            return Ok((vec![Change::DropOverride(limit)], ()));
        }
        in_policy(app, limit).and_then(|limit| Err(Problem::UnknownOverride(limit.name)))
    })
    .await?;
    let mut body = match in_policy(&app, which.clone()) {
        Ok(limit) => describe(&app, &limit),
        Err(_) => Map::new(),
    };
    body.insert("name".to_owned(), which.into());
    Ok(answer(&app, handed, StatusCode::OK, body).await)
}

/// A limit of the policy in force, by the filter's last word.
fn in_policy(app: &App, name: String) -> Result<LimitInForce, Problem> {
    let status = app.channel.status();
    if status.filter.is_none() {
        return Err(Problem::PolicyUnknown);
    }
    let found = status.wants.limits.into_iter().find(|limit| limit.name == name);
    found.ok_or_else(|| Problem::UnknownLimit(name.chars().take(64).collect()))
}

/// A limit with the numbers in force.
fn describe(app: &App, limit: &LimitInForce) -> Map<String, Value> {
    let held = app.replica.held();
    let one = held.overrides().get(&limit.name);
    let changed = one.map(|one| limit.with(&one.change));
    let now = match &changed {
        Some(Ok(changed)) => changed,
        _ => limit,
    };
    let mut overridden = one.map(numbers);
    if let (Some(Value::Object(numbers)), Some(Err(mistakes))) = (&mut overridden, &changed) {
        // The policy has changed since: the filter leaves such an override alone.
        let why: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        numbers.insert("not_in_force".to_owned(), why.join("; ").into());
    }
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("name", json!(limit.name));
    put("algorithm", json!(limit.algorithm));
    put("key", json!(limit.key));
    put("requests", json!(now.requests));
    put("per", moment::show_span_ms(now.per_ms).into());
    put("burst", json!(now.burst));
    put("queue", json!(now.queue));
    put("cost", json!(now.cost));
    put("mode", json!(now.mode));
    put("penalty", json!(limit.penalty));
    put("keys_max", json!(limit.keys_max));
    put(
        "policy",
        json!({
            "requests": limit.requests, "per": moment::show_span_ms(limit.per_ms),
            "burst": limit.burst, "mode": limit.mode,
        }),
    );
    put("override", overridden.unwrap_or_default());
    body
}

/// An override as it is shown: what it changes, and since when.
fn numbers(one: &Overridden) -> Value {
    let mut body = Map::new();
    let Override { requests, per_ms, burst, mode } = &one.change;
    let members = [
        ("requests", requests.map(Value::from)),
        ("per", per_ms.map(|per| moment::show_span_ms(per).into())),
        ("burst", burst.map(Value::from)),
        ("mode", mode.clone().map(Value::from)),
        ("since", Some(shown(Some(one.since)))),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    Value::Object(body)
}

/// Adds what a limit did: totals since the start of Envoy, and the keys that it refused most.
fn tell(
    row: &mut Map<String, Value>,
    app: &App,
    limit: &str,
    stats: Option<&Stats>,
    with_names: bool,
) {
    let totals = stats.map(|stats| {
        let mut totals = Map::new();
        let metric = "gateway_rate_limit_total";
        for outcome in stats.label_values(metric, "outcome") {
            let count = stats.get(metric, &[("limit", limit), ("outcome", outcome)]);
            totals.insert(outcome.to_owned(), count.unwrap_or(0).into());
        }
        for (name, metric) in
            [("paused", "gateway_rate_limit_paused_total"), ("bans", "gateway_bans_total")]
        {
            let count = stats.get(metric, &[("limit", limit)]);
            totals.insert(name.to_owned(), count.unwrap_or(0).into());
        }
        Value::Object(totals)
    });
    row.insert("totals".to_owned(), totals.unwrap_or_default());
    let top = app.reports.top(limit).into_iter().map(|Refused { key, count, over }| {
        let key = if with_names { key } else { mask(&key) };
        json!({ "key": key, "refused": count, "over_by_at_most": over })
    });
    row.insert("top_keys".to_owned(), top.collect());
}

/// A key without what tells of somebody.
fn mask(key: &str) -> String {
    let parts = key.split(',').map(|part| match part.split_once('=') {
        Some((name, _)) if !NOBODY.contains(&name) => format!("{name}=***"),
        Some(_) => part.to_owned(),
        None => "***".to_owned(),
    });
    if key.is_empty() { String::new() } else { parts.collect::<Vec<_>>().join(",") }
}
