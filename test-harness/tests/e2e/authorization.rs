//! Who may do what, and that no spelling of a path leads around it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_harness::raw::Raw;
use test_harness::token::{Key, Token};
use test_harness::{Mesh, Response, policy};

/// The demo's issuer, whose tokens carry `permissions` and `scope`.
fn authentication(mode: &str) -> Value {
    let mut authentication = policy::hs256();
    authentication["mode"] = json!(mode);
    authentication["jwt"]["providers"][0]["permission_claims"] = json!(["permissions", "scope"]);
    authentication
}

fn policy(mode: &str, authorization: &Value) -> Value {
    policy::with(&json!({
        "authentication": authentication(mode), "authorization": authorization
    }))
}

fn rules() -> Value {
    json!({ "default": "allow", "rules": [
        { "path": "/api/samples/{id}", "methods": ["GET"], "require": ["samples:read"] },
        { "path": "/api/samples/**", "require": ["samples:read", "samples:write"] },
        { "path": "/api/storage/admin/**", "require_any": ["storage:admin", "admin:*"] },
        { "path": "/api/templates/all/**", "require": ["templates:*"] },
        { "path": "/api/auth/free/**" },
        { "path": "/api/auth/**", "require": ["auth:use"] }
    ]})
}

/// A token with these permissions.
fn allowed(permissions: &Value) -> Result<String> {
    let token = Token::new(Key::Hs256(policy::JWT_SECRET.into()), "anna");
    token.claim("permissions", permissions.clone()).sign()
}

fn denied(answer: Response) -> Result<Response> {
    let answer = answer.expect_refusal(403, "permission-denied")?;
    let says = answer.header("www-authenticate");
    ensure!(says.contains("insufficient_scope"), "www-authenticate: {says:?}");
    Ok(answer)
}

#[test]
fn the_first_rule_that_fits_decides() -> Result<()> {
    Mesh::with(policy("required", &rules())).run(|mesh| {
        let reader = allowed(&json!(["samples:read"]))?;
        let writer = allowed(&json!("samples:read samples:write other"))?;
        let ask =
            |method: &str, path: &str, token: &str| mesh.request(method, path).bearer(token).send();
        ask("GET", "/api/samples/7", &reader)?.expect(200)?;
        denied(ask("POST", "/api/samples/7", &reader)?)?;
        denied(ask("GET", "/api/samples/7/files", &reader)?)?;
        ask("POST", "/api/samples/7", &writer)?.expect(200)?;
        ask("GET", "/api/samples/7/files?x=1", &writer)?.expect(200)?;
        ask("GET", "/api/auth/free/x", &reader)?.expect(200)?;
        denied(ask("GET", "/api/auth/other", &reader)?)?;
        ask("GET", "/api/sequencing/x", &reader)?.expect(200)?;
        Ok(())
    })
}

