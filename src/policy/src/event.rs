//! What happened, as one enum: each shell turns it into metrics and log lines in one exhaustive
//! `match`, so a new event cannot be forgotten.

use crate::kernel::breaker::State;
use crate::reason::Reason;
use crate::time::Nanos;

/// How a limit judged a request (`gateway_rate_limit_total{outcome}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOutcome {
    /// Admitted.
    Ok,
    /// Admitted, with at least 80 % of the burst used.
    Near,
    /// Refused.
    Over,
    /// Would have been refused; the limit is in shadow mode.
    ShadowOver,
    /// Shared state could not be had, and `on_unavailable` is `allow`.
    ErrorAllowed,
    /// Shared state could not be had, and `on_unavailable` is `refuse`.
    ErrorRefused,
}

impl LimitOutcome {
    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Near => "near",
            Self::Over => "over",
            Self::ShadowOver => "shadow_over",
            Self::ErrorAllowed => "error_allowed",
            Self::ErrorRefused => "error_refused",
        }
    }
}

/// What a breaker made of a call (`gateway_breaker_calls_total{kind}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// The upstream answered well.
    Success,
    /// The upstream failed.
    Failure,
    /// Neither: the client left, a direct response, an ignored status.
    Ignored,
    /// Refused because the breaker is open.
    NotPermitted,
}

impl CallKind {
    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
            Self::NotPermitted => "not_permitted",
        }
    }
}

/// What a request was authenticated by (`gateway_authentication_total{method}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// No credential.
    None,
    /// A token.
    Jwt,
    /// An API key.
    ApiKey,
}

impl AuthMethod {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::None, Self::Jwt, Self::ApiKey];

    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Jwt => "jwt",
            Self::ApiKey => "api_key",
        }
    }
}

/// How authentication went (`gateway_authentication_total{outcome}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// A credential was accepted.
    Accepted,
    /// Refused for this reason.
    Refused(Reason),
    /// No credential, and none was required.
    Anonymous,
}

/// How a check that can be in shadow mode went (`gateway_authorization_total{outcome}`,
/// `gateway_csrf_total{outcome}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The request may go on.
    Allowed,
    /// It was refused.
    Denied,
    /// It would have been refused; the stage is in shadow mode.
    ShadowDenied,
}

impl CheckOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::ShadowDenied];

    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::ShadowDenied => "shadow_denied",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A request is over, whatever became of it. Sent once per request that the filter saw.
    Finished {
        /// The service that it really went to.
        service: &'a str,
        /// Whether the gateway let it pass.
        refused: Option<Reason>,
        /// The status that the client got; 0 when the client left before there was one.
        status: u16,
        /// Whether an upstream answered (as opposed to Envoy or the gateway).
        from_upstream: bool,
        /// From the first request byte to the last response byte.
        duration: Nanos,
    },
    /// Authentication came to a result.
    Authentication {
        /// What the request was authenticated by.
        method: AuthMethod,
        /// The result.
        outcome: AuthOutcome,
    },
    /// A request was judged by permissions.
    Authorization(CheckOutcome),
    /// A request with a cookie as its credential was judged by where it comes from.
    Csrf(CheckOutcome),
    /// A limit judged a request.
    RateLimit {
        /// The limit's name.
        limit: &'a str,
        /// The judgement.
        outcome: LimitOutcome,
    },
    /// A penalty banned somebody; who it is goes to [`crate::stage::Reports`] only.
    Banned {
        /// The limit's name.
        limit: &'a str,
        /// For how long.
        span: Nanos,
    },
    /// A request was paused until its turn.
    Paused {
        /// The limit's name.
        limit: &'a str,
    },
    /// A breaker judged or counted a call.
    BreakerCall {
        /// The service.
        service: &'a str,
        /// What was counted.
        kind: CallKind,
    },
    /// A breaker changed its state; sent once per change, by the worker whose write won.
    BreakerTransition {
        /// The service.
        service: &'a str,
        /// `None` when the breaker was just created (closed).
        from: Option<State>,
        /// The new state.
        to: State,
    },
    /// A record in shared data had an unknown version or a wrong size and was treated as absent.
    RecordUnreadable,
    /// A live record was evicted because its set was full.
    RecordEvicted,
    /// Shared state could not be had, and what was to be written was not.
    StoreFailed,
    /// An invariant of our own does not hold; the stage used its failure mode.
    Bug(&'static str),
}

/// Where events go. A trait, so that an event may borrow what it names.
pub trait Events {
    /// Takes note of one event. Must not fail.
    fn on(&mut self, event: Event<'_>);
}

impl<F: FnMut(Event<'_>)> Events for F {
    fn on(&mut self, event: Event<'_>) {
        self(event);
    }
}
