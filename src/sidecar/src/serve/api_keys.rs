//! API keys over HTTP: made, listed, rotated, deleted. A secret is shown once, when it is made; only
//! its hash is kept.

#[cfg(test)]
mod tests;

use super::App;
use super::body::{self, Fields};
use super::guard::{Named, RequestId, name, require_admin};
use super::page::{Page, Query};
use super::problem::{Problem, json_reply};
use super::replica::Held;
use super::state::{Audit, answer, change, gone, shown};
use super::{hex, moment};
use crate::store::{About, ApiKey, Change};
use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use policy::config::{Environment, Mistake};
use policy::replica::api_keys::Entry;
use policy::verify::Digest;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most secrets, those that are being replaced included: each has some 300 bytes in memory.
const KEYS_MAX: usize = 100_000;
/// Most secrets of one id: the present one and those that it has replaced.
const ROTATING_MAX: usize = 8;
/// Longest body of a call.
const BODY_MAX: usize = 64 * 1024;
/// Longest id.
const ID_MAX: usize = 128;
/// Most permissions, and most networks, of one key.
const ENTRIES_MAX: usize = 100;
/// Longest permission, network or tier; the policy's own rules come on top.
const ENTRY_MAX: usize = 256;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// What a secret begins with, so that scanners know one when they see it.
const SECRET_PREFIX: &str = "gw_";
/// How long the old secret stays good where a rotation does not say, in seconds.
const OVERLAP: u64 = 24 * 3600;
/// The longest that it may say.
const OVERLAP_MAX: u64 = 30 * 24 * 3600;

/// `POST /gateway/api-keys`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    require_admin(&app, request.headers())?;
    let body = body::read(request.into_body(), BODY_MAX).await?;
    let now = moment::now();
    let entry = wanted(Fields::read(&body)?, now)?;
    let (secret, sha256) = secret()?;
    let about = About { entry, created: now, replaced: false };
    let key = ApiKey { sha256, about };
    let audit = Audit { id, what: "make-api-key", which: key.about.entry.id.clone() };
    let handed = change(&app, audit, move |app, held| {
        taken(app)?;
        let entry = &key.about.entry;
        if held.keys().values().any(|other| other.about.entry.id == entry.id) {
            return Err(Problem::KeyExists(entry.id.clone()));
        }
        if held.keys().len() >= KEYS_MAX {
            return Err(Problem::Full("API keys", KEYS_MAX));
        }
        Ok((vec![Change::PutKey(key.clone())], key.about))
    })
    .await?;
    let mut body = describe(&handed.planned);
    body.insert("secret".to_owned(), secret.into());
    Ok(answer(&app, handed, StatusCode::CREATED, body).await)
}

/// Reads what a key shall be. The rules are those of the policy's own keys, and are asked there.
fn wanted(mut fields: Fields, now: u64) -> Result<Entry, Problem> {
    let id = fields.text("id", ID_MAX)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let allowed = format!("1 to {ID_MAX} letters, digits, dashes, underscores and dots");
    let id = match id {
        None => return Err(fields.refuse("id", "is missing", &allowed)),
        Some(id) if !id.bytes().all(plain) || matches!(id.as_str(), "." | "..") => {
            return Err(fields.refuse("id", "has other characters", &allowed));
        }
        Some(id) => id,
    };
    let permissions = fields.texts("permissions", ENTRIES_MAX, ENTRY_MAX)?;
    let tier = fields.text("tier", ENTRY_MAX)?;
    let expires = fields.moment("expires")?.map(u64::from);
    if expires.is_some_and(|expires| expires <= now) {
        return Err(fields.refuse("expires", "has passed", "a time to come"));
    }
    let cidrs = fields.texts("cidrs", ENTRIES_MAX, ENTRY_MAX)?;
    let entry = Entry { id, permissions, tier, expires, cidrs };
    check(&entry)?;
    fields.end("id, permissions, tier, expires, cidrs")?;
    Ok(entry)
}

/// Judges an entry as a key of a policy would be.
fn check(entry: &Entry) -> Result<(), Problem> {
    let mut key = json!({
        "id": entry.id, "sha256": "0".repeat(64), "permissions": entry.permissions,
        "cidrs": entry.cidrs,
    });
    if let (Some(tier), Some(key)) = (&entry.tier, key.as_object_mut()) {
        key.insert("tier".to_owned(), json!(tier));
    }
    let policy = json!({
        "version": 1,
        "authentication": { "mode": "required", "api_keys": { "keys": [key] } },
    });
    let Err(mistakes) = policy::config::read(&policy, Environment::Unknown) else { return Ok(()) };
    let Some(Mistake { path, wrong, allowed }) = mistakes.into_iter().next() else { return Ok(()) };
    let field = path.strip_prefix("authentication.api_keys.keys[0].").unwrap_or(&path).to_owned();
    Err(Problem::Field { field, wrong, allowed })
}

/// A new secret and its hash.
fn secret() -> Result<(String, [u8; 32]), Problem> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| Problem::NoRandomness)?;
    let secret = format!("{SECRET_PREFIX}{}", hex::base64url(&bytes));
    let sha256 = token::Sha.sha256(secret.as_bytes());
    Ok((secret, sha256))
}

/// Refuses where the policy in force takes no API keys.
fn taken(app: &App) -> Result<(), Problem> {
    let status = app.channel.status();
    if status.connected && !status.wants.api_keys {
        return Err(Problem::NotInPolicy("authentication.api_keys"));
    }
    Ok(())
}

