//! Tokens that were revoked are refused: at once, everywhere, and after everything starts anew.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_harness::mesh::SOON;
use test_harness::token::{Key, Token, now};
use test_harness::wait::until_true;
use test_harness::{Mesh, Request, policy};

/// New connections, each to any of four workers: the chance that one worker gets none is below
/// one in a hundred thousand.
const CONNECTIONS: usize = 40;
/// The promise: in force on every worker this soon after the 200.
const IN_FORCE: Duration = Duration::from_secs(1);

fn policy(revocation: &Value) -> Value {
    let mut authentication = policy::hs256();
    let other = json!({
        "name": "other", "issuer": "https://other.example", "audiences": ["tracseq-api"],
        "algorithms": ["ES256"], "keys": Key::Es256.trusted().unwrap()
    });
    authentication["jwt"]["providers"].as_array_mut().unwrap().push(other);
    policy::with(&json!({ "authentication": authentication, "revocation": revocation }))
}

fn token(subject: &str) -> Token {
    Token::new(Key::Hs256(policy::JWT_SECRET.into()), subject)
}

fn others(subject: &str) -> Token {
    Token::new(Key::Es256, subject).claim("iss", "https://other.example")
}

/// Revokes, and is answered 200: in force. Gives the id.
fn revoke(mesh: &mut Mesh, order: &Value) -> Result<String> {
    let answer = mesh.sidecar()?.post_json("/gateway/revocations", order)?.expect(200)?;
    let id = answer.json()["id"].as_str().map(str::to_owned);
    id.with_context(|| format!("no id in {}", answer.text()))
}

/// On every worker.
fn everywhere(mesh: &Mesh, token: &str, code: Option<&str>) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let answer = mesh.get("/api/auth/x").bearer(token).send()?;
        match code {
            None => answer.expect(200).map(|_| ())?,
            Some(code) => answer.expect_refusal(401, code).map(|_| ())?,
        }
    }
    Ok(())
}

const REVOKED: Option<&str> = Some("token-revoked");

#[test]
fn a_token_is_refused_by_its_id_once_the_answer_is_there() -> Result<()> {
    Mesh::with(policy(&json!({}))).concurrency(4).run(|mesh| {
        let gone = token("anna").claim("jti", "j-1").sign()?;
        let stays = token("anna").claim("jti", "j-2").sign()?;
        let nameless = token("anna").sign()?;
        let elsewhere = others("anna").claim("jti", "j-1").sign()?;
        for token in [&gone, &stays, &nameless, &elsewhere] {
            everywhere(mesh, token, None)?;
        }
        let order = json!({ "jti": "j-1", "issuer": "tracseq-gateway", "expires": now() + 3600 });
        let id = revoke(mesh, &order)?;
        everywhere(mesh, &gone, REVOKED)?;
        for token in [&stays, &nameless, &elsewhere] {
            everywhere(mesh, token, None)?;
        }
        let answer = mesh.get("/api/auth/x").bearer(&gone).send()?;
        let says = answer.header("www-authenticate");
        assert!(says.contains("invalid_token"), "{says}");
        // Without an issuer it is that id of every issuer.
        revoke(mesh, &json!({ "jti": "j-1" }))?;
        everywhere(mesh, &elsewhere, REVOKED)?;
        let list = mesh.sidecar()?.read("/gateway/revocations")?.expect(200)?.text();
        assert!(list.contains(&id) && list.contains("j-1"), "{list}");
        Ok(())
    })
}

#[test]
fn a_users_older_tokens_are_refused_and_younger_ones_are_not() -> Result<()> {
    Mesh::with(policy(&json!({}))).concurrency(4).run(|mesh| {
        let at = now();
        let issued = |subject: &str, iat: u64| token(subject).claim("iat", iat).sign();
        let (older, younger) = (issued("anna", at - 61)?, issued("anna", at - 60)?);
        let bert = issued("bert", at - 61)?;
        let timeless = token("anna").without("iat").sign()?;
        let elsewhere = others("anna").claim("iat", at - 61).sign()?;
        for token in [&older, &younger, &bert, &timeless, &elsewhere] {
            everywhere(mesh, token, None)?;
        }
        let order = json!({ "sub": "anna", "issued_before": at - 60, "issuer": "tracseq-gateway" });
        revoke(mesh, &order)?;
        everywhere(mesh, &older, REVOKED)?;
        everywhere(mesh, &timeless, REVOKED)?;
        for token in [&younger, &bert, &elsewhere] {
            everywhere(mesh, token, None)?;
        }
        revoke(mesh, &json!({ "sub": "anna", "issued_before": at - 60 }))?;
        everywhere(mesh, &elsewhere, REVOKED)
    })
}

#[test]
fn an_issuers_older_tokens_are_refused_and_nobody_elses() -> Result<()> {
    Mesh::with(policy(&json!({}))).concurrency(4).run(|mesh| {
        let at = now();
        let older = others("anna").claim("iat", at - 61).sign()?;
        let younger = others("anna").claim("iat", at - 60).sign()?;
        let ours = token("anna").claim("iat", at - 61).sign()?;
        for token in [&older, &younger, &ours] {
            everywhere(mesh, token, None)?;
        }
        revoke(mesh, &json!({ "issuer": "https://other.example", "issued_before": at - 60 }))?;
        everywhere(mesh, &older, REVOKED)?;
        everywhere(mesh, &younger, None)?;
        everywhere(mesh, &ours, None)
    })
}