#[test]
fn permissions_have_wildcards() -> Result<()> {
    // What a token has, and whether admin of storage and all templates are open to it.
    let cases = [
        (json!(["storage:admin"]), true, false),
        (json!(["admin:*"]), true, false),
        (json!(["admin:users"]), true, false),
        (json!(["admin:users:write"]), true, false),
        (json!(["admin"]), false, false),
        (json!(["administrator:x"]), false, false),
        (json!(["*"]), true, true),
        (json!(["*:admin"]), true, false),
        (json!(["storage:*"]), true, false),
        (json!(["Storage:Admin"]), false, false),
        (json!(["templates:read"]), false, false),
        (json!(["templates:*"]), false, true),
        (json!([]), false, false),
        (json!({ "storage:admin": true }), false, false),
        (json!(null), false, false),
    ];
    Mesh::with(policy("required", &rules())).run(|mesh| {
        for (permissions, admin, templates) in cases {
            let token = allowed(&permissions)?;
            let paths = [("/api/storage/admin/x", admin), ("/api/templates/all/x", templates)];
            for (path, open) in paths {
                let answer = mesh.get(path).bearer(&token).send()?;
                let right = if open { answer.expect(200) } else { denied(answer) };
                right.with_context(|| format!("{permissions} at {path}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn permissions_come_from_every_claim_that_the_policy_names() -> Result<()> {
    Mesh::with(policy("required", &rules())).run(|mesh| {
        let token = Token::new(Key::Hs256(policy::JWT_SECRET.into()), "anna");
        let token = token.claim("permissions", json!(["samples:read"]));
        let token = token.claim("scope", "openid samples:write").claim("roles", "auth:use");
        let token = token.sign()?;
        mesh.request("PUT", "/api/samples/7").bearer(&token).send()?.expect(200)?;
        denied(mesh.get("/api/auth/x").bearer(&token).send()?)?;
        Ok(())
    })
}

#[test]
fn who_is_nobody_is_asked_to_sign_in_and_who_is_somebody_is_not() -> Result<()> {
    Mesh::with(policy("optional", &rules())).run(|mesh| {
        let answer = mesh.get("/api/samples/7").send()?;
        let answer = answer.expect_refusal(401, "credentials-missing")?;
        let says = answer.header("www-authenticate");
        assert!(says.starts_with("Bearer") && !says.contains("error="), "{says}");
        mesh.get("/api/sequencing/x").send()?.expect(200)?;
        mesh.get("/api/auth/free/x").send()?.expect(200)?;
        denied(mesh.get("/api/samples/7").bearer(&mesh.token("anna")?).send()?)?;
        let labels = [("decision", "refused"), ("reason", "permission-denied")];
        mesh.until_metric("gateway_requests_total", &labels, 1)
    })
}

#[test]
fn what_no_rule_speaks_of_is_denied_where_the_policy_says_so() -> Result<()> {
    let mut rules = rules();
    rules["default"] = json!("deny");
    let mut policy = policy("required", &rules);
    policy["authentication"]["public"] = json!(["/health", "/api/sequencing/open"]);
    Mesh::with(policy).run(|mesh| {
        let token = allowed(&json!(["samples:read"]))?;
        mesh.get("/api/samples/7").bearer(&token).send()?.expect(200)?;
        denied(mesh.get("/api/sequencing/x").bearer(&token).send()?)?;
        mesh.get("/health").send()?.expect(200)?;
        mesh.get("/api/sequencing/open").send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_shadow_counts_and_refuses_nobody() -> Result<()> {
    let mut rules = rules();
    rules["mode"] = json!("shadow");
    Mesh::with(policy("required", &rules)).run(|mesh| {
        let token = allowed(&json!(["samples:read"]))?;
        mesh.get("/api/samples/7").bearer(&token).send()?.expect(200)?;
        mesh.request("DELETE", "/api/samples/7").bearer(&token).send()?.expect(200)?;
        let shadow = [("outcome", "shadow_denied")];
        mesh.until_metric("gateway_authorization_total", &shadow, 1)?;
        mesh.until_metric("gateway_authorization_total", &[("outcome", "allowed")], 1)
    })
}

/// Sends this target, byte by byte, and gives the status.
fn raw(mesh: &Mesh, target: &[u8], token: &str) -> Result<u16> {
    let mut raw = Raw::connect(mesh.gateway())?;
    let mut head = b"GET ".to_vec();
    head.extend_from_slice(target);
    head.extend_from_slice(b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer ");
    head.extend_from_slice(token.as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    Ok(raw.send(head)?.answer()?.status())
}

/// Ways to write `/api/storage/admin/x` that one server or another reads as that.
const ADMIN: [&str; 38] = [
    "/api/storage/admin/x",
    "/api/storage/admin",
    "/api/storage/admin/",
    "/api/storage//admin/x",
    "//api/storage/admin/x",
    "/api//storage///admin//x",
    "/api/storage/./admin/x",
    "/api/storage/y/../admin/x",
    "/api/storage/y/..//admin/x",
    "/api/auth/../storage/admin/x",
    "/api/storage/%61dmin/x",
    "/api/storage/%61%64%6d%69%6e/x",
    "/api/storage/%61%64%6D%69%6E/x",
    "/api/storage/adm%69n",
    "/api/storage%2fadmin/x",
    "/api/storage%2Fadmin/x",
    "/api/storage/y%2f..%2fadmin/x",
    "/api/storage/y/%2e%2e/admin/x",
    "/api/storage/y/%2E./admin/x",
    "/api/storage/y/.%2e/admin/x",
    "/api/storage/%2e/admin/x",
    "/api/storage/%2fadmin/x",
    "/api/storage\\admin\\x",
    "/api/storage/y\\..\\admin/x",
    "/api/storage%5cadmin/x",
    "/api/storage/y%5c..%5cadmin/x",
    "/api/storage/ADMIN/x",
    "/api/storage/Admin",
    "/API/storage/admin/x",
    "/api/storage/%41dmin/x",
    "/api/storage/admin;v=1/x",
    "/api/storage/admin;/x",
    "/api/storage;a=b/admin/x",
    "/api/storage/y/..;/admin/x",
    "/api/storage/admin%3bv=1/x",
    "/api/storage/admin/x?y=1",
    "/api/storage/admin/x#y",
    "/api/storage/admin%00/x",
];

/// What no server should be sent.
const BROKEN: [&[u8]; 7] = [
    b"/api/storage/admin\x00/x",
    b"/api/storage/ad\x00min/x",
    b"/api/storage/y\x01",
    b"/api/storage/y%00",
    b"/api/storage/y%0d%0ax",
    b"/api/storage/%zz/admin/x",
    b"/api/storage/admin/%",
];

#[test]
fn no_spelling_of_a_path_leads_around_its_rule() -> Result<()> {
    Mesh::with(policy("required", &rules())).concurrency(1).run(|mesh| {
        let (nobody, admin) = (allowed(&json!([]))?, allowed(&json!(["admin:*"]))?);
        for target in ADMIN.iter().map(|t| t.as_bytes()).chain(BROKEN) {
            let shown = String::from_utf8_lossy(target);
            let status = raw(mesh, target, &nobody)?;
            assert!((300..500).contains(&status), "{shown}: {status}");
            let seen = mesh.upstream("storage")?.seen();
            assert!(seen.is_empty(), "{shown} arrived as {seen:?}");
        }
        assert_eq!(raw(mesh, b"/api/storage/admin/x", &admin)?, 200, "or this shows nothing");
        // Neighbours that are not meant.
        for target in
            ["/api/storage/administrator/x", "/api/storage/x/admin", "/api/storage/badmin"]
        {
            assert_eq!(raw(mesh, target.as_bytes(), &nobody)?, 200, "{target}");
        }
        Ok(())
    })
}

/// Ways from a path that is open to one that is not.
const OUT: [&str; 24] = [
    "/api/storage/open/../admin/x",
    "/api/storage/open/..%2fadmin/x",
    "/api/storage/open/%2e%2e/admin/x",
    "/api/storage/open/%2e%2e%2fadmin/x",
    "/api/storage/open/..;/admin/x",
    "/api/storage/open/..;a=b/admin/x",
    "/api/storage/open/%2e%2e;/admin/x",
    "/api/storage/open/..%3b/admin/x",
    "/api/storage/open/..\\admin/x",
    "/api/storage/open/..%5cadmin/x",
    "/api/storage/open\\..\\admin/x",
    "/api/storage/open/x/../../admin/x",
    "/api/storage/open/x//../../../admin/x",
    "/api/storage/open/./../admin/x",
    "/api/storage/open/%2e/%2e%2e/admin/x",
    "/api/storage/open/../open/../admin/x",
    "/api/storage/open/..",
    "/api/storage/open/%2e%2e",
    "/api/storage/open/..;",
    "/api/storage/%6fpen/%2e%2e/admin/x",
    "/api/storage/openly",
    // Decoded twice these would be the open path, or lead out of it: not here.
    "/api/storage/%256fpen/x",
    "/api/storage/op%2565n/x",
    "/api/storage/open%2f..%2fadmin/x",
];

#[test]
fn nothing_leads_out_of_a_path_that_is_open() -> Result<()> {
    let rules = json!({ "default": "deny", "rules": [
        { "path": "/api/storage/open/**" },
        { "path": "/api/storage/**", "require": ["storage:all"] }
    ]});
    Mesh::with(policy("required", &rules)).concurrency(1).run(|mesh| {
        let (nobody, all) = (allowed(&json!([]))?, allowed(&json!(["storage:all"]))?);
        for target in OUT.iter().map(|t| t.as_bytes()).chain(BROKEN) {
            let shown = String::from_utf8_lossy(target);
            let status = raw(mesh, target, &nobody)?;
            assert!((300..500).contains(&status), "{shown}: {status}");
            let seen = mesh.upstream("storage")?.seen();
            assert!(seen.is_empty(), "{shown} arrived as {seen:?}");
        }
        assert_eq!(raw(mesh, b"/api/storage/open/x", &nobody)?, 200);
        assert_eq!(raw(mesh, b"/api/storage/x", &all)?, 200, "or this shows nothing");
        Ok(())
    })
}

#[test]
fn nobody_comes_in_through_a_spelling_of_a_public_path() -> Result<()> {
    let mut policy = policy::with(&json!({ "authentication": policy::hs256() }));
    policy["authentication"]["public"] = json!(["/api/storage/open/**"]);
    Mesh::with(policy).concurrency(1).run(|mesh| {
        for target in OUT {
            let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let status = Raw::connect(mesh.gateway())?.send(head)?.answer()?.status();
            assert!((300..500).contains(&status), "{target}: {status}");
            let seen = mesh.upstream("storage")?.seen();
            assert!(seen.is_empty(), "{target} arrived as {seen:?}");
        }
        mesh.get("/api/storage/open/x").send()?.expect(200)?;
        Ok(())
    })
}
