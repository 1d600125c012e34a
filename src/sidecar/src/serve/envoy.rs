//! Envoy's admin interface, read only: readiness, clusters, raw statistics.

use super::stats::{self, Stats};
use axum::http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest answer: ten thousand hosts in `/clusters` fit.
const ANSWER_MAX: usize = 32 * 1024 * 1024;
/// Our statistics only (`^wasmcustom\.gateway_`), histograms with their finest bins.
const STATS: &str =
    "/stats?filter=%5Ewasmcustom%5C.gateway_&format=json&histogram_buckets=detailed";

/// A client for one Envoy.
#[derive(Clone, Debug)]
pub(crate) struct Envoy {
    client: Client<HttpConnector, Empty<Bytes>>,
    authority: String,
}

/// A cluster as Envoy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// The cluster's name.
    pub(crate) name: String,
    /// Hosts that get traffic.
    pub(crate) healthy: usize,
    /// All its hosts.
    pub(crate) hosts: usize,
}

impl Envoy {
    /// A client for `http://authority`; connects when asked.
    pub(crate) fn new(authority: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, authority: authority.to_owned() }
    }

    /// Whether Envoy is ready to serve.
    ///
    /// # Errors
    /// A sentence that says what it is instead.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<(), String> {
        self.get("/ready", limit).await.map(drop)
    }

    /// The filter's statistics.
    ///
    /// # Errors
    /// A sentence that says why they cannot be had.
    pub(crate) async fn stats(&self, limit: Duration) -> Result<Stats, String> {
        let body = self.get(STATS, limit).await?;
        stats::read(&body).map_err(|error| format!("its statistics cannot be read: {error}"))
    }

    /// All clusters but the one whose only host is this sidecar itself.
    ///
    /// # Errors
    /// A sentence that says why they cannot be had.
    pub(crate) async fn services(
        &self,
        own: SocketAddr,
        limit: Duration,
    ) -> Result<Vec<Service>, String> {
        let body = self.get("/clusters?format=json", limit).await?;
        let clusters: Clusters = serde_json::from_slice(&body)
            .map_err(|error| format!("its clusters cannot be read: {error}"))?;
        Ok(clusters.services(own))
    }

    async fn get(&self, path: &str, limit: Duration) -> Result<Bytes, String> {
        let uri: Uri = format!("http://{}{path}", self.authority)
            .parse()
            .map_err(|error| format!("cannot be asked: {error}"))?;
        let exchange = async {
            let response = self
                .client
                .get(uri)
                .await
                .map_err(|error| format!("no answer: {}", chain(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| format!("broken answer: {error}"))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let said: String = String::from_utf8_lossy(&body).trim().chars().take(100).collect();
            Err(format!("answers {} {said}", status.as_u16()))
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
    }
}

/// An error with its causes: the client's own text is only "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    #[serde(default)]
    host_statuses: Vec<Host>,
}

/// Envoy leaves out what is false, zero or empty.
#[derive(Deserialize)]
struct Host {
    #[serde(default)]
    address: serde_json::Value,
    #[serde(default)]
    health_status: Health,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Health {
    failed_active_health_check: bool,
    failed_outlier_check: bool,
    pending_dynamic_removal: bool,
    pending_active_hc: bool,
    excluded_via_immediate_hc_fail: bool,
    active_hc_timeout: bool,
    eds_health_status: String,
}

impl Clusters {
    fn services(self, own: SocketAddr) -> Vec<Service> {
        let ours = |cluster: &Cluster| {
            !cluster.host_statuses.is_empty()
                && cluster.host_statuses.iter().all(|host| host.is_at(own))
        };
        let mut services: Vec<Service> = self
            .cluster_statuses
            .into_iter()
            .filter(|cluster| !ours(cluster))
            .map(|cluster| Service {
                healthy: cluster
                    .host_statuses
                    .iter()
                    .filter(|host| host.health_status.is_up())
                    .count(),
                hosts: cluster.host_statuses.len(),
                name: cluster.name,
            })
            .collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        services
    }
}

impl Host {
    fn is_at(&self, own: SocketAddr) -> bool {
        let part = |name: &str| self.address.pointer(&format!("/socket_address/{name}"));
        let ip = part("address").and_then(|value| value.as_str()).and_then(|ip| ip.parse().ok());
        let port = part("port_value").and_then(serde_json::Value::as_u64);
        ip == Some(own.ip()) && port == Some(own.port().into())
    }
}

impl Health {
    /// Whether Envoy would send requests there without being in panic mode.
    fn is_up(&self) -> bool {
        let failed = self.failed_active_health_check
            || self.failed_outlier_check
            || self.pending_dynamic_removal
            || self.pending_active_hc
            || self.excluded_via_immediate_hc_fail
            || self.active_hc_timeout;
        !failed
            && matches!(self.eds_health_status.as_str(), "" | "HEALTHY" | "UNKNOWN" | "DEGRADED")
    }
}
