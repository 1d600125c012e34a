//! Bans over HTTP: made, listed, lifted. What penalties did comes in by `reports.rs`.

#[cfg(test)]
mod tests;

use super::App;
use super::body::{self, Fields};
use super::guard::{self, RequestId, name, require_admin};
use super::page::{Page, Query};
use super::problem::{Problem, json_reply};
use super::replica::Held;
use super::state::{Audit, answer, change, expired, gone, shown};
use super::{hex, moment};
use crate::store::{AdminBan, Ban, BanKey, Change, Source, Stands};
use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use policy::replica::bans::{BANS_MAX, Kind};
use policy::stage::ip::is_within;
use policy::sync::Named;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// Longest body of a call.
const BODY_MAX: usize = 64 * 1024;
/// Longest user, id or provider: a token that is longer fits no header.
pub(super) const NAME_MAX: usize = 1024;
/// Longest note.
const NOTE_MAX: usize = 256;
/// Longest `duration` in seconds: ten years. Who is to stay away for ever needs none.
const DURATION_MAX: u64 = 3650 * 86_400;
/// What there are too many of.
const FULL: &str = "bans";
/// What an object may have.
const MEMBERS: &str = "ip, user or api_key; provider, duration or expires, note";

/// `POST /gateway/bans`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    require_admin(&app, request.headers())?;
    let body = body::read(request.into_body(), BODY_MAX).await?;
    let now_ms = moment::now_ms();
    let (who, ban) = wanted(Fields::read(&body)?, &app, now_ms)?;
    let keys = app.replica.keys();
    let key = who.key(keys);
    let audit = Audit { id, what: "ban", which: whose(&key, &who) };
    let handed = change(&app, audit, move |app, held| {
        let over = (now_ms / 1000).min(app.expiry.agreed());
        plan(key, who, ban, held, BANS_MAX, over)
    })
    .await?;
    let body = match handed.planned.in_force(now_ms) {
        Some(source) => describe(&key, &handed.planned, source),
        None => Map::new(),
    };
    Ok(answer(&app, handed, StatusCode::OK, body).await)
}

/// Reads a ban: whom, and what is said of them.
fn wanted(mut fields: Fields, app: &App, now_ms: u64) -> Result<(Ban, AdminBan), Problem> {
    let who = somebody(&mut fields, app)?;
    if let Some((wrong, allowed)) = never_banned(app, &who) {
        return Err(fields.refuse(who.kind.name(), wrong, allowed));
    }
    let duration = fields.span("duration", DURATION_MAX)?;
    let expires = fields.moment("expires")?;
    let note = fields.text("note", NOTE_MAX)?;
    let until_ms = match (duration, expires) {
        (Some(_), Some(_)) => {
            let allowed = "one of both, or neither for a ban that stays until it is deleted";
            return Err(fields.refuse("expires", "stands beside duration", allowed));
        }
        (Some(0), None) => return Err(fields.refuse("duration", "is zero", "1s or more")),
        (Some(secs), None) => Some(now_ms.saturating_add(secs.saturating_mul(1000))),
        (None, Some(secs)) => Some(u64::from(secs).saturating_mul(1000)),
        (None, None) => None,
    };
    if until_ms.is_some_and(|until| until <= now_ms) {
        return Err(fields.refuse("expires", "has passed", "a time to come"));
    }
    fields.end(MEMBERS)?;
    Ok((who, AdminBan { since_ms: now_ms, until_ms, note }))
}

/// Why the policy in force never looks at a ban, and what it looks at instead. Before a filter has
/// come that is not known.
fn never_banned(app: &App, who: &Ban) -> Option<(&'static str, &'static str)> {
    let status = app.channel.status();
    status.filter.as_ref()?;
    let wants = &status.wants;
    match who.kind {
        Kind::Ip => {
            let address: IpAddr = who.name.parse().ok()?;
            let is_exempt = wants.exempt.iter().any(|prefix| is_within(prefix, address));
            is_exempt.then_some((
                "is in the policy's ip.exempt, and such addresses are never banned",
                "an address that is not exempt",
            ))
        }
        Kind::User if wants.providers.is_empty() => {
            Some(("is nobody: the policy has no token providers", "an ip, or an api_key"))
        }
        Kind::ApiKey if !wants.api_keys => {
            Some(("is nobody: the policy takes no API keys", "an ip, or a user"))
        }
        Kind::User | Kind::ApiKey => None,
    }
}

