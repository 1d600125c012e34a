//! Hostile input: the answer is a proper 4xx or the service's, and no VM ever traps (which every
//! test of this suite checks at its end).

use anyhow::{Context, Result};
use futures_util::StreamExt;
use serde_json::{Value, json};
use test_harness::client::pool;
use test_harness::mesh::SOON;
use test_harness::raw::Raw;
use test_harness::runtime::runtime;
use test_harness::{Mesh, Request, Rule, policy};

/// Every stage has something to do.
fn busy() -> Value {
    let mut authentication = policy::hs256();
    authentication["mode"] = json!("optional");
    authentication["jwt"]["providers"][0]["locations"] = json!([
        { "header": "authorization", "scheme": "Bearer" }, { "cookie": "session" },
        { "query": "access_token" }
    ]);
    policy::with(&json!({
        "ip": { "deny": ["203.0.113.0/24"] },
        "endpoints": [{ "name": "one", "path": "/api/auth/{id}", "methods": ["GET"] }],
        "authentication": authentication,
        "security_headers": { "preset": "seed" },
        "rate_limits": [
            { "name": "by-address", "key": ["ip", "header:x-tenant", "endpoint"],
              "algorithm": "token_bucket", "requests": 1000, "per": "1s" },
            { "name": "by-user", "key": ["user"],
              "algorithm": "token_bucket", "requests": 100_000, "per": "1s" }
        ],
        "circuit_breakers": { "default": { "failure_threshold": 1000 } }
    }))
}

/// The gateway is as good as ever.
fn still_fine(mesh: &mut Mesh) -> Result<()> {
    mesh.must_not_have_trapped()?;
    let token = mesh.token("anna")?;
    for _ in 0..4 {
        mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
    }
    Ok(())
}

fn head(lines: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GET /api/auth/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".to_vec();
    for line in lines {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[test]
fn odd_bytes_in_headers_reach_no_nerve() -> Result<()> {
    Mesh::with(busy()).run(|mesh| {
        let cases: [&[&[u8]]; 9] = [
            &[b"authorization: Bearer \xff\xfe\x80"],
            &[b"authorization: \xc3\x28", b"authorization: Bearer a.b.c"],
            &[b"cookie: session=\xff; session=\xfe", b"cookie: \xf0\x28\x8c\x28"],
            &[b"x-tenant: \xff\xff\xff\xff"],
            &[b"x-forwarded-for: \xff, not-an-address, 1.2.3.4.5"],
            &[b"x-request-id: \"}{\\\xff\x80"],
            &[b"content-type: application/grpc\xff"],
            &[b"traceparent: \xff", b"user-agent: \xed\xa0\x80"],
            &[b"authorization: Bearer eyJhbGciOiJub25lIn0.e30.", b"x-tenant:"],
        ];
        for lines in cases {
            let status = Raw::connect(mesh.gateway())?.send(head(lines))?.rest()?.status();
            let shown = String::from_utf8_lossy(lines[0]);
            assert!([200, 400, 401].contains(&status), "{status} to {shown}");
        }
        let target = b"GET /api/auth/\xff?access_token=\xfe HTTP/1.1\r\nhost: \xff\r\n\r\n";
        let status = Raw::connect(mesh.gateway())?.send(target)?.answer()?.status();
        assert!([200, 400, 401, 404].contains(&status), "{status} to an odd target");
        still_fine(mesh)
    })
}

#[test]
fn doubled_headers_of_either_side_pass_or_are_refused() -> Result<()> {
    Mesh::with(busy()).run(|mesh| {
        let doubled = Rule::status(200)
            .header("x-frame-options", "DENY")
            .header("x-frame-options", "SAMEORIGIN")
            .header("strict-transport-security", "max-age=1")
            .header("strict-transport-security", "");
        mesh.upstream("auth")?.script(doubled.times(1));
        let request = mesh.get("/api/auth/x").header("x-frame-options", "a");
        let answer = request.header("x-frame-options", "b").send()?.expect(200)?;
        assert_eq!(answer.headers("x-frame-options"), ["DENY", "SAMEORIGIN"]);
        let token = mesh.token("anna")?;
        // Two credentials: which one counts must not be for the client to play with.
        let two = mesh.get("/api/auth/x").bearer(&token).bearer("other").send()?;
        assert_eq!(two.status, 401, "{two:?}");
        still_fine(mesh)
    })
}

#[test]
fn headers_up_to_the_bound_pass_and_larger_ones_are_refused() -> Result<()> {
    Mesh::with(busy()).run(|mesh| {
        let filled = |bytes: usize| mesh.get("/api/auth/x").header("x-tenant", "a".repeat(bytes));
        filled(58 * 1024).send()?.expect(200)?;
        filled(64 * 1024).send()?.expect(431)?;
        let mut many = mesh.get("/api/auth/x");
        for i in 0..90 {
            many = many.header(&format!("x-{i}"), "b".repeat(600));
        }
        many.send()?.expect(200)?;
        let mut too_many = mesh.get("/api/auth/x");
        for i in 0..150 {
            too_many = too_many.header(&format!("x-{i}"), "b");
        }
        too_many.send()?.expect(431)?;
        let long = format!("/api/auth/x?{}", "q=1&".repeat(10_000));
        mesh.get(&long).send()?.expect(200)?;
        let token = "a".repeat(50_000);
        mesh.get("/api/auth/x").bearer(&token).send()?.expect_refusal(401, "token-malformed")?;
        still_fine(mesh)
    })
}

#[test]
fn ten_thousand_addresses_cost_no_more_than_a_table() -> Result<()> {
    let mut policy = busy();
    // A bucket that is full again is nothing to keep; these never are.
    policy["rate_limits"][0] = json!({ "name": "by-address", "key": ["ip"], "max_keys": 1000,
        "algorithm": "token_bucket", "requests": 1, "per": "1h", "burst": 100 });
    Mesh::with(policy).behind_proxy().run(|mesh| {
        let to = mesh.gateway();
        let client = pool(true);
        let requests = (0..10_000_u32).map(|i| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + i * 7);
            let request = Request::new(to, "GET", "/api/auth/x")
                .http2()
                .header("x-forwarded-for", ip.to_string())
                .into_http();
            let client = client.clone();
            async move { anyhow::Ok(client.request(request?).await?.status().as_u16()) }
        });
        let answers: Vec<Result<u16>> = runtime()?
            .block_on(futures_util::stream::iter(requests).buffer_unordered(50).collect());
        for answer in answers {
            assert_eq!(answer?, 200);
        }
        let evicted = mesh.metric("gateway_record_evicted_total", &[])?;
        assert!(evicted > 5000, "only {evicted} of 10,000 made room in a table for 1000");
        still_fine(mesh)
    })
}

