//! What Envoy does for us, through our filter: HTTP/2, WebSocket, gRPC, compression, tracing.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use test_harness::runtime::runtime;
use test_harness::{Mesh, policy};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

#[test]
fn both_http_versions_pass() -> Result<()> {
    Mesh::with(policy::base()).run(|mesh| {
        mesh.get("/api/auth/x").send()?.expect(200)?;
        mesh.get("/api/auth/x").http2().send()?.expect(200)?;
        let answer = mesh.request("POST", "/api/auth/echo").http2().body("hello").send()?;
        assert_eq!(answer.expect(200)?.json()["body"], "hello");
        Ok(())
    })
}

#[test]
fn a_web_socket_passes_and_is_no_failure() -> Result<()> {
    let sections = json!({
        "authentication": policy::hs256(),
        "circuit_breakers": { "default": { "failure_threshold": 1 } }
    });
    Mesh::with(policy::with(&sections)).run(|mesh| {
        let token = mesh.token("anna")?;
        let url = format!("ws://{}/api/storage/ws", mesh.gateway());
        mesh.get("/api/storage/ws")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .send()?
            .expect_refusal(401, "credentials-missing")?;
        runtime()?.block_on(async {
            let stream = tokio::net::TcpStream::connect(mesh.gateway()).await?;
            let mut request = url.into_client_request()?;
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
            let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
            for text in ["one", "two"] {
                socket.send(Message::text(text)).await?;
                assert_eq!(socket.next().await.unwrap()?, Message::text(text));
            }
            Ok::<(), anyhow::Error>(())
        })?;
        mesh.logged("of the WebSocket", |l| l.status() == 101)?;
        mesh.get("/api/storage/x").bearer(&token).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn grpc_passes_with_its_trailers() -> Result<()> {
    Mesh::with(policy::base()).http2_service("storage").run(|mesh| {
        let call = mesh.request("POST", "/api/storage/S/M").http2().body("12345");
        let answer = call.header("content-type", "application/grpc").send()?.expect(200)?;
        assert_eq!((answer.text().as_str(), answer.grpc_status()), ("12345", Some(0)));
        Ok(())
    })
}

#[test]
fn large_answers_are_compressed_for_those_who_can_read_it() -> Result<()> {
    Mesh::with(policy::base()).concurrency(1).run(|mesh| {
        for encoding in ["br", "gzip"] {
            let request = mesh.get("/api/auth/bytes/8000").header("accept-encoding", encoding);
            let answer = request.send()?.expect(200)?;
            assert_eq!(answer.header("content-encoding"), encoding);
            assert!(answer.body.len() < 4000, "{} bytes", answer.body.len());
        }
        assert_eq!(mesh.get("/api/auth/bytes/8000").send()?.body.len(), 8000);
        Ok(())
    })
}

#[test]
fn the_trace_goes_on_and_the_log_knows_it() -> Result<()> {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    Mesh::with(policy::base()).concurrency(1).run(|mesh| {
        mesh.get("/api/auth/x").header("traceparent", trace).send()?.expect(200)?;
        assert_eq!(mesh.upstream("auth")?.seen()[0].header("traceparent"), trace);
        let line = mesh.logged("of the trace", |l| l.text("traceparent") == trace)?;
        assert_eq!((line.text("service"), line.text("details")), ("auth", "via_upstream"));
        Ok(())
    })
}

#[test]
fn a_path_has_one_spelling_and_a_header_too() -> Result<()> {
    Mesh::with(policy::base()).concurrency(1).run(|mesh| {
        mesh.get("/api//auth/./a/../b").header("x_user_id", "root").send()?.expect(200)?;
        let seen = &mesh.upstream("auth")?.seen()[0];
        assert_eq!(seen.target, "/api/auth/b");
        assert_eq!(seen.header("x_user_id"), "");
        mesh.get("/api/auth/a%2Fb").send()?.expect(400)?;
        Ok(())
    })
}

#[test]
fn large_bodies_pass_in_both_directions() -> Result<()> {
    Mesh::with(policy::base()).run(|mesh| {
        let body = "0123456789abcdef".repeat(256 * 1024);
        for http2 in [false, true] {
            let post = mesh.request("POST", "/api/auth/echo").body(body.clone());
            let post = if http2 { post.http2() } else { post };
            let answer = post.send()?.expect(200)?;
            assert!(answer.json()["body"] == body.as_str(), "{} bytes", answer.body.len());
        }
        Ok(())
    })
}
