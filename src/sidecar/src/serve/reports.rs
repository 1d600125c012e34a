//! `POST /sync/report`: what each VM of the filter tells of refused keys and of bans that penalties
//! made. A report is repeated until it is answered; what it counts is counted once.

#[cfg(test)]
mod tests;
mod top;

use super::App;
use super::bans::{Place, Room, canonical, over, whose};
use super::problem::{Problem, json_reply};
use super::replica::Held;
use super::state::durably;
use super::{hex, moment, sync};
use crate::store::{Ban, BanKey, Change, PenaltyBan, Stands};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use policy::replica::bans::{BANS_MAX, Kind};
use policy::sync::{BanMade, NAMES_MAX, REPORTED_MAX, Report};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
pub(super) use top::Refused;
use top::Top;
use tracing::{info, warn};

/// Longest report: [`REPORTED_MAX`] keys and bans with two kilobytes each.
const BODY_MAX: usize = 1024 * 1024;
/// Places for bans that penalties leave to administrators, who must be able to act while somebody
/// attacks from many addresses.
const ADMINS_MIN: usize = 1000;
/// VMs whose last number is known: four Envoys with 256 workers each, one after the other.
const WORKERS_MAX: usize = 1024;
/// Limits whose refused keys are counted: those of two policies, while one follows the other.
const LIMITS_MAX: usize = 128;

/// What became of a report (`gateway_reports_total{outcome}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was new, and is counted.
    Counted,
    /// It was counted before.
    Repeated,
    /// It was no report, or not of this filter.
    Refused,
    /// The store failed; it will come again.
    Failed,
}

impl Outcome {
    /// All of them, in the order of their discriminants.
    pub(super) const ALL: [Self; 4] = [Self::Counted, Self::Repeated, Self::Refused, Self::Failed];

    /// The label value.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What reports have told.
#[derive(Debug)]
pub(super) struct Reports {
    started: Instant,
    told: Mutex<Told>,
    outcomes: [AtomicU64; 4],
}

#[derive(Debug, Default)]
struct Told {
    workers: HashMap<(String, String), Last>,
    limits: HashMap<String, Top>,
    lost: u64,
}

/// The last report of a VM.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    at: Instant,
}

impl Reports {
    /// Nothing was told yet.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), told: Mutex::default(), outcomes: Default::default() }
    }

    /// How many reports came to this outcome.
    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.outcome(outcome).load(Ordering::Relaxed)
    }

    /// The most refused keys of a limit, the most refused first.
    pub(super) fn top(&self, limit: &str) -> Vec<Refused> {
        let now = self.started.elapsed();
        self.told().limits.get_mut(limit).map(|top| top.list(now)).unwrap_or_default()
    }

    /// Keys and bans for which there was no room, here or in a VM, or that could not be understood.
    pub(super) fn lost(&self) -> u64 {
        self.told().lost
    }

    fn note(&self, outcome: Outcome) {
        self.outcome(outcome).fetch_add(1, Ordering::Relaxed);
    }

    fn outcome(&self, outcome: Outcome) -> &AtomicU64 {
        let [counted, repeated, refused, failed] = &self.outcomes;
        match outcome {
            Outcome::Counted => counted,
            Outcome::Repeated => repeated,
            Outcome::Refused => refused,
            Outcome::Failed => failed,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts refused keys, and bans that were `lost` here, once for each number of a VM.
    fn take(&self, report: &Report, lost: u64) -> Outcome {
        let (at, now) = (Instant::now(), self.started.elapsed());
        let mut told = self.told();
        let worker = (report.instance.clone(), report.worker.clone());
        let last = told.workers.get(&worker);
        if last.is_some_and(|last| report.number <= last.number) {
            return Outcome::Repeated;
        }
        if last.is_none() && told.workers.len() >= WORKERS_MAX {
            let oldest = told.workers.iter().min_by_key(|(_, last)| last.at);
            if let Some(oldest) = oldest.map(|(worker, _)| worker.clone()) {
                told.workers.remove(&oldest);
            }
        }
        told.workers.insert(worker, Last { number: report.number, at });
        told.lost = told.lost.saturating_add(report.lost).saturating_add(lost);
        for limited in &report.limited {
            if limited.limit.len().saturating_add(limited.key.len()) > NAMES_MAX {
                told.lost = told.lost.saturating_add(1);
                continue;
            }
            if !told.limits.contains_key(&limited.limit) && told.limits.len() >= LIMITS_MAX {
                let weigh = |(limit, top): (&String, &mut Top)| (limit.clone(), top.weight(now));
                let least = told.limits.iter_mut().map(weigh);
                let least = least.min_by(|(_, one), (_, two)| one.total_cmp(two));
                least.and_then(|(limit, _)| told.limits.remove(&limit));
            }
            let top = told.limits.entry(limited.limit.clone()).or_default();
            top.add(&limited.key, limited.count, now);
        }
        Outcome::Counted
    }
}

/// Takes one report.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let taken = take(&app, request).await;
    app.reports.note(match &taken {
        Ok(outcome) => *outcome,
        Err(Problem::Store) => Outcome::Failed,
        Err(_) => Outcome::Refused,
    });
    taken.map(|_| json_reply(StatusCode::OK, &json!({})))
}

