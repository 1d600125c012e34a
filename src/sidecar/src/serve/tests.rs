//! The whole router in process, with a scripted Envoy behind it.

use super::*;
use crate::store::memory::Memory;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use policy::replica::batch::{Batch, Begin, End};
use policy::store::{Store as SharedStore, StoreError as SharedError, Swap, Versioned};
use policy::sync::{Action, Answer, Command, Done, DoneOutcome, KeyStanding, LimitInForce, MARKER};
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const ADMIN: &str = "admin-token-0123456789";
pub(crate) const SYNC: &str = "sync-token-0123456789";
const STATS: &str = r#"{"stats":[
    {"name":"wasmcustom.gateway_breaker_state;service=auth;state=closed","value":0},
    {"name":"wasmcustom.gateway_breaker_state;service=auth;state=open","value":1},
    {"name":"wasmcustom.gateway_breaker_calls_total;service=auth;kind=failure","value":5}]}"#;
const CLUSTERS: &str = r#"{"cluster_statuses":[
    {"name":"samples"},
    {"name":"auth","host_statuses":[{"address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"health_status":{"eds_health_status":"HEALTHY"}}]},
    {"name":"storage","host_statuses":[{"health_status":{"failed_active_health_check":true,"eds_health_status":"HEALTHY"}}]}]}"#;

/// An Envoy that answers what the sidecar asks.
pub(crate) async fn envoy(stats: &'static str) -> SocketAddr {
    let router = Router::new()
        .route("/ready", get(async || "LIVE"))
        .route("/clusters", get(async || CLUSTERS))
        .route("/stats", get(async move || stats));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn settings(listen: SocketAddr, envoy: SocketAddr) -> Settings {
    Settings {
        listen,
        envoy_admin: envoy.to_string(),
        admin_token: Token::new(ADMIN.into()),
        sync_token: Token::new(SYNC.into()),
        data_dir: "/nonexistent/data".into(),
        files_dir: "/nonexistent/files".into(),
    }
}

/// A sidecar beside `envoy` that believes to listen on `listen`.
pub(crate) fn app(listen: &str, envoy: SocketAddr) -> Arc<App> {
    app_with(listen, envoy, Arc::new(Memory::default()))
}

/// A sidecar with a store.
pub(crate) fn app_with(listen: &str, envoy: SocketAddr, store: Arc<dyn Store>) -> Arc<App> {
    let listen = listen.parse().unwrap();
    let replica = Replica::load(store).unwrap();
    Arc::new(App::new(settings(listen, envoy), listen, replica))
}

pub(crate) async fn send(
    app: &Arc<App>,
    request: Request<Body>,
) -> (StatusCode, HeaderMap, String) {
    let response = router(app).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) fn request(line: &str, token: Option<&str>, body: &str) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(path).header("host", "localhost:9902");
    if let Some(token) = token {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    builder.body(Body::from(body.to_owned())).unwrap()
}

/// Sends and expects a status; a refusal must be a complete problem.
#[track_caller]
pub(crate) fn expect(
    (status, headers, body): (StatusCode, HeaderMap, String),
    expected: u16,
    code: Option<&str>,
) -> Value {
    assert_eq!(status.as_u16(), expected, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    if let Some(code) = code {
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(body["code"], code);
        assert_eq!(body["status"], expected);
        assert_eq!(headers["x-request-id"].to_str().unwrap(), body["request_id"]);
        for member in ["type", "title", "detail", "instance"] {
            assert!(body[member].is_string(), "{body}");
        }
    }
    body
}

pub(crate) fn poll(done: &Value) -> String {
    json!({"protocol": 3, "state": {"store": "00000000000000ab", "number": 0},
           "wants": wants(&Needs::default()), "instance": "ab", "wait_ms": 20_000, "done": done,
           "policy": {"name": "p", "hash": "1", "generation": 7}})
    .to_string()
}

/// A filter that does everything that it is told, with one outcome.
fn filter(app: &Arc<App>, outcome: &'static str) -> tokio::task::JoinHandle<()> {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut done = json!([]);
        loop {
            let answer = send(&app, request("POST /sync", Some(SYNC), &poll(&done))).await;
            let answer: Answer = serde_json::from_str(&answer.2).unwrap();
            let did = answer.commands.iter().map(|c| json!({"id": c.id, "outcome": outcome}));
            done = did.collect();
        }
    })
}

/// What the scripted filter's policy needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) files: Vec<String>,
    pub(crate) revocations_max: Option<u32>,
    pub(crate) api_keys: bool,
    pub(crate) load: bool,
    pub(crate) limits: Vec<LimitInForce>,
    pub(crate) providers: Vec<String>,
    pub(crate) exempt: Vec<String>,
    /// What comes of a command; without it, it is applied.
    pub(crate) does: Option<Does>,
}

