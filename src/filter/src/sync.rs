//! The line to the sidecar: one VM of the process is elected and holds one long poll open.
//!
//! Elected on a tick, by a lease in shared data; only plugins whose policy is in force stand for it.
//! The answer to a poll carries commands, which are done at once and reported by the next poll.
//! Nothing here is needed to serve a request.

mod lease;
#[cfg(test)]
mod tests;

use crate::host::{Buffer, Call, Host, Level, Map};
use crate::log;
use crate::metrics::Metrics;
use crate::seed::Seed;
use crate::store::SharedData;
use lease::Lease;
use policy::headers::{Headers, Occurrence, serialize};
use policy::model::Policy;
use policy::pipeline::{ResetOutcome, reset_breaker};
use policy::sync::{
    Action, Answer, COMMANDS_MAX, Command, Done, DoneOutcome, MARKER, PATH, PROTOCOL,
    PolicyInForce, Poll,
};
use policy::time::{Moment, Nanos};
use std::cell::RefCell;

/// How long the sidecar may hold a poll. Shorter than common idle timeouts on the way.
const WAIT: Nanos = Nanos::from_secs(5);
/// When Envoy gives a poll up: the sidecar's own time, and two seconds for the way.
const TIMEOUT: Nanos = Nanos::from_secs(7);
/// When a poll counts as lost although no answer came, not even Envoy's own: later than any answer.
const OVERDUE: Nanos = Nanos::from_secs(9);
/// An answer without commands that comes sooner than this is followed by the next tick, not by the
/// next poll: a sidecar that does not hold polls must not make us spin.
const HELD_MIN: Nanos = Nanos::from_millis(50);
/// Largest answer that is read: far above [`COMMANDS_MAX`] commands with long service names.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The line of one plugin.
pub(crate) struct Sync<H: Host> {
    host: H,
    metrics: Metrics<H>,
    cluster: String,
    authorization: Vec<u8>,
    policy: String,
    hash: String,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Our name in elections, random.
    me: Option<u64>,
    /// Whether we held the lease when we last looked.
    held: bool,
    generation: u32,
    flight: Option<Flight>,
    link: Link,
    /// Outcomes that the sidecar asks for again.
    again: Vec<Done>,
}

/// A poll that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Flight {
    token: u32,
    sent: Nanos,
    /// How long the sidecar was asked to hold it.
    wait: Nanos,
    /// The highest command that it reports.
    told: u64,
}

/// Whether the sidecar answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Unknown,
    Up,
    Down(Trouble),
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Envoy would not send the poll (no such cluster, no host in it).
    Unsendable,
    /// No answer, or one that the sidecar did not make.
    Unreachable,
    /// The sidecar answered with this status: 401 is a wrong token.
    Status(u16),
    /// The sidecar speaks another version.
    WrongProtocol,
    /// The answer is too long or not what it should be.
    Unreadable,
}

impl Trouble {
    const fn text(self) -> &'static str {
        match self {
            Self::Unsendable => "the cluster does not exist or has no host",
            Self::Unreachable => "no answer from a sidecar",
            Self::Status(_) => "the sidecar refused",
            Self::WrongProtocol => "the sidecar speaks another protocol version",
            Self::Unreadable => "the answer cannot be read",
        }
    }
}

impl<H: Host> Sync<H> {
    /// The line that a policy asks for, if it does.
    pub(crate) fn new(policy: &Policy, host: &H, metrics: &Metrics<H>) -> Option<Self> {
        let sidecar = policy.sidecar.as_ref()?;
        let mut authorization = b"Bearer ".to_vec();
        authorization.extend_from_slice(sidecar.token.reveal());
        Some(Self {
            host: host.clone(),
            metrics: metrics.clone(),
            cluster: sidecar.cluster.clone(),
            authorization,
            policy: policy.name.clone(),
            hash: format!("{:016x}", policy.hash),
            state: RefCell::default(),
        })
    }

