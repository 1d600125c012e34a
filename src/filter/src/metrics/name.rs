//! The names of the filter's metrics, each once.

use crate::host::Kind;

/// Every metric of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Requests,
    RequestDuration,
    UpstreamResponses,
    Authentication,
    Authorization,
    Csrf,
    TokenCache,
    JwksFetch,
    RevocationSeeded,
    RateLimit,
    RateLimitPaused,
    Bans,
    BreakerCalls,
    BreakerTransitions,
    BreakerState,
    PolicyGeneration,
    PolicyReload,
    StateGeneration,
    StateNumber,
    SidecarConnected,
    SidecarSyncAge,
    RecordUnreadable,
    RecordEvicted,
    StoreFailed,
    Bug,
}

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Self::Requests => "gateway_requests_total",
            Self::RequestDuration => "gateway_request_duration_milliseconds",
            Self::UpstreamResponses => "gateway_upstream_responses_total",
            Self::Authentication => "gateway_authentication_total",
            Self::Authorization => "gateway_authorization_total",
            Self::Csrf => "gateway_csrf_total",
            Self::TokenCache => "gateway_token_cache_total",
            Self::JwksFetch => "gateway_jwks_fetch_total",
            Self::RevocationSeeded => "gateway_revocation_seeded",
            Self::RateLimit => "gateway_rate_limit_total",
            Self::RateLimitPaused => "gateway_rate_limit_paused_total",
            Self::Bans => "gateway_bans_total",
            Self::BreakerCalls => "gateway_breaker_calls_total",
            Self::BreakerTransitions => "gateway_breaker_transitions_total",
            Self::BreakerState => "gateway_breaker_state",
            Self::PolicyGeneration => "gateway_policy_generation",
            Self::PolicyReload => "gateway_policy_reload_total",
            Self::StateGeneration => "gateway_state_generation",
            Self::StateNumber => "gateway_state_number",
            Self::SidecarConnected => "gateway_sidecar_connected",
            Self::SidecarSyncAge => "gateway_sidecar_sync_age_seconds",
            Self::RecordUnreadable => "gateway_record_unreadable_total",
            Self::RecordEvicted => "gateway_record_evicted_total",
            Self::StoreFailed => "gateway_store_failed_total",
            Self::Bug => "gateway_bug_total",
        }
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::RequestDuration => Kind::Histogram,
            Self::BreakerState
            | Self::PolicyGeneration
            | Self::RevocationSeeded
            | Self::StateGeneration
            | Self::StateNumber
            | Self::SidecarConnected
            | Self::SidecarSyncAge => Kind::Gauge,
            _ => Kind::Counter,
        }
    }
}

/// The full name of a metric. `;` ends a label, so no value may have one.
pub(super) fn full(name: Name, labels: &[(&str, &str)]) -> String {
    let mut text = String::from(name.text());
    for (key, value) in labels {
        text.push(';');
        text.push_str(key);
        text.push('=');
        text.extend(value.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }));
    }
    text
}
