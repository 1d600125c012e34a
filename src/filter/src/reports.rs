//! What this VM tells the sidecar by name: which keys limits have refused, and whom penalties have
//! banned. The only way by which names leave the filter.
//!
//! Each plugin of each VM reports for itself, from its own tick, so nobody is elected and nothing is
//! lost with a lease. A report is repeated, unchanged and under the same number, until the sidecar
//! has it; the sidecar counts a number once. What happens meanwhile goes into the next one. Memory is
//! bounded: what finds no room is counted, and the ban or refusal itself does not depend on it.

mod counts;
#[cfg(test)]
mod tests;

use crate::host::Host;
use crate::plugin::TICK;
use crate::seed::Cached;
use crate::sync::{Line, Trouble, WAY, draw, instance, signed};
use crate::tokens::Ours;
use counts::{Counts, Lost};
use policy::model::Policy;
use policy::sync::{BanMade, NAMES_MAX, PROTOCOL, REPORT_PATH, REPORTED_MAX, Report};
use policy::time::{Moment, Nanos};
use std::rc::Rc;

/// Bytes of names and numbers in one report: below what a sidecar reads, with room for the rest. What
/// does not fit is in the next one.
const BYTES_MAX: usize = 192 * 1024;
/// How long Envoy waits for the receipt, which a sidecar sends at once.
const TIMEOUT: Nanos = WAY;
/// When a receipt does not come any more, not even an answer of Envoy's own.
const OVERDUE: Nanos = Nanos::from_secs(4);
/// After a report that was not taken the next try comes this much later: every worker tries for
/// itself.
const RETRY: Nanos = Nanos::from_secs(2);

/// The reports of one plugin.
pub(crate) struct Reports<H: Host> {
    host: H,
    seed: Rc<Cached>,
    /// `None` where there is no sidecar: then nothing is kept.
    line: Option<Line<H>>,
    /// Our name, random, drawn when it is first needed.
    worker: Option<u64>,
    /// Of the last report.
    number: u64,
    counts: Counts,
    bans: Vec<BanMade>,
    lost: u64,
    /// A report that the sidecar may not have yet.
    open: Option<Vec<u8>>,
    flight: Option<Flight>,
    /// When the next call may be made.
    next: Nanos,
    /// Why the last report was not taken.
    untaken: Option<Trouble>,
}

/// A call that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Flight {
    token: u32,
    sent: Nanos,
}

impl<H: Host> Reports<H> {
    /// Nothing to tell yet.
    pub(crate) fn new(policy: &Policy, host: &H, seed: &Rc<Cached>) -> Self {
        Self {
            host: host.clone(),
            seed: Rc::clone(seed),
            line: Line::new(policy, host),
            worker: None,
            number: 0,
            counts: Counts::default(),
            bans: Vec::new(),
            lost: 0,
            open: None,
            flight: None,
            next: Nanos::ZERO,
            untaken: None,
        }
    }

    /// Sends what there is to tell. Called by every plugin on its ticks, by one that was replaced
    /// too: what it has seen is known to nobody else.
    pub(crate) fn on_tick(&mut self, now: Moment) {
        let now = now.monotonic;
        if self.flight.take_if(|flight| now - flight.sent > OVERDUE).is_some() {
            self.fail(Trouble::Unreachable, now);
        }
        if self.flight.is_some() || now < self.next {
            return;
        }
        if self.open.is_none() {
            self.open = self.compose();
        }
        let (Some(line), Some(body)) = (&self.line, &self.open) else { return };
        match line.send(REPORT_PATH, body, TIMEOUT) {
            Ok(token) => self.flight = Some(Flight { token, sent: now }),
            Err(_) => self.fail(Trouble::Unsendable, now),
        }
    }

    /// Takes the answer to a call, if it was made here.
    pub(crate) fn on_answer(&mut self, token: u32, _body: usize, now: Moment) -> Ours {
        if self.flight.take_if(|flight| flight.token == token).is_none() {
            return Ours::No;
        }
        match signed(&self.host) {
            Ok(()) => {
                self.open = None;
                self.untaken = None;
                self.next = now.monotonic + TICK;
            }
            Err(trouble) => self.fail(trouble, now.monotonic),
        }
        Ours::Yes
    }

    /// Notes that a report was not taken and says so when that is news. It is tried again.
    fn fail(&mut self, trouble: Trouble, now: Nanos) {
        self.next = now + RETRY;
        if let Some(line) = &self.line {
            line.complain(&mut self.untaken, "report not taken by the sidecar", trouble);
        }
    }

    /// The next report; `None` when there is nothing to tell, or no name to tell it under.
    fn compose(&mut self) -> Option<Vec<u8>> {
        if self.bans.is_empty() && self.counts.is_empty() && self.lost == 0 {
            return None;
        }
        let seed = self.seed.get(&self.host);
        if seed.instance == 0 {
            // Shared data cannot be had. A report under that name would count as another Envoy's.
            return None;
        }
        if self.worker.is_none() {
            self.worker = draw(&self.host).ok();
        }
        let worker = self.worker?;
        let mut room = BYTES_MAX;
        let mut fits = |size: usize| {
            let left = room.checked_sub(size);
            room = left.unwrap_or(0);
            left.is_some()
        };
        let told = self.bans.iter().take_while(|ban| fits(size(serde_json::to_vec(ban)))).count();
        let bans: Vec<BanMade> = self.bans.drain(..told).collect();
        let limited = self.counts.take(|limited| fits(size(serde_json::to_vec(limited))));
        self.number += 1;
        let report = Report {
            protocol: PROTOCOL,
            instance: instance(seed),
            worker: format!("{worker:016x}"),
            number: self.number,
            limited,
            bans,
            lost: std::mem::take(&mut self.lost),
        };
        serde_json::to_vec(&report).ok()
    }
}

/// How long an entry is in a report, with its comma.
fn size(entry: serde_json::Result<Vec<u8>>) -> usize {
    entry.map_or(usize::MAX, |bytes| bytes.len() + 1)
}

impl<H: Host> policy::stage::Reports for Reports<H> {
    fn limited(&mut self, limit: &str, tag: u64, key: &dyn Fn() -> Option<String>) {
        if self.line.is_some() && self.counts.count(limit, tag, key) == Lost::Something {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn banned(&mut self, ban: BanMade) {
        if self.line.is_none() {
            return;
        }
        if self.bans.len() >= REPORTED_MAX || ban.names_len() > NAMES_MAX {
            self.lost = self.lost.saturating_add(1);
        } else {
            self.bans.push(ban);
        }
    }
}
