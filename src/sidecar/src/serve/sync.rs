//! The filter's calls: `POST /sync`, its long poll, and `POST /sync/state`, which hands over what it
//! lacks. The third, `POST /sync/report`, is in `reports.rs`; all are read here.

use super::App;
use super::body;
use super::guard::BODY_MAX;
use super::problem::{Problem, Realm, json_reply};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::sync::{Answer, Fetch, PROTOCOL, Poll, Position};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

/// Longest a poll is held, whatever it asks for: below the idle timeouts of everything between.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest name of an Envoy process or VM: 128 bits in hexadecimal, and some.
const INSTANCE_MAX: usize = 64;

/// What every version of the protocol has.
#[derive(Deserialize)]
struct Versioned {
    protocol: u32,
}

/// Takes one poll.
pub(super) async fn sync(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let poll: Poll = message(&app, request, BODY_MAX).await?;
    meet(&app, &poll.instance, &poll.state)?;
    app.files.want(&poll.wants.files, &poll.state, app.replica.position());
    let wait = Duration::from_millis(poll.wait_ms.into()).min(WAIT_MAX);
    let wants_load = poll.wants.load;
    let (commands, state) = app.channel.poll(poll, wait).await;
    let load = app.load.now().filter(|_| wants_load);
    let answer = Answer { protocol: PROTOCOL, commands, state, load };
    let body = serde_json::to_value(answer).map_err(malformed)?;
    Ok(json_reply(StatusCode::OK, &body))
}

/// Hands over a piece of what the filter lacks.
pub(super) async fn state(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let fetch: Fetch = message(&app, request, BODY_MAX).await?;
    meet(&app, &fetch.instance, &fetch.state)?;
    let batch = app.replica.batch(&fetch.state);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, batch.encode()).into_response())
}

/// Reads a message of the filter: the right token, the right version, the right shape.
pub(super) async fn message<T: DeserializeOwned>(
    app: &App,
    request: Request,
    bytes_max: usize,
) -> Result<T, Problem> {
    if !app.sync_token.is_in(request.headers()) {
        app.complaints.say(|| {
            error!("the filter's token is not ours: both sides need the same GATEWAY_SYNC_TOKEN");
        });
        return Err(Problem::Unauthorized(Realm::Sync));
    }
    let body = body::read(request.into_body(), bytes_max).await?;
    let Versioned { protocol } = serde_json::from_slice(&body).map_err(malformed)?;
    if protocol != PROTOCOL {
        app.complaints.say(|| {
            error!(
                filter = protocol,
                sidecar = PROTOCOL,
                "filter and sidecar speak different versions: install both from one release"
            );
        });
        return Err(Problem::Protocol(protocol));
    }
    serde_json::from_slice(&body).map_err(malformed)
}

/// Checks the name of the filter, and that it can have what it says.
fn meet(app: &App, instance: &str, theirs: &Position) -> Result<(), Problem> {
    named("instance", instance)?;
    app.replica.meet(instance, theirs);
    app.channel.offer(|| app.replica.position());
    Ok(())
}

/// Checks the name of an Envoy process, or of one of its VMs.
pub(super) fn named(what: &str, name: &str) -> Result<(), Problem> {
    if (1..=INSTANCE_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(Problem::BadRequest(format!("{what}: has 1 to {INSTANCE_MAX} characters.")))
}

fn malformed(error: serde_json::Error) -> Problem {
    Problem::BadRequest(format!("The message: {error}."))
}