pub(crate) type Does = fn(&Action) -> (DoneOutcome, Vec<KeyStanding>);

/// The same on the wire.
pub(crate) fn wants(needs: &Needs) -> Value {
    json!({"files": needs.files, "revocations_max": needs.revocations_max,
           "api_keys": needs.api_keys, "load": needs.load, "limits": needs.limits,
           "providers": needs.providers, "exempt": needs.exempt})
}

/// A filter's copy of the state, as it fetched it.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub(crate) buckets: std::collections::HashMap<Vec<u8>, Vec<u8>>,
    pub(crate) keys: [u64; 2],
    pub(crate) batches: usize,
}

impl SharedStore for Copied {
    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, SharedError> {
        let found = self.buckets.get(key);
        Ok(found.map(|bytes| Versioned { bytes: bytes.clone(), cas: 1 }))
    }

    fn swap(&mut self, _: &[u8], _: &[u8], _: Option<u32>) -> Result<Swap, SharedError> {
        unreachable!("nothing writes here")
    }
}

/// A filter that copies all state into `copied`, and does what it is told, until it is stopped.
pub(crate) fn copier(
    app: &Arc<App>,
    needs: Needs,
    copied: Arc<Mutex<Copied>>,
) -> tokio::task::JoinHandle<()> {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut state = json!({"store": "", "number": 0});
        let mut done = Vec::new();
        loop {
            let poll = json!({"protocol": 3, "instance": "ab", "wait_ms": 20_000, "done": done,
                "policy": {"name": "p", "hash": "1", "generation": 7}, "state": state,
                "wants": wants(&needs)});
            let answer = send(&app, request("POST /sync", Some(SYNC), &poll.to_string())).await;
            let answer: Answer = serde_json::from_str(&answer.2).unwrap();
            let does = needs.does.unwrap_or(|_| (DoneOutcome::Applied, Vec::new()));
            let done_one = |Command { id, action }: &Command| {
                let (outcome, standings) = does(action);
                Done { id: *id, outcome, standings }
            };
            done = answer.commands.iter().map(done_one).collect();
            while json!(answer.state) != state {
                let batch = fetch(&app, &state).await;
                state = json!({"store": format!("{:016x}", batch.store), "number": batch.number});
                let mut copied = copied.lock().unwrap();
                copied.keys = batch.keys;
                copied.batches += 1;
                for (bucket, bytes) in batch.buckets {
                    copied.buckets.insert(bucket.key().to_vec(), bytes);
                }
                if batch.end == End::Complete {
                    break;
                }
            }
        }
    })
}

/// One piece of state.
pub(crate) async fn fetch(app: &Arc<App>, state: &Value) -> Batch {
    let fetch = json!({"protocol": 3, "instance": "ab", "state": state}).to_string();
    let response =
        router(app).oneshot(request("POST /sync/state", Some(SYNC), &fetch)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[MARKER], "3");
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    Batch::decode(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
}

pub(crate) async fn connected(app: &Arc<App>) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !app.channel.status().connected {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let app = app("127.0.0.1:9902", nobody().await);
    expect(send(&app, request("GET /nothing", None, "")).await, 404, Some("not-found"));
    let reply = send(&app, request("DELETE /health", None, "")).await;
    assert!(reply.1["allow"].to_str().unwrap().contains("GET"));
    expect(reply, 405, Some("method-not-allowed"));
}

#[tokio::test]
async fn a_rebound_name_is_refused_on_loopback_except_for_the_filter() {
    let app = app("127.0.0.1:9902", nobody().await);
    let with_host = |path: &str, hosts: &[&str]| {
        let mut builder = Request::builder().uri(path);
        for host in hosts {
            builder = builder.header("host", *host);
        }
        builder.body(Body::empty()).unwrap()
    };
    for good in ["localhost", "LOCALHOST:1", "127.0.0.1:9902", "[::1]:9902", "[::1]"] {
        expect(send(&app, with_host("/livez", &[good])).await, 200, None);
    }
    for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "::1"] {
        let reply = send(&app, with_host("/livez", &[bad])).await;
        expect(reply, 421, Some("host-not-allowed"));
    }
    expect(send(&app, with_host("/livez", &[])).await, 421, Some("host-not-allowed"));
    let two = with_host("/livez", &["localhost", "evil.example"]);
    expect(send(&app, two).await, 421, Some("host-not-allowed"));
    let absolute = with_host("http://evil.example/livez", &["localhost"]);
    expect(send(&app, absolute).await, 421, Some("host-not-allowed"));
    let reply = send(&app, with_host("/sync", &["gateway-sidecar"])).await;
    expect(reply, 405, Some("method-not-allowed"));
}

