//! A breaker opens, probes, closes, and can be reset.

use anyhow::{Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use test_harness::load::Load;
use test_harness::mesh::SOON;
use test_harness::runtime::runtime;
use test_harness::upstream::Fault;
use test_harness::wait::until;
use test_harness::{Mesh, Request, Response, Rule, policy};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

fn breaker(timeout: &str) -> Value {
    policy::with(&json!({ "circuit_breakers": { "default": {
        "failure_threshold": 3, "timeout": timeout, "half_open_calls": 2, "success_threshold": 2
    }}}))
}

fn state<'a>(service: &'a str, state: &'a str) -> [(&'a str, &'a str); 2] {
    [("service", service), ("state", state)]
}

#[test]
fn it_opens_after_failures_in_a_row_and_spares_the_service() -> Result<()> {
    Mesh::with(breaker("10m")).run(|mesh| {
        mesh.upstream("storage")?.script(Rule::status(503).times(2));
        for status in [503, 503, 200] {
            mesh.get("/api/storage/x").send()?.expect(status)?;
        }
        for _ in 0..3 {
            mesh.get("/api/storage/status/500").send()?.expect(500)?;
        }
        let asked = mesh.upstream("storage")?.count();
        let refused = mesh.get("/api/storage/x").send()?.expect_refusal(503, "breaker-open")?;
        assert_eq!(refused.header("x-circuit-open"), "true");
        let wait: u64 = refused.header("retry-after").parse()?;
        assert!((1..=600).contains(&wait), "retry-after {wait}");
        assert_eq!(mesh.upstream("storage")?.count(), asked, "an open breaker let one through");
        mesh.get("/api/auth/x").send()?.expect(200)?;
        mesh.until_metric("gateway_breaker_state", &state("storage", "open"), 1)?;
        mesh.until_metric("gateway_breaker_state", &state("storage", "closed"), 0)
    })
}

#[test]
fn it_probes_after_the_timeout_and_closes_when_the_service_is_back() -> Result<()> {
    Mesh::with(breaker("3s")).run(|mesh| {
        for _ in 0..3 {
            mesh.get("/api/storage/status/503").send()?.expect(503)?;
        }
        mesh.get("/api/storage/x").send()?.expect_refusal(503, "breaker-open")?;
        until("a probe to pass", SOON, || {
            let answer = mesh.get("/api/storage/x").send()?;
            Ok((answer.status == 200).then_some(()))
        })?;
        for _ in 0..3 {
            mesh.get("/api/storage/x").send()?.expect(200)?;
        }
        mesh.until_metric("gateway_breaker_state", &state("storage", "closed"), 1)?;
        for to in ["open", "half_open", "closed"] {
            let labels = [("service", "storage"), ("to", to)];
            assert_eq!(mesh.metric("gateway_breaker_transitions_total", &labels)?, 1, "{to}");
        }
        Ok(())
    })
}

#[test]
fn broken_connections_are_failures_too() -> Result<()> {
    Mesh::with(breaker("10m")).run(|mesh| {
        let auth = mesh.upstream("auth")?;
        auth.script(Rule::fault(Fault::Close).times(1));
        auth.script(Rule::fault(Fault::Reset).times(1));
        for _ in 0..2 {
            mesh.get("/api/auth/x").send()?.expect(503)?;
        }
        mesh.close("auth");
        mesh.get("/api/auth/x").send()?.expect(503)?;
        mesh.get("/api/auth/x").send()?.expect_refusal(503, "breaker-open")?;
        Ok(())
    })
}

#[test]
fn an_operator_resets_it_with_the_token_only() -> Result<()> {
    Mesh::with(breaker("10m")).run(|mesh| {
        for _ in 0..3 {
            mesh.get("/api/storage/status/503").send()?.expect(503)?;
        }
        mesh.get("/api/storage/x").send()?.expect_refusal(503, "breaker-open")?;
        let path = "/gateway/circuit-breakers/storage/reset";
        let sidecar = mesh.sidecar()?.address();
        Request::new(sidecar, "POST", path).send()?.expect(401)?;
        mesh.get("/api/storage/x").send()?.expect(503)?;
        mesh.sidecar()?.post(path)?.expect(200)?;
        mesh.get("/api/storage/x").send()?.expect(200)?;
        mesh.until_metric("gateway_breaker_state", &state("storage", "closed"), 1)
    })
}

