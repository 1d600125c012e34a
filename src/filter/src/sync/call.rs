//! The calls that the holder makes, and what it says of the line.

use super::answer::Trouble;
use super::lease::Lease;
use super::{Errand, Flight, Link, State, Sync, TIMEOUT, Turn, WAIT};
use crate::host::{Call, Host, Level, Status};
use crate::log;
use crate::replica::handover::position;
use policy::headers::serialize;
use policy::sync::{Fetch, PATH, PROTOCOL, PolicyInForce, Poll, Position, STATE_PATH};
use policy::time::Nanos;
use serde_json::Value;

impl<H: Host> Sync<H> {
    pub(super) fn poll(&self, state: &mut State, lease: &Lease, turn: Turn) {
        let unreported = lease.unreported();
        let told = unreported.iter().map(|done| done.id).max().unwrap_or(0);
        let mut done = std::mem::take(&mut state.again);
        done.extend(unreported);
        // The first poll is answered at once: then it is known whether the line is up.
        let wait = if state.link == Link::Up { WAIT } else { Nanos::ZERO };
        let position = self.position();
        let poll = Poll {
            protocol: PROTOCOL,
            instance: instance(turn),
            policy: PolicyInForce {
                name: self.policy.clone(),
                hash: self.hash.clone(),
                generation: state.generation,
            },
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            done,
            state: position.clone(),
            wants: self.wants.clone(),
        };
        let body = serde_json::to_vec(&poll).unwrap_or_default();
        let sent = turn.now.monotonic;
        match self.send(PATH, &body) {
            Ok(token) => {
                let errand = Errand::Poll { wait, told };
                state.flight = Some(Flight { token, sent, position, errand });
            }
            Err(_) => self.down(state, Trouble::Unsendable),
        }
    }

    /// Asks for the state that is lacking.
    pub(super) fn fetch(&self, state: &mut State, turn: Turn) {
        let position = self.position();
        let fetch = Fetch { protocol: PROTOCOL, instance: instance(turn), state: position.clone() };
        let body = serde_json::to_vec(&fetch).unwrap_or_default();
        let sent = turn.now.monotonic;
        match self.send(STATE_PATH, &body) {
            Ok(token) => {
                state.flight = Some(Flight { token, sent, position, errand: Errand::Fetch });
            }
            Err(_) => self.down(state, Trouble::Unsendable),
        }
    }

    fn send(&self, path: &str, body: &[u8]) -> Result<u32, Status> {
        let headers = serialize(&[
            (b":method", b"POST"),
            (b":path", path.as_bytes()),
            (b":authority", self.cluster.as_bytes()),
            (b"authorization", &self.authorization),
            (b"content-type", b"application/json"),
        ]);
        let call = Call { cluster: &self.cluster, headers: &headers, body, timeout: TIMEOUT };
        self.host.call(&call)
    }

    /// What every worker of this Envoy has.
    pub(super) fn position(&self) -> Position {
        position(self.view.look().state.as_ref())
    }

    pub(super) fn up(&self, state: &mut State) {
        if state.link != Link::Up {
            state.link = Link::Up;
            let fields = [("cluster", self.cluster.as_str().into())];
            log::line(&self.host, Level::Info, "sidecar connected", &fields);
        }
        self.metrics.sidecar(true, Nanos::ZERO);
    }

    /// Notes that the line is down and says so when that is news. The next tick tries again.
    pub(super) fn down(&self, state: &mut State, trouble: Trouble) {
        if state.link != Link::Down(trouble) {
            state.link = Link::Down(trouble);
            self.warn("sidecar not connected", trouble);
        }
    }

    /// Notes that state was not taken and says so when that is news. The next tick polls, and the
    /// answer leads here again.
    pub(super) fn untaken(&self, state: &mut State, trouble: Trouble) {
        if state.untaken != Some(trouble) {
            state.untaken = Some(trouble);
            self.warn("state not taken from the sidecar", trouble);
        }
    }

    fn warn(&self, message: &str, trouble: Trouble) {
        let (detail, number) = trouble.detail();
        let fields: [(&str, Value); 3] = [
            ("cluster", self.cluster.as_str().into()),
            ("why", trouble.text().into()),
            (detail, number.into()),
        ];
        log::line(&self.host, Level::Warn, message, &fields);
    }

    /// Our name in elections, drawn when it is first needed.
    pub(super) fn me(&self, state: &mut State) -> Option<u64> {
        if state.me.is_none() {
            let mut bytes = [0_u8; 8];
            self.host.random(&mut bytes).ok()?;
            state.me = Some(u64::from_le_bytes(bytes));
        }
        state.me
    }
}

fn instance(turn: Turn) -> String {
    format!("{:016x}", turn.seed.instance)
}