#[tokio::test]
async fn a_loopback_address_of_its_own_is_a_good_host() {
    for (listen, host, status) in [
        ("127.0.0.2:9902", "127.0.0.2:9902", 200),
        ("127.0.0.2:9902", "127.0.0.3:9902", 421),
        ("[::1]:9902", "[::1]:9902", 200),
        ("[::1]:9902", "::1", 421),
    ] {
        let app = app(listen, nobody().await);
        let request = Request::builder().uri("/livez").header("host", host);
        let reply = send(&app, request.body(Body::empty()).unwrap()).await;
        expect(reply, status, None);
    }
}

#[tokio::test]
async fn on_other_addresses_all_but_probes_and_metrics_need_the_token() {
    let app = app("0.0.0.0:9902", nobody().await);
    for (path, open) in [("/livez", true), ("/metrics", true), ("/health", false), ("/x", false)] {
        let (status, _, _) = send(&app, request(&format!("GET {path}"), None, "")).await;
        assert_eq!(status != StatusCode::UNAUTHORIZED, open, "{path}");
        let (status, _, _) = send(&app, request(&format!("GET {path}"), Some(ADMIN), "")).await;
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn changes_need_the_right_token_exactly_once() {
    let app = app("127.0.0.1:9902", envoy(STATS).await);
    for path in ["/gateway/circuit-breakers/reset", "/gateway/circuit-breakers/auth/reset"] {
        for token in [
            None,
            Some(""),
            Some(SYNC),
            Some("admin-token-012345678"),
            Some("admin-token-0123456789 "),
        ] {
            let reply = send(&app, request(&format!("POST {path}"), token, "")).await;
            assert!(reply.1["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
            expect(reply, 401, Some("admin-token-required"));
        }
    }
    let mut twice = request("POST /gateway/circuit-breakers/reset", Some(ADMIN), "");
    twice.headers_mut().append("authorization", "Bearer x".parse().unwrap());
    expect(send(&app, twice).await, 401, Some("admin-token-required"));
    assert_eq!(app.channel.status().pending, 0);
}

#[tokio::test]
async fn a_name_that_is_no_text_is_a_problem_and_the_token_comes_first() {
    let app = app("127.0.0.1:9902", envoy(STATS).await);
    for line in [
        "POST /gateway/circuit-breakers/%FF/reset",
        "DELETE /gateway/revocations/%FF",
        "DELETE /gateway/api-keys/%FF",
        "POST /gateway/api-keys/%FF/rotate",
    ] {
        expect(send(&app, request(line, None, "")).await, 401, Some("admin-token-required"));
        expect(send(&app, request(line, Some(ADMIN), "")).await, 404, Some("not-found"));
    }
    let open = send(&app, request("GET /gateway/circuit-breakers/%FF", None, "")).await;
    expect(open, 404, Some("not-found"));
}

#[tokio::test]
async fn a_filter_that_is_ahead_of_a_restored_store_is_handed_everything() {
    let app = app("127.0.0.1:9902", nobody().await);
    let ahead = json!({"store": "00000000000000ab", "number": 1});
    // The restored store comes to the number that the filter has from before.
    let post = request("POST /gateway/revocations", Some(ADMIN), r#"{"jti": "a"}"#);
    expect(send(&app, post).await, 202, None);
    let poll = poll(&json!([])).replace("\"number\":0", "\"number\":1");
    let answer = expect(send(&app, request("POST /sync", Some(SYNC), &poll)).await, 200, None);
    assert_ne!(answer["state"], ahead);
    let batch = fetch(&app, &ahead).await;
    assert_eq!((batch.begin, batch.buckets.len()), (Begin::Afresh, 1));
    assert_eq!(answer["state"], json!(policy::sync::Position::of(batch.store, batch.number)));
}

#[tokio::test]
async fn every_answer_to_a_poll_has_the_marker() {
    let app = app("127.0.0.1:9902", nobody().await);
    for (token, body, status, code) in [
        (None, "{}", 401, "sync-token-required"),
        (Some(ADMIN), "{}", 401, "sync-token-required"),
        (Some(SYNC), "{", 400, "body-malformed"),
        (Some(SYNC), r#"{"protocol":3}"#, 400, "body-malformed"),
        (Some(SYNC), r#"{"protocol":1,"old":true}"#, 409, "protocol-mismatch"),
    ] {
        let reply = send(&app, request("POST /sync", token, body)).await;
        assert_eq!(reply.1[MARKER], "3");
        expect(reply, status, Some(code));
    }
    let large = " ".repeat(guard::BODY_MAX + 1);
    let reply = send(&app, request("POST /sync", Some(SYNC), &large)).await;
    expect(reply, 413, Some("body-too-large"));
    app.channel.stop();
    let reply = send(&app, request("POST /sync", Some(SYNC), &poll(&json!([])))).await;
    assert_eq!(reply.1[MARKER], "3");
    let state = json!({"store": "00000000000000ab", "number": 0});
    let answer = json!({"protocol": 3, "commands": [], "state": state});
    assert_eq!(expect(reply, 200, None), answer);
}

#[tokio::test]
async fn state_is_for_the_filter_alone_and_every_answer_has_the_marker() {
    let app = app("127.0.0.1:9902", nobody().await);
    let position = json!({"store": "", "number": 0});
    let good = json!({"protocol": 3, "instance": "ab", "state": position}).to_string();
    for (token, body, status, code) in [
        (None, good.as_str(), 401, "sync-token-required"),
        (Some(ADMIN), &good, 401, "sync-token-required"),
        (Some(SYNC), "{", 400, "body-malformed"),
        (Some(SYNC), r#"{"protocol":3}"#, 400, "body-malformed"),
        (
            Some(SYNC),
            r#"{"protocol":3,"instance":"","state":{"store":"","number":0}}"#,
            400,
            "body-malformed",
        ),
        (Some(SYNC), r#"{"protocol":4}"#, 409, "protocol-mismatch"),
    ] {
        let reply = send(&app, request("POST /sync/state", token, body)).await;
        assert_eq!(reply.1[MARKER], "3");
        expect(reply, status, Some(code));
    }
    let mut by_cluster = request("POST /sync/state", Some(SYNC), &good);
    by_cluster.headers_mut().insert("host", "gateway-sidecar".parse().unwrap());
    assert_eq!(router(&app).oneshot(by_cluster).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_reset_is_done_when_the_filter_says_so() {
    let app = app("127.0.0.1:9902", envoy(STATS).await);
    let filter = filter(&app, "applied");
    connected(&app).await;
    let one = request("POST /gateway/circuit-breakers/auth/reset", Some(ADMIN), "");
    let body = expect(send(&app, one).await, 200, None);
    assert_eq!(body["service"], "auth");
    // The scripted Envoy does not change: what it says is what is shown.
    assert_eq!(body["state"], "open");
    let all = request("POST /gateway/circuit-breakers/reset", Some(ADMIN), "");
    let body = expect(send(&app, all).await, 200, None);
    assert_eq!(body["breakers"][0]["status"], "applied");
    filter.abort();
}

#[tokio::test]
async fn a_reset_of_a_service_without_breaker_is_404() {
    let app = app("127.0.0.1:9902", envoy(STATS).await);
    let filter = filter(&app, "unknown");
    connected(&app).await;
    let reply =
        send(&app, request("POST /gateway/circuit-breakers/other/reset", Some(ADMIN), "")).await;
    expect(reply, 404, Some("breaker-unknown"));
    filter.abort();
}

#[tokio::test]
async fn without_a_filter_a_reset_is_kept_for_the_next_one() {
    let app = app("127.0.0.1:9902", nobody().await);
    let reply =
        send(&app, request("POST /gateway/circuit-breakers/auth/reset", Some(ADMIN), "")).await;
    let body = expect(reply, 202, None);
    assert!(body["reason"].as_str().unwrap().contains("no filter"));
    let reply = send(&app, request("POST /sync", Some(SYNC), &poll(&json!([])))).await;
    let body = expect(reply, 200, None);
    assert_eq!(body["commands"][0]["action"], json!({"reset_breaker": {"service": "auth"}}));
}

#[tokio::test]
async fn breakers_are_read_from_envoy() {
    let app = app("127.0.0.1:9902", envoy(STATS).await);
    let all =
        expect(send(&app, request("GET /gateway/circuit-breakers", None, "")).await, 200, None);
    let auth =
        json!({"service": "auth", "state": "open", "calls": {"failure": 5}, "transitions": {}});
    assert_eq!(all, json!({ "breakers": [auth] }));
    let one = send(&app, request("GET /gateway/circuit-breakers/auth", None, "")).await;
    assert_eq!(expect(one, 200, None), auth);
    let other = send(&app, request("GET /gateway/circuit-breakers/other", None, "")).await;
    expect(other, 404, Some("breaker-unknown"));
}

#[tokio::test]
async fn without_envoy_breakers_are_503() {
    let app = app("127.0.0.1:9902", nobody().await);
    let reply = send(&app, request("GET /gateway/circuit-breakers", None, "")).await;
    let body = expect(reply, 503, Some("envoy-unavailable"));
    assert!(body["detail"].as_str().unwrap().contains("refused"), "{body}");
}

/// Asks until the answer is as wanted; the checks run in the background.
async fn eventually(
    app: &Arc<App>,
    path: &str,
    wanted: impl Fn(StatusCode, &Value) -> bool,
) -> Value {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let (status, _, body) = send(app, request(&format!("GET {path}"), None, "")).await;
            let body = serde_json::from_str(&body).unwrap();
            if wanted(status, &body) {
                return body;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn health_is_of_envoy_filter_and_services() {
    let app = app("127.0.0.1:9902", envoy(STATS).await);
    app.board.note(health::Check::Envoy, Err("a while ago".into()), Duration::ZERO);
    health::start(&app);
    let filter = filter(&app, "applied");
    let body = eventually(&app, "/health", |status, body| {
        status == 200
            && body["checks"]["filter"]["status"] == "healthy"
            && body["checks"]["services"]["status"] == "unhealthy"
            && body["checks"]["envoy"]["status"] == "healthy"
    })
    .await;
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["checks"]["envoy"]["error"], Value::Null);
    assert_eq!(body["checks"]["envoy"]["last_error"]["error"], "a while ago");
    let services = &body["checks"]["services"];
    assert_eq!(services["error"], "no host that gets traffic: samples, storage");
    assert!(services["since"].as_str().unwrap().ends_with('Z'));
    assert!(services["latency_ms"].is_number());
    eventually(&app, "/readyz", |status, _| status == 200).await;
    filter.abort();
}

#[tokio::test]
async fn without_envoy_the_gateway_is_unhealthy_and_not_ready_but_alive() {
    let app = app("127.0.0.1:9902", nobody().await);
    health::start(&app);
    let body =
        eventually(&app, "/health", |_, body| body["checks"]["envoy"]["error"].is_string()).await;
    assert_eq!(body["status"], "unhealthy");
    let body = eventually(&app, "/readyz", |status, _| status == 503).await;
    assert_eq!(body["waiting_for"], json!(["envoy", "filter"]));
    expect(send(&app, request("GET /livez", None, "")).await, 200, None);
}

#[tokio::test]
async fn a_hanging_envoy_holds_up_no_other_check() {
    // It accepts connections (the kernel does) and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = app("127.0.0.1:9902", silent.local_addr().unwrap());
    health::start(&app);
    let filter = filter(&app, "applied");
    let body =
        eventually(&app, "/health", |_, body| body["checks"]["filter"]["status"] == "healthy")
            .await;
    assert_eq!(body["checks"]["envoy"]["status"], "unknown");
    let body =
        eventually(&app, "/health", |_, body| body["checks"]["envoy"]["error"].is_string()).await;
    assert_eq!(body["checks"]["envoy"]["error"], "no answer within 1000 ms");
    filter.abort();
}

#[tokio::test]
async fn more_requests_than_places_are_busy_but_it_stays_alive() {
    let app = app("127.0.0.1:9902", nobody().await);
    let all =
        app.in_flight.acquire_many(u32::try_from(guard::IN_FLIGHT_MAX).unwrap()).await.unwrap();
    expect(send(&app, request("GET /health", None, "")).await, 503, Some("busy"));
    expect(send(&app, request("GET /livez", None, "")).await, 200, None);
    drop(all);
    expect(send(&app, request("GET /gateway/x", None, "")).await, 404, Some("not-found"));
}

#[tokio::test]
async fn a_port_in_use_is_said_clearly() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(taken.local_addr().unwrap(), nobody().await);
    let error = serve(settings, std::future::pending()).await.unwrap_err();
    assert!(error.contains("is in use"), "{error}");
}