async fn take(app: &Arc<App>, request: Request) -> Result<Outcome, Problem> {
    let report: Report = sync::message(app, request, BODY_MAX).await?;
    sync::named("instance", &report.instance)?;
    sync::named("worker", &report.worker)?;
    for (what, count) in [("limited", report.limited.len()), ("bans", report.bans.len())] {
        if count > REPORTED_MAX {
            return Err(Problem::BadRequest(format!(
                "{what}: has at most {REPORTED_MAX} entries."
            )));
        }
    }
    // A ban is known by its serial: taking it twice changes nothing, and one of a report that was
    // counted and could not be stored must not be lost.
    let mut lost = 0;
    if !report.bans.is_empty() {
        let bans = report.bans.clone();
        lost = durably(app, move |app| keep(app, &bans)).await?;
    }
    Ok(app.reports.take(&report, lost))
}

/// Makes bans durable and offers them to the filter. Gives how many of them are not kept.
fn keep(app: &App, bans: &[BanMade]) -> Result<u64, Problem> {
    let now_ms = moment::now_ms();
    let keys = app.replica.keys();
    let made: Vec<Made> = bans.iter().filter_map(|ban| Made::read(ban, keys)).collect();
    let senseless = bans.len().saturating_sub(made.len());
    if senseless > 0 {
        app.complaints.say(|| warn!("the filter reported a ban that cannot be understood"));
    }
    let over_secs = (now_ms / 1000).min(app.expiry.agreed());
    let max = BANS_MAX.saturating_sub(ADMINS_MIN);
    let (kept, position) =
        app.replica.change(|held| Ok::<_, Problem>(plan(&made, held, max, now_ms, over_secs)))?;
    if kept.full > 0 {
        app.complaints.say(|| {
            warn!(most = max, "no room for more bans: those of penalties end with Envoy");
        });
    }
    for (whose, ban) in kept.bans {
        info!(
            audit = true,
            who = "penalty",
            what = "ban",
            which = whose,
            limit = ban.limit,
            level = ban.level,
            until = moment::print(ban.until_ms.div_ceil(1000)),
            serial = hex::print(&ban.serial.to_be_bytes()),
            number = position.number,
            outcome = "durable",
            "state changed"
        );
    }
    app.channel.offer(|| app.replica.position());
    let senseless = u64::try_from(senseless).unwrap_or(u64::MAX);
    Ok(kept.full.saturating_add(senseless))
}

/// A ban that a penalty made, understood.
#[derive(Clone, Debug)]
struct Made {
    key: BanKey,
    who: Ban,
    ban: PenaltyBan,
}

