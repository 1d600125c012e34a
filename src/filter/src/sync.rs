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
mod line;
#[cfg(test)]
pub(crate) mod tests;
mod work;

use crate::host::Host;
use crate::load;
use crate::metrics::Metrics;
use crate::plugin::TICK;
use crate::replica::View;
use crate::replica::handover::Handover;
use crate::seed::Seed;
use crate::store::SharedData;
use crate::sweep::Sweeping;
use lease::Lease;
use policy::event::{Event, Events};
use policy::model::{Cidr, Limit, LimitAlgorithm, Policy};
use policy::replica::Seeded;
use policy::sync::{Done, Position, Wants};
use policy::time::{Moment, Nanos};
use std::cell::RefCell;
use std::rc::Rc;
use work::Worked;

pub(crate) use answer::{Trouble, signed};
pub(crate) use line::{Line, draw, instance};

/// How long the sidecar may hold a poll. Shorter than common idle timeouts on the way.
const WAIT: Nanos = Nanos::from_secs(5);
/// The same for a policy with an adaptive limit: answers tell the load, at least once a second.
const WAIT_LOAD: Nanos = Nanos::from_millis(900);
/// When Envoy gives a call up: the sidecar's own time, and this for the way.
pub(crate) const WAY: Nanos = Nanos::from_secs(2);
/// After twice that a call counts as lost although no answer came, not even Envoy's own: later than
/// any answer.
const OVERDUE: Nanos = Nanos::from_secs(4);
/// An answer without commands that comes sooner than this is followed by the next tick, not by the
/// next poll: a sidecar that does not hold polls must not make us spin.
const HELD_MIN: Nanos = Nanos::from_millis(50);
/// The tick while a batch is stored or a table swept in slices: the worker serves requests for most
/// of the time.
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
    line: Line<H>,
    /// As the document has it.
    policy: Policy,
    wants: Wants,
    /// How long the sidecar may hold a poll.
    wait: Nanos,
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
    /// When the last call was made.
    called: Nanos,
    /// A batch that is not stored yet.
    handover: Option<Handover>,
    /// A command that is not done yet, and those behind it.
    sweeping: Option<Sweeping>,
    /// Whether a fetch since the last tick brought nothing.
    vain: bool,
    /// Why the last batch was not taken.
    untaken: Option<Trouble>,
    link: Link,
    /// Outcomes for the next poll alone: answers to questions, which the sidecar asks again if they
    /// are lost, and what it has asked for again.
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
        let line = Line::new(policy, host)?;
        let wants = wants(policy);
        Some(Self {
            host: host.clone(),
            metrics: metrics.clone(),
            view: Rc::clone(view),
            line,
            policy: policy.clone(),
            wait: if wants.load { WAIT_LOAD } else { WAIT },
            wants,
            state: RefCell::default(),
        })
    }

    /// When the next tick is wanted, for a plugin that was configured that long ago.
    pub(crate) fn pace(&self, age: Nanos) -> Nanos {
        let is_slicing = |state: &State| state.handover.is_some() || state.sweeping.is_some();
        if self.state.try_borrow().is_ok_and(|state| is_slicing(&state)) {
            return SLICE_TICK;
        }
        let seeded = || self.view.look().state.is_some_and(|state| state.seeded == Seeded::Yes);
        let Wants { files, revocations_max, api_keys, .. } = &self.wants;
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
                let Some(lease) = self.sweep(&mut state, lease, turn) else { return state.lose() };
                // Ticks come thick while a table is swept; calls do not.
                let is_due = state.sweeping.is_none() || now - state.called >= TICK;
                if state.flight.is_none() && is_due {
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
        if now - flight.sent > self.wait + OVERDUE {
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
        self.hear(answer.load, turn.now.monotonic);
        let Some((lease, worked)) = self.work(state, lease, answer.commands, turn) else {
            return state.lose();
        };
        if answer.state != self.position() {
            self.fetch(state, turn);
        } else if worked == Worked::Something || !hasty {
            self.poll(state, &lease, turn);
        }
    }

    /// Tells every worker the load, where a limit goes by it.
    fn hear(&self, sample: Option<u32>, now: Nanos) {
        let Some(sample) = sample.filter(|_| self.wants.load) else { return };
        if load::hear(&self.host, sample, now).is_err() {
            self.metrics.clone().on(Event::StoreFailed);
        }
    }

    /// Notes that the sidecar has answered; `None` when the lease is lost.
    fn answered(&self, told: u64, turn: Turn) -> Option<Lease> {
        let mut store = SharedData(self.host.clone());
        let now = turn.now.monotonic;
        Lease::change(&mut store, turn.me, now, |lease| lease.was_told(told, now)).ok().flatten()
    }
}

impl State {
    /// Somebody else is in charge, or nobody: an answer that is still to come is not ours.
    fn lose(&mut self) {
        self.held = false;
        self.flight = None;
        self.handover = None;
        self.sweeping = None;
        self.link = Link::Unknown;
    }
}

/// What a policy needs of its sidecar.
fn wants(policy: &Policy) -> Wants {
    let section = policy.authentication.as_ref();
    let providers = section.iter().flat_map(|section| &section.providers);
    let text = |Cidr { network, prefix }: &Cidr| format!("{network}/{prefix}");
    let is_adaptive = |limit: &Limit| matches!(limit.algorithm, LimitAlgorithm::Adaptive(_));
    Wants {
        files: policy.files().into_iter().map(Into::into).collect(),
        revocations_max: policy.revocation.as_ref().map(|revocation| revocation.max),
        api_keys: section.is_some_and(|section| section.api_keys.is_some()),
        load: policy.rate_limits.iter().any(is_adaptive),
        limits: policy.rate_limits.iter().map(Limit::in_force).collect(),
        providers: providers.map(|provider| provider.name.clone()).collect(),
        exempt: policy.ip.exempt.iter().map(text).collect(),
    }
}
