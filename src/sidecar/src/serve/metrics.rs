//! `GET /metrics`: what the filter counted inside Envoy and what the sidecar knows, as one page.

#[cfg(test)]
mod tests;

use super::exposition::{Format, Page, Sample, Type};
use super::reports::Outcome;
use super::stats::{Labels, Stats};
use super::{App, bans, moment};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;

/// Below the shortest scrape timeout in use, so that a page comes even when Envoy hangs.
const STATS_WITHIN: Duration = Duration::from_secs(2);

/// Every metric that has a fixed meaning. The filter may count more; those are passed on as they
/// are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Requests,
    RequestDuration,
    UpstreamResponses,
    Authentication,
    TokenCache,
    JwksFetch,
    Authorization,
    Csrf,
    RateLimit,
    BreakerCalls,
    BreakerTransitions,
    BreakerState,
    PolicyGeneration,
    PolicyReload,
    SidecarConnected,
    SyncAge,
    StateGeneration,
    StateNumber,
    RevocationSeeded,
    RecordUnreadable,
    RecordEvicted,
    StoreFailed,
    Bug,
    BuildInfo,
    EnvoyUp,
    ServiceUp,
    CommandsPending,
    Commands,
    Revocations,
    ApiKeys,
    Bans,
    RateLimitPaused,
    BansActive,
    Reports,
    LoadRatio,
}

impl Metric {
    const ALL: [Self; 35] = [
        Self::Requests,
        Self::RequestDuration,
        Self::UpstreamResponses,
        Self::Authentication,
        Self::TokenCache,
        Self::JwksFetch,
        Self::Authorization,
        Self::Csrf,
        Self::RateLimit,
        Self::BreakerCalls,
        Self::BreakerTransitions,
        Self::BreakerState,
        Self::PolicyGeneration,
        Self::PolicyReload,
        Self::SidecarConnected,
        Self::SyncAge,
        Self::StateGeneration,
        Self::StateNumber,
        Self::RevocationSeeded,
        Self::RecordUnreadable,
        Self::RecordEvicted,
        Self::StoreFailed,
        Self::Bug,
        Self::BuildInfo,
        Self::EnvoyUp,
        Self::ServiceUp,
        Self::CommandsPending,
        Self::Commands,
        Self::Revocations,
        Self::ApiKeys,
        Self::Bans,
        Self::RateLimitPaused,
        Self::BansActive,
        Self::Reports,
        Self::LoadRatio,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Requests => "gateway_requests_total",
            Self::RequestDuration => "gateway_request_duration_seconds",
            Self::UpstreamResponses => "gateway_upstream_responses_total",
            Self::Authentication => "gateway_authentication_total",
            Self::TokenCache => "gateway_token_cache_total",
            Self::JwksFetch => "gateway_jwks_fetch_total",
            Self::Authorization => "gateway_authorization_total",
            Self::Csrf => "gateway_csrf_total",
            Self::RateLimit => "gateway_rate_limit_total",
            Self::BreakerCalls => "gateway_breaker_calls_total",
            Self::BreakerTransitions => "gateway_breaker_transitions_total",
            Self::BreakerState => "gateway_breaker_state",
            Self::PolicyGeneration => "gateway_policy_generation",
            Self::PolicyReload => "gateway_policy_reload_total",
            Self::SidecarConnected => "gateway_sidecar_connected",
            Self::SyncAge => "gateway_sidecar_sync_age_seconds",
            Self::StateGeneration => "gateway_state_generation",
            Self::StateNumber => "gateway_state_number",
            Self::RevocationSeeded => "gateway_revocation_seeded",
            Self::RecordUnreadable => "gateway_record_unreadable_total",
            Self::RecordEvicted => "gateway_record_evicted_total",
            Self::StoreFailed => "gateway_store_failed_total",
            Self::Bug => "gateway_bug_total",
            Self::BuildInfo => "gateway_build_info",
            Self::EnvoyUp => "gateway_envoy_up",
            Self::ServiceUp => "gateway_service_up",
            Self::CommandsPending => "gateway_sidecar_commands_pending",
            Self::Commands => "gateway_sidecar_commands_total",
            Self::Revocations => "gateway_revocations",
            Self::ApiKeys => "gateway_api_keys",
            Self::Bans => "gateway_bans_total",
            Self::RateLimitPaused => "gateway_rate_limit_paused_total",
            Self::BansActive => "gateway_bans_active",
            Self::Reports => "gateway_reports_total",
            Self::LoadRatio => "gateway_load_ratio",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::Requests => "Requests that the gateway judged, by decision and reason.",
            Self::RequestDuration => "From the first request byte to the last response byte.",
            Self::UpstreamResponses => "Answers of services, by class of status.",
            Self::Authentication => "Results of authentication.",
            Self::TokenCache => "Tokens that were, or were not, remembered as verified.",
            Self::JwksFetch => "Fetches of key sets, by provider and outcome.",
            Self::Authorization => "Results of authorization.",
            Self::Csrf => "Results of the check against forged requests from other sites.",
            Self::RateLimit => "Judgements of rate limits.",
            Self::BreakerCalls => "Calls as circuit breakers counted them.",
            Self::BreakerTransitions => "Changes of state of circuit breakers.",
            Self::BreakerState => "1 for the state that a service's circuit breaker is in.",
            Self::PolicyGeneration => "Raised by one with every policy that came into force.",
            Self::PolicyReload => "Policies that were accepted or refused.",
            Self::SidecarConnected => "Whether the filter hears from its sidecar.",
            Self::SyncAge => "Since the filter's last poll, or since the start without one.",
            Self::StateGeneration => "Raised by one with every change of state that workers share.",
            Self::StateNumber => "The number of the sidecar's last change that the filter has.",
            Self::RevocationSeeded => "Whether the filter has had the whole list of revocations.",
            Self::RecordUnreadable => "Records of shared state that could not be read.",
            Self::RecordEvicted => "Live records of shared state that made room for others.",
            Self::StoreFailed => "Changes of shared state that could not be written.",
            Self::Bug => "Broken invariants of the gateway itself; please report them.",
            Self::BuildInfo => "1, with the sidecar's version.",
            Self::EnvoyUp => "Whether Envoy's admin interface answers.",
            Self::ServiceUp => "Whether a service has a host that gets traffic.",
            Self::CommandsPending => "Commands that wait for the filter.",
            Self::Commands => "Commands that the filter has answered, by outcome.",
            Self::Revocations => "Revocations in the sidecar's store.",
            Self::ApiKeys => "Secrets of API keys in the sidecar's store.",
            Self::Bans => "Bans that penalties of rate limits made.",
            Self::RateLimitPaused => "Requests that were paused until their turn.",
            Self::BansActive => "Bans in force that the sidecar knows of.",
            Self::Reports => "Reports of the filter's VMs on refused keys and bans, by outcome.",
            Self::LoadRatio => "The load of this machine that adaptive limits go by.",
        }
    }

    fn family(self) -> (&'static str, Type, &'static str) {
        let kind = if self == Self::RequestDuration { Type::Histogram } else { kind(self.name()) };
        (self.name(), kind, self.help())
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

fn kind(name: &str) -> Type {
    if name.ends_with("_total") { Type::Counter } else { Type::Gauge }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let format = Format::of(headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()));
    let stats = app.envoy.stats(STATS_WITHIN).await;
    let mut page = Page::default();
    own(&mut page, &app, stats.is_ok());
    if let Ok(stats) = stats {
        filter(&mut page, stats);
    }
    generation(&mut page, &app);
    ([(header::CONTENT_TYPE, format.content_type())], page.print(format)).into_response()
}

