//! What the holder does for the sidecar: commands in their order, each once.

use super::lease::Lease;
use super::{Errand, State, Sync, Turn};
use crate::host::Host;
use crate::store::SharedData;
use crate::sweep::{Slices, Sweeping};
use policy::model::{Limit, Policy};
use policy::pipeline::{ResetOutcome, reset_breaker};
use policy::replica::bans::Kind;
use policy::replica::overrides;
use policy::stage::limit::admin::{self, Known, Sweep};
use policy::store::StoreError;
use policy::sync::{Action, COMMANDS_MAX, Command, Done, DoneOutcome, KeyStanding, Named};
use policy::time::Nanos;
use std::collections::BTreeMap;

/// Whether there is something to tell the sidecar at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worked {
    /// Commands were done or begun.
    Something,
    /// There were none, they were done before, or they wait for another.
    Nothing,
}

/// What becomes of a command.
enum Act {
    /// It is done, and must not be done again.
    Done(DoneOutcome),
    /// It was a question. Whoever asks again gets a fresh answer, so nobody needs to remember it.
    Answer(DoneOutcome, Vec<KeyStanding>),
    /// It takes longer.
    Sweep(Slices),
}

/// The parts of a key by name.
type Key = BTreeMap<String, String>;

impl<H: Host> Sync<H> {
    /// Does commands in order, each once; those behind a sweep wait for its end. `None` when the
    /// lease was lost on the way.
    pub(super) fn work(
        &self,
        state: &mut State,
        mut lease: Lease,
        commands: Vec<Command>,
        turn: Turn,
    ) -> Option<(Lease, Worked)> {
        if let Some(sweeping) = &mut state.sweeping {
            sweeping.replace(commands);
            return Some((lease, Worked::Nothing));
        }
        let mut worked = Worked::Nothing;
        let mut commands = commands.into_iter().take(COMMANDS_MAX);
        while let Some(Command { id, action }) = commands.next() {
            let is_question = matches!(action, Action::ReadKey { .. });
            if let Some(outcome) = lease.outcome(id).filter(|_| !is_question) {
                state.again.push(Done { id, outcome, standings: Vec::new() });
                continue;
            }
            worked = Worked::Something;
            match self.act(&action, turn) {
                Act::Done(outcome) => lease = self.note(id, outcome, turn)?,
                Act::Answer(outcome, standings) => {
                    state.again.push(Done { id, outcome, standings });
                }
                Act::Sweep(slices) => {
                    state.sweeping = Some(Sweeping::new(id, slices, commands.collect()));
                    break;
                }
            }
        }
        Some((lease, worked))
    }

    /// Does a slice of the sweep that is under way, if one is, and, when it was the last, the
    /// commands behind it. `None` when the lease was lost on the way.
    pub(super) fn sweep(&self, state: &mut State, lease: Lease, turn: Turn) -> Option<Lease> {
        let Some(sweeping) = &mut state.sweeping else { return Some(lease) };
        let Some(outcome) = sweeping.go_on(&mut SharedData(self.host.clone())) else {
            return Some(lease);
        };
        // Whatever was erased is to be forgotten, though it may not be all.
        self.view.changed();
        let id = sweeping.id;
        let behind = state.sweeping.take().map(Sweeping::behind).unwrap_or_default();
        let lease = self.note(id, outcome, turn)?;
        let (lease, _) = self.work(state, lease, behind, turn)?;
        // Somebody waits for the outcome: a poll that is held is followed by another at once.
        state.flight.take_if(|flight| matches!(flight.errand, Errand::Poll { .. }));
        state.called = Nanos::ZERO;
        Some(lease)
    }

    /// Writes down that a command is done; `None` when the lease was lost.
    fn note(&self, id: u64, outcome: DoneOutcome, turn: Turn) -> Option<Lease> {
        let done = Done { id, outcome, standings: Vec::new() };
        let mut store = SharedData(self.host.clone());
        let noted = Lease::change(&mut store, turn.me, turn.now.monotonic, |lease| {
            lease.note(done.clone());
        });
        noted.ok().flatten()
    }

