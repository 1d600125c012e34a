//! The messages between the elected filter VM and its sidecar: one long poll, JSON both ways.
//!
//! The filter sends `POST /sync` with `Authorization: Bearer <token>` and a [`Poll`]; the sidecar
//! answers at once when it has commands, otherwise after `wait_ms`, always with the header
//! [`MARKER`]: Envoy's own 503 looks like a sidecar's otherwise.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The version of these messages. Each side answers another version with a clear error.
pub const PROTOCOL: u32 = 2;
/// The path of the long poll.
pub const PATH: &str = "/sync";
/// The path where the filter fetches state that it lacks: a [`Fetch`] in, a
/// [`crate::replica::batch::Batch`] out.
pub const STATE_PATH: &str = "/sync/state";
/// The header that only the sidecar sends; its value is [`PROTOCOL`].
pub const MARKER: &str = "x-tracseq-sync";
/// Most commands in one answer: a bounded piece of work for one callback.
pub const COMMANDS_MAX: usize = 64;

/// What the filter says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// [`PROTOCOL`] of the filter.
    pub protocol: u32,
    /// Random per Envoy process, hexadecimal: another value means that Envoy restarted and has
    /// forgotten everything.
    pub instance: String,
    /// The policy in force.
    pub policy: PolicyInForce,
    /// How long the sidecar may hold this poll.
    pub wait_ms: u32,
    /// Commands done since the last poll that was answered.
    pub done: Vec<Done>,
    /// The state that every worker of this Envoy has. The sidecar takes this as the receipt for
    /// every change up to there, and answers at once while it has more.
    pub state: Position,
    /// What the policy in force needs of the sidecar.
    pub wants: Wants,
}

/// How far a copy of the sidecar's state has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which store, hexadecimal; empty before anything was handed over.
    pub store: String,
    /// Every change up to this number, which rises by one with each.
    pub number: u64,
}

impl Position {
    /// The position as it travels. Store 0 is none, whatever the number.
    #[must_use]
    pub fn of(store: u64, number: u64) -> Self {
        if store == 0 {
            return Self::default();
        }
        Self { store: format!("{store:016x}"), number }
    }
}

/// What a policy needs of the sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    /// Files that it names (secrets, key sets), by path.
    pub files: Vec<String>,
    /// `revocation.max`; `None` where the policy does not look at revocations.
    pub revocations_max: Option<u32>,
    /// Whether it takes API keys.
    pub api_keys: bool,
}

/// Asks for state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// [`PROTOCOL`] of the filter.
    pub protocol: u32,
    /// The Envoy process, as in [`Poll`].
    pub instance: String,
    /// What it has.
    pub state: Position,
}

/// Which policy the filter serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInForce {
    /// `name` of the policy.
    pub name: String,
    /// Its fingerprint, hexadecimal.
    pub hash: String,
    /// Raised by one with every policy that came into force in this Envoy.
    pub generation: u32,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The command's number.
    pub id: u64,
    /// Its outcome.
    pub outcome: DoneOutcome,
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneOutcome {
    /// In force for every worker.
    Applied,
    /// The service has no breaker record: nobody has called it yet, or it has no breaker.
    Unknown,
    /// Shared state could not be had; try again.
    Failed,
}

/// What the sidecar answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`PROTOCOL`] of the sidecar.
    pub protocol: u32,
    /// Commands in the order in which they must be done; done ones are not sent again.
    pub commands: Vec<Command>,
    /// The state that the sidecar has; where it differs from the poll's, the filter fetches.
    pub state: Position,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Rising numbers; a number at or below one that was done is not done again.
    pub id: u64,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Closes a service's breaker and forgets its failures.
    ResetBreaker {
        /// The service.
        service: String,
    },
}