#[test]
fn a_fallback_is_served_instead_of_the_refusal() -> Result<()> {
    let mut policy = breaker("10m");
    policy["circuit_breakers"]["services"] = json!({ "storage": {
        "failure_threshold": 1, "timeout": "10m",
        "fallback": { "status": 200, "body": "[]", "content_type": "application/json" }
    }});
    Mesh::with(policy).run(|mesh| {
        mesh.get("/api/storage/status/503").send()?.expect(503)?;
        let answer = mesh.get("/api/storage/x").send()?.expect(200)?;
        assert_eq!((answer.text().as_str(), answer.header("x-circuit-open")), ("[]", "true"));
        Ok(())
    })
}

/// One failure opens it, one probe decides; longer than that the probes of these tests take.
fn decided_by_one() -> Value {
    policy::with(&json!({ "circuit_breakers": { "default": {
        "failure_threshold": 1, "timeout": "300ms", "half_open_calls": 1, "success_threshold": 1
    }}}))
}

const SLOW_PROBE: &str = "/api/storage/delay/1500";

/// The first answer of the service that is let through.
fn probe(mesh: &Mesh) -> Result<Response> {
    until("a probe to be let through", SOON, || {
        let answer = mesh.get(SLOW_PROBE).send()?;
        Ok(answer.header("x-circuit-open").is_empty().then_some(answer))
    })
}

#[test]
fn a_probe_that_takes_longer_than_the_timeout_still_decides() -> Result<()> {
    Mesh::with(decided_by_one()).run(|mesh| {
        let to_open = [("service", "storage"), ("to", "open")];
        mesh.get("/api/storage/status/503").send()?.expect(503)?;
        mesh.until_metric("gateway_breaker_transitions_total", &to_open, 1)?;
        let slow_failure = Rule { delay_ms: 1500, ..Rule::status(503) };
        mesh.upstream("storage")?.script(slow_failure.times(1));
        probe(mesh)?.expect(503)?;
        mesh.until_metric("gateway_breaker_transitions_total", &to_open, 2)?;
        probe(mesh)?.expect(200)?;
        mesh.until_metric("gateway_breaker_state", &state("storage", "closed"), 1)?;
        mesh.get("/api/storage/x").send()?.expect(200)?;
        Ok(())
    })
}

/// A WebSocket through the gateway, once the breaker lets one pass.
async fn socket(to: SocketAddr) -> Result<WebSocketStream<TcpStream>> {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let stream = TcpStream::connect(to).await?;
        let shaken = client_async(format!("ws://{to}/api/storage/ws"), stream).await;
        match shaken {
            Ok((socket, _)) => return Ok(socket),
            Err(Error::Http(answer)) if answer.status() == 503 => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(tokio::time::Instant::now() < end, "no WebSocket was let through");
    }
}

#[test]
fn a_probe_that_becomes_a_web_socket_closes_it_at_once() -> Result<()> {
    Mesh::with(decided_by_one()).run(|mesh| {
        mesh.get("/api/storage/status/503").send()?.expect(503)?;
        let mut open = runtime()?.block_on(socket(mesh.gateway()))?;
        mesh.until_metric("gateway_breaker_state", &state("storage", "closed"), 1)?;
        mesh.get("/api/storage/x").send()?.expect(200)?;
        runtime()?.block_on(async {
            open.send(Message::text("still there")).await?;
            assert_eq!(open.next().await.unwrap()?, Message::text("still there"));
            open.close(None).await
        })?;
        mesh.logged("of the WebSocket", |l| l.status() == 101)?;
        let calls = [("service", "storage"), ("kind", "success")];
        mesh.until_metric("gateway_breaker_calls_total", &calls, 2)
    })
}

#[test]
fn no_more_probes_than_allowed_are_in_flight_across_workers() -> Result<()> {
    Mesh::with(breaker("2s")).concurrency(2).run(|mesh| {
        for _ in 0..3 {
            mesh.get("/api/storage/status/503").send()?.expect(503)?;
        }
        mesh.upstream("storage")?.script(Rule::fault(Fault::Hang));
        let to = mesh.gateway();
        let load = Load::start(8, move || Request::new(to, "GET", "/api/storage/x"))?;
        let storage = mesh.upstream("storage")?;
        until("probes to reach the service", SOON, || Ok((storage.count() == 5).then_some(())))?;
        // Well within the lease of the two that hang.
        load.more(60, SOON)?;
        assert_eq!(storage.count(), 5, "three failures and two probes");
        storage.clear();
        mesh.until_metric("gateway_breaker_state", &state("storage", "closed"), 1)?;
        load.stop()?.only(&[200, 503])?;
        mesh.get("/api/storage/x").send()?.expect(200)?;
        Ok(())
    })
}