/// Reads whom something is about: `ip`, `user` or `api_key`, and `provider` beside a user.
pub(super) fn somebody(fields: &mut Fields, app: &App) -> Result<Ban, Problem> {
    let one_of = "one of ip, user, api_key";
    let mut found = None;
    for kind in Kind::ALL {
        let Some(name) = fields.text(kind.name(), NAME_MAX)? else { continue };
        if let Some((other, _)) = found {
            let wrong = format!("stands beside {}", Kind::name(other));
            return Err(fields.refuse(kind.name(), &wrong, one_of));
        }
        found = Some((kind, name));
    }
    let provider = fields.text("provider", NAME_MAX)?;
    let Some((kind, name)) = found else {
        return Err(fields.refuse("ip", "is missing", one_of));
    };
    if let (Some(provider), Kind::User) = (&provider, kind) {
        known_provider(app, provider)
            .map_err(|allowed| fields.refuse("provider", "is none of the policy's", &allowed))?;
    } else if provider.is_some() {
        return Err(fields.refuse("provider", "stands without user", "only beside user"));
    }
    let Some(name) = canonical(kind, &name) else {
        let allowed = "an address as 203.0.113.9 or 2001:db8::1, without a prefix or a zone";
        return Err(fields.refuse(kind.name(), "is no address", allowed));
    };
    Ok(Ban::nobody(kind, provider, name))
}

/// A name as everybody writes it: v4-mapped v6 addresses are v4 addresses.
pub(super) fn canonical(kind: Kind, name: &str) -> Option<String> {
    match kind {
        Kind::Ip => Some(name.parse::<IpAddr>().ok()?.to_canonical().to_string()),
        Kind::User | Kind::ApiKey => Some(name.to_owned()),
    }
}

/// Refuses a provider that the policy in force does not have; says which it has.
///
/// # Errors
/// The allowed ones.
pub(super) fn known_provider(app: &App, provider: &str) -> Result<(), String> {
    let status = app.channel.status();
    let known = &status.wants.providers;
    if status.filter.is_none() || known.iter().any(|known| known == provider) {
        return Ok(());
    }
    Err(if known.is_empty() { "none".to_owned() } else { known.join(", ") })
}

/// Somebody as a command names them.
pub(super) fn named(ban: &Ban) -> Named {
    Named {
        kind: ban.kind.name().to_owned(),
        provider: ban.provider.clone(),
        name: ban.name.clone(),
    }
}

/// What the audit log says of whom something is about.
pub(super) fn whose(key: &BanKey, ban: &Ban) -> String {
    let of = ban.provider.as_ref().map(|provider| format!(" of {provider}")).unwrap_or_default();
    format!("{} ({} {}{of})", id(key), ban.kind.name(), ban.name)
}

/// What is to be changed so that somebody is banned.
fn plan(
    key: BanKey,
    who: Ban,
    ban: AdminBan,
    held: &Held,
    max: usize,
    over_secs: u64,
) -> Result<(Vec<Change>, Ban), Problem> {
    let there = held.bans().get(&key);
    let mut room = Room::new(held.bans().len(), max, || over(held, over_secs));
    if there.is_none() && room.take() == Place::None {
        return Err(Problem::Full(FULL, max));
    }
    let mut changes = room.gone();
    let banned = Ban { admin: Some(ban), ..there.cloned().unwrap_or(who) };
    changes.push(Change::PutBan(key, banned.clone()));
    Ok((changes, banned))
}

/// Bans that are over and may be forgotten.
pub(super) fn over(held: &Held, over_secs: u64) -> Vec<Change> {
    let mut gone = expired(held, over_secs);
    gone.retain(|drop| matches!(drop, Change::DropBan(_)));
    gone
}

/// Places for new bans. What is over takes nobody's place; it is looked for at most once, and not
/// before there is no other place left, because that is a walk over everything.
pub(super) struct Room<F> {
    there: usize,
    max: usize,
    over: Option<F>,
    gone: Vec<Change>,
}

/// Whether there is a place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is, and it is taken now.
    Found,
    /// Everything is full.
    None,
}

impl<F: FnOnce() -> Vec<Change>> Room<F> {
    /// For `max` bans, of which some are `there`; `over` drops those that are over.
    pub(super) const fn new(there: usize, max: usize, over: F) -> Self {
        Self { there, max, over: Some(over), gone: Vec::new() }
    }

    /// Takes a place.
    pub(super) fn take(&mut self) -> Place {
        if self.there >= self.max
            && let Some(over) = self.over.take()
        {
            self.gone = over();
            self.there = self.there.saturating_sub(self.gone.len());
        }
        if self.there >= self.max {
            return Place::None;
        }
        self.there = self.there.saturating_add(1);
        Place::Found
    }

