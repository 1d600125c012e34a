//! The line to the sidecar: one VM of the process is elected and holds one long poll open.
//!
//! Elected on a tick, by a lease in shared data; only plugins whose policy is in force stand for it.
//! The answer to a poll carries commands, which are done at once and reported by the next poll, and
//! says how far the sidecar's state is: where that is not what shared data has, it is fetched
//! ([`crate::replica::handover`]), and the next poll is the receipt. No request waits for any of it.

mod answer;
mod call;
mod copying;
mod lease;
#[cfg(test)]
mod tests;

use crate::host::Host;
use crate::metrics::Metrics;
use crate::plugin::TICK;
use crate::replica::View;
use crate::replica::handover::Handover;
use crate::seed::Seed;
use crate::store::SharedData;
use answer::Trouble;
use lease::Lease;
use policy::model::Policy;
use policy::pipeline::{ResetOutcome, reset_breaker};
use policy::replica::Seeded;
use policy::sync::{Action, COMMANDS_MAX, Command, Done, DoneOutcome, Position, Wants};
use policy::time::{Moment, Nanos};
use std::cell::RefCell;
use std::rc::Rc;

/// How long the sidecar may hold a poll. Shorter than common idle timeouts on the way.
const WAIT: Nanos = Nanos::from_secs(5);
/// When Envoy gives a call up: the sidecar's own time, and two seconds for the way.
const TIMEOUT: Nanos = Nanos::from_secs(7);
/// When a call counts as lost although no answer came, not even Envoy's own: later than any answer.
const OVERDUE: Nanos = Nanos::from_secs(9);
/// An answer without commands that comes sooner than this is followed by the next tick, not by the
/// next poll: a sidecar that does not hold polls must not make us spin.
const HELD_MIN: Nanos = Nanos::from_millis(50);
/// The tick while a batch is stored in slices: the worker serves requests for most of the time.
const SLICE_TICK: Nanos = Nanos::from_millis(5);
/// The tick of a plugin that needs the sidecar's state and has none yet: requests are refused
/// meanwhile.
pub(crate) const FIRST_TICK: Nanos = Nanos::from_millis(50);
/// For how long a plugin is in that hurry: a sidecar that is still not there is waited for at leisure.
const HURRY_MAX: Nanos = Nanos::from_secs(10);

/// The line of one plugin.
pub(crate) struct Sync<H: Host> {
    host: H,
    metrics: Metrics<H>,
    view: Rc<View<H>>,
    cluster: String,
    authorization: Vec<u8>,
    policy: String,
    hash: String,
    wants: Wants,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Our name in elections, random.
    me: Option<u64>,
    /// Whether we held the lease when we last looked.
    held: bool,
    generation: u32,
    flight: Option<Flight>,
    /// A batch that is not stored yet.
    handover: Option<Handover>,
    /// Whether a fetch since the last tick brought nothing.
    vain: bool,
    /// Why the last batch was not taken.
    untaken: Option<Trouble>,
    link: Link,
    /// Outcomes that the sidecar asks for again.
    again: Vec<Done>,
}

/// A call that is not answered yet.
#[derive(Clone, Debug)]
struct Flight {
    token: u32,
    sent: Nanos,
    /// What it told the sidecar that we have.
    position: Position,
    errand: Errand,
}

/// What a call is for.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Poll {
        /// How long the sidecar was asked to hold it.
        wait: Nanos,
        /// The highest command that it reports.
        told: u64,
    },
    Fetch,
}

/// Whether the sidecar answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Unknown,
    Up,
    Down(Trouble),
}

/// What one callback of the holder goes by.
#[derive(Clone, Copy)]
struct Turn {
    me: u64,
    seed: Seed,
    now: Moment,
}

impl<H: Host> Sync<H> {
    /// The line that a policy asks for, if it does.
    pub(crate) fn new(
        policy: &Policy,
        host: &H,
        metrics: &Metrics<H>,
        view: &Rc<View<H>>,
    ) -> Option<Self> {
        let sidecar = policy.sidecar.as_ref()?;
        let mut authorization = b"Bearer ".to_vec();
        authorization.extend_from_slice(sidecar.token.reveal());
        let keys = policy.authentication.as_ref().and_then(|section| section.api_keys.as_ref());
        let wants = Wants {
            files: policy.files().into_iter().map(Into::into).collect(),
            revocations_max: policy.revocation.as_ref().map(|revocation| revocation.max),
            api_keys: keys.is_some(),
        };
        Some(Self {
            host: host.clone(),
            metrics: metrics.clone(),
            view: Rc::clone(view),
            cluster: sidecar.cluster.clone(),
            authorization,
            policy: policy.name.clone(),
            hash: format!("{:016x}", policy.hash),
            wants,
            state: RefCell::default(),
        })
    }

