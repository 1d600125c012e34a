//! What is sent back and what is changed on the way: plain data, rendered once per shell.

use crate::reason::Reason;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// A header to be sent; names are lower case.
pub type Header = (Cow<'static, str>, String);

/// A reply made by the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status (for gRPC requests Envoy turns it into 200 plus `grpc-status`).
    pub status: u16,
    /// Why; `reason.details()` goes to Envoy's access log.
    pub reason: Reason,
    /// Headers, `content-type` among them.
    pub headers: Vec<Header>,
    /// problem+json, the service's fallback, or for gRPC the message.
    pub body: Vec<u8>,
    /// Set exactly when the request is gRPC (codes of google.rpc.Code).
    pub grpc_status: Option<u8>,
}

/// Changes to the request before it is forwarded. Empty in the common case: any edit makes Envoy
/// select the route again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Headers to remove, all occurrences. Only names that are really there.
    pub remove: Vec<String>,
    /// Headers to set, replacing all occurrences. Bytes, because what is left of a client's header
    /// must stay as it came.
    pub set: Vec<(String, Vec<u8>)>,
}

impl Edits {
    /// Removes a header that is there, once however often this is said.
    pub fn remove(&mut self, name: &str) {
        if !self.remove.iter().any(|one| one == name) {
            self.remove.push(String::from(name));
        }
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }
}