/// The sidecar's own series. They come first, so that its view of the connection wins.
fn own(page: &mut Page, app: &App, envoy_up: bool) {
    let status = app.channel.status();
    let number = |value: bool| Sample::Number(u8::from(value).to_string());
    let labels = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let version = labels("version", env!("CARGO_PKG_VERSION"));
    page.put(Metric::BuildInfo.family(), version, number(true));
    page.put(Metric::EnvoyUp.family(), Labels::new(), number(envoy_up));
    let age = Sample::Number(status.age.as_secs_f64().to_string());
    page.put(Metric::SyncAge.family(), Labels::new(), age);
    let pending = Sample::Number(status.pending.to_string());
    page.put(Metric::CommandsPending.family(), Labels::new(), pending);
    for (outcome, count) in [
        ("applied", status.counts.applied),
        ("unknown", status.counts.unknown),
        ("failed", status.counts.failed),
    ] {
        let count = Sample::Number(count.to_string());
        page.put(Metric::Commands.family(), labels("outcome", outcome), count);
    }
    let held = app.replica.held();
    for (metric, count) in
        [(Metric::Revocations, held.revocations().len()), (Metric::ApiKeys, held.keys().len())]
    {
        page.put(metric.family(), Labels::new(), Sample::Number(count.to_string()));
    }
    let bans = Sample::Number(bans::active(&held, moment::now_ms()).to_string());
    page.put(Metric::BansActive.family(), Labels::new(), bans);
    drop(held);
    for outcome in Outcome::ALL {
        let count = Sample::Number(app.reports.count(outcome).to_string());
        page.put(Metric::Reports.family(), labels("outcome", outcome.label()), count);
    }
    if let Some(load) = app.load.now() {
        let load = Sample::Number((f64::from(load) / 1000.0).to_string());
        page.put(Metric::LoadRatio.family(), Labels::new(), load);
    }
    for service in app.board.services() {
        let up = number(service.healthy > 0);
        page.put(Metric::ServiceUp.family(), labels("service", &service.name), up);
    }
}

fn filter(page: &mut Page, stats: Stats) {
    for value in stats.values {
        let sample = Sample::Number(value.value.to_string());
        match Metric::named(&value.name) {
            // The sidecar's own view of the connection is on the page already.
            Some(Metric::SyncAge) => {}
            Some(metric) => page.put(metric.family(), value.labels, sample),
            None => {
                let family = (value.name.as_str(), kind(&value.name), "Counted by the filter.");
                page.put(family, value.labels, sample);
            }
        }
    }
    for histogram in stats.histograms {
        let Some(name) = histogram.name.strip_suffix("_milliseconds") else { continue };
        let name = format!("{name}_seconds");
        let help = Metric::named(&name).map_or("Measured by the filter.", Metric::help);
        let sample = Sample::Milliseconds(histogram.bins);
        page.put((&name, Type::Histogram, help), histogram.labels, sample);
    }
}

/// From the filter's gauge; from its last poll while Envoy does not tell.
fn generation(page: &mut Page, app: &App) {
    if let Some(filter) = app.channel.status().filter {
        let generation = Sample::Number(filter.policy.generation.to_string());
        page.put(Metric::PolicyGeneration.family(), Labels::new(), generation);
    }
}