impl Made {
    /// `None` when it makes no sense.
    fn read(made: &BanMade, keys: [u64; 2]) -> Option<Self> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == made.who.kind)?;
        let provider = made.who.provider.clone().filter(|_| kind == Kind::User);
        let name = canonical(kind, &made.who.name)?;
        let serial = u64::from_str_radix(&made.serial, 16).ok().filter(|serial| *serial > 0)?;
        if made.names_len() > NAMES_MAX {
            return None;
        }
        let who = Ban::nobody(kind, provider, name);
        let ban = PenaltyBan {
            serial,
            limit: made.limit.clone(),
            level: made.level,
            made_ms: made.made_ms,
            until_ms: made.until_ms,
            stands: Stands::Banned,
        };
        Some(Self { key: who.key(keys), who, ban })
    }
}

/// What is kept of some bans.
#[derive(Debug, Default)]
struct Kept {
    bans: Vec<(String, PenaltyBan)>,
    /// Those that found no room.
    full: u64,
}

/// What is to be changed so that bans are known: at most `max` of them beside those that are over.
fn plan(
    made: &[Made],
    held: &Held,
    max: usize,
    now_ms: u64,
    over_secs: u64,
) -> (Vec<Change>, Kept) {
    let mut after: BTreeMap<BanKey, Ban> = BTreeMap::new();
    let mut kept = Kept::default();
    // Who is known already comes first: what has to make room is then known to be over.
    let (known, unknown): (Vec<_>, Vec<_>) =
        made.iter().partition(|made| held.bans().contains_key(&made.key));
    for made in known {
        let there = after.get(&made.key).or_else(|| held.bans().get(&made.key));
        if let Some(banned) = joined(there.unwrap_or(&made.who), &made.ban, now_ms) {
            kept.put(made, banned, &mut after);
        }
    }
    let stay: BTreeSet<BanKey> = after.keys().copied().collect();
    let mut room = Room::new(held.bans().len(), max, || {
        let mut gone = over(held, over_secs);
        gone.retain(|drop| matches!(drop, Change::DropBan(key) if !stay.contains(key)));
        gone
    });
    for made in unknown {
        let there = after.get(&made.key);
        let Some(banned) = joined(there.unwrap_or(&made.who), &made.ban, now_ms) else { continue };
        if there.is_none() && room.take() == Place::None {
            kept.full = kept.full.saturating_add(1);
            continue;
        }
        kept.put(made, banned, &mut after);
    }
    let mut changes = room.gone();
    changes.extend(after.into_iter().map(|(key, ban)| Change::PutBan(key, ban)));
    (changes, kept)
}

impl Kept {
    fn put(&mut self, made: &Made, banned: Ban, after: &mut BTreeMap<BanKey, Ban>) {
        self.bans.push((whose(&made.key, &made.who), made.ban.clone()));
        after.insert(made.key, banned);
    }
}

/// Whether a ban says everything that another one could. The filter's own record goes by the same
/// rule: of two bans the longer one stays, and one that was lifted makes room.
fn covers(ban: &PenaltyBan, stands: Stands, made: &PenaltyBan, now_ms: u64) -> bool {
    // Reports of two VMs may come in any order: what was made before and is no longer was lifted with
    // it. A time that is still to come is that of a clock that was wrong, and tells no order.
    let earlier = made.made_ms < ban.made_ms && ban.made_ms <= now_ms;
    ban.serial == made.serial
        || match stands {
            Stands::Banned => ban.until_ms > made.until_ms,
            Stands::Lifted => earlier && ban.until_ms >= made.until_ms,
        }
}

/// What is known of a name after a penalty's ban; `None` when that is nothing new.
fn joined(there: &Ban, made: &PenaltyBan, now_ms: u64) -> Option<Ban> {
    let known = there.penalty.as_ref().zip(there.stands());
    if made.until_ms <= now_ms
        || known.is_some_and(|(ban, stands)| covers(ban, stands, made, now_ms))
    {
        return None;
    }
    // An administrator's ban that lasts as long stays as it is; one that is shorter is over by what
    // happened since.
    let admin = there.admin.clone();
    let admin = admin.filter(|ban| ban.until_ms.is_none_or(|until| until >= made.until_ms));
    Some(Ban { admin, penalty: Some(made.clone()), ..there.clone() })
}
