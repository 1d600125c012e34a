//! What must hold when the gateway runs in containers: each case is a sentence and a function. They
//! run in this order, in one gateway, as users of its published port.

use super::project::Project;
use crate::workspace::seconds;
use anyhow::{Context as _, Result, bail, ensure};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_harness::load::Load;
use test_harness::policy::JWT_SECRET;
use test_harness::token::{Key, Token};
use test_harness::{Request, Response};

/// Longest wait for a change to be seen. Prometheus looks every 5 s, and an open breaker of the demo
/// policy stays open for 10 s.
const SEEN_WITHIN: Duration = Duration::from_secs(45);
/// More requests than any limit or breaker of the demo policy needs.
const ATTEMPTS_MAX: usize = 60;
/// Clients of the background traffic, and requests that must have come through at each point.
const CLIENTS: usize = 2;
const REQUESTS: u64 = 100;
/// The demo policy's limit for everyone together, which the background traffic would exceed.
const EVERYONE: &str = "requests: 6000\n    per: 1m\n    burst: 1000";
const EVERYONE_RAISED: &str = "requests: 6000000\n    per: 1m\n    burst: 1000000";

type Case = fn(&Run<'_>) -> Result<()>;

const CASES: [(&str, Case); 10] = [
    ("no container runs as root or can write to its root file system", contained),
    ("the sidecar and Envoy's admin cannot be reached from another container", loopback_only),
    ("a request with a token is allowed and reaches its service", allowed),
    ("a request without a token is refused with 401", unauthenticated),
    ("two clients at once are each limited by their own key, and a third is not", limited),
    ("the breaker of a failing service opens and recovers", breaker),
    ("Prometheus reads the sidecar, and the counts are there", scraped),
    ("the sidecar stops and starts under traffic, and no request fails", sidecar_away),
    ("Envoy's container restarts alone, and tokens are accepted again", envoy_alone),
    ("the policy changes under traffic, a bad one is refused, and no request fails", policy_edited),
];

/// What the cases work with.
struct Run<'a> {
    project: &'a Project<'a>,
    gateway: SocketAddr,
    prometheus: SocketAddr,
}

/// Changes the run's policy, before the gateway starts, to let the background traffic through.
pub(super) fn prepare(project: &Project<'_>) -> Result<()> {
    project.edit_policy(EVERYONE, EVERYONE_RAISED)
}

/// Runs every case; the first that fails ends the run.
pub(super) fn all(project: &Project<'_>) -> Result<()> {
    let gateway = project.published(8080)?;
    let prometheus = project.published(9090)?;
    let run = Run { project, gateway, prometheus };
    // Healthy comes before in sync: until then the gateway cannot know who is revoked.
    project.until("the revocations to be handed over", SEEN_WITHIN, || {
        Ok(run.get("/api/auth/17", "first-of-all")?.status != 503)
    })?;
    for (name, case) in CASES {
        let start = Instant::now();
        case(&run).with_context(|| format!("case: {name}"))?;
        println!("    ok: {name} ({})", seconds(start.elapsed()));
        project.until(name, SEEN_WITHIN, || Ok(true))?;
    }
    Ok(())
}

fn contained(run: &Run<'_>) -> Result<()> {
    let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}";
    for container in run.project.containers()? {
        let said = run.project.inspect(&container, format)?;
        let user = said.split(' ').next().unwrap_or_default();
        let root = user.is_empty() || user == "root" || user.split(':').next() == Some("0");
        ensure!(!root, "{} runs as root: {said}", container.service);
        ensure!(said.ends_with(" true [ALL]"), "{}: {said}", container.service);
    }
    Ok(())
}

fn loopback_only(run: &Run<'_>) -> Result<()> {
    let connect = |port: u16| {
        let script = format!("exec 3<>/dev/tcp/gateway/{port}");
        run.project.order(&["exec", "-T", "samples", "timeout", "5", "bash", "-c", &script])
    };
    connect(8080).context("the gateway itself must be reachable, or this shows nothing")?;
    for port in [9901, 9902] {
        ensure!(connect(port).is_err(), "port {port} is open to another container");
    }
    Ok(())
}

