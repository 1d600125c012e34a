//! Key sets of an issuer that rotates, stalls, breaks or is gone.

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::net::SocketAddr;
use test_harness::issuer::{self, Issuer};
use test_harness::mesh::SOON;
use test_harness::raw::Raw;
use test_harness::runtime::runtime;
use test_harness::token::{Key, Token, key_set};
use test_harness::{Mesh, Rule, policy, port, wait};

const ISSUER: &str = "https://idp.example";

/// One provider with a remote key set, with these settings of it.
fn policy_with(settings: &Value) -> Value {
    policy::with(&json!({ "authentication": {
        "mode": "required",
        "jwt": { "providers": [{
            "name": "idp",
            "issuer": ISSUER,
            "audiences": ["tracseq-api"],
            "algorithms": ["ES256", "RS256", "ES384"],
            "keys": issuer::keys(settings)
        }] }
    }}))
}

fn token(key: Key) -> Result<String> {
    Token::new(key, "anna").claim("iss", ISSUER).sign()
}

/// Someone who signs, and names a key that nobody has.
fn forged(kid: &str) -> Result<String> {
    Token::new(Key::Stranger, "eve").claim("iss", ISSUER).header("kid", kid).sign()
}

fn house(issuer: &Issuer, settings: &Value) -> test_harness::mesh::Builder {
    Mesh::with(policy_with(settings)).cluster(issuer::CLUSTER, issuer.address())
}

fn until_fetched(issuer: &Issuer, times: u64) -> Result<()> {
    wait::until_true("the key set to be fetched", SOON, || Ok(issuer.fetches() >= times))
}

fn passes(mesh: &Mesh, key: Key) -> Result<()> {
    mesh.get("/api/auth/x").bearer(&token(key)?).send()?.expect(200).map(|_| ())
}

fn is_refused(mesh: &Mesh, key: Key, status: u16, code: &str) -> Result<()> {
    mesh.get("/api/auth/x").bearer(&token(key)?).send()?.expect_refusal(status, code).map(|_| ())
}

fn until_status(mesh: &Mesh, key: Key, status: u16) -> Result<()> {
    let token = token(key)?;
    let what = format!("a request to get {status}");
    wait::until_true(&what, SOON, || {
        Ok(mesh.get("/api/auth/x").bearer(&token).send()?.status == status)
    })
}

#[test]
fn one_fetch_serves_all_workers_and_also_the_next_policy() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({})).run(|mesh| {
        for _ in 0..8 {
            passes(mesh, Key::Es256)?;
        }
        let mut next = policy_with(&json!({}));
        next["name"] = json!("next");
        mesh.set_policy(&next)?;
        for _ in 0..8 {
            passes(mesh, Key::Es256)?;
        }
        ensure!(idp.fetches() == 1, "{} fetches", idp.fetches());
        let labels = [("provider", "idp"), ("outcome", "ok")];
        mesh.until_metric("gateway_jwks_fetch_total", &labels, 1)
    })
}

#[test]
fn many_requests_with_a_new_key_wait_for_one_fetch_and_all_get_through() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({})).connections(500).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.serve_slowly(&key_set(&[Key::Es256, Key::Rs256])?, 300);
        let token = token(Key::Rs256)?;
        let one = |number: usize| {
            let body = format!("body {number}");
            mesh.request("POST", "/api/auth/x").bearer(&token).body(body).send_async()
        };
        let answers = runtime()?.block_on(join_all((0..60).map(one)));
        for answer in answers {
            answer?.expect(200)?;
        }
        ensure!(idp.fetches() == 2, "{} fetches", idp.fetches());
        let posts = mesh.upstream("auth")?.seen();
        let bodies = posts.iter().filter(|seen| seen.method == "POST").count();
        ensure!(bodies == 60, "{bodies} requests arrived");
        Ok(())
    })
}

#[test]
fn a_key_serves_until_it_leaves_the_set_and_never_after() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({ "cooldown": "1s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.serve(&key_set(&[Key::Es256, Key::Rs256])?);
        until_status(mesh, Key::Rs256, 200)?;
        passes(mesh, Key::Es256)?;
        idp.serve(&key_set(&[Key::Rs256, Key::Es384])?);
        until_status(mesh, Key::Es384, 200)?;
        // On both workers, and although the token was remembered.
        for _ in 0..8 {
            is_refused(mesh, Key::Es256, 401, "token-untrusted")?;
            passes(mesh, Key::Rs256)?;
        }
        Ok(())
    })
}