/// `POST /gateway/api-keys/{id}/rotate`.
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    which: Named,
    request: Request,
) -> Result<Response, Problem> {
    require_admin(&app, request.headers())?;
    let which = name(which)?;
    let body = body::read(request.into_body(), BODY_MAX).await?;
    let overlap = if body.is_empty() {
        OVERLAP
    } else {
        let mut fields = Fields::read(&body)?;
        let overlap = fields.span("overlap", OVERLAP_MAX)?;
        fields.end("overlap")?;
        overlap.unwrap_or(OVERLAP)
    };
    let (secret, sha256) = secret()?;
    let now = moment::now();
    let audit = Audit { id, what: "rotate-api-key", which: which.clone() };
    let handed = change(&app, audit, move |app, held| {
        taken(app)?;
        plan_rotation(held, &which, sha256, overlap, now)
    })
    .await?;
    let (about, old_until) = &handed.planned;
    let mut body = describe(about);
    body.insert("secret".to_owned(), secret.into());
    body.insert("old_until".to_owned(), shown(Some(*old_until)));
    Ok(answer(&app, handed, StatusCode::OK, body).await)
}

/// A new secret in the place of the present one; the old ones stay good for the overlap at most.
/// Gives until when the present one does.
fn plan_rotation(
    held: &Held,
    id: &str,
    sha256: [u8; 32],
    overlap: u64,
    now: u64,
) -> Result<(Vec<Change>, (About, u64)), Problem> {
    let of_id: Vec<&ApiKey> = held.keys().values().filter(|key| key.about.entry.id == id).collect();
    let present = of_id.iter().find(|key| !key.about.replaced).ok_or(Problem::UnknownKey)?;
    if present.about.entry.expires.is_some_and(|expires| expires <= now) {
        return Err(Problem::UnknownKey);
    }
    if of_id.len() >= ROTATING_MAX && overlap > 0 {
        return Err(Problem::Full("secrets of one key: wait until old ones expire", ROTATING_MAX));
    }
    if held.keys().len() >= KEYS_MAX && overlap > 0 {
        return Err(Problem::Full("API keys", KEYS_MAX));
    }
    let about = About { entry: present.about.entry.clone(), created: now, replaced: false };
    let last = now.saturating_add(overlap);
    let mut changes = vec![Change::PutKey(ApiKey { sha256, about: about.clone() })];
    for old in of_id {
        if overlap == 0 {
            changes.push(Change::DropKey(old.sha256));
            continue;
        }
        let mut old = old.clone();
        old.about.replaced = true;
        old.about.entry.expires =
            Some(old.about.entry.expires.map_or(last, |expires| expires.min(last)));
        changes.push(Change::PutKey(old));
    }
    let old_until = about.entry.expires.map_or(last, |expires| expires.min(last));
    Ok((changes, (about, old_until)))
}

/// `DELETE /gateway/api-keys/{id}`: the key with all its secrets.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    which: Named,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let which = name(which)?;
    let body = gone(&which);
    let audit = Audit { id, what: "delete-api-key", which: which.clone() };
    let handed = change(&app, audit, move |_, held| {
        let of_id = held.keys().values().filter(|key| key.about.entry.id == which);
        let changes: Vec<Change> = of_id.map(|key| Change::DropKey(key.sha256)).collect();
        if changes.is_empty() { Err(Problem::UnknownKey) } else { Ok((changes, ())) }
    })
    .await?;
    Ok(answer(&app, handed, StatusCode::OK, body).await)
}

/// `GET /gateway/api-keys`: by id. Ids are identities: without the token they are masked, and only
/// the first page can be had, because a cursor is an id.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(query.as_deref())?;
    let with_names = app.admin_token.is_in(&headers);
    let after = query.cursor(|id| Some(id.to_owned()))?.filter(|_| with_names);
    let held = app.replica.held();
    let mut all: BTreeMap<&str, Vec<&About>> = BTreeMap::new();
    for key in held.keys().values() {
        all.entry(&key.about.entry.id).or_default().push(&key.about);
    }
    let total = all.len();
    let behind = |id: &str| after.as_deref().is_none_or(|after| id > after);
    let mut rest = all.into_iter().filter(|(id, _)| behind(id)).peekable();
    let (mut rows, mut last) = (Vec::new(), None);
    for (id, secrets) in rest.by_ref().take(query.limit) {
        let mut row = describe_all(secrets);
        if !with_names {
            row.insert("id".to_owned(), "***".into());
        }
        rows.push(Value::Object(row));
        last = Some(id.to_owned());
    }
    let next = last.filter(|_| with_names && rest.peek().is_some());
    Ok(json_reply(StatusCode::OK, &Page { name: "api_keys", rows, total, next }.body()))
}

/// A key with all its secrets as it is shown; the present one speaks for it.
fn describe_all(mut secrets: Vec<&About>) -> Map<String, Value> {
    secrets.sort_by_key(|about| (about.replaced, about.created));
    let mut secrets = secrets.into_iter();
    let mut body = secrets.next().map(describe).unwrap_or_default();
    let old: Vec<Value> = secrets
        .map(|about| {
            json!({ "created": shown(Some(about.created)), "expires": shown(about.entry.expires) })
        })
        .collect();
    body.insert("replaced_secrets".to_owned(), old.into());
    body
}

/// A key as it is shown.
fn describe(about: &About) -> Map<String, Value> {
    let Entry { id, permissions, tier, expires, cidrs } = &about.entry;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("id", json!(id));
    put("permissions", json!(permissions));
    put("tier", json!(tier));
    put("expires", shown(*expires));
    put("cidrs", json!(cidrs));
    put("created", shown(Some(about.created)));
    body
}
