//! The way to the sidecar: how calls are addressed, and how it is said that one went wrong.

use super::answer::Trouble;
use crate::host::{Call, Host, Level, Status};
use crate::log;
use crate::seed::Seed;
use policy::headers::serialize;
use policy::model::Policy;
use policy::time::Nanos;
use serde_json::Value;

/// The way there.
pub(crate) struct Line<H: Host> {
    host: H,
    pub(super) cluster: String,
    authorization: Vec<u8>,
}

impl<H: Host> Line<H> {
    /// The way to a policy's sidecar; `None` when it has none.
    pub(crate) fn new(policy: &Policy, host: &H) -> Option<Self> {
        let sidecar = policy.sidecar.as_ref()?;
        let mut authorization = b"Bearer ".to_vec();
        authorization.extend_from_slice(sidecar.token.reveal());
        Some(Self { host: host.clone(), cluster: sidecar.cluster.clone(), authorization })
    }

    /// Sends a message; gives the number that its answer will have.
    ///
    /// # Errors
    /// The host's status when it will not send it.
    pub(crate) fn send(&self, path: &str, body: &[u8], timeout: Nanos) -> Result<u32, Status> {
        let headers = serialize(&[
            (b":method", b"POST"),
            (b":path", path.as_bytes()),
            (b":authority", self.cluster.as_bytes()),
            (b"authorization", &self.authorization),
            (b"content-type", b"application/json"),
        ]);
        self.host.call(&Call { cluster: &self.cluster, headers: &headers, body, timeout })
    }

    /// Says what went wrong when it is not what `last` says, and remembers it there.
    pub(crate) fn complain(&self, last: &mut Option<Trouble>, message: &str, trouble: Trouble) {
        if *last != Some(trouble) {
            *last = Some(trouble);
            self.warn(message, trouble);
        }
    }

    pub(super) fn warn(&self, message: &str, trouble: Trouble) {
        let (detail, number) = trouble.detail();
        let fields: [(&str, Value); 3] = [
            ("cluster", self.cluster.as_str().into()),
            ("why", trouble.text().into()),
            (detail, number.into()),
        ];
        log::line(&self.host, Level::Warn, message, &fields);
    }
}

/// A random number drawn by this VM, for a name that no other VM has.
///
/// # Errors
/// The host's status when it gives none.
pub(crate) fn draw<H: Host>(host: &H) -> Result<u64, Status> {
    let mut bytes = [0_u8; 8];
    host.random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The Envoy process as the sidecar knows it.
pub(crate) fn instance(seed: Seed) -> String {
    format!("{:016x}", seed.instance)
}