/// Asks with a token on new connections until told to stop; when the last request that was accepted
/// had begun, in microseconds since `start`.
fn ask_on(to: std::net::SocketAddr, token: String, start: Instant) -> (Arc<AtomicBool>, Asking) {
    let stop = Arc::new(AtomicBool::new(false));
    let asking = (0..4).map(|_| {
        let (stop, token) = (Arc::clone(&stop), token.clone());
        std::thread::spawn(move || -> Result<(u64, u64)> {
            let (mut last, mut count) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let began = u64::try_from(start.elapsed().as_micros())?;
                let answer = Request::new(to, "GET", "/api/auth/x").bearer(&token).send()?;
                count += 1;
                match answer.status {
                    200 => last = began,
                    401 => {}
                    other => anyhow::bail!("status {other}"),
                }
            }
            Ok((last, count))
        })
    });
    (Arc::clone(&stop), asking.collect())
}

type Asking = Vec<std::thread::JoinHandle<Result<(u64, u64)>>>;

#[test]
fn no_worker_accepts_a_token_that_was_revoked_a_second_ago() -> Result<()> {
    Mesh::with(policy(&json!({}))).concurrency(4).run(|mesh| {
        let mut worst = Duration::ZERO;
        for round in 0..5 {
            let jti = format!("round-{round}");
            let gone = token("anna").claim("jti", jti.as_str()).sign()?;
            everywhere(mesh, &gone, None)?;
            let start = Instant::now();
            let (stop, asking) = ask_on(mesh.gateway(), gone.clone(), start);
            let ordered = Instant::now();
            revoke(mesh, &json!({ "jti": jti }))?;
            let (took, answered) = (ordered.elapsed(), start.elapsed());
            everywhere(mesh, &gone, REVOKED)?;
            let over = Instant::now() + IN_FORCE;
            until_true("a second to pass", SOON, || Ok(Instant::now() > over))?;
            stop.store(true, Ordering::Relaxed);
            let mut asked = 0;
            for thread in asking {
                let (last, count) = thread.join().ok().context("a thread failed")??;
                worst = worst.max(Duration::from_micros(last).saturating_sub(answered));
                asked += count;
            }
            println!("round {round}: answered after {took:?}, {asked} requests meanwhile");
        }
        println!("the last accepted request began {worst:?} after the answer, at worst");
        ensure!(worst < IN_FORCE, "accepted {worst:?} after the answer");
        Ok(())
    })
}

#[test]
fn a_revocation_that_is_taken_back_gives_the_token_back() -> Result<()> {
    Mesh::with(policy(&json!({}))).concurrency(4).run(|mesh| {
        let token = token("anna").claim("jti", "back").sign()?;
        everywhere(mesh, &token, None)?;
        let id = revoke(mesh, &json!({ "jti": "back" }))?;
        everywhere(mesh, &token, REVOKED)?;
        let path = format!("/gateway/revocations/{id}");
        mesh.sidecar()?.delete(&path)?.expect(200)?;
        everywhere(mesh, &token, None)?;
        mesh.sidecar()?.delete(&path)?.expect(404)?;
        Ok(())
    })
}

#[test]
fn a_revocation_outlives_the_sidecar_and_its_restart() -> Result<()> {
    Mesh::with(policy(&json!({}))).concurrency(4).run(|mesh| {
        let (gone, good) = (token("a").claim("jti", "gone").sign()?, token("b").sign()?);
        revoke(mesh, &json!({ "jti": "gone" }))?;
        mesh.sidecar()?.kill9()?;
        everywhere(mesh, &gone, REVOKED)?;
        everywhere(mesh, &good, None)?;
        mesh.until_metric("gateway_sidecar_connected", &[], 0)?;
        everywhere(mesh, &gone, REVOKED)?;
        everywhere(mesh, &good, None)?;
        mesh.restart_sidecar()?;
        everywhere(mesh, &gone, REVOKED)?;
        let list = mesh.sidecar()?.read("/gateway/revocations")?.expect(200)?.text();
        assert!(list.contains("gone"), "{list}");
        // And goes on: a change after the restart arrives as well.
        let later = token("a").claim("jti", "later").sign()?;
        revoke(mesh, &json!({ "jti": "later" }))?;
        everywhere(mesh, &later, REVOKED)?;
        everywhere(mesh, &good, None)
    })
}

