//! One case per stage, with the policy of the demo: the smaller pass for another Envoy
//! (`GATEWAY_ENVOY=/path/to/envoy`).

use anyhow::Result;
use serde_json::{Value, json};
use test_harness::artefacts::Artefacts;
use test_harness::mesh::SOON;
use test_harness::token::{Key, Token, jwks, now};
use test_harness::{Mesh, policy};

fn demo() -> Result<Value> {
    let file = Artefacts::find()?.policy;
    Ok(serde_yaml_ng::from_str(&std::fs::read_to_string(file)?)?)
}

/// A key that is made lets in, a user who is revoked is out.
fn orders_are_in_force(mesh: &mut Mesh, gone: &str) -> Result<()> {
    let made = mesh.sidecar()?.post_json("/gateway/api-keys", &json!({ "id": "robot" }))?;
    let made = made.json();
    let key = made.get("secret").and_then(Value::as_str).unwrap_or_default();
    mesh.get("/api/auth/x").header("x-api-key", key).send()?.expect(200)?;
    mesh.get("/api/auth/x").bearer(gone).send()?.expect(200)?;
    let order = json!({ "sub": "gone", "issued_before": now() + 1 });
    mesh.sidecar()?.post_json("/gateway/revocations", &order)?.expect(200)?;
    let refused = mesh.get("/api/auth/x").bearer(gone).send()?;
    refused.expect_refusal(401, "token-revoked")?;
    Ok(())
}

#[test]
fn every_stage_of_the_demo_policy_does_its_work() -> Result<()> {
    let mut policy = demo()?;
    policy["authentication"]["jwt"]["providers"].as_array_mut().unwrap().push(json!({
        "name": "idp", "issuer": "https://idp.example", "audiences": ["tracseq-api"],
        "algorithms": ["RS256", "ES256"], "keys": { "jwks_inline": jwks()? }
    }));
    Mesh::with(policy.clone()).behind_proxy().run(|mesh| {
        let of = |name: &str| {
            let token = Token::new(Key::Hs256(policy::JWT_SECRET.into()), name);
            token.claim("permissions", json!(["samples:read"])).sign()
        };
        let anna = of("anna")?;
        let allowed = mesh.get("/api/auth/x").bearer(&anna).send()?.expect(200)?;
        assert_eq!(allowed.headers("x-frame-options"), ["DENY"]);
        assert!(!allowed.header("x-ratelimit-remaining").is_empty());
        let denied = mesh.get("/api/auth/x").header("x-forwarded-for", "203.0.113.1").send()?;
        denied.expect_refusal(403, "ip-denied")?;
        mesh.get("/api/auth/x").send()?.expect_refusal(401, "credentials-missing")?;
        mesh.get("/api/auth/x").bearer("x").send()?.expect_refusal(401, "token-malformed")?;
        for key in [Key::Rs256, Key::Es256] {
            let token = Token::new(key, "idp").claim("iss", "https://idp.example").sign()?;
            mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
        }
        orders_are_in_force(mesh, &of("gone")?)?;
        for _ in 0..5 {
            mesh.get("/api/storage/status/503").bearer(&anna).send()?.expect(503)?;
        }
        let open = mesh.get("/api/storage/x").bearer(&anna).send()?;
        open.expect_refusal(503, "breaker-open")?;
        mesh.sidecar()?.post("/gateway/circuit-breakers/storage/reset")?.expect(200)?;
        mesh.get("/api/storage/x").bearer(&anna).send()?.expect(200)?;
        let bert = of("bert")?;
        let write = mesh.request("PUT", "/api/samples/1").bearer(&anna).send()?;
        write.expect_refusal(403, "permission-denied")?;
        let mut passed = 0;
        // The bucket gets a token back each second, of which a busy machine takes several.
        let limited = loop {
            let answer = mesh.get("/api/samples/1").bearer(&bert).send()?;
            if answer.status == 429 || passed == 60 {
                break answer;
            }
            answer.expect(200)?;
            passed += 1;
        };
        limited.expect_refusal(429, "rate-limited")?;
        assert!(passed >= 20, "{passed} of a burst of 20 passed");
        policy["https"]["mode"] = "refuse".into();
        mesh.set_policy(&policy)?;
        test_harness::wait::until_true("HTTPS to be asked for", SOON, || {
            Ok(mesh.get("/api/auth/x").send()?.status == 403)
        })?;
        mesh.get("/api/auth/x").send()?.expect_refusal(403, "https-required")?;
        Ok(())
    })
}

#[test]
fn an_empty_policy_adds_nothing_but_metrics() -> Result<()> {
    Mesh::with(json!({ "version": 1 })).alone().run(|mesh| {
        let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
        for header in ["x-frame-options", "ratelimit", "x-ratelimit-limit"] {
            assert_eq!(answer.header(header), "", "{header}");
        }
        let labels = [("service", "auth"), ("decision", "allowed"), ("reason", "none")];
        mesh.until_metric("gateway_requests_total", &labels, 1)?;
        let prometheus = mesh.envoy().get("/stats/prometheus")?.expect(200)?.text();
        let line = prometheus.lines().find(|l| l.starts_with("gateway_requests_total{"));
        let line = line.unwrap_or_default();
        for label in ["service=\"auth\"", "decision=\"allowed\"", "reason=\"none\""] {
            assert!(line.contains(label), "{line}");
        }
        Ok(())
    })
}

#[test]
fn the_variables_of_the_demo_policy_are_the_harness_own() -> Result<()> {
    let text = std::fs::read_to_string(Artefacts::find()?.policy)?;
    assert!(text.contains(policy::JWT_VARIABLE) && text.contains(policy::SYNC_VARIABLE));
    Ok(())
}