fn allowed(run: &Run<'_>) -> Result<()> {
    for service in ["auth", "samples", "storage", "templates", "sequencing"] {
        let answer = run.get(&format!("/api/{service}/17"), "allowed")?.expect(200)?;
        let said = answer.json();
        let from = said.get("service").and_then(|name| name.as_str());
        ensure!(from == Some(service), "asked {service}, got {said}");
        ensure!(answer.header("x-content-type-options") == "nosniff", "{:?}", answer.headers);
    }
    Ok(())
}

fn unauthenticated(run: &Run<'_>) -> Result<()> {
    let answer = run.request("/api/samples/17").send()?;
    let answer = answer.expect_refusal(401, "credentials-missing")?;
    ensure!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
    let stranger = Token::new(Key::Hs256(b"some other secret, as long as ours".to_vec()), "eve");
    let answer = run.request("/api/samples/17").bearer(&stranger.sign()?).send()?;
    answer.expect(401).map(|_| ())
}

fn limited(run: &Run<'_>) -> Result<()> {
    let until_refused = |user: &str| -> Result<usize> {
        for passed in 0..ATTEMPTS_MAX {
            let answer = run.get("/api/samples/17", user)?;
            if answer.status == 200 {
                continue;
            }
            let answer = answer.expect_refusal(429, "rate-limited")?;
            ensure!(!answer.header("retry-after").is_empty(), "{:?}", answer.headers);
            return Ok(passed);
        }
        bail!("{user} was never limited")
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| until_refused("first"));
        let second = until_refused("second");
        (first.join(), second)
    });
    let first = first.map_err(|_| anyhow::anyhow!("the first client's thread failed"))?;
    for passed in [first?, second?] {
        // The burst is 20, and one a second comes back while the client is busy. Had the two shared
        // a bucket, one of them would have had less.
        ensure!(passed >= 20, "limited after {passed} requests, before its burst of 20");
    }
    run.get("/api/samples/17", "third")?.expect(200).map(|_| ())
}

fn breaker(run: &Run<'_>) -> Result<()> {
    let user = |i: usize| format!("breaker-{}", i / 10);
    let mut refused = None;
    for i in 0..ATTEMPTS_MAX {
        let answer = run.get("/api/templates/status/500", &user(i))?;
        if answer.header("x-circuit-open") == "true" {
            refused = Some(answer);
            break;
        }
        answer.expect(500)?;
    }
    let refused = refused.context("the breaker never opened")?;
    refused.expect_refusal(503, "breaker-open")?;
    run.get("/api/storage/17", "breaker-other").and_then(|answer| answer.expect(200))?;
    let mut i = ATTEMPTS_MAX;
    let mut in_a_row = 0_u32;
    run.project.until("the breaker to close", SEEN_WITHIN, || {
        i = i.saturating_add(1);
        let status = run.get("/api/templates/17", &user(i))?.status;
        in_a_row = if status == 200 { in_a_row.saturating_add(1) } else { 0 };
        ensure!(status == 200 || status == 503, "status {status} while the breaker recovers");
        // Three probes close it; the next ones show that it stays closed.
        Ok(in_a_row >= 6)
    })
}

fn scraped(run: &Run<'_>) -> Result<()> {
    for query in [
        r#"up{job="gateway-sidecar"} == 1"#,
        r#"up{job="envoy"} == 1"#,
        r#"sum(gateway_requests_total{job="gateway-sidecar",service="samples",decision="allowed"}) >= 20"#,
        r#"sum(gateway_requests_total{job="gateway-sidecar",reason="rate-limited"}) >= 2"#,
        r#"sum(gateway_breaker_transitions_total{job="gateway-sidecar",service="templates",to="open"}) >= 1"#,
        r#"gateway_sidecar_connected{job="gateway-sidecar"} == 1"#,
    ] {
        run.holds(query)?;
    }
    Ok(())
}

