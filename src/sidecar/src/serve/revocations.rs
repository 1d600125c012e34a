//! Revocations over HTTP: made one by one or thousands at once, listed, taken back.

#[cfg(test)]
mod tests;

use super::App;
use super::body::{self, Fields};
use super::guard::{Named, RequestId, name, require_admin};
use super::page::{Page, Query};
use super::problem::{Problem, json_reply};
use super::replica::{Held, Replica};
use super::state::{Audit, answer, change, expired, gone, shown};
use super::{hex, moment};
use crate::store::{Change, Revocation, kind_name};
use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use policy::replica::revocations::{Kind, Print};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most revocations in one call: one transaction and some ten thousand buckets for the filter.
const AT_ONCE_MAX: usize = 10_000;
/// Longest body: [`AT_ONCE_MAX`] revocations with 400 bytes each.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// Longest `jti`, subject or issuer: tokens that are longer fit no header.
const NAME_MAX: usize = 1024;
/// Longest note.
const NOTE_MAX: usize = 256;
/// Most revocations where no filter has told its policy's `revocation.max`: that key's default.
const MAX_UNTOLD: u32 = 1_000_000;
/// What there are too many of.
const FULL: &str = "revocations (the policy's revocation.max)";
/// What an object may have.
const MEMBERS: &str = "jti, sub, issuer, issued_before, expires, note";

/// `POST /gateway/revocations`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    require_admin(&app, request.headers())?;
    let body = body::read(request.into_body(), BODY_MAX).await?;
    let mut fields = Fields::read(&body)?;
    let now = moment::now();
    let list = fields.objects("revocations", AT_ONCE_MAX)?;
    let many = list.is_some();
    let wanted = match list {
        None => vec![wanted(fields, now)?],
        Some(list) => {
            fields.end("revocations")?;
            list.into_iter().map(|one| wanted(one, now)).collect::<Result<_, _>>()?
        }
    };
    let keys = app.replica.keys();
    let which = match wanted.as_slice() {
        [one] if !many => hex::print(&one.print(keys)),
        all => format!("{} revocations", all.len()),
    };
    let audit = Audit { id, what: "revoke", which };
    let handed = change(&app, audit, move |app, held| {
        let max = revocations_max(app)?;
        plan(&wanted, held, &app.replica, max, now.min(app.expiry.agreed()))
    })
    .await?;
    let body = match handed.planned.as_slice() {
        [(print, one)] if !many => {
            let mut body = describe(print, one);
            if one.expires.is_none() {
                body.insert("stays".to_owned(), "until it is deleted".into());
            }
            body
        }
        all => {
            let ids: Vec<Value> = all.iter().map(|(print, _)| hex::print(print).into()).collect();
            let mut body = Map::new();
            body.insert("count".to_owned(), ids.len().into());
            body.insert("ids".to_owned(), ids.into());
            body
        }
    };
    Ok(answer(&app, handed, StatusCode::OK, body).await)
}

/// Reads one revocation.
fn wanted(mut fields: Fields, now: u64) -> Result<Revocation, Problem> {
    let one_of = "one of jti, sub, or issuer alone";
    let (jti, sub) = (fields.text("jti", NAME_MAX)?, fields.text("sub", NAME_MAX)?);
    let issuer = fields.text("issuer", NAME_MAX)?;
    let expires = fields.moment("expires")?;
    let issued_before = fields.moment("issued_before")?;
    let note = fields.text("note", NOTE_MAX)?;
    if expires.is_some_and(|expires| u64::from(expires) <= now) {
        let allowed = "a time to come: when the tokens that are meant have expired";
        return Err(fields.refuse("expires", "has passed", allowed));
    }
    let (kind, issuer, value) = match (jti, sub, issuer) {
        (Some(_), Some(_), _) => return Err(fields.refuse("sub", "stands beside jti", one_of)),
        (Some(jti), None, issuer) => (Kind::Token, issuer, jti),
        (None, Some(sub), issuer) => (Kind::Subject, issuer, sub),
        (None, None, Some(issuer)) => (Kind::Issuer, None, issuer),
        (None, None, None) => return Err(fields.refuse("jti", "is missing", one_of)),
    };
    let issued_before = match (kind, issued_before) {
        (Kind::Token, None) => None,
        (Kind::Token, Some(_)) => {
            let allowed = "only beside sub or issuer: a jti means one token";
            return Err(fields.refuse("issued_before", "stands beside jti", allowed));
        }
        // Tokens say when they were issued in whole seconds, rounded down: one of a moment ago bears
        // the second that is still running.
        (_, None) => Some(u32::try_from(now.saturating_add(1)).unwrap_or(u32::MAX - 1)),
        (_, given) => given,
    };
    fields.end(MEMBERS)?;
    Ok(Revocation { kind, issuer, value, issued_before, expires, created: now, note })
}

/// How many there may be, by the policy in force.
fn revocations_max(app: &App) -> Result<usize, Problem> {
    let status = app.channel.status();
    let max = match status.wants.revocations_max {
        None if status.connected => return Err(Problem::NotInPolicy("revocation")),
        told => told.unwrap_or(MAX_UNTOLD),
    };
    Ok(usize::try_from(max).unwrap_or(usize::MAX))
}