/// How an Envoy that starts anew meets a revoked token and a good one: first without a sidecar,
/// then with it.
fn seeded_anew(on_unseeded: &str) -> Result<()> {
    let policy = policy(&json!({ "on_unseeded": on_unseeded, "seed_deadline": "5s" }));
    Mesh::with(policy).concurrency(2).run(|mesh| {
        let (gone, good) = (token("a").claim("jti", "gone").sign()?, token("b").sign()?);
        revoke(mesh, &json!({ "jti": "gone" }))?;
        mesh.sidecar()?.kill9()?;
        mesh.restart_envoy()?;
        for token in [&gone, &good] {
            let answer = mesh.get("/api/auth/x").bearer(token).send()?;
            match on_unseeded {
                "refuse" => answer.expect_refusal(503, "state-unavailable")?,
                _ => answer.expect(200)?,
            };
        }
        mesh.sidecar()?.restart()?;
        mesh.until_seeded(SOON)?;
        everywhere(mesh, &gone, REVOKED)?;
        everywhere(mesh, &good, None)
    })
}

#[test]
fn a_new_envoy_refuses_tokens_until_it_knows_which_are_revoked() -> Result<()> {
    seeded_anew("refuse")
}

#[test]
fn a_new_envoy_lets_tokens_pass_until_then_where_the_policy_says_so() -> Result<()> {
    seeded_anew("allow")
}

#[test]
fn a_new_envoy_knows_within_the_deadline_which_tokens_are_revoked() -> Result<()> {
    Mesh::with(policy(&json!({ "seed_deadline": "5s" }))).concurrency(4).run(|mesh| {
        let (gone, good) = (token("a").claim("jti", "gone").sign()?, token("b").sign()?);
        revoke(mesh, &json!({ "jti": "gone" }))?;
        mesh.restart_envoy()?;
        let start = Instant::now();
        let waited = AtomicU64::new(0);
        until_true("the good token to pass", SOON, || {
            let answer = mesh.get("/api/auth/x").bearer(&gone).send()?;
            ensure!(matches!(answer.status, 401 | 503), "the revoked one got {}", answer.status);
            waited.fetch_add(1, Ordering::Relaxed);
            Ok(mesh.get("/api/auth/x").bearer(&good).send()?.status == 200)
        })?;
        let took = start.elapsed();
        println!("seeded {took:?} after Envoy served again ({waited:?} looks)");
        everywhere(mesh, &gone, REVOKED)?;
        everywhere(mesh, &good, None)?;
        ensure!(took < Duration::from_secs(5), "seeded only after {took:?}");
        Ok(())
    })
}

#[test]
fn one_revocation_too_many_is_refused_and_forgets_none() -> Result<()> {
    Mesh::with(policy(&json!({ "max": 3 }))).run(|mesh| {
        let mut ids = Vec::new();
        for jti in ["a", "b", "c"] {
            ids.push(revoke(mesh, &json!({ "jti": jti }))?);
        }
        let more = json!({ "jti": "d" });
        mesh.sidecar()?.post_json("/gateway/revocations", &more)?.expect(409)?;
        // The same once more is no more.
        revoke(mesh, &json!({ "jti": "b" }))?;
        for jti in ["a", "b", "c"] {
            everywhere(mesh, &token("x").claim("jti", jti).sign()?, REVOKED)?;
        }
        everywhere(mesh, &token("x").claim("jti", "d").sign()?, None)?;
        mesh.sidecar()?.delete(&format!("/gateway/revocations/{}", ids[0]))?.expect(200)?;
        revoke(mesh, &more)?;
        everywhere(mesh, &token("x").claim("jti", "d").sign()?, REVOKED)
    })
}

#[test]
fn a_revocation_does_not_leave_before_the_skew_lets_its_token_go() -> Result<()> {
    Mesh::with(policy(&json!({}))).run(|mesh| {
        let end = now() + 2;
        let gone = token("anna").claim("jti", "short").claim("exp", end).sign()?;
        let other = token("anna").claim("jti", "other").claim("exp", end).sign()?;
        revoke(mesh, &json!({ "jti": "short", "expires": end }))?;
        until_true("its end", SOON, || Ok(now() > end + 1))?;
        everywhere(mesh, &other, None).context("the skew is 30 s")?;
        everywhere(mesh, &gone, REVOKED)
    })
}

#[test]
fn a_bad_order_names_its_field_and_changes_nothing() -> Result<()> {
    Mesh::with(policy(&json!({}))).run(|mesh| {
        for (order, field) in [
            (json!({}), "jti"),
            (json!({ "jti": 7 }), "jti"),
            (json!({ "jti": "" }), "jti"),
            (json!({ "jti": "a", "sub": "b" }), "sub"),
            (json!({ "jti": "a", "expires": "tomorrow" }), "expires"),
            (json!({ "jti": "a", "nonsense": 1 }), "nonsense"),
            (json!({ "sub": "a", "issued_before": -1 }), "issued_before"),
        ] {
            let answer = mesh.sidecar()?.post_json("/gateway/revocations", &order)?;
            ensure!(matches!(answer.status, 400 | 422), "{order}: {}", answer.status);
            ensure!(answer.text().contains(field), "{order}: {}", answer.text());
        }
        let request = Request::new(mesh.sidecar()?.address(), "POST", "/gateway/revocations");
        request.json(&json!({ "jti": "a" })).send()?.expect(401)?;
        everywhere(mesh, &token("x").claim("jti", "a").sign()?, None)
    })
}
