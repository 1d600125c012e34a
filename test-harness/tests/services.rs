//! The harness's own services do what tests will rely on: scripted answers, faults, WebSockets, gRPC.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use test_harness::raw::Raw;
use test_harness::runtime::runtime;
use test_harness::upstream::Fault;
use test_harness::wait::until_true;
use test_harness::{Request, Rule, Upstream};
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(10);

fn get(upstream: &Upstream, path: &str) -> Request {
    Request::new(upstream.address(), "GET", path)
}

#[test]
fn untold_it_describes_the_request_and_remembers_it() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    let answer = get(&upstream, "/api/storage/x?a=b").header("x-one", "1").send()?.expect(200)?;
    assert_eq!(answer.json()["service"], "storage");
    assert_eq!(answer.json()["path"], "/api/storage/x");
    let seen = upstream.seen();
    assert_eq!((seen[0].target.as_str(), seen[0].header("x-one")), ("/api/storage/x?a=b", "1"));
    assert_eq!(upstream.count(), 1);
    Ok(())
}

#[test]
fn built_in_paths_fail_wait_and_fill() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    get(&upstream, "/api/storage/status/503").send()?.expect(503)?;
    let slow = get(&upstream, "/api/storage/delay/30").send()?.expect(200)?;
    assert!(slow.took >= Duration::from_millis(30), "{:?}", slow.took);
    assert_eq!(get(&upstream, "/bytes/4096").send()?.body.len(), 4096);
    let echo = Request::new(upstream.address(), "POST", "/api/storage/echo").body("hello");
    assert_eq!(echo.send()?.json()["body"], "hello");
    Ok(())
}

#[test]
fn rules_are_followed_in_order_and_as_often_as_they_say() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    let rules = r#"[{"path": "/a", "times": 2, "status": 500}, {"status": 418}]"#;
    Request::new(upstream.address(), "POST", "/_script").body(rules).send()?.expect(200)?;
    for status in [500, 500, 418] {
        get(&upstream, "/a").send()?.expect(status)?;
    }
    Request::new(upstream.address(), "DELETE", "/_script").send()?.expect(200)?;
    get(&upstream, "/a").send()?.expect(200)?;
    let wrong = Request::new(upstream.address(), "POST", "/_script").body(r#"{"statsu": 1}"#);
    assert!(wrong.send()?.expect(400)?.text().contains("statsu"));
    Ok(())
}

#[test]
fn faults_break_the_answer_as_they_say() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    for (fault, error) in [
        (Fault::Close, "closed"),
        (Fault::Reset, "reset"),
        (Fault::Truncate, "error reading a body"),
    ] {
        upstream.script(Rule::fault(fault).times(1));
        let failed = format!("{:#}", get(&upstream, "/x").send().unwrap_err());
        assert!(failed.contains(error), "{fault:?}: {failed}");
    }
    get(&upstream, "/x").send()?.expect(200)?;
    Ok(())
}

#[test]
fn a_hanging_request_is_let_go_when_the_script_is_cleared() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    upstream.script(Rule::fault(Fault::Hang));
    let request = get(&upstream, "/x");
    let hanging = std::thread::spawn(move || request.send());
    until_true("the request to arrive", SOON, || Ok(upstream.count() == 1))?;
    assert!(!hanging.is_finished());
    until_true("the request to end", SOON, || {
        upstream.clear();
        Ok(hanging.is_finished())
    })?;
    hanging.join().unwrap()?.expect(200)?;
    Ok(())
}

#[test]
fn a_web_socket_echoes() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    runtime()?.block_on(async {
        let stream = tokio::net::TcpStream::connect(upstream.address()).await?;
        let (mut socket, answer) =
            tokio_tungstenite::client_async("ws://storage/api/storage/ws", stream).await?;
        assert_eq!(answer.status(), 101);
        socket.send(Message::text("hello")).await?;
        assert_eq!(socket.next().await.unwrap()?, Message::text("hello"));
        Ok(())
    })
}

#[test]
fn http2_and_grpc_are_spoken() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    let grpc = || get(&upstream, "/s/M").http2().header("content-type", "application/grpc");
    let answer = grpc().body("12345").send()?.expect(200)?;
    assert_eq!((answer.grpc_status(), answer.text().as_str()), (Some(0), "12345"));
    upstream.script(Rule { grpc_status: Some(14), ..Rule::default() });
    assert_eq!(grpc().send()?.grpc_status(), Some(14));
    assert_eq!(upstream.seen()[0].version, "HTTP/2.0");
    Ok(())
}

#[test]
fn any_bytes_can_be_sent() -> Result<()> {
    let upstream = Upstream::start("storage")?;
    let mut raw = Raw::connect_from([127, 9, 9, 9].into(), upstream.address())?;
    assert_eq!(raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")?.answer()?.status(), 200);
    let mut raw = Raw::connect(upstream.address())?;
    assert_eq!(raw.send("\x00\x01\r\n\r\n")?.rest()?.status(), 400);
    Ok(())
}