/// The changes, and what is then there for every one that is wanted.
type Planned = (Vec<Change>, Vec<(Print, Revocation)>);

/// What is to be changed so that everything wanted is revoked: what is revoked already stays, with
/// the later of both times.
fn plan(
    wanted: &[Revocation],
    held: &Held,
    replica: &Replica,
    max: usize,
    now: u64,
) -> Result<Planned, Problem> {
    let mut after: HashMap<Print, Revocation> = HashMap::new();
    let mut prints = Vec::new();
    let mut puts = BTreeMap::new();
    let mut new = 0_usize;
    for one in wanted {
        let print = one.print(replica.keys());
        prints.push(print);
        let there = match after.get(&print) {
            Some(there) => Some(there.clone()),
            None if held.revocations().contains_key(&print) => replica.revocation(&print)?,
            None => None,
        };
        let merged = match &there {
            None => {
                new = new.saturating_add(1);
                one.clone()
            }
            Some(there) => merged(there, one),
        };
        if there.as_ref() != Some(&merged) {
            puts.insert(print, merged.clone());
        }
        after.insert(print, merged);
    }
    let mut changes: Vec<Change> =
        puts.into_iter().map(|(print, one)| Change::PutRevocation(print, one)).collect();
    let there = held.revocations().len();
    if new > 0 && there.saturating_add(new) > max {
        // What has expired takes nobody's place.
        let mut room: Vec<Change> = expired(held, now);
        room.retain(|drop| match drop {
            Change::DropRevocation(print) => !after.contains_key(print),
            _ => false,
        });
        if there.saturating_sub(room.len()).saturating_add(new) > max {
            return Err(Problem::Full(FULL, max));
        }
        changes.extend(room);
    }
    let all = prints.into_iter().filter_map(|print| Some((print, after.get(&print)?.clone())));
    Ok((changes, all.collect()))
}

/// One that is there and is revoked again: the later time wins, and never is later than any.
fn merged(there: &Revocation, again: &Revocation) -> Revocation {
    let later = |one: Option<u32>, other: Option<u32>| Some(one?.max(other?));
    Revocation {
        issued_before: later(there.issued_before, again.issued_before),
        expires: later(there.expires, again.expires),
        note: again.note.clone().or_else(|| there.note.clone()),
        ..there.clone()
    }
}

/// `GET /gateway/revocations`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(query.as_deref())?;
    let after = query.cursor(hex::read::<16>)?;
    let with_names = app.admin_token.is_in(&headers);
    let looking = Arc::clone(&app);
    let limit = query.limit.saturating_add(1);
    let read =
        tokio::task::spawn_blocking(move || looking.replica.revocations(after.as_ref(), limit));
    let mut page = read.await.map_err(|_| Problem::Store)??;
    let more = page.len() > query.limit;
    page.truncate(query.limit);
    let next = page.last().filter(|_| more).map(|(print, _)| hex::print(print));
    let rows = page.iter().map(|(print, one)| {
        let mut row = describe(print, one);
        if !with_names {
            mask(&mut row, one.kind);
        }
        Value::Object(row)
    });
    let rows: Vec<Value> = rows.collect();
    let total = app.replica.held().revocations().len();
    Ok(json_reply(StatusCode::OK, &Page { name: "revocations", rows, total, next }.body()))
}

/// `DELETE /gateway/revocations/{id}`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    which: Named,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let which = name(which)?;
    let print = hex::read::<16>(&which).ok_or(Problem::UnknownRevocation)?;
    let audit = Audit { id, what: "take-back-revocation", which: which.clone() };
    let handed =
        change(&app, audit, move |_, held| match held.revocations().contains_key(&print) {
            true => Ok((vec![Change::DropRevocation(print)], ())),
            false => Err(Problem::UnknownRevocation),
        })
        .await?;
    Ok(answer(&app, handed, StatusCode::OK, gone(&which)).await)
}

/// A revocation as it is shown.
fn describe(print: &Print, one: &Revocation) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("id", hex::print(print).into());
    put("kind", kind_name(one.kind).into());
    put(name_of(one.kind), json!(one.value));
    if let Some(issuer) = &one.issuer {
        put("issuer", json!(issuer));
    }
    if one.kind != Kind::Token {
        put("issued_before", shown(one.issued_before));
    }
    put("expires", shown(one.expires));
    put("created", shown(Some(one.created)));
    if let Some(note) = &one.note {
        put("note", json!(note));
    }
    body
}

/// The member that holds the name.
const fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Token => "jti",
        Kind::Subject => "sub",
        Kind::Issuer => "issuer",
    }
}

/// Takes out what tells of somebody. Issuers are nobody.
fn mask(row: &mut Map<String, Value>, kind: Kind) {
    let name = (kind != Kind::Issuer).then(|| name_of(kind));
    for name in name.into_iter().chain(["note"]) {
        if let Some(value) = row.get_mut(name) {
            *value = "***".into();
        }
    }
}