    /// Stands for election, or renews the lease, and sees to it that a poll is under way.
    pub(crate) fn on_tick(&self, generation: u32, seed: Seed, now: Moment) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        state.generation = generation;
        let Some(me) = self.me(&mut state) else { return };
        let now = now.monotonic;
        match Lease::hold(&mut SharedData(self.host.clone()), me, now) {
            Ok(Some(lease)) => {
                state.held = true;
                let lost = |flight: &Flight| now - flight.sent > OVERDUE;
                if state.flight.as_ref().is_some_and(lost) {
                    state.flight = None;
                    self.down(&mut state, Trouble::Unreachable);
                }
                self.metrics.sidecar(state.link == Link::Up, now - lease.answered);
                if state.flight.is_none() {
                    self.poll(&mut state, &lease, seed, now);
                }
            }
            Ok(None) => state.lose(),
            // Without shared data nobody else can take over either; the next tick tries again.
            Err(_) => {}
        }
    }

    /// Lets go of the lease: another policy is in force, or the plugin goes away.
    pub(crate) fn retire(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        if let Some(me) = state.me.filter(|_| state.held) {
            // A lease that cannot be released expires.
            let _unreleased = Lease::release(&mut SharedData(self.host.clone()), me);
            self.metrics.sidecar(false, Nanos::ZERO);
        }
        state.lose();
    }

    /// Takes an answer, does what it says, and polls again.
    pub(crate) fn on_answer(&self, token: u32, body: usize, seed: Seed, now: Moment) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        let Some(flight) = state.flight.take_if(|flight| flight.token == token) else { return };
        let Some(me) = state.me else { return };
        let answer = match self.read(body) {
            Ok(answer) => answer,
            Err(trouble) => return self.down(&mut state, trouble),
        };
        let mut store = SharedData(self.host.clone());
        let told = Lease::change(&mut store, me, now.monotonic, |lease| {
            lease.was_told(flight.told, now.monotonic);
        });
        // Whoever holds the lease now is sent the same commands.
        let Ok(Some(lease)) = told else { return state.lose() };
        self.up(&mut state);
        let idle = answer.commands.is_empty();
        let Some(lease) = self.work(&mut state, me, lease, answer.commands, seed, now) else {
            return state.lose();
        };
        let hasty = flight.wait > Nanos::ZERO && now.monotonic - flight.sent < HELD_MIN;
        if !idle || !hasty {
            self.poll(&mut state, &lease, seed, now.monotonic);
        }
    }

    /// Does commands in order, each once. `None` when the lease was lost on the way.
    fn work(
        &self,
        state: &mut State,
        me: u64,
        mut lease: Lease,
        commands: Vec<Command>,
        seed: Seed,
        now: Moment,
    ) -> Option<Lease> {
        let mut store = SharedData(self.host.clone());
        for command in commands.into_iter().take(COMMANDS_MAX) {
            if let Some(outcome) = lease.outcome(command.id) {
                state.again.push(Done { id: command.id, outcome });
                continue;
            }
            let done = Done { id: command.id, outcome: self.act(&command.action, seed, now) };
            let noted = Lease::change(&mut store, me, now.monotonic, |lease| {
                lease.note(done.clone());
            });
            lease = noted.ok().flatten()?;
        }
        Some(lease)
    }

    fn act(&self, action: &Action, seed: Seed, now: Moment) -> DoneOutcome {
        let mut store = SharedData(self.host.clone());
        let mut events = self.metrics.clone();
        let Action::ResetBreaker { service } = action;
        match reset_breaker(service, &mut store, &mut events, seed.keys, now) {
            Ok(ResetOutcome::Closed) => DoneOutcome::Applied,
            Ok(ResetOutcome::Unknown) => DoneOutcome::Unknown,
            Err(_) => DoneOutcome::Failed,
        }
    }

    fn poll(&self, state: &mut State, lease: &Lease, seed: Seed, now: Nanos) {
        let unreported = lease.unreported();
        let told = unreported.iter().map(|done| done.id).max().unwrap_or(0);
        let mut done = std::mem::take(&mut state.again);
        done.extend(unreported);
        // The first poll is answered at once: then it is known whether the line is up.
        let wait = if state.link == Link::Up { WAIT } else { Nanos::ZERO };
        let poll = Poll {
            protocol: PROTOCOL,
            instance: format!("{:016x}", seed.instance),
            policy: PolicyInForce {
                name: self.policy.clone(),
                hash: self.hash.clone(),
                generation: state.generation,
            },
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            done,
        };
        let body = serde_json::to_vec(&poll).unwrap_or_default();
        let headers = serialize(&[
            (b":method", b"POST"),
            (b":path", PATH.as_bytes()),
            (b":authority", self.cluster.as_bytes()),
            (b"authorization", &self.authorization),
            (b"content-type", b"application/json"),
        ]);
        let call =
            Call { cluster: &self.cluster, headers: &headers, body: &body, timeout: TIMEOUT };
        match self.host.call(&call) {
            Ok(token) => state.flight = Some(Flight { token, sent: now, wait, told }),
            Err(_) => self.down(state, Trouble::Unsendable),
        }
    }

    /// Reads the answer that the host has for us now.
    fn read(&self, body: usize) -> Result<Answer, Trouble> {
        let map = self.host.headers(Map::CallResponse).map_err(|_| Trouble::Unreachable)?;
        let headers = Headers::new(&map);
        let marker = match headers.only(MARKER) {
            Occurrence::Once(marker) => marker,
            Occurrence::Absent | Occurrence::Repeated => return Err(Trouble::Unreachable),
        };
        let number = |bytes: &[u8]| str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        if number(marker) != Some(PROTOCOL) {
            return Err(Trouble::WrongProtocol);
        }
        match headers.first(":status").and_then(number) {
            Some(200) => {}
            status => {
                let status = status.and_then(|status| u16::try_from(status).ok());
                return Err(Trouble::Status(status.unwrap_or(0)));
            }
        }
        if body > ANSWER_BYTES_MAX {
            return Err(Trouble::Unreadable);
        }
        let bytes =
            self.host.buffer(Buffer::CallResponseBody, body).map_err(|_| Trouble::Unreachable)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| Trouble::Unreadable)?;
        if answer.protocol == PROTOCOL { Ok(answer) } else { Err(Trouble::WrongProtocol) }
    }

    fn up(&self, state: &mut State) {
        if state.link != Link::Up {
            state.link = Link::Up;
            let fields = [("cluster", self.cluster.as_str().into())];
            log::line(&self.host, Level::Info, "sidecar connected", &fields);
        }
        self.metrics.sidecar(true, Nanos::ZERO);
    }

    /// Notes that the line is down and says so when that is news. The next tick tries again.
    fn down(&self, state: &mut State, trouble: Trouble) {
        if state.link == Link::Down(trouble) {
            return;
        }
        state.link = Link::Down(trouble);
        let status = if let Trouble::Status(status) = trouble { status.into() } else { 0.into() };
        let fields = [
            ("cluster", self.cluster.as_str().into()),
            ("why", trouble.text().into()),
            ("status", status),
        ];
        log::line(&self.host, Level::Warn, "sidecar not connected", &fields);
    }

    /// Our name in elections, drawn when it is first needed.
    fn me(&self, state: &mut State) -> Option<u64> {
        if state.me.is_none() {
            let mut bytes = [0_u8; 8];
            self.host.random(&mut bytes).ok()?;
            state.me = Some(u64::from_le_bytes(bytes));
        }
        state.me
    }
}

impl State {
    /// Somebody else is in charge, or nobody: an answer that is still to come is not ours.
    fn lose(&mut self) {
        self.held = false;
        self.flight = None;
        self.link = Link::Unknown;
    }
}