    /// What must go for those that have a place.
    pub(super) fn gone(self) -> Vec<Change> {
        self.gone
    }
}

/// `GET /gateway/bans`: those that are in force.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(query.as_deref())?;
    let after = query.cursor(read_id)?;
    let with_names = app.admin_token.is_in(&headers);
    let now_ms = moment::now_ms();
    let held = app.replica.held();
    let from = after.map_or(Unbounded, Excluded);
    let mut rows = Vec::new();
    let (mut next, mut last) = (None, None);
    for (key, ban) in held.bans().range((from, Unbounded)) {
        let Some(source) = ban.in_force(now_ms) else { continue };
        if rows.len() >= query.limit {
            next = last.map(id);
            break;
        }
        let mut row = describe(key, ban, source);
        if !with_names {
            mask(&mut row);
        }
        rows.push(Value::Object(row));
        last = Some(key);
    }
    let total = active(&held, now_ms);
    drop(held);
    Ok(json_reply(StatusCode::OK, &Page { name: "bans", rows, total, next }.body()))
}

/// Bans that are in force.
pub(super) fn active(held: &Held, now_ms: u64) -> usize {
    held.bans().values().filter(|ban| ban.in_force(now_ms).is_some()).count()
}

/// `DELETE /gateway/bans/{id}`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    which: guard::Named,
) -> Result<Response, Problem> {
    require_admin(&app, &headers)?;
    let which = name(which)?;
    let key = read_id(&which).ok_or(Problem::UnknownBan)?;
    let now_ms = moment::now_ms();
    let said = app.replica.held().bans().get(&key).map(|ban| whose(&key, ban));
    let audit = Audit { id, what: "lift-ban", which: said.unwrap_or_else(|| which.clone()) };
    let handed =
        change(&app, audit, move |_, held| Ok((vec![lift(&key, held, now_ms)?], ()))).await?;
    Ok(answer(&app, handed, StatusCode::OK, gone(&which)).await)
}

/// Takes a ban back. What a penalty did is in Envoy's memory too: it stays known as lifted until it
/// has ended there for sure.
fn lift(key: &BanKey, held: &Held, now_ms: u64) -> Result<Change, Problem> {
    let there = held.bans().get(key).filter(|ban| ban.in_force(now_ms).is_some());
    let mut ban = there.ok_or(Problem::UnknownBan)?.clone();
    ban.admin = None;
    ban.penalty = ban.penalty.filter(|penalty| now_ms < penalty.lifted_until_ms());
    Ok(match &mut ban.penalty {
        None => Change::DropBan(*key),
        Some(penalty) => {
            penalty.stands = Stands::Lifted;
            Change::PutBan(*key, ban)
        }
    })
}

/// A ban as it is shown.
fn describe(key: &BanKey, ban: &Ban, source: Source<'_>) -> Map<String, Value> {
    // Up, so that nobody comes back before it is over.
    let until = source.until_ms().map(|until| until.div_ceil(1000));
    let (since_ms, note, penalty) = match source {
        Source::Admin(admin) => (admin.since_ms, admin.note.as_ref(), None),
        Source::Penalty(penalty) => (penalty.made_ms, None, Some(penalty)),
    };
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("id", id(key).into());
    put("kind", ban.kind.name().into());
    put("name", json!(ban.name));
    put("provider", json!(ban.provider));
    put("since", shown(Some(since_ms / 1000)));
    put("until", shown(until));
    put("source", if penalty.is_some() { "penalty" } else { "admin" }.into());
    put("limit", json!(penalty.map(|penalty| &penalty.limit)));
    put("level", json!(penalty.map(|penalty| penalty.level)));
    put("note", json!(note));
    body
}

/// Takes out what tells of somebody.
fn mask(row: &mut Map<String, Value>) {
    for name in ["name", "note"] {
        if let Some(value) = row.get_mut(name).filter(|value| !value.is_null()) {
            *value = "***".into();
        }
    }
}

/// A key as text: without the provider's half where there is none.
fn id(key: &BanKey) -> String {
    let text = hex::print(key);
    text.strip_suffix(NO_PROVIDER).map(str::to_owned).unwrap_or(text)
}

/// The provider's half of a key that has none.
const NO_PROVIDER: &str = "0000000000000000";

/// The key of a text; each has one text only.
fn read_id(text: &str) -> Option<BanKey> {
    match text.len() {
        32 => hex::read(&format!("{text}{NO_PROVIDER}")),
        _ if text.ends_with(NO_PROVIDER) => None,
        _ => hex::read(text),
    }
}
