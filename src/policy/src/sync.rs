//! The messages between the filter and its sidecar: the elected VM's long poll, and every VM's
//! reports; JSON both ways.
//!
//! The filter sends `POST /sync` with `Authorization: Bearer <token>` and a [`Poll`]; the sidecar
//! answers at once when it has commands, otherwise after `wait_ms`, always with the header
//! [`MARKER`]: Envoy's own 503 looks like a sidecar's otherwise.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The version of these messages. Each side answers another version with a clear error.
pub const PROTOCOL: u32 = 3;
/// The path of the long poll.
pub const PATH: &str = "/sync";
/// The path where the filter fetches state that it lacks: a [`Fetch`] in, a
/// [`crate::replica::batch::Batch`] out.
pub const STATE_PATH: &str = "/sync/state";
/// The path where every VM reports what became of limits: a [`Report`] in, `{}` out.
pub const REPORT_PATH: &str = "/sync/report";
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
    /// Whether it has an adaptive limit, which goes by [`Answer::load`].
    pub load: bool,
    /// Its limits, in order, with the numbers of the policy.
    pub limits: Vec<LimitInForce>,
    /// The names of its token providers, which tell users of one name apart.
    pub providers: Vec<String>,
    /// `ip.exempt`, as prefixes: these addresses are never banned.
    pub exempt: Vec<String>,
}

/// A limit as the policy has it, for administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitInForce {
    /// Its name.
    pub name: String,
    /// `algorithm`.
    pub algorithm: String,
    /// `key`, each part as in the policy (`user`, `header:x-tenant`, ...).
    pub key: Vec<String>,
    /// `requests`.
    pub requests: u32,
    /// `per`, in milliseconds.
    pub per_ms: u64,
    /// `burst`; `None` for an algorithm that has none.
    pub burst: Option<u32>,
    /// `queue`; `None` for an algorithm that has none.
    pub queue: Option<u32>,
    /// `cost`.
    pub cost: u32,
    /// `mode`.
    pub mode: String,
    /// Whether it has a penalty.
    pub penalty: bool,
    /// How many keys its table has room for.
    pub keys_max: u32,
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
    /// What [`Action::ReadKey`] found: one for each provider where the key has a user and names no
    /// provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standings: Vec<KeyStanding>,
}

/// How one key of a limit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStanding {
    /// The provider that was looked under, where the key has a user.
    pub provider: Option<String>,
    /// Whether the limit knows the key: one that it does not know stands as if it had never come.
    pub known: bool,
    /// Tokens that are left.
    pub remaining: u32,
    /// Until all are back, in milliseconds, rounded up.
    pub reset_ms: u64,
    /// Until a request would be admitted, in milliseconds, rounded up; 0 when it would be now.
    pub retry_ms: u64,
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneOutcome {
    /// In force for every worker.
    Applied,
    /// There is no such thing: no breaker record of that service, no such limit, or a key that is
    /// not of its parts.
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
    /// The load of this machine in thousandths, where the policy wants it and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<u32>,
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
    /// Reads how a key of a limit stands.
    ReadKey {
        /// The limit.
        limit: String,
        /// The value of every part of its key. `provider` beside them narrows a user to one.
        key: BTreeMap<String, String>,
    },
    /// Forgets what a limit knows of a key.
    ResetKey {
        /// The limit.
        limit: String,
        /// As in [`Action::ReadKey`].
        key: BTreeMap<String, String>,
    },
    /// Forgets what every limit knows of somebody, violations included.
    ResetIdentity(Named),
}

/// Somebody, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// `ip`, `user` or `api_key`.
    pub kind: String,
    /// The provider of a user; `None` means that of every provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The address, the user, or the id.
    pub name: String,
}

/// What one VM has to tell since its last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`PROTOCOL`] of the filter.
    pub protocol: u32,
    /// The Envoy process, as in [`Poll`].
    pub instance: String,
    /// Which VM, random, hexadecimal.
    pub worker: String,
    /// Rises with each report of this VM that holds something new: a repetition has the same number
    /// and counts once.
    pub number: u64,
    /// Keys that were refused, the most refused ones first.
    pub limited: Vec<Limited>,
    /// Bans that penalties made.
    pub bans: Vec<BanMade>,
    /// Keys and bans that found no room in the VM's bounded memory.
    pub lost: u64,
}

/// Most entries of [`Report::limited`], and of [`Report::bans`].
pub const REPORTED_MAX: usize = 256;

/// Most bytes of the names of one entry of a report together: two user names of 256 letters in UTF-8,
/// and the limit's. What has longer ones is counted as lost.
pub const NAMES_MAX: usize = 2048;

/// A key that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// The limit.
    pub limit: String,
    /// The key as in the admin API: `part=value,...`, percent-encoded.
    pub key: String,
    /// How often since the last report.
    pub count: u64,
}

/// A ban that a penalty made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanMade {
    /// Who is banned.
    pub who: Named,
    /// By which limit's penalty.
    pub limit: String,
    /// Its number, random, hexadecimal.
    pub serial: String,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// Until when, likewise.
    pub until_ms: u64,
    /// How many bans came before it and are not forgotten.
    pub level: u32,
}

impl BanMade {
    /// Bytes of all names together; at most [`NAMES_MAX`].
    #[must_use]
    pub fn names_len(&self) -> usize {
        let provider = self.who.provider.as_ref().map_or(0, String::len);
        self.who.name.len() + provider + self.limit.len()
    }
}

#[cfg(test)]
mod tests;
