//! One request, from its headers to its log entry. Reads what the core wants to know, does what it
//! answers.
//!
//! Every callback is optional and may come in any order: Envoy logs requests that it never showed
//! to the filter, and shows the filter its own replies. A request is answered at most once.

mod client;
mod means;
mod pause;
mod response;

use crate::host::{Host, LocalResponse, Map, attribute};
use crate::plugin::Plugin;
use crate::store::SharedData;
use crate::waiting::Turn;
use policy::facts::Facts;
use policy::headers::{HEADERS_MAX, Headers, serialize};
use policy::pipeline::{Outcome, Passage, Step, Suspended};
use policy::reason::Reason;
use policy::reply::{Edits, Reply};
use policy::time::{Moment, Nanos};
use response::FROM_UPSTREAM;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// What becomes of a stream after the request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the upstream.
    Continue,
    /// It stops here: it was answered, or it waits.
    Pause,
}

impl Action {
    /// The number in the ABI.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Continue => 0,
            Self::Pause => 1,
        }
    }
}

/// One stream of one plugin.
pub(crate) struct Stream<H: Host> {
    me: Weak<Self>,
    context: u32,
    plugin: Rc<Plugin<H>>,
    /// From the judgement to the log entry.
    passage: RefCell<Option<Passage>>,
    /// While it waits.
    suspended: RefCell<Option<Suspended>>,
    /// Its place in the line, while it waits for its turn.
    turn: Cell<Option<Turn>>,
    /// How often it has waited for keys, and until when it may.
    waited: Cell<(u32, Nanos)>,
    /// When it was judged first.
    began: Cell<Option<Moment>>,
    phase: Cell<Phase>,
    /// Status and details of our own reply.
    replied: Cell<Option<(u16, &'static str)>>,
    /// The status that a service answered with.
    answered: Cell<Option<u16>>,
}

/// How far a stream has come. It goes back only from waiting to being judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Fresh,
    Waiting,
    Judged,
    Replied,
    Logged,
}