    /// When the next tick is wanted, for a plugin that was configured that long ago.
    pub(crate) fn pace(&self, age: Nanos) -> Nanos {
        if self.state.try_borrow().is_ok_and(|state| state.handover.is_some()) {
            return SLICE_TICK;
        }
        let seeded = || self.view.look().state.is_some_and(|state| state.seeded == Seeded::Yes);
        let Wants { files, revocations_max, api_keys } = &self.wants;
        let needy = !files.is_empty() || revocations_max.is_some() || *api_keys;
        if needy && age < HURRY_MAX && !seeded() { FIRST_TICK } else { TICK }
    }

    /// Stands for election, or renews the lease, and sees to it that a call is under way.
    pub(crate) fn on_tick(&self, generation: u32, seed: Seed, now: Moment) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        (state.generation, state.vain) = (generation, false);
        let Some(me) = self.me(&mut state) else { return };
        let turn = Turn { me, seed, now };
        let now = now.monotonic;
        match Lease::hold(&mut SharedData(self.host.clone()), me, now) {
            Ok(Some(lease)) => {
                if !state.held {
                    // The last holder may have died before it told of what it wrote.
                    self.view.changed();
                }
                state.held = true;
                self.metrics.sidecar(state.link == Link::Up, now - lease.answered);
                if state.handover.is_some() {
                    return self.hand_over(&mut state, turn);
                }
                self.give_up(&mut state, now);
                if state.flight.is_none() {
                    self.poll(&mut state, &lease, turn);
                }
            }
            Ok(None) => state.lose(),
            // Without shared data nobody else can take over either; the next tick tries again.
            Err(_) => {}
        }
    }

    /// Lets go of a call that will never be answered, and of a poll whose word is out of date.
    fn give_up(&self, state: &mut State, now: Nanos) {
        let Some(flight) = &state.flight else { return };
        if now - flight.sent > OVERDUE {
            state.flight = None;
            self.down(state, Trouble::Unreachable);
        } else if flight.position != self.position() {
            state.flight = None;
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

    /// Takes an answer, does what it says, and calls again.
    pub(crate) fn on_answer(&self, token: u32, body: usize, seed: Seed, now: Moment) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        let Some(flight) = state.flight.take_if(|flight| flight.token == token) else { return };
        let Some(me) = state.me else { return };
        let turn = Turn { me, seed, now };
        match flight.errand {
            Errand::Poll { wait, told } => {
                let hasty = wait > Nanos::ZERO && now.monotonic - flight.sent < HELD_MIN;
                self.on_poll(&mut state, body, told, hasty, turn);
            }
            Errand::Fetch => self.on_batch(&mut state, body, &flight.position, turn),
        }
    }

    fn on_poll(&self, state: &mut State, body: usize, told: u64, hasty: bool, turn: Turn) {
        let answer = match answer::poll(&self.host, body) {
            Ok(answer) => answer,
            Err(trouble) => return self.down(state, trouble),
        };
        // Whoever holds the lease now is sent the same commands.
        let Some(lease) = self.answered(told, turn) else { return state.lose() };
        self.up(state);
        let idle = answer.commands.is_empty();
        let Some(lease) = self.work(state, lease, answer.commands, turn) else {
            return state.lose();
        };
        if answer.state != self.position() {
            self.fetch(state, turn);
        } else if !idle || !hasty {
            self.poll(state, &lease, turn);
        }
    }

    /// Notes that the sidecar has answered; `None` when the lease is lost.
    fn answered(&self, told: u64, turn: Turn) -> Option<Lease> {
        let mut store = SharedData(self.host.clone());
        let now = turn.now.monotonic;
        Lease::change(&mut store, turn.me, now, |lease| lease.was_told(told, now)).ok().flatten()
    }

    /// Does commands in order, each once. `None` when the lease was lost on the way.
    fn work(
        &self,
        state: &mut State,
        mut lease: Lease,
        commands: Vec<Command>,
        turn: Turn,
    ) -> Option<Lease> {
        let mut store = SharedData(self.host.clone());
        for command in commands.into_iter().take(COMMANDS_MAX) {
            if let Some(outcome) = lease.outcome(command.id) {
                state.again.push(Done { id: command.id, outcome });
                continue;
            }
            let done = Done { id: command.id, outcome: self.act(&command.action, turn) };
            let noted = Lease::change(&mut store, turn.me, turn.now.monotonic, |lease| {
                lease.note(done.clone());
            });
            lease = noted.ok().flatten()?;
        }
        Some(lease)
    }

    fn act(&self, action: &Action, turn: Turn) -> DoneOutcome {
        let mut store = SharedData(self.host.clone());
        let mut events = self.metrics.clone();
        let Action::ResetBreaker { service } = action;
        match reset_breaker(service, &mut store, &mut events, turn.seed.keys, turn.now) {
            Ok(ResetOutcome::Closed) => DoneOutcome::Applied,
            Ok(ResetOutcome::Unknown) => DoneOutcome::Unknown,
            Err(_) => DoneOutcome::Failed,
        }
    }
}

impl State {
    /// Somebody else is in charge, or nobody: an answer that is still to come is not ours.
    fn lose(&mut self) {
        self.held = false;
        self.flight = None;
        self.handover = None;
        self.link = Link::Unknown;
    }
}