fn sidecar_away(run: &Run<'_>) -> Result<()> {
    let load = run.traffic()?;
    run.project.order(&["stop", "sidecar"])?;
    load.more(REQUESTS, SEEN_WITHIN)?;
    run.holds(r#"up{job="gateway-sidecar"} == 0"#)?;
    run.holds(r#"gateway_sidecar_connected{job="envoy"} == 0"#)?;
    limited_without_sidecar(run)?;
    run.project.order(&["start", "sidecar"])?;
    run.project.healthy()?;
    run.holds(r#"up{job="gateway-sidecar"} == 1"#)?;
    run.holds(r#"gateway_sidecar_connected{job="envoy"} == 1"#)?;
    load.more(REQUESTS, SEEN_WITHIN)?;
    load.stop()?.only(&[200]).map(|_| ())
}

/// Had Envoy and the sidecar lost sight of each other, the new Envoy would never learn who is revoked
/// and refuse every token.
fn envoy_alone(run: &Run<'_>) -> Result<()> {
    run.project.order(&["restart", "envoy"])?;
    run.project.until("a token to be accepted again", SEEN_WITHIN, || {
        // Nobody listens at first.
        Ok(run.get("/api/storage/17", "after-restart").is_ok_and(|answer| answer.status == 200))
    })?;
    run.project.healthy()?;
    run.holds(r#"up{job="envoy"} == 1"#)?;
    run.holds(r#"gateway_sidecar_connected{job="envoy"} == 1"#)
}

/// Limits are the filter's own: they hold while the sidecar is away.
fn limited_without_sidecar(run: &Run<'_>) -> Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        let answer = run.get("/api/samples/17", "alone")?;
        if answer.status == 429 {
            return answer.expect_refusal(429, "rate-limited").map(|_| ());
        }
        answer.expect(200)?;
    }
    bail!("no limit while the sidecar was away")
}

fn policy_edited(run: &Run<'_>) -> Result<()> {
    let open = || run.request("/api/templates/17").send().map(|answer| answer.status);
    let load = run.traffic()?;
    ensure!(open()? == 401, "a request without a token must be refused before the change");
    run.project
        .edit_policy(r#"public: ["/health"]"#, r#"public: ["/health", "/api/templates/**"]"#)?;
    run.project.until("the new policy", SEEN_WITHIN, || Ok(open()? == 200))?;
    load.more(REQUESTS, SEEN_WITHIN)?;
    let refused = r#"sum(gateway_policy_reload_total{job="gateway-sidecar",outcome="refused"})"#;
    run.project.edit_policy("requests: 60\n", "requests: none\n")?;
    run.holds(&format!("{refused} >= 1"))?;
    ensure!(open()? == 200, "the last good policy must serve on");
    run.project.edit_policy("requests: none\n", "requests: 60\n")?;
    run.project.edit_policy(r#", "/api/templates/**"]"#, "]")?;
    run.project.until("the first policy again", SEEN_WITHIN, || Ok(open()? == 401))?;
    load.more(REQUESTS, SEEN_WITHIN)?;
    load.stop()?.only(&[200]).map(|_| ())
}

impl Run<'_> {
    /// A GET to the gateway, without a token.
    fn request(&self, target: &str) -> Request {
        Request::new(self.gateway, "GET", target)
    }

    /// A GET to the gateway as this user.
    fn get(&self, target: &str, user: &str) -> Result<Response> {
        self.request(target).bearer(&token(user)?).send()
    }

    /// Steady traffic of many users, so that no limit of a user is met.
    fn traffic(&self) -> Result<Load> {
        static USERS: AtomicU64 = AtomicU64::new(0);
        let gateway = self.gateway;
        let load = Load::start(CLIENTS, move || {
            let user = format!("traffic-{}", USERS.fetch_add(1, Ordering::Relaxed));
            let request = Request::new(gateway, "GET", "/api/sequencing/17");
            // Without a token it is refused with 401, and the case fails for that.
            token(&user).map_or_else(|_| Request::new(gateway, "GET", "/"), |t| request.bearer(&t))
        })?;
        load.more(REQUESTS, SEEN_WITHIN)?;
        Ok(load)
    }

    /// Waits until a PromQL comparison holds.
    fn holds(&self, query: &str) -> Result<()> {
        let target = format!("/api/v1/query?query={}", percent_encoded(query));
        self.project.until(query, SEEN_WITHIN, || {
            let answer = Request::new(self.prometheus, "GET", &target).send()?.expect(200)?.json();
            let found = answer.pointer("/data/result").and_then(|result| result.as_array());
            Ok(found.is_some_and(|series| !series.is_empty()))
        })
    }
}

/// A good token for this user.
fn token(user: &str) -> Result<String> {
    let token = Token::new(Key::Hs256(JWT_SECRET.as_bytes().to_vec()), user);
    token.claim("permissions", vec!["samples:read"]).sign()
}

/// For a query: everything but letters and digits is encoded.
fn percent_encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}
