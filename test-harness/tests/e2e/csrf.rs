//! Where a cookie is the credential, a page of somebody else's cannot make a browser act.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use test_harness::{Mesh, Request, Response, policy};

const SECRET: &str = "a secret of the tests for tokens against forgery";
const VARIABLE: &str = "CSRF_SECRET";
const HOST: &str = "gateway.example:8443";

/// Tokens in the header or in the cookie `session`; a session of the service's own in `legacy`.
fn policy(mode: &str) -> Value {
    let mut authentication = policy::hs256();
    authentication["mode"] = json!("optional");
    authentication["jwt"]["providers"][0]["locations"] =
        json!([{ "header": "authorization", "scheme": "Bearer" }, { "cookie": "session" }]);
    policy::with(&json!({
        "authentication": authentication,
        "csrf": {
            "mode": mode, "trusted_origins": ["https://app.example"], "cookie": "legacy",
            "token": { "secret": { "env": VARIABLE } }
        }
    }))
}

fn run(mode: &str, test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    Mesh::with(policy(mode)).variable(VARIABLE, SECRET).behind_proxy().run(test)
}

/// A request by HTTPS from a browser that has this session.
fn request(mesh: &Mesh, method: &str, session: &str) -> Request {
    let request = mesh.request(method, "/api/auth/x").header("host", HOST);
    let request = request.header("x-forwarded-proto", "https");
    request.header("cookie", format!("session={session}"))
}

fn rejected(answer: Response) -> Result<()> {
    answer.expect_refusal(403, "csrf-rejected").map(|_| ())
}

/// What a browser says of where a request comes from, and whether that is good enough.
const MATRIX: [(&[(&str, &str)], bool); 36] = [
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("sec-fetch-site", "none")], true),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "Same-Origin")], false),
    (&[("sec-fetch-site", "nonsense")], false),
    (&[("sec-fetch-site", "")], false),
    (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "same-origin, cross-site")], false),
    (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], true),
    (&[("sec-fetch-site", "same-site"), ("origin", "https://app.example")], true),
    (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], false),
    (&[("sec-fetch-site", "cross-site"), ("origin", "null")], false),
    (&[("sec-fetch-site", "cross-site"), ("referer", "https://app.example/")], false),
    (&[("origin", "https://gateway.example:8443")], true),
    (&[("origin", "https://app.example")], true),
    (&[("origin", "https://app.example:443")], true),
    (&[("origin", "http://gateway.example:8443")], false),
    (&[("origin", "https://gateway.example")], false),
    (&[("origin", "https://gateway.example:8444")], false),
    (&[("origin", "http://app.example")], false),
    (&[("origin", "https://app.example.evil.example")], false),
    (&[("origin", "https://evilapp.example")], false),
    (&[("origin", "https://sub.app.example")], false),
    (&[("origin", "https://app.example@evil.example")], false),
    (&[("origin", "null")], false),
    (&[("origin", "")], false),
    (&[("origin", "https://app.example https://evil.example")], false),
    (&[("origin", "https://app.example"), ("origin", "https://evil.example")], false),
    (&[("origin", "https://evil.example"), ("referer", "https://app.example/")], false),
    (&[("origin", "null"), ("referer", "https://app.example/")], false),
    (&[("referer", "https://app.example/page?x=https://evil.example")], true),
    (&[("referer", "https://gateway.example:8443/page")], true),
    (&[("referer", "https://evil.example/https://app.example/")], false),
    (&[("referer", "https://app.example.evil.example/")], false),
    (&[], false),
];