    fn act(&self, action: &Action, turn: Turn) -> Act {
        match action {
            Action::ResetBreaker { service } => {
                let mut store = SharedData(self.host.clone());
                let mut events = self.metrics.clone();
                let keys = turn.seed.keys;
                Act::Done(match reset_breaker(service, &mut store, &mut events, keys, turn.now) {
                    Ok(ResetOutcome::Closed) => DoneOutcome::Applied,
                    Ok(ResetOutcome::Unknown) => DoneOutcome::Unknown,
                    Err(_) => DoneOutcome::Failed,
                })
            }
            Action::ReadKey { limit, key } => match self.read_key(limit, key, turn) {
                Ok(Some(standings)) => Act::Answer(DoneOutcome::Applied, standings),
                Ok(None) => Act::Answer(DoneOutcome::Unknown, Vec::new()),
                Err(_) => Act::Answer(DoneOutcome::Failed, Vec::new()),
            },
            Action::ResetKey { limit, key } => Act::Done(match self.reset_key(limit, key, turn) {
                Ok(Some(Known::Yes)) => {
                    self.view.changed();
                    DoneOutcome::Applied
                }
                Ok(Some(Known::No) | None) => DoneOutcome::Unknown,
                Err(_) => DoneOutcome::Failed,
            }),
            Action::ResetIdentity(named) => match self.begin_sweep(named, turn) {
                Ok(Some(slices)) => Act::Sweep(slices),
                Ok(None) => Act::Done(DoneOutcome::Unknown),
                Err(_) => Act::Done(DoneOutcome::Failed),
            },
        }
    }

    fn read_key(
        &self,
        limit: &str,
        key: &Key,
        turn: Turn,
    ) -> Result<Option<Vec<KeyStanding>>, StoreError> {
        let Some(limit) = self.limit(limit)? else { return Ok(None) };
        let (mut store, mut events) = (SharedData(self.host.clone()), self.metrics.clone());
        let providers: Vec<&str> = self.wants.providers.iter().map(String::as_str).collect();
        let (keys, now) = (turn.seed.keys, turn.now.monotonic);
        admin::read_key(&limit, &providers, key, &mut store, &mut events, keys, now)
    }

    fn reset_key(&self, limit: &str, key: &Key, turn: Turn) -> Result<Option<Known>, StoreError> {
        let Some(limit) = self.limit(limit)? else { return Ok(None) };
        let (mut store, mut events) = (SharedData(self.host.clone()), self.metrics.clone());
        let providers: Vec<&str> = self.wants.providers.iter().map(String::as_str).collect();
        let keys = turn.seed.keys;
        admin::reset_key(&limit, &providers, key, &mut store, &mut events, keys).map(Some)
    }

    fn begin_sweep(&self, named: &Named, turn: Turn) -> Result<Option<Slices>, StoreError> {
        let limits = self.policy.rate_limits.iter().map(|limit| self.in_force(limit));
        let rate_limits = limits.collect::<Result<_, _>>()?;
        let policy = Policy { rate_limits, ..self.policy.clone() };
        // A user of no provider in particular is looked for under each of them.
        let is_anybody = named.kind == Kind::User.name() && named.provider.is_none();
        let names = if is_anybody { self.wants.providers.len() } else { 1 };
        let sweep = Sweep::new(&policy, named, turn.seed.keys);
        Ok(sweep.map(|sweep| Slices::new(sweep, names)))
    }

    /// A limit of this name, with the numbers that requests are judged by.
    fn limit(&self, name: &str) -> Result<Option<Limit>, StoreError> {
        let found = self.policy.rate_limits.iter().find(|limit| limit.name == name);
        found.map(|limit| self.in_force(limit)).transpose()
    }

    /// A limit with what an administrator has changed. Where that does not go with the policy the
    /// limit is as the policy has it, for requests too ([`crate::limits`]).
    fn in_force(&self, limit: &Limit) -> Result<Limit, StoreError> {
        let changed = overrides::read(&limit.name, &mut SharedData(self.host.clone()))?;
        let changed = changed.and_then(|numbers| limit.with(&numbers).ok());
        Ok(changed.unwrap_or_else(|| limit.clone()))
    }
}

#[cfg(test)]
mod tests;
