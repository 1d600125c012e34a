//! The checked policy: only what `config` has let through, in the shape that decisions want.
//! Nothing here can be invalid; nothing here is read from a request.

mod access;
mod limits;

pub use access::*;
pub use limits::*;

use crate::pattern::PathPattern;
use crate::time::Nanos;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

/// A whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `name`; `unnamed` unless set.
    pub name: String,
    /// A fingerprint of the whole document, equal for equal documents whatever their key order.
    pub hash: u64,
    /// `https.mode`.
    pub https: HttpsMode,
    /// `ip`.
    pub ip: IpLists,
    /// `endpoints`, in order.
    pub endpoints: Vec<Endpoint>,
    /// `authentication`; `None` lets everybody pass as anonymous.
    pub authentication: Option<Authentication>,
    /// `revocation`; `None` means that no token is looked up as revoked.
    pub revocation: Option<Revocation>,
    /// `authorization`; `None` lets every identity do everything.
    pub authorization: Option<Authorization>,
    /// `csrf`; `None` when it is off.
    pub csrf: Option<Csrf>,
    /// Security headers in the order of the preset, lower-case names.
    pub security_headers: Vec<(String, String)>,
    /// `rate_limits`, in order.
    pub rate_limits: Vec<Limit>,
    /// `circuit_breakers`.
    pub circuit_breakers: Breakers,
    /// `sidecar`; `None` means that the filter runs alone.
    pub sidecar: Option<Sidecar>,
    /// Environment variables that the document names, sorted, once each.
    pub variables: Vec<String>,
    /// What is legal but deserves a word (no audience stated, ...), as `path: sentence`.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Every file that the policy names, sorted, once each: the sidecar reads them and hands them
    /// over.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let providers = self.authentication.iter().flat_map(|section| &section.providers);
        let csrf = self.csrf.iter().filter_map(|csrf| csrf.token.as_ref());
        let mut files: Vec<&str> = providers
            .filter_map(|provider| provider.keys.file())
            .chain(csrf.filter_map(|token| token.secret.file()))
            .collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

/// What happens to clear-text requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpsMode {
    /// They pass.
    Off,
    /// 308 on GET and HEAD, 403 otherwise.
    Redirect,
    /// 403.
    Refuse,
}

/// `ip`.
#[derive(Clone, Debug, Default)]
pub struct IpLists {
    /// When not empty, only these may pass.
    pub allow: Vec<Cidr>,
    /// These never pass.
    pub deny: Vec<Cidr>,
    /// These are never limited and never banned.
    pub exempt: Vec<Cidr>,
}

/// A network prefix. v4-mapped v6 addresses (`::ffff:a.b.c.d`) count as v4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The network, host bits zero.
    pub network: IpAddr,
    /// Leading bits that count: 0..=32 for v4, 0..=128 for v6.
    pub prefix: u8,
}

/// A named path template with methods.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Unique; `other` is reserved for what matches none.
    pub name: String,
    /// The template.
    pub path: PathPattern,
    /// Upper-case methods; empty means any.
    pub methods: Vec<String>,
}

/// Bytes that never appear in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps secret bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `circuit_breakers`.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    /// For services that are not named; `None` gives them no breaker.
    pub default: Option<Breaker>,
    /// By service name.
    pub services: Vec<(String, Breaker)>,
}

impl Breakers {
    /// The settings for a service; `None` when it has no breaker.
    #[must_use]
    pub fn of(&self, service: &str) -> Option<&Breaker> {
        let named = self.services.iter().find(|(name, _)| name == service).map(|(_, b)| b);
        named.or(self.default.as_ref())
    }
}

/// The settings of one breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open it, at least 1.
    pub failure_threshold: u32,
    /// Open for this long the first time.
    pub timeout: Nanos,
    /// Longest time open, however often it reopened.
    pub max_timeout: Nanos,
    /// Each reopening multiplies the time by this, at least 1.
    pub backoff: u32,
    /// Probes in flight at most, 1 to [`crate::kernel::breaker::PROBES_MAX`].
    pub half_open_calls: u32,
    /// Successes in half-open that close it, at least 1.
    pub success_threshold: u32,
    /// Upstream statuses that count as failures.
    pub failure_statuses: Vec<u16>,
    /// Upstream statuses that count neither way; they win over `failure_statuses`.
    pub ignore_statuses: Vec<u16>,
    /// The reply when open; `None` gives problem+json.
    pub fallback: Option<Fallback>,
}

/// What a service answers while its breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// 200 to 599.
    pub status: u16,
    /// The body as it is.
    pub body: String,
    /// Its `content-type`.
    pub content_type: String,
}

/// How the filter reaches its sidecar.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// The Envoy cluster.
    pub cluster: String,
    /// The bearer token of the synchronisation channel.
    pub token: Secret,
}