impl<H: Host> Stream<H> {
    pub(crate) fn new(plugin: Rc<Plugin<H>>, context: u32) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            context,
            plugin,
            passage: RefCell::default(),
            suspended: RefCell::default(),
            turn: Cell::default(),
            waited: Cell::default(),
            began: Cell::default(),
            phase: Cell::new(Phase::Fresh),
            replied: Cell::default(),
            answered: Cell::default(),
        })
    }

    /// Judges the request, once.
    pub(crate) fn on_request_headers(&self, count: usize) -> Action {
        match self.phase.get() {
            Phase::Fresh if count > HEADERS_MAX => self.refuse_blindly(),
            Phase::Fresh => {
                self.phase.set(Phase::Judged);
                self.judge(None)
            }
            // A stream that was answered stays answered, one that was let pass stays let pass.
            Phase::Judged => Action::Continue,
            Phase::Waiting | Phase::Replied | Phase::Logged => Action::Pause,
        }
    }

    fn judge(&self, mut suspended: Option<Suspended>) -> Action {
        let plugin = &self.plugin;
        let host = &plugin.host;
        let (Ok(map), Ok(now)) = (host.headers(Map::Request), host.moment()) else {
            return self.refuse_suspended(suspended);
        };
        if self.began.get().is_none() {
            self.began.set(Some(now));
        }
        let service = host.attribute(attribute::CLUSTER_NAME).ok();
        let seen = plugin.look();
        let client = plugin.needs.client || seen.is_some_and(|seen| seen.may_ban());
        let facts = Facts {
            headers: Headers::new(&map),
            client: client.then(|| client::address(host)).flatten(),
            service: service.as_deref().and_then(|name| str::from_utf8(name).ok()),
        };
        match self.step(&facts, seen, &mut suspended, now) {
            Some(Step::Forward(edits, passage)) => {
                self.keep(passage);
                if edit(host, &edits) { Action::Continue } else { self.refuse_blindly() }
            }
            Some(Step::Reply(reply, passage)) => {
                self.keep(passage);
                self.reply(&reply)
            }
            Some(Step::Wait(suspended)) => self.wait(suspended, now),
            None => self.refuse_suspended(suspended),
        }
    }

    /// The host forgets the stream.
    pub(crate) fn on_delete(&self) {
        self.stop_waiting();
        self.phase.set(Phase::Logged);
    }

    /// Puts the passage where the later callbacks find it, before anything can call them.
    fn keep(&self, passage: Passage) {
        if let Ok(mut place) = self.passage.try_borrow_mut() {
            *place = Some(passage);
        }
    }

    fn taken(&self) -> Option<Passage> {
        self.passage.try_borrow_mut().ok().and_then(|mut place| place.take())
    }

    /// Answers the request. Nothing is borrowed here: the host may call the response callbacks.
    fn reply(&self, reply: &Reply) -> Action {
        if self.phase.replace(Phase::Replied) >= Phase::Replied {
            return Action::Pause;
        }
        self.replied.set(Some((reply.status, reply.reason.details())));
        let entries: Vec<(&[u8], &[u8])> =
            reply.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let headers = serialize(&entries);
        let response = LocalResponse {
            status: reply.status,
            details: reply.reason.details(),
            headers: &headers,
            body: &reply.body,
            grpc_status: reply.grpc_status,
        };
        // A host that will not answer leaves the stream paused until its idle timeout. Forwarding
        // what was refused would be worse.
        let _unanswered = self.plugin.host.send_local_response(&response);
        Action::Pause
    }

    /// For when the request cannot be read or changed as decided: it must not pass unjudged.
    fn refuse_blindly(&self) -> Action {
        let passage = self.taken().unwrap_or_else(Passage::unseen);
        self.keep(passage.refused(Reason::StateUnavailable));
        let code = Reason::StateUnavailable.code();
        let body = format!(
            r#"{{"type":"about:blank","title":"Service Unavailable","status":503,"code":"{code}"}}"#
        );
        self.reply(&Reply {
            status: 503,
            reason: Reason::StateUnavailable,
            headers: vec![("content-type".into(), "application/problem+json".into())],
            body: body.into_bytes(),
            grpc_status: None,
        })
    }

    /// Settles the request, once; the last callback that matters.
    pub(crate) fn on_log(&self) {
        self.stop_waiting();
        if self.phase.replace(Phase::Logged) == Phase::Logged {
            return;
        }
        let plugin = &self.plugin;
        let host = &plugin.host;
        let began = self.began.get();
        // The time of day plays no part any more.
        let before = began.unwrap_or_default();
        let now = Moment { monotonic: host.monotonic().unwrap_or(before.monotonic), ..before };
        // Measured here when the request was seen: an attribute costs ten times a subtraction.
        let duration = match began {
            Some(began) => now.monotonic - began.monotonic,
            None => Nanos(self.number(attribute::REQUEST_DURATION)),
        };
        let mut store = SharedData(host.clone());
        let mut events = plugin.metrics.clone();
        let seed = plugin.seed.get(host).keys;
        let passage = self.taken().unwrap_or_else(Passage::unseen);
        let settle = move |outcome: &Outcome<'_>| {
            passage.finish(&plugin.policy.policy(), outcome, &mut store, &mut events, seed, now);
        };
        // What we answered ourselves we know; only the rest has to be asked for.
        if let Some((status, details)) = self.replied.get() {
            let details = details.as_bytes();
            return settle(&Outcome { status, flags: 0, details, service: None, duration });
        }
        // A stream that was never judged has no service yet.
        let asks = plugin.needs.outcome || began.is_none();
        let service = asks.then(|| host.attribute(attribute::CLUSTER_NAME).ok()).flatten();
        let service = service.as_deref().and_then(|name| str::from_utf8(name).ok());
        let flags = if plugin.needs.outcome { self.number(attribute::RESPONSE_FLAGS) } else { 0 };
        // A service's answer is known too, unless it ended badly.
        if let Some(status) = self.answered.get().filter(|_| flags == 0) {
            return settle(&Outcome { status, flags, details: FROM_UPSTREAM, service, duration });
        }
        let details = host.attribute(attribute::RESPONSE_CODE_DETAILS).unwrap_or_default();
        let status = u16::try_from(self.number(attribute::RESPONSE_CODE)).unwrap_or(0);
        settle(&Outcome { status, flags, details: &details, service, duration });
    }

    /// An attribute that is a number; 0 when it cannot be had.
    fn number(&self, path: &[u8]) -> u64 {
        let bytes = self.plugin.host.attribute(path).unwrap_or_default();
        bytes.as_slice().try_into().map_or(0, u64::from_le_bytes)
    }
}

/// Makes all edits; `false` as soon as one fails.
fn edit<H: Host>(host: &H, edits: &Edits) -> bool {
    let mut removed = edits.remove.iter().map(|name| host.remove_header(Map::Request, name));
    if removed.any(|result| result.is_err()) {
        return false;
    }
    let mut set =
        edits.set.iter().map(|(name, value)| host.replace_header(Map::Request, name, value));
    set.all(|result| result.is_ok())
}
