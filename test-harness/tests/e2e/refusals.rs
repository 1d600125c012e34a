//! HTTPS, IP lists, and the form that every refusal has.

use anyhow::Result;
use serde_json::json;
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, policy};

#[test]
fn clear_text_is_redirected_or_refused_as_the_policy_says() -> Result<()> {
    let redirect = policy::with(&json!({ "https": { "mode": "redirect" } }));
    Mesh::with(redirect).behind_proxy().run(|mesh| {
        let answer = mesh.get("/api/auth/x?a=b").header("host", "api.example").send()?;
        let answer = answer.expect(308)?;
        assert_eq!(answer.header("location"), "https://api.example/api/auth/x?a=b");
        let post = mesh.request("POST", "/api/auth/x").body("b").send()?;
        post.expect_refusal(403, "https-required")?;
        mesh.get("/api/auth/x").header("x-forwarded-proto", "https").send()?.expect(200)?;

        mesh.set_policy(&policy::with(&json!({ "https": { "mode": "refuse" } })))?;
        until_true(
            "GET to be refused",
            SOON,
            || Ok(mesh.get("/api/auth/x").send()?.status == 403),
        )?;
        mesh.get("/api/auth/x").send()?.expect_refusal(403, "https-required")?;
        mesh.get("/api/auth/x").header("x-forwarded-proto", "https").send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_client_cannot_claim_https_where_no_proxy_is_trusted() -> Result<()> {
    Mesh::with(policy::with(&json!({ "https": { "mode": "refuse" } }))).run(|mesh| {
        let lie = mesh.get("/api/auth/x").header("x-forwarded-proto", "https").send()?;
        lie.expect_refusal(403, "https-required")?;
        Ok(())
    })
}

#[test]
fn addresses_are_denied_and_allowed_by_list() -> Result<()> {
    let lists = json!({ "ip": { "deny": ["203.0.113.0/24", "2001:db8:bad::/48"] } });
    Mesh::with(policy::with(&lists)).behind_proxy().run(|mesh| {
        let from = |ip: &str| mesh.get("/api/auth/x").header("x-forwarded-for", ip).send();
        from("198.51.100.1")?.expect(200)?;
        from("203.0.113.255")?.expect_refusal(403, "ip-denied")?;
        from("2001:db8:bad::1")?.expect_refusal(403, "ip-denied")?;
        from("2001:db8:900d::1")?.expect(200)?;
        // What the trusted proxy added counts, not what the client wrote before it.
        from("198.51.100.1, 203.0.113.9")?.expect_refusal(403, "ip-denied")?;

        mesh.set_policy(&policy::with(&json!({ "ip": { "allow": ["198.51.100.0/24"] } })))?;
        let from = |ip: &str| mesh.get("/api/auth/x").header("x-forwarded-for", ip).send();
        until_true("others to be refused", SOON, || Ok(from("192.0.2.1")?.status == 403))?;
        from("192.0.2.1")?.expect_refusal(403, "ip-denied")?;
        from("198.51.100.1")?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_refusal_says_what_the_contract_says_and_the_log_knows_why() -> Result<()> {
    Mesh::with(policy::with(&json!({ "authentication": policy::hs256() }))).run(|mesh| {
        let answer = mesh.get("/api/storage/secret?access=1").send()?;
        let answer = answer.expect_refusal(401, "credentials-missing")?;
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
        let body = answer.json();
        for field in ["type", "title", "detail", "instance"] {
            assert!(body[field].is_string(), "{field} in {body}");
        }
        assert_eq!(body["status"], 401);
        let id = body["request_id"].as_str().unwrap_or_default().to_owned();
        assert!(!id.is_empty() && answer.header("x-request-id") == id, "{answer:?}");
        let line = mesh.logged("of that request", |l| l.text("request_id") == id)?;
        assert_eq!(line.status(), 401);
        assert_eq!(line.text("details"), "gateway.credentials-missing");
        assert_eq!(line.text("path"), "/api/storage/secret", "without the query");
        let labels =
            [("service", "storage"), ("decision", "refused"), ("reason", "credentials-missing")];
        mesh.until_metric("gateway_requests_total", &labels, 1)?;
        assert_eq!(mesh.upstream("storage")?.count(), 0);
        Ok(())
    })
}

#[test]
fn grpc_is_refused_in_its_own_way() -> Result<()> {
    Mesh::with(policy::with(&json!({ "authentication": policy::hs256() }))).run(|mesh| {
        let call = mesh.request("POST", "/api/storage/S/M").http2();
        let answer =
            call.header("content-type", "application/grpc").header("te", "trailers").send()?;
        let answer = answer.expect(200)?;
        assert_eq!(answer.grpc_status(), Some(16), "UNAUTHENTICATED: {answer:?}");
        let line = mesh.logged("of the call", |l| !l.text("details").is_empty())?;
        assert_eq!(line.text("details"), "gateway.credentials-missing");
        Ok(())
    })
}

#[test]
fn the_house_without_a_sidecar_serves_all_the_same() -> Result<()> {
    let policy = policy::with(&json!({ "authentication": policy::hs256() }));
    Mesh::with(policy).alone().concurrency(1).run(|mesh| {
        mesh.get("/api/auth/x").send()?.expect_refusal(401, "credentials-missing")?;
        mesh.get("/api/auth/x").bearer(&mesh.token("u")?).send()?.expect(200)?;
        assert_eq!(mesh.metric("gateway_sidecar_connected", &[])?, 0);
        Ok(())
    })
}
