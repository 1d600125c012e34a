//! What a scripted service answers.
//!
//! Told nothing, any path gets 200 and JSON with `service`, `method`, `path`. Built in, so that
//! `curl` can show things (anything may stand before them, such as `/api/storage`):
//!
//! | path ends in | answer |
//! |---|---|
//! | `/status/503` | that status |
//! | `/delay/250` | after that many milliseconds (at most 60,000) |
//! | `/bytes/4096` | a text of that many bytes (at most 1 MiB) |
//! | `/echo` | the request's headers and body as they arrived |
//!
//! A WebSocket handshake gets an echoing WebSocket; a gRPC request gets its own body and a
//! `grpc-status` in the trailers. `GET /healthz` is 200.
//!
//! Told from outside: `POST /_script` with a rule or a list of rules ([`super::Rule`]),
//! `DELETE /_script` forgets them and lets hanging requests go, `GET /_seen` lists what arrived.
//! The gateway routes none of these three paths.

use super::script::{Fault, Rule, Script, Seen};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A request body that is read; tests send little, and the demo is no file store.
const BODY_MAX: usize = 16 << 20;
/// `/bytes/N` at most.
const BYTES_MAX: usize = 1 << 20;
/// `/delay/N` at most.
const DELAY_MS_MAX: u64 = 60_000;
/// Between the beginning of a truncated answer and the end of its connection.
const FLUSH_MS: u64 = 20;

type Body = BoxBody<Bytes, io::Error>;

/// The connection under a request, to break it.
pub(super) struct Wire(socket2::Socket);

impl Wire {
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        socket2::SockRef::from(stream).try_clone().map(Self)
    }

    /// From now on closing the connection sends RST instead of FIN.
    fn reset_at_close(&self) -> io::Result<()> {
        self.0.set_linger(Some(Duration::ZERO))
    }
}

/// Answers one request. An error closes the connection.
pub(super) async fn answer(
    script: Arc<Script>,
    wire: Arc<Wire>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    if let Some(reply) = control(&script, request.method(), request.uri().path()) {
        return Ok(reply);
    }
    if request.uri().path() == "/_script" {
        return Ok(take_rules(&script, request).await);
    }
    let seen = seen(&request);
    script.record(seen.clone());
    let rule = built_in(request.uri().path(), script.pick(&seen.method, request.uri().path()));
    pause(rule.delay_ms).await;
    match rule.fault {
        Some(Fault::Hang) => script.released().await,
        Some(Fault::Close) => return Err(io::Error::other("scripted: closed")),
        Some(Fault::Reset) => {
            wire.reset_at_close()?;
            return Err(io::Error::other("scripted: reset"));
        }
        Some(Fault::Truncate) | None => {}
    }
    if is(&request, UPGRADE.as_str(), "websocket") {
        return Ok(web_socket(request));
    }
    let grpc = is(&request, CONTENT_TYPE.as_str(), "application/grpc");
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    script.record_answer();
    Ok(if grpc { grpc_answer(&rule, body) } else { http_answer(&script.name, &rule, &seen, &body) })
}

/// What is asked of the service itself, not of what it plays.
fn control(script: &Script, method: &Method, path: &str) -> Option<Response<Body>> {
    match (method, path) {
        (&Method::GET, "/healthz") => Some(json_answer(200, &json!({"status": "ok"}))),
        (&Method::GET, "/_seen") => {
            let answer = json!({"count": script.count(), "last": script.seen()});
            Some(json_answer(200, &answer))
        }
        (&Method::DELETE, "/_script") => {
            script.clear();
            Some(json_answer(200, &json!({"rules": 0})))
        }
        _ => None,
    }
}

async fn take_rules(script: &Script, request: Request<Incoming>) -> Response<Body> {
    let wrong = |what: String| json_answer(400, &json!({"error": what}));
    let body = match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return wrong(error.to_string()),
    };
    let list = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Array(list)) => list,
        Ok(one) => vec![one],
        Err(error) => return wrong(error.to_string()),
    };
    let rules: Result<Vec<Rule>, _> = list.into_iter().map(serde_json::from_value).collect();
    match rules {
        Ok(rules) if rules.iter().cloned().all(|r| script.add(r)) => {
            json_answer(200, &json!({"rules": rules.len()}))
        }
        Ok(_) => wrong("too many rules".to_owned()),
        Err(error) => wrong(error.to_string()),
    }
}

