//! Security headers are on every reply, once, and a service's own win.

use anyhow::Result;
use serde_json::json;
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, Response, Rule, policy};

const SEED: [(&str, &str); 7] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "1; mode=block"),
    ("strict-transport-security", "max-age=31536000"),
    ("content-security-policy", "default-src 'self'"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "geolocation=(), microphone=(), camera=()"),
];

#[track_caller]
fn has_seed(answer: &Response) {
    for (name, value) in SEED {
        assert_eq!(answer.headers(name), [value], "{name} of {}", answer.status);
    }
}

#[test]
fn every_reply_carries_the_preset_whoever_made_it() -> Result<()> {
    let sections = json!({
        "security_headers": { "preset": "seed" },
        "ip": { "deny": ["203.0.113.0/24"] }
    });
    Mesh::with(policy::with(&sections)).behind_proxy().run(|mesh| {
        has_seed(&mesh.get("/api/auth/x").send()?.expect(200)?);
        has_seed(&mesh.get("/api/auth/status/500").send()?.expect(500)?);
        has_seed(&mesh.get("/nowhere").send()?.expect(404)?);
        has_seed(&mesh.get("/health").send()?.expect(200)?);
        let denied = mesh.get("/api/auth/x").header("x-forwarded-for", "203.0.113.1").send()?;
        has_seed(&denied.expect_refusal(403, "ip-denied")?);
        mesh.close("auth");
        has_seed(&mesh.get("/api/auth/x").send()?.expect(503)?);
        has_seed(&mesh.get("/api/samples/x").http2().send()?.expect(200)?);
        Ok(())
    })
}

#[test]
fn a_header_that_the_service_set_is_kept_as_it_is() -> Result<()> {
    let sections = json!({ "security_headers": { "preset": "seed" } });
    Mesh::with(policy::with(&sections)).run(|mesh| {
        let own = Rule::status(200)
            .header("X-Frame-Options", "SAMEORIGIN")
            .header("content-security-policy", "default-src 'none'")
            .header("content-security-policy", "frame-ancestors 'none'");
        mesh.upstream("auth")?.script(own);
        let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
        assert_eq!(answer.headers("x-frame-options"), ["SAMEORIGIN"]);
        let own = ["default-src 'none'", "frame-ancestors 'none'"];
        assert_eq!(answer.headers("content-security-policy"), own);
        assert_eq!(answer.headers("x-content-type-options"), ["nosniff"]);
        Ok(())
    })
}

#[test]
fn overrides_and_other_presets_come_into_force() -> Result<()> {
    let own = json!({ "security_headers": {
        "preset": "seed", "override": { "Content-Security-Policy": "default-src 'none'" }
    }});
    Mesh::with(policy::with(&own)).run(|mesh| {
        let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
        assert_eq!(answer.headers("content-security-policy"), ["default-src 'none'"]);
        mesh.set_policy(&policy::with(&json!({ "security_headers": { "preset": "off" } })))?;
        until_true("headers to be gone", SOON, || {
            Ok(mesh.get("/api/auth/x").send()?.header("x-frame-options").is_empty())
        })?;
        mesh.set_policy(&policy::with(&json!({ "security_headers": { "preset": "owasp-api" } })))?;
        until_true("owasp headers", SOON, || {
            Ok(mesh.get("/api/auth/x").send()?.header("cache-control") == "no-store")
        })
    })
}
