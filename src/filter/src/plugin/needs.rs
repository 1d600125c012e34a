//! What a request has to be asked for, so that no policy pays for another one's wishes.

use policy::model::{Breakers, IpLists, KeyPart, LimitAlgorithm, Policy};

/// What only some policies look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// The client's address, which costs a microsecond: for IP lists, for limits by `ip`, for API
    /// keys. Bans that a sidecar has handed over need it too ([`super::Plugin::look`]).
    pub(crate) client: bool,
    /// How a call really ended, a microsecond too: the response flags, and the service that it went
    /// to if another filter chose the route anew. For breakers; without any, the first choice is
    /// label enough.
    pub(crate) outcome: bool,
    /// The sidecar's state: whether it has moved is a read of a gauge.
    pub(crate) state: bool,
    /// The load, for adaptive limits.
    pub(crate) load: bool,
}

impl Needs {
    pub(super) fn of(policy: &Policy) -> Self {
        let IpLists { allow, deny, exempt } = &policy.ip;
        let listed = !(allow.is_empty() && deny.is_empty() && exempt.is_empty());
        // Penalties of such limits ban addresses.
        let keyed = policy.rate_limits.iter().any(|limit| limit.key.contains(&KeyPart::Ip));
        let api_keys = policy.authentication.as_ref().and_then(|section| section.api_keys.as_ref());
        let state = policy.sidecar.is_some();
        // Keys that are made at run time may be for some addresses only.
        let bound = api_keys
            .is_some_and(|api_keys| state || api_keys.keys.iter().any(|key| !key.cidrs.is_empty()));
        let adaptive =
            |algorithm: &LimitAlgorithm| matches!(algorithm, LimitAlgorithm::Adaptive(_));
        let Breakers { default, services } = &policy.circuit_breakers;
        Self {
            client: listed || keyed || bound,
            outcome: default.is_some() || !services.is_empty(),
            state,
            load: policy.rate_limits.iter().any(|limit| adaptive(&limit.algorithm)),
        }
    }
}