/// The paths of the table above, where the script does not say otherwise.
fn built_in(path: &str, mut rule: Rule) -> Rule {
    let mut back = path.rsplit('/');
    let (Some(last), Some(before)) = (back.next(), back.next()) else { return rule };
    match before {
        "status" => rule.status = rule.status.or_else(|| last.parse().ok()),
        "delay" if rule.delay_ms == 0 => {
            rule.delay_ms = last.parse().unwrap_or(0).min(DELAY_MS_MAX);
        }
        "bytes" if rule.body.is_none() => {
            let length = last.parse().unwrap_or(0).min(BYTES_MAX);
            rule.body = Some("tracseq ".chars().cycle().take(length).collect());
        }
        _ => {}
    }
    rule
}

fn http_answer(name: &str, rule: &Rule, seen: &Seen, body: &Bytes) -> Response<Body> {
    let path = seen.target.split('?').next().unwrap_or_default();
    let mut description = json!({"service": name, "method": seen.method, "path": path});
    if path.ends_with("/echo")
        && let Some(object) = description.as_object_mut()
    {
        object.insert("headers".to_owned(), json!(seen.headers));
        object.insert("body".to_owned(), json!(String::from_utf8_lossy(body)));
    }
    let status = rule.status.unwrap_or(200);
    let mut answer = match &rule.body {
        Some(text) => text_answer(status, "text/plain", text.clone()),
        None => json_answer(status, &description),
    };
    set_headers(answer.headers_mut(), rule);
    if rule.fault == Some(Fault::Truncate) { truncated(answer) } else { answer }
}

/// Promises ten times what it sends.
fn truncated(answer: Response<Body>) -> Response<Body> {
    let (mut parts, _) = answer.into_parts();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("100"));
    let first = async { Ok(Frame::data(Bytes::from_static(b"0123456789"))) };
    let then = async {
        // What was sent must have left before the connection ends, or nothing is seen of it.
        pause(FLUSH_MS).await;
        Err(io::Error::other("scripted: truncated"))
    };
    let frames = futures_util::stream::once(first).chain(futures_util::stream::once(then));
    Response::from_parts(parts, BoxBody::new(StreamBody::new(Box::pin(frames))))
}

fn grpc_answer(rule: &Rule, body: Bytes) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(rule.grpc_status.unwrap_or(0)));
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let mut answer =
        Response::new(BoxBody::new(StreamBody::new(futures_util::stream::iter(frames))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    set_headers(answer.headers_mut(), rule);
    answer
}

/// Accepts the handshake; every message comes back until the client closes.
fn web_socket(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(|k| derive_accept_key(k.as_bytes()));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // Either side may leave at any time; there is nobody to tell.
        let Ok(upgraded) = upgrade.await else { return };
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let echo = message.is_text() || message.is_binary();
            if echo && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut answer = text_answer(101, "", String::new());
    let headers = answer.headers_mut();
    headers.clear();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    if let Some(key) = key.and_then(|k| HeaderValue::from_str(&k).ok()) {
        headers.insert("sec-websocket-accept", key);
    }
    answer
}

fn json_answer(status: u16, value: &Value) -> Response<Body> {
    text_answer(status, "application/json", value.to_string())
}

fn text_answer(status: u16, kind: &'static str, text: String) -> Response<Body> {
    let never = |impossible: Infallible| match impossible {};
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(never).boxed());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Headers that are none (a colon in the name) are left out: the script is at fault, not the test.
fn set_headers(headers: &mut HeaderMap, rule: &Rule) {
    let parsed = |(name, value): &(String, String)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
    };
    let scripted: Vec<_> = rule.headers.iter().filter_map(parsed).collect();
    for (name, _) in &scripted {
        headers.remove(name);
    }
    for (name, value) in scripted {
        headers.append(name, value);
    }
}

fn seen(request: &Request<Incoming>) -> Seen {
    let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    Seen {
        method: request.method().to_string(),
        target: request.uri().path_and_query().map_or("/", |t| t.as_str()).to_owned(),
        version: format!("{:?}", request.version()),
        headers: request.headers().iter().map(|(n, v)| (n.to_string(), text(v))).collect(),
        at: Instant::now(),
    }
}

/// Whether a header's value begins so, in any case.
fn is(request: &Request<Incoming>, header: &str, begins: &str) -> bool {
    let value = request.headers().get(header).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.get(..begins.len()).is_some_and(|start| start.eq_ignore_ascii_case(begins))
}

/// Waits so long. What is waited for never comes, which is the point.
async fn pause(milliseconds: u64) {
    if milliseconds > 0 {
        let span = Duration::from_millis(milliseconds);
        let _ = tokio::time::timeout(span, std::future::pending::<()>()).await;
    }
}
