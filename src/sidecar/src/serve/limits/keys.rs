//! Single keys of limits: how they stand, and forgetting what is known of one, or of somebody. All of
//! that is in Envoy's memory, so the filter is asked.

use super::super::bans::{canonical, known_provider, named, somebody, whose};
use super::super::body::{self, Fields};
use super::super::channel::{QueueFull, Taken};
use super::super::guard::{Named, RequestId, name, require_admin};
use super::super::hear::{DONE_WITHIN, Heard, hear};
use super::super::order::{Outcome, order, settle};
use super::super::problem::{Problem, json_reply};
use super::super::state::Audit;
use super::super::{App, moment};
use super::{BODY_MAX, in_policy};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use policy::replica::bans::Kind;
use policy::sync::{Action, DoneOutcome, KeyStanding};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Longest key that is read, encoded: the filter writes none that is longer than a quarter of it.
const KEY_MAX: usize = 2048;
/// Longest name of a limit that is looked for; a policy's are shorter.
const LIMIT_MAX: usize = 256;
/// The value of a part that a request lacks.
const MISSING: &str = "-";
/// What names the provider beside a user.
const PROVIDER: &str = "provider";

/// A key: the value of each part.
type Key = BTreeMap<String, String>;

/// `GET /gateway/rate-limits/{limit}/{key}`.
pub(in crate::serve) async fn read(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Response, Problem> {
    let (limit, text) = asked(&uri)?;
    let limit = in_policy(&app, limit)?;
    let key = key(&app, text, Some(&limit.key))?;
    if !app.channel.status().connected {
        return Err(Problem::FilterAway);
    }
    let action = Action::ReadKey { limit: limit.name.clone(), key: key.clone() };
    let taken = app.channel.put(action).map_err(|QueueFull| Problem::QueueFull)?;
    let Taken { done, .. } = taken;
    let done = async { done.await.ok() };
    let done = match hear(&app.channel, true, done, Instant::now() + DONE_WITHIN).await {
        Heard::Done(done) => done,
        Heard::Waits(_) => return Err(Problem::Timeout),
        Heard::Stopping => return Err(Problem::Stopping),
    };
    match done.outcome {
        DoneOutcome::Applied => {}
        DoneOutcome::Unknown => return Err(Problem::UnknownLimitKey),
        DoneOutcome::Failed => return Err(Problem::NotApplied),
    }
    let now_ms = moment::now_ms();
    let mut body = Map::new();
    body.insert("limit".to_owned(), limit.name.into());
    body.insert("key".to_owned(), json!(key));
    // The one that a request would be held up by longest stands for all.
    let worst = |one: &&KeyStanding| (std::cmp::Reverse(one.remaining), one.retry_ms, one.reset_ms);
    if let Some(Value::Object(worst)) =
        done.standings.iter().max_by_key(worst).map(|one| describe(one, now_ms))
    {
        body.extend(worst.into_iter().filter(|(name, _)| name != PROVIDER));
    }
    let standings = done.standings.iter().map(|one| describe(one, now_ms));
    body.insert("standings".to_owned(), standings.collect());
    Ok(json_reply(StatusCode::OK, &Value::Object(body)))
}

fn describe(one: &KeyStanding, now_ms: u64) -> Value {
    let reset = now_ms.saturating_add(one.reset_ms).div_ceil(1000);
    json!({
        "provider": one.provider, "known": one.known, "remaining": one.remaining,
        "reset": moment::print(reset), "reset_ms": one.reset_ms, "retry_ms": one.retry_ms,
    })
}

/// `DELETE /gateway/rate-limits/{limit}/{key}`: as if the key had never come.
pub(in crate::serve) async fn forget(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let (limit, text) = asked(&uri)?;
    // Without a policy nothing can be said against a key: the filter that connects will.
    let known = match in_policy(&app, limit.clone()) {
        Ok(limit) => Some(limit.key),
        Err(Problem::PolicyUnknown) => None,
        Err(other) => return Err(other),
    };
    let key = key(&app, text, known.as_deref())?;
    let audit = Audit { id, what: "reset-key", which: format!("{limit}/{text}") };
    let action = Action::ResetKey { limit: limit.clone(), key: key.clone() };
    let mut body = Map::new();
    body.insert("limit".to_owned(), limit.into());
    body.insert("key".to_owned(), json!(key));
    match ordered(&app, action, &audit, body).await? {
        Ordered::Answer(response) => Ok(response),
        Ordered::Nothing(_) => Err(Problem::UnknownLimitKey),
    }
}

/// `POST /gateway/rate-limits/reset`: what every limit knows of somebody. Other paths below have no
/// `POST`.
pub(in crate::serve) async fn reset(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    which: Named,
    request: Request,
) -> Result<Response, Problem> {
    require_admin(&app, request.headers())?;
    if name(which)? != "reset" {
        return Err(Problem::NotFound);
    }
    let body = body::read(request.into_body(), BODY_MAX).await?;
    let mut fields = Fields::read(&body)?;
    let who = somebody(&mut fields, &app)?;
    fields.end("ip, user or api_key; provider")?;
    let print = who.key(app.replica.keys());
    let audit = Audit { id, what: "reset-identity", which: whose(&print, &who) };
    let mut body = Map::new();
    body.insert("kind".to_owned(), who.kind.name().into());
    body.insert("name".to_owned(), who.name.clone().into());
    body.insert(PROVIDER.to_owned(), json!(who.provider));
    match ordered(&app, Action::ResetIdentity(named(&who)), &audit, body).await? {
        Ordered::Answer(response) => Ok(response),
        // Nobody can be forgotten more than that.
        Ordered::Nothing(mut body) => {
            body.insert("status".to_owned(), "nothing_there".into());
            Ok(json_reply(StatusCode::OK, &Value::Object(body)))
        }
    }
}

/// What the filter made of a reset.
enum Ordered {
    /// Done, or waiting.
    Answer(Response),
    /// There was nothing to forget.
    Nothing(Map<String, Value>),
}

async fn ordered(
    app: &App,
    action: Action,
    audit: &Audit,
    mut body: Map<String, Value>,
) -> Result<Ordered, Problem> {
    let order = order(app, action, audit);
    let (code, status) = match settle(app, order, audit).await {
        Outcome::Done(done) => match done.outcome {
            DoneOutcome::Applied => (StatusCode::OK, "applied"),
            DoneOutcome::Unknown => return Ok(Ordered::Nothing(body)),
            DoneOutcome::Failed => return Err(Problem::NotApplied),
        },
        Outcome::Waits(command, reason) => {
            body.insert("command".to_owned(), command.into());
            body.insert("reason".to_owned(), reason.into());
            (StatusCode::ACCEPTED, "accepted")
        }
        Outcome::Full => return Err(Problem::QueueFull),
        Outcome::Stopping => return Err(Problem::Stopping),
    };
    body.insert("status".to_owned(), status.into());
    Ok(Ordered::Answer(json_reply(code, &Value::Object(body))))
}

/// Limit and key of a path. The key is taken as it was sent: decoded, a comma in a value and one
/// between two parts would be the same.
fn asked(uri: &Uri) -> Result<(String, &str), Problem> {
    let mut segments = uri.path().split('/').skip(3);
    let (Some(limit), Some(key)) = (segments.next(), segments.next()) else {
        return Err(Problem::NotFound);
    };
    let limit = decoded(limit).filter(|limit| limit.len() <= LIMIT_MAX);
    Ok((limit.ok_or(Problem::NotFound)?, key))
}

/// Reads `part=value,...`, percent-encoded; `parts` are those of the limit, where it is known.
fn key(app: &App, text: &str, parts: Option<&[String]>) -> Result<Key, Problem> {
    let refuse = |wrong: String| {
        let all = parts.unwrap_or_default().join("=…,");
        let allowed = match parts {
            Some([]) => "`-`: this limit counts all together".to_owned(),
            Some(_) => format!("{all}=…, percent-encoded; `-` for a part that a request lacks"),
            None => "part=value,…, percent-encoded".to_owned(),
        };
        Problem::Field { field: "key".to_owned(), wrong, allowed }
    };
    if text.len() > KEY_MAX {
        return Err(refuse(format!("has {} bytes, which is more than {KEY_MAX}", text.len())));
    }
    let mut key = Key::new();
    let written = text.split(',').filter(|_| !matches!(text, "" | MISSING));
    for pair in written {
        let short = || pair.chars().take(40).collect::<String>();
        let read = pair.split_once('=').and_then(|(part, value)| {
            let (part, value) = (decoded(part)?, decoded(value)?);
            (!part.is_empty()).then_some((part, value))
        });
        let (part, value) = read.ok_or_else(|| refuse(format!("has `{}`", short())))?;
        let part = match part.split_once(':') {
            Some(("header", name)) => format!("header:{}", name.to_ascii_lowercase()),
            _ => part,
        };
        let value = match part.as_str() {
            "ip" if value != MISSING => canonical(Kind::Ip, &value)
                .ok_or_else(|| refuse(format!("has `{}`, which is no address", short())))?,
            _ => value,
        };
        if key.insert(part, value).is_some() {
            return Err(refuse(format!("has `{}` twice", short())));
        }
    }
    let Some(parts) = parts else { return Ok(key) };
    let has_user = parts.iter().any(|part| part == "user");
    if let Some(provider) = key.get(PROVIDER).filter(|_| has_user) {
        known_provider(app, provider).map_err(|known| {
            refuse(format!("names a provider that the policy has not, which has {known}"))
        })?;
    }
    let strange = |part: &&String| !(parts.contains(part) || has_user && *part == PROVIDER);
    if let Some(strange) = key.keys().find(strange) {
        let short: String = strange.chars().take(40).collect();
        return Err(refuse(format!("has `{short}`, which is no part of this limit's")));
    }
    match parts.iter().find(|part| !key.contains_key(*part)) {
        Some(missing) => Err(refuse(format!("lacks `{missing}`"))),
        None => Ok(key),
    }
}

/// Text without its percent-encoding; `None` when it is none, or no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn percent_encoding_is_taken_off_once() {
        for (text, expected) in [
            ("", Some("")),
            ("a+b", Some("a+b")),
            ("a%2Cb%3d%25", Some("a,b=%")),
            ("%C3%A4", Some("ä")),
            ("%2525", Some("%25")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+1", None),
            ("%C3", None),
        ] {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
    }
}