#[test]
fn only_pages_of_ones_own_can_use_the_cookie() -> Result<()> {
    run("enforce", |mesh| {
        let session = mesh.token("anna")?;
        for (says, good) in MATRIX {
            let ask = |method: &str| {
                let request = request(mesh, method, &session);
                says.iter().fold(request, |r, (name, value)| r.header(name, value)).send()
            };
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                let answer = ask(method)?;
                let right = if good { answer.expect(200).map(|_| ()) } else { rejected(answer) };
                right.with_context(|| format!("{method} with {says:?}"))?;
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                ask(method)?.expect(200).with_context(|| format!("{method} with {says:?}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn the_scheme_counts_and_default_ports_do_not() -> Result<()> {
    run("enforce", |mesh| {
        let session = mesh.token("anna")?;
        let ask = |host: &str, scheme: &str, origin: &str| {
            let request = mesh.request("POST", "/api/auth/x").header("host", host);
            let request = request.header("x-forwarded-proto", scheme).header("origin", origin);
            request.header("cookie", format!("session={session}")).send()
        };
        for (host, scheme, origin) in [
            ("a.example", "https", "https://a.example"),
            ("a.example:443", "https", "https://a.example"),
            ("a.example", "http", "http://a.example"),
            ("a.example:80", "http", "http://a.example"),
            ("A.Example", "https", "https://a.example"),
        ] {
            let answer = ask(host, scheme, origin)?;
            answer.expect(200).with_context(|| format!("{origin} at {scheme} {host}"))?;
        }
        for (host, scheme, origin) in [
            ("a.example", "https", "http://a.example"),
            ("a.example", "http", "https://a.example"),
            ("a.example:80", "https", "https://a.example"),
            ("a.example", "https", "https://a.example:80"),
        ] {
            rejected(ask(host, scheme, origin)?)
                .with_context(|| format!("{origin} at {scheme} {host}"))?;
        }
        Ok(())
    })
}

#[test]
fn who_does_not_come_by_cookie_is_not_asked() -> Result<()> {
    run("enforce", |mesh| {
        let token = mesh.token("anna")?;
        let from = "https://evil.example";
        mesh.request("POST", "/api/auth/x")
            .bearer(&token)
            .header("origin", from)
            .send()?
            .expect(200)?;
        mesh.request("POST", "/api/auth/x").header("origin", from).send()?.expect(200)?;
        // Another cookie is no credential; the service's own session is one.
        let with = |cookie: &str| {
            mesh.request("POST", "/api/auth/x")
                .header("cookie", cookie)
                .header("origin", from)
                .send()
        };
        with("theme=dark")?.expect(200)?;
        rejected(with("theme=dark; legacy=17")?)?;
        // The same token in both places is not the cookie's alone: no page can set the header.
        request(mesh, "POST", &token).bearer(&token).header("origin", from).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_shadow_counts_and_rejects_nobody() -> Result<()> {
    run("shadow", |mesh| {
        let session = mesh.token("anna")?;
        let answer = request(mesh, "POST", &session).header("origin", "https://evil.example");
        answer.send()?.expect(200)?;
        mesh.until_metric("gateway_csrf_total", &[("outcome", "shadow_denied")], 1)?;
        mesh.until_metric("gateway_csrf_total", &[("outcome", "denied")], 0)
    })
}

/// The token that the gateway gives a session, from the cookie that it sets.
fn issued(mesh: &Mesh, session: &str) -> Result<String> {
    let answer = request(mesh, "GET", session).send()?.expect(200)?;
    let cookies = answer.headers("set-cookie");
    let ours = cookies.iter().find_map(|c| c.strip_prefix("csrf-token="));
    let (value, attributes) = ours.and_then(|c| c.split_once(';')).context("no token is set")?;
    for attribute in ["Path=/", "SameSite=Strict", "Secure"] {
        assert!(attributes.contains(attribute), "{attribute} in {attributes}");
    }
    assert!(!attributes.contains("HttpOnly"), "the page must read it: {attributes}");
    Ok(value.to_owned())
}

/// A request of a client that says nothing of where it comes from, with these tokens.
fn with_tokens(mesh: &Mesh, session: &str, cookie: &str, header: &str) -> Result<Response> {
    let request = mesh.request("POST", "/api/auth/x").header("host", HOST);
    let request = request.header("x-forwarded-proto", "https").header("x-csrf-token", header);
    request.header("cookie", format!("session={session}; csrf-token={cookie}")).send()
}

#[test]
fn a_token_of_ones_own_session_opens_and_no_other_does() -> Result<()> {
    run("enforce", |mesh| {
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        let (mine, his) = (issued(mesh, &anna)?, issued(mesh, &bert)?);
        assert_ne!(mine, his);
        with_tokens(mesh, &anna, &mine, &mine)?.expect(200)?;
        with_tokens(mesh, &bert, &his, &his)?.expect(200)?;
        rejected(with_tokens(mesh, &anna, &his, &his)?).context("another session's")?;
        rejected(with_tokens(mesh, &anna, &mine, &his)?).context("header and cookie differ")?;
        rejected(with_tokens(mesh, &anna, &mine, "")?).context("no header")?;
        rejected(with_tokens(mesh, &anna, "", "")?).context("both empty")?;
        rejected(with_tokens(mesh, &anna, "x.y", "x.y")?).context("nonsense")?;
        for at in [0, mine.len() / 2, mine.len() - 2] {
            let mut letters = mine.clone().into_bytes();
            letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(letters)?;
            rejected(with_tokens(mesh, &anna, &changed, &changed)?)
                .with_context(|| format!("changed at {at}"))?;
        }
        // A good token does not help where the browser says that the page is a stranger's.
        let request = request(mesh, "POST", &anna).header("origin", "https://evil.example");
        let request = request.header("cookie", format!("csrf-token={mine}"));
        rejected(request.header("x-csrf-token", &mine).send()?)
    })
}

#[test]
fn a_token_is_issued_once_and_only_to_sessions() -> Result<()> {
    run("enforce", |mesh| {
        let session = mesh.token("anna")?;
        let token = issued(mesh, &session)?;
        let with = request(mesh, "GET", &session).header("cookie", format!("csrf-token={token}"));
        assert!(with.send()?.expect(200)?.headers("set-cookie").is_empty(), "it has one");
        let stale = request(mesh, "GET", &session).header("cookie", "csrf-token=x.y");
        assert!(!stale.send()?.expect(200)?.headers("set-cookie").is_empty(), "it has a bad one");
        let bearer = mesh.get("/api/auth/x").bearer(&session).send()?.expect(200)?;
        assert!(bearer.headers("set-cookie").is_empty(), "no cookie, no token");
        let nobody = mesh.get("/api/auth/x").send()?.expect(200)?;
        assert!(nobody.headers("set-cookie").is_empty(), "nobody has no session");
        let legacy = mesh.get("/api/auth/x").header("cookie", "legacy=17").send()?.expect(200)?;
        assert_eq!(legacy.headers("set-cookie").len(), 1, "the service's own session has one");
        Ok(())
    })
}
