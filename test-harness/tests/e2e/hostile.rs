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
    Mesh::with(busy()).behind_proxy().run(|mesh| {
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
        still_fine(mesh)
    })
}

#[test]
fn odd_methods_and_broken_messages_get_proper_answers() -> Result<()> {
    let long = format!("{} /api/auth/x HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(9000));
    let post = "POST /api/auth/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let cases: Vec<String> = vec![
        "BREW /api/auth/x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "TRACE /api/auth/x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".to_owned(),
        "GET http://b/api/auth/x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /api/auth/x HTTP/1.0\r\n\r\n".to_owned(),
        "GET /api/auth/x HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(),
        "GET  HTTP/1.1\r\n\r\n".to_owned(),
        long,
        format!("{post}zz\r\nnonsense\r\n"),
        format!("{post}ffffffffffffffffff\r\n"),
        format!("{post}5\r\nabc"),
        "POST /api/auth/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabc"
            .to_owned(),
        "POST /api/auth/x HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense nonsense".to_owned(),
    ];
    Mesh::with(busy()).run(|mesh| {
        for case in &cases {
            let mut raw = Raw::connect(mesh.gateway())?;
            raw.send(case)?;
            raw.finish()?;
            let status = raw.answer().context(case.clone())?.status();
            let proper = status == 0 || status == 200 || (400..500).contains(&status);
            assert!(proper, "{status} to {case:?}");
        }
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
            let mut calls = Vec::new();
            for i in 0..400_usize {
                let request = Request::new(to, "GET", "/api/storage/x").http2().into_http()?;
                let call = tokio::spawn(client.request(request));
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
                let _ = call.await;
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