#[test]
fn a_set_is_refreshed_before_it_expires_without_any_request() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({ "refresh": "10s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.serve(&key_set(&[Key::Rs256])?);
        until_fetched(&idp, 2)?;
        until_status(mesh, Key::Es256, 401)
    })
}

#[test]
fn an_issuer_that_is_down_at_start_gives_503_until_it_is_up() -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port::reserve()?));
    let builder = Mesh::with(policy_with(&json!({}))).cluster(issuer::CLUSTER, address);
    builder.run(|mesh| {
        for _ in 0..4 {
            is_refused(mesh, Key::Es256, 503, "keys-unavailable")?;
        }
        let idp = Issuer::listen(address, &key_set(&[Key::Es256])?)?;
        until_status(mesh, Key::Es256, 200)?;
        for _ in 0..8 {
            passes(mesh, Key::Es256)?;
        }
        ensure!(idp.fetches() == 1, "{} fetches", idp.fetches());
        Ok(())
    })
}

#[test]
fn an_issuer_that_hangs_holds_nobody_up_for_longer_than_its_timeout() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({ "timeout": "500ms", "cooldown": "1s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.hang();
        let answer = mesh.get("/api/auth/x").bearer(&token(Key::Rs256)?).send()?;
        answer.expect_refusal(401, "token-untrusted")?;
        passes(mesh, Key::Es256)?;
        idp.serve(&key_set(&[Key::Es256, Key::Rs256])?);
        until_status(mesh, Key::Rs256, 200)
    })
}

#[test]
fn an_issuer_that_hangs_at_start_gives_503() -> Result<()> {
    let idp = Issuer::start(&json!({}))?;
    idp.hang();
    house(&idp, &json!({ "timeout": "500ms" })).run(|mesh| {
        is_refused(mesh, Key::Es256, 503, "keys-unavailable")?;
        idp.serve(&key_set(&[Key::Es256])?);
        until_status(mesh, Key::Es256, 200)
    })
}

#[test]
fn what_is_no_key_set_never_replaces_one() -> Result<()> {
    let old = key_set(&[Key::Es256])?;
    let idp = Issuer::start(&old)?;
    let good = key_set(&[Key::Rs256])?;
    let padding = " ".repeat(300 * 1024);
    let bad = [
        ("not JSON", Rule::default().body("<html>"), "rejected"),
        ("nothing", Rule::default().body(""), "rejected"),
        ("empty", Rule::json(&json!({ "keys": [] })), "rejected"),
        ("no list", Rule::json(&json!({ "error": "later" })), "rejected"),
        ("a secret", Rule::json(&json!({ "keys": [{ "kty": "oct", "k": "AA" }] })), "rejected"),
        ("too large", Rule::default().body(&format!("{good}{padding}")), "rejected"),
        ("an error", Rule { status: Some(500), ..Rule::json(&good) }, "failed"),
        ("elsewhere", Rule { status: Some(302), ..Rule::json(&good) }, "failed"),
        ("nobody", Rule::fault(test_harness::upstream::Fault::Reset), "failed"),
        (
            "half",
            Rule { fault: Some(test_harness::upstream::Fault::Truncate), ..Rule::json(&good) },
            "failed",
        ),
    ];
    house(&idp, &json!({ "cooldown": "1s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        for (what, rule, outcome) in bad {
            let before = idp.fetches();
            idp.only(rule);
            wait::until_true(what, SOON, || {
                is_refused(mesh, Key::Rs256, 401, "token-untrusted")?;
                passes(mesh, Key::Es256)?;
                Ok(idp.fetches() > before)
            })?;
            let labels = [("provider", "idp"), ("outcome", outcome)];
            wait::until_true(&format!("{what} to be counted"), SOON, || {
                Ok(mesh.metric("gateway_jwks_fetch_total", &labels)? > 0)
            })?;
            // A good answer in between, or the pauses between failures would grow.
            idp.serve(&old);
            let fetched = || mesh.metric("gateway_jwks_fetch_total", &[("outcome", "ok")]);
            let before = fetched()?;
            wait::until_true("the issuer to be well", SOON, || {
                is_refused(mesh, Key::Rs256, 401, "token-untrusted")?;
                Ok(fetched()? > before)
            })?;
        }
        idp.serve(&good);
        until_status(mesh, Key::Rs256, 200)
    })
}

