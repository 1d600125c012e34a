//! The calls that the holder makes, and what it says of the line.

use super::answer::Trouble;
use super::lease::Lease;
use super::line::{draw, instance};
use super::{Errand, Flight, Link, State, Sync, Turn, WAY};
use crate::host::{Host, Level};
use crate::log;
use crate::replica::handover::position;
use policy::sync::{Fetch, PATH, PROTOCOL, PolicyInForce, Poll, Position, STATE_PATH};
use policy::time::Nanos;

impl<H: Host> Sync<H> {
    pub(super) fn poll(&self, state: &mut State, lease: &Lease, turn: Turn) {
        let unreported = lease.unreported();
        let told = unreported.iter().map(|done| done.id).max().unwrap_or(0);
        let mut done = std::mem::take(&mut state.again);
        done.extend(unreported);
        // The first poll is answered at once: then it is known whether the line is up.
        let wait = if state.link == Link::Up { self.wait } else { Nanos::ZERO };
        let position = self.position();
        let poll = Poll {
            protocol: PROTOCOL,
            instance: instance(turn.seed),
            policy: PolicyInForce {
                name: self.policy.name.clone(),
                hash: format!("{:016x}", self.policy.hash),
                generation: state.generation,
            },
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            done,
            state: position.clone(),
            wants: self.wants.clone(),
        };
        let body = serde_json::to_vec(&poll).unwrap_or_default();
        self.call(state, PATH, &body, (position, Errand::Poll { wait, told }), turn);
    }

    /// Asks for the state that is lacking.
    pub(super) fn fetch(&self, state: &mut State, turn: Turn) {
        let position = self.position();
        let fetch =
            Fetch { protocol: PROTOCOL, instance: instance(turn.seed), state: position.clone() };
        let body = serde_json::to_vec(&fetch).unwrap_or_default();
        self.call(state, STATE_PATH, &body, (position, Errand::Fetch), turn);
    }

    fn call(
        &self,
        state: &mut State,
        path: &str,
        body: &[u8],
        (position, errand): (Position, Errand),
        turn: Turn,
    ) {
        let sent = turn.now.monotonic;
        state.called = sent;
        match self.line.send(path, body, self.wait + WAY) {
            Ok(token) => state.flight = Some(Flight { token, sent, position, errand }),
            Err(_) => self.down(state, Trouble::Unsendable),
        }
    }

    /// What every worker of this Envoy has.
    pub(super) fn position(&self) -> Position {
        position(self.view.look().state.as_ref())
    }

    pub(super) fn up(&self, state: &mut State) {
        if state.link != Link::Up {
            state.link = Link::Up;
            let fields = [("cluster", self.line.cluster.as_str().into())];
            log::line(&self.host, Level::Info, "sidecar connected", &fields);
        }
        self.metrics.sidecar(true, Nanos::ZERO);
    }

    /// Notes that the line is down and says so when that is news. The next tick tries again.
    pub(super) fn down(&self, state: &mut State, trouble: Trouble) {
        if state.link != Link::Down(trouble) {
            state.link = Link::Down(trouble);
            self.line.warn("sidecar not connected", trouble);
        }
    }

    /// Notes that state was not taken and says so when that is news. The next tick polls, and the
    /// answer leads here again.
    pub(super) fn untaken(&self, state: &mut State, trouble: Trouble) {
        self.line.complain(&mut state.untaken, "state not taken from the sidecar", trouble);
    }

    /// Our name in elections, drawn when it is first needed.
    pub(super) fn me(&self, state: &mut State) -> Option<u64> {
        if state.me.is_none() {
            state.me = Some(draw(&self.host).ok()?);
        }
        state.me
    }
}
