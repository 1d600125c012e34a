//! The serving mode: one listener for the filter's poll, for administrators and for scrapers.
//!
//! Reads no environment and holds no rule of the gateway: it carries orders to the filter, and shows
//! what filter and Envoy say.

mod api_keys;
mod bans;
mod body;
mod breakers;
mod channel;
mod connections;
mod envoy;
mod exposition;
mod files;
mod guard;
mod health;
mod hear;
mod hex;
mod limits;
mod load;
mod metrics;
mod moment;
mod order;
mod page;
mod problem;
mod replica;
mod reports;
mod revocations;
pub(crate) mod settings;
mod state;
mod stats;
mod sync;
#[cfg(test)]
mod tests;

use crate::store::Store;
use crate::store::embedded::Embedded;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use channel::Channel;
use envoy::Envoy;
use files::Files;
use guard::Token;
use health::Board;
use load::Load;
use problem::Problem;
use replica::Replica;
use reports::Reports;
use settings::Settings;
use state::Expiry;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::info;

/// What all handlers share.
struct App {
    listen: SocketAddr,
    loopback: bool,
    admin_token: Token,
    sync_token: Token,
    envoy: Envoy,
    channel: Channel,
    replica: Replica,
    files: Files,
    board: Board,
    expiry: Expiry,
    reports: Reports,
    load: Load,
    in_flight: Semaphore,
    complaints: Complaints,
}

impl App {
    fn new(settings: Settings, listen: SocketAddr, replica: Replica) -> Self {
        Self {
            listen,
            loopback: listen.ip().is_loopback(),
            admin_token: settings.admin_token,
            sync_token: settings.sync_token,
            envoy: Envoy::new(&settings.envoy_admin),
            channel: Channel::new(replica.position()),
            replica,
            files: Files::new(settings.files_dir),
            board: Board::new(),
            expiry: Expiry::default(),
            reports: Reports::new(),
            load: Load::default(),
            in_flight: Semaphore::new(guard::IN_FLIGHT_MAX),
            complaints: Complaints::default(),
        }
    }
}

fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route(policy::sync::PATH, post(sync::sync))
        .route(policy::sync::STATE_PATH, post(sync::state))
        .route(policy::sync::REPORT_PATH, post(reports::report))
        .route("/gateway/circuit-breakers", get(breakers::list))
        .route("/gateway/circuit-breakers/reset", post(breakers::reset_all))
        .route("/gateway/circuit-breakers/{service}", get(breakers::one))
        .route("/gateway/circuit-breakers/{service}/reset", post(breakers::reset))
        .route("/gateway/revocations", get(revocations::list).post(revocations::post))
        .route("/gateway/revocations/{id}", delete(revocations::delete))
        .route("/gateway/api-keys", get(api_keys::list).post(api_keys::post))
        .route("/gateway/api-keys/{id}", delete(api_keys::delete))
        .route("/gateway/api-keys/{id}/rotate", post(api_keys::rotate))
        .route("/gateway/bans", get(bans::list).post(bans::post))
        .route("/gateway/bans/{id}", delete(bans::delete))
        .route("/gateway/rate-limits", get(limits::list))
        // `reset` may be the name of a limit as well: only it has a POST.
        .route(
            "/gateway/rate-limits/{limit}",
            get(limits::one).put(limits::put).delete(limits::delete).post(limits::reset),
        )
        .route("/gateway/rate-limits/{limit}/", get(limits::read).delete(limits::forget))
        .route("/gateway/rate-limits/{limit}/{key}", get(limits::read).delete(limits::forget))
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .fallback(async || Problem::NotFound)
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
        .with_state(Arc::clone(app))
}

/// Serves until `stop` ends, then lets what is under way finish.
///
/// # Errors
/// When it cannot listen, or its store cannot be read.
pub(crate) async fn serve(
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let wanted = settings.listen;
    let listener = TcpListener::bind(wanted).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("--listen: {wanted} is in use by another process; choose another port, or 0")
        }
        _ => format!("--listen: {wanted}: {error}"),
    })?;
    let listen = listener.local_addr().map_err(|error| format!("--listen: {error}"))?;
    let replica = open(&settings.data_dir)?;
    let app = Arc::new(App::new(settings, listen, replica));
    health::start(&app);
    files::start(&app);
    state::start(&app);
    load::start(&app);
    info!(address = %listen, version = env!("CARGO_PKG_VERSION"), "listening");
    let router = router(&app);
    let stop = async {
        stop.await;
        info!("stopping");
        app.channel.stop();
    };
    connections::accept(listener, router, stop).await;
    info!("stopped");
    Ok(())
}

/// Opens the store and loads what is in it.
fn open(data_dir: &Path) -> Result<Replica, String> {
    let say = |error| {
        let file = data_dir.join(crate::store::embedded::FILE);
        format!("--data-dir: {}: {error}", file.display())
    };
    let store: Arc<dyn Store> = Arc::new(Embedded::open(data_dir).map_err(say)?);
    Replica::load(store).map_err(say)
}

/// Log lines about a client's mistake, which it repeats with every poll: one now and then is enough.
#[derive(Debug, Default)]
struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Between two lines.
    const QUIET: Duration = Duration::from_secs(10);

    fn say(&self, line: impl FnOnce()) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= Self::QUIET) {
            *last = Some(Instant::now());
            line();
        }
    }
}