/// Broken messages, each with the one answer that is right for it; 0 is the end of the connection
/// without an HTTP/1 answer.
fn broken() -> Vec<(u16, String)> {
    let post = "POST /api/auth/x HTTP/1.1\r\nhost: a\r\n";
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n");
    let get = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    vec![
        (400, get("BREW /api/auth/x HTTP/1.1")),
        (200, get("TRACE /api/auth/x HTTP/1.1")),
        (404, get("OPTIONS * HTTP/1.1")),
        (404, "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".to_owned()),
        (200, get("GET http://b/api/auth/x HTTP/1.1")),
        (426, "GET /api/auth/x HTTP/1.0\r\n\r\n".to_owned()),
        (426, get("GET /api/auth/x HTTP/9.9")),
        (400, "GET  HTTP/1.1\r\n\r\n".to_owned()),
        (400, get(&format!("{} /api/auth/x HTTP/1.1", "M".repeat(9000)))),
        (400, format!("{chunked}zz\r\nnonsense\r\n")),
        (400, format!("{chunked}ffffffffffffffffff\r\n")),
        (400, format!("{post}content-length: 5\r\ncontent-length: 6\r\n\r\nabc")),
        (400, format!("{post}content-length: -1\r\n\r\n")),
        (400, "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned()),
        (0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense nonsense".to_owned()),
    ]
}

#[test]
fn odd_methods_and_broken_messages_get_proper_answers() -> Result<()> {
    Mesh::with(busy()).run(|mesh| {
        for (expected, message) in broken() {
            let mut raw = Raw::connect(mesh.gateway())?;
            let status = raw.send(&message)?.answer().context(message.clone())?.status();
            assert_eq!(status, expected, "to {message:?}");
        }
        let mut half = Raw::connect(mesh.gateway())?;
        half.send("POST /api/auth/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabc")?;
        // Who stops talking in the middle has left, as far as Envoy is concerned.
        half.finish()?;
        assert_eq!(half.rest()?.status(), 0);
        still_fine(mesh)
    })
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() -> Result<()> {
    Mesh::with(busy()).run(|mesh| {
        mesh.upstream("storage")?.script(Rule::delay_ms(50));
        let to = mesh.gateway();
        runtime()?.block_on(async {
            let client = pool(true);
            let request = || Request::new(to, "GET", "/api/storage/x").http2().into_http();
            // The connection stands before anybody leaves: who waits for one that somebody else is
            // making and gives up is turned away by the client itself.
            assert_eq!(client.request(request()?).await?.status(), 200);
            let mut calls = Vec::new();
            for i in 0..400_usize {
                let call = tokio::spawn(client.request(request()?));
                // Some before they are sent, some while the service thinks, some not at all.
                if i % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                calls.push(call);
                if i % 2 == 0
                    && let Some(call) = calls.get(i / 2)
                {
                    call.abort();
                }
            }
            for call in calls {
                match call.await {
                    Ok(answer) => assert_eq!(answer?.status(), 200),
                    Err(left) => assert!(left.is_cancelled(), "{left}"),
                }
            }
            Ok::<(), anyhow::Error>(())
        })?;
        for _ in 0..50 {
            Raw::connect(to)?.send("GET /api/storage/x HTTP/1.1\r\nhost: a\r\n\r\n")?;
        }
        mesh.envoy().stats_until("all requests to be over", SOON, |s| {
            s.get("http.gateway.downstream_rq_active") == 0
        })?;
        mesh.upstream("storage")?.clear();
        still_fine(mesh)
    })
}
