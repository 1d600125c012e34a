//! `POST /sync`: the filter's long poll over HTTP.

use super::App;
use super::guard::BODY_MAX;
use super::problem::{Problem, Realm, json_reply};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use policy::sync::{Answer, PROTOCOL, Poll};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

/// Longest a poll is held, whatever it asks for: below the idle timeouts of everything between.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A body of a few kilobytes on loopback is here at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest name of an Envoy process: 128 bits in hexadecimal, and some.
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
    if !app.sync_token.is_in(request.headers()) {
        app.complaints.say(|| {
            error!("the filter's token is not ours: both sides need the same GATEWAY_SYNC_TOKEN");
        });
        return Err(Problem::Unauthorized(Realm::Sync));
    }
    let body = read(request.into_body()).await?;
    let malformed = |error: serde_json::Error| Problem::BadRequest(format!("The poll: {error}."));
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
    let poll: Poll = serde_json::from_slice(&body).map_err(malformed)?;
    if poll.instance.is_empty() || poll.instance.len() > INSTANCE_MAX {
        return Err(Problem::BadRequest(format!("instance: has 1 to {INSTANCE_MAX} characters.")));
    }
    let wait = Duration::from_millis(poll.wait_ms.into()).min(WAIT_MAX);
    let commands = app.channel.poll(poll, wait).await;
    let answer = Answer { protocol: PROTOCOL, commands };
    let body = serde_json::to_value(answer).map_err(malformed)?;
    Ok(json_reply(StatusCode::OK, &body))
}

async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let collect = Limited::new(body, BODY_MAX).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, collect);
    match collected.await.map_err(|_| Problem::BodyTimeout)? {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge),
        Err(_) => Err(Problem::BadRequest("The body broke off.".to_owned())),
    }
}
