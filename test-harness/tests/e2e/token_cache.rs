//! Verified tokens are remembered, and forgotten in time.

use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;
use test_harness::issuer::{self, Issuer};
use test_harness::mesh::SOON;
use test_harness::token::{Key, Token, key_set, now};
use test_harness::wait::until_true;
use test_harness::{Mesh, policy};

fn secret() -> Key {
    Key::Hs256(policy::JWT_SECRET.into())
}

fn cached(cache: &Value) -> Value {
    let mut authentication = policy::hs256();
    authentication["jwt"]["cache"] = cache.clone();
    authentication["jwt"]["clock_skew"] = json!("0s");
    policy::with(&json!({ "authentication": authentication, "revocation": {} }))
}

fn results(mesh: &mut Mesh, hits: u64, misses: u64) -> Result<()> {
    mesh.until_metric("gateway_token_cache_total", &[("result", "hit")], hits)?;
    mesh.until_metric("gateway_token_cache_total", &[("result", "miss")], misses)
}

/// Asks until the token is remembered by the one worker there is.
fn known(mesh: &Mesh, token: &str) -> Result<()> {
    let hits = || mesh.metric("gateway_token_cache_total", &[("result", "hit")]);
    let before = hits()?;
    until_true("the token to be remembered", SOON, || {
        mesh.get("/api/auth/x").bearer(token).send()?.expect(200)?;
        Ok(hits()? > before)
    })
}

#[test]
fn a_token_is_verified_once_and_then_remembered() -> Result<()> {
    Mesh::with(cached(&json!({ "max_entries": 2 }))).concurrency(1).run(|mesh| {
        let tokens = [mesh.token("a")?, mesh.token("b")?, mesh.token("c")?];
        let ask = |mesh: &Mesh, number: usize| {
            mesh.get("/api/auth/x").bearer(&tokens[number]).send()?.expect(200).map(|_| ())
        };
        for number in [0, 0, 1, 0, 1] {
            ask(mesh, number)?;
        }
        results(mesh, 3, 2)?;
        // There is room for two: the one not used for longest goes.
        ask(mesh, 2)?;
        ask(mesh, 1)?;
        results(mesh, 4, 3)?;
        ask(mesh, 0)?;
        results(mesh, 4, 4)
    })
}

#[test]
fn nothing_is_remembered_where_the_policy_says_so() -> Result<()> {
    Mesh::with(cached(&json!({ "max_entries": 0 }))).concurrency(1).run(|mesh| {
        let token = mesh.token("a")?;
        for _ in 0..3 {
            mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
        }
        assert_eq!(mesh.metric("gateway_token_cache_total", &[("result", "hit")])?, 0);
        Ok(())
    })
}

#[test]
fn a_refusal_is_not_remembered() -> Result<()> {
    Mesh::with(cached(&json!({}))).concurrency(1).run(|mesh| {
        let token = Token::new(secret(), "a").valid_in(Duration::from_secs(2)).sign()?;
        let early = mesh.get("/api/auth/x").bearer(&token).send()?;
        early.expect_refusal(401, "token-not-yet-valid")?;
        until_true("the token to be valid", SOON, || {
            Ok(mesh.get("/api/auth/x").bearer(&token).send()?.status == 200)
        })
    })
}

#[test]
fn a_remembered_token_dies_with_its_expiry() -> Result<()> {
    Mesh::with(cached(&json!({ "ttl": "1h" }))).concurrency(1).run(|mesh| {
        let end = now() + 4;
        let token = Token::new(secret(), "a").claim("exp", end).sign()?;
        known(mesh, &token)?;
        until_true("the token to expire", SOON, || {
            let before = now();
            let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
            if answer.status == 200 {
                assert!(before < end, "accepted after its expiry");
                return Ok(false);
            }
            assert!(now() >= end, "refused before its expiry");
            answer.expect_refusal(401, "token-expired").map(|_| true)
        })
    })
}

#[test]
fn a_remembered_token_dies_when_it_is_revoked() -> Result<()> {
    Mesh::with(cached(&json!({}))).concurrency(1).run(|mesh| {
        let token = Token::new(secret(), "a").claim("jti", "one").sign()?;
        let other = Token::new(secret(), "a").claim("jti", "other").sign()?;
        known(mesh, &token)?;
        known(mesh, &other)?;
        mesh.sidecar()?.post_json("/gateway/revocations", &json!({ "jti": "one" }))?.expect(200)?;
        let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
        answer.expect_refusal(401, "token-revoked")?;
        mesh.get("/api/auth/x").bearer(&other).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_remembered_token_dies_when_the_policy_no_longer_trusts_it() -> Result<()> {
    let mut policy = cached(&json!({}));
    Mesh::with(policy.clone()).concurrency(1).run(|mesh| {
        let token = mesh.token("a")?;
        known(mesh, &token)?;
        policy["authentication"]["jwt"]["providers"][0]["audiences"] = json!(["others"]);
        mesh.set_policy(&policy)?;
        until_true("the token to be refused", SOON, || {
            Ok(mesh.get("/api/auth/x").bearer(&token).send()?.status == 401)
        })?;
        let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
        answer.expect_refusal(401, "token-untrusted")?;
        Ok(())
    })
}

#[test]
fn a_remembered_token_dies_when_its_key_leaves_the_set() -> Result<()> {
    let idp = Issuer::start(&key_set(&[Key::Rs256])?)?;
    let keys = issuer::keys(&json!({ "cooldown": "1s" }));
    let policy = policy::with(&json!({ "authentication": { "jwt": { "providers": [{
        "name": "idp", "issuer": "tracseq-gateway", "audiences": ["tracseq-api"],
        "algorithms": ["RS256", "ES256"], "keys": keys
    }]}}}));
    Mesh::with(policy).cluster(issuer::CLUSTER, idp.address()).concurrency(1).run(|mesh| {
        let old = Token::new(Key::Rs256, "a").sign()?;
        let new = Token::new(Key::Es256, "a").sign()?;
        known(mesh, &old)?;
        idp.serve(&key_set(&[Key::Es256])?);
        until_true("the new key to be known", SOON, || {
            Ok(mesh.get("/api/auth/x").bearer(&new).send()?.status == 200)
        })?;
        let answer = mesh.get("/api/auth/x").bearer(&old).send()?;
        answer.expect_refusal(401, "token-untrusted")?;
        Ok(())
    })
}