#[test]
fn invented_keys_cause_one_fetch_per_cooldown_and_do_not_delay_a_rotation() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    let begun = std::time::Instant::now();
    house(&idp, &json!({ "cooldown": "5s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        for number in 0..40 {
            let forged = forged(&format!("invented-{number}"))?;
            let answer = mesh.get("/api/auth/x").bearer(&forged).send()?;
            answer.expect_refusal(401, "token-untrusted")?;
        }
        // One for the set, one at once, and one per five seconds, however long the forty took.
        let fetches = idp.fetches();
        let most = 2 + begun.elapsed().as_secs() / 5;
        ensure!(fetches <= most, "{fetches} fetches, at most {most}");
        idp.serve(&key_set(&[Key::Rs256])?);
        let mut number = 40;
        wait::until_true("the rotation to get through", SOON, || {
            number += 1;
            mesh.get("/api/auth/x").bearer(&forged(&format!("invented-{number}"))?).send()?;
            Ok(mesh.get("/api/auth/x").bearer(&token(Key::Rs256)?).send()?.status == 200)
        })
    })
}

#[test]
fn tokens_that_no_key_could_make_good_cause_no_fetch() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    let hour = std::time::Duration::from_secs(3600);
    house(&idp, &json!({ "cooldown": "1s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        let other = Token::new(Key::Rs256, "a").claim("iss", "https://other.example").sign()?;
        let expired =
            Token::new(Key::Es256, "a").claim("iss", ISSUER).expired_since(hour).sign()?;
        let unlisted = Token::new(Key::EdDsa, "a").claim("iss", ISSUER).sign()?;
        for token in [other, expired, unlisted, "a.b.c".to_owned(), "nonsense".to_owned()] {
            let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
            ensure!(answer.status == 401, "{token}: {}", answer.status);
        }
        ensure!(idp.fetches() == 1, "{} fetches", idp.fetches());
        Ok(())
    })
}

#[test]
fn a_set_that_is_too_old_serves_no_more_and_comes_back() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({ "refresh": "10s", "max_stale": "0s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.fail(500);
        until_status(mesh, Key::Es256, 503)?;
        idp.serve(&key_set(&[Key::Es256])?);
        until_status(mesh, Key::Es256, 200)
    })
}

#[test]
fn clients_that_leave_while_they_wait_harm_nobody() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({ "timeout": "2s" })).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.serve_slowly(&key_set(&[Key::Es256, Key::Rs256])?, 1000);
        let token = token(Key::Rs256)?;
        let request = format!(
            "GET /api/auth/left HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        for _ in 0..20 {
            Raw::connect(mesh.gateway())?.send(request.as_bytes())?;
        }
        until_fetched(&idp, 2)?;
        let answer = mesh.get("/api/auth/stayed").bearer(&token).send()?;
        answer.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        ensure!(!seen.iter().any(|seen| seen.target.ends_with("/left")), "one went on without him");
        mesh.until_metric("gateway_requests_total", &[("service", "auth")], 22)
    })
}

#[test]
fn a_request_that_waits_keeps_its_body_and_survives_a_new_policy() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({})).run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.serve_slowly(&key_set(&[Key::Es256, Key::Rs256])?, 1500);
        let large = vec![b'x'; 4 * 1024 * 1024];
        let request = mesh.request("POST", "/api/auth/large").bearer(&token(Key::Rs256)?);
        let waiting = std::thread::spawn(move || request.body(large).send()?.expect(200));
        until_fetched(&idp, 2)?;
        let mut next = policy_with(&json!({}));
        next["name"] = json!("next");
        mesh.set_policy(&next)?;
        waiting.join().unwrap()?;
        let line = mesh.logged("the large one", |line| line.text("path") == "/api/auth/large")?;
        ensure!(line.0["bytes_in"] == 4 * 1024 * 1024, "{line:?}");
        passes(mesh, Key::Rs256)
    })
}

#[test]
fn a_grpc_request_that_waits_is_answered_in_its_own_way() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Es256])?)?;
    house(&idp, &json!({})).http2_service("auth").run(|mesh| {
        passes(mesh, Key::Es256)?;
        idp.serve_slowly(&key_set(&[Key::Es256])?, 300);
        let call =
            mesh.request("POST", "/api/auth/grpc").header("content-type", "application/grpc");
        let answer = call.http2().bearer(&token(Key::Rs256)?).send()?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(answer.header("grpc-status") == "16", "{answer:?}");
        Ok(())
    })
}
