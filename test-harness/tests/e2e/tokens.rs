//! Tokens of an independent issuer, good and bad, by each algorithm.

use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;
use test_harness::token::{Key, Token, jwks};
use test_harness::{Mesh, policy};

const HOUR: Duration = Duration::from_secs(3600);

fn secret() -> Key {
    Key::Hs256(policy::JWT_SECRET.into())
}

/// HS256 from the demo's issuer; RS256 and ES256 from another one with a key set.
fn two_issuers() -> Result<Value> {
    let mut authentication = policy::hs256();
    let providers = authentication["jwt"]["providers"].as_array_mut().unwrap();
    providers[0]["forward"] = json!({ "token": false, "claims": { "sub": "x-user-id" } });
    providers.push(json!({
        "name": "idp",
        "issuer": "https://idp.example",
        "audiences": ["tracseq-api"],
        "algorithms": ["RS256", "ES256"],
        "keys": { "jwks_inline": jwks()? },
        "forward": { "token": true }
    }));
    Ok(policy::with(&json!({ "authentication": authentication })))
}

fn idp(key: Key) -> Token {
    Token::new(key, "anna").claim("iss", "https://idp.example")
}

#[test]
fn good_tokens_pass_whatever_their_algorithm() -> Result<()> {
    Mesh::with(two_issuers()?).run(|mesh| {
        for token in [Token::new(secret(), "anna"), idp(Key::Rs256), idp(Key::Es256)] {
            let token = token.sign()?;
            // Twice: verified, and then known.
            for _ in 0..2 {
                mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
            }
        }
        let labels = [("method", "jwt"), ("outcome", "accepted")];
        mesh.until_metric("gateway_authentication_total", &labels, 6)
    })
}

#[test]
fn bad_tokens_are_refused_each_with_its_reason() -> Result<()> {
    let forged = {
        let good = idp(Key::Es256).sign()?;
        let (rest, _) = good.rsplit_once('.').unwrap();
        format!("{rest}.{}", "A".repeat(86))
    };
    let cases: Vec<(&str, String, &str)> = vec![
        ("no token at all", "nonsense".to_owned(), "token-malformed"),
        ("expired", Token::new(secret(), "a").expired_since(HOUR).sign()?, "token-expired"),
        ("not yet", Token::new(secret(), "a").valid_in(HOUR).sign()?, "token-not-yet-valid"),
        ("wrong secret", Token::new(Key::Hs256(b"x".repeat(32)), "a").sign()?, "token-untrusted"),
        ("other audience", Token::new(secret(), "a").claim("aud", "x").sign()?, "token-untrusted"),
        ("unknown issuer", Token::new(secret(), "a").claim("iss", "x").sign()?, "token-untrusted"),
        ("a stranger's key", idp(Key::Stranger).sign()?, "token-untrusted"),
        ("forged signature", forged, "token-untrusted"),
        // The public key of an RSA provider must never become an HMAC secret.
        ("HMAC for the RSA issuer", idp(secret()).sign()?, "token-untrusted"),
        ("no expiry", Token::new(secret(), "a").without("exp").sign()?, "token-untrusted"),
    ];
    Mesh::with(two_issuers()?).run(|mesh| {
        mesh.get("/api/auth/x").send()?.expect_refusal(401, "credentials-missing")?;
        for (what, token, code) in cases {
            let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
            let answer = answer.expect_refusal(401, code).map_err(|e| e.context(what))?;
            let says = answer.header("www-authenticate").to_owned();
            assert!(says.contains("invalid_token"), "{what}: {says}");
            assert!(!answer.text().contains(&token), "{what}: the answer shows the token");
        }
        assert_eq!(mesh.upstream("auth")?.count(), 0, "something got through");
        mesh.get("/health").send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn the_service_sees_who_it_is_and_nobody_can_pretend() -> Result<()> {
    Mesh::with(two_issuers()?).run(|mesh| {
        let token = mesh.token("anna")?;
        mesh.get("/api/auth/x").bearer(&token).header("x-user-id", "root").send()?.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        assert_eq!(seen[0].header("x-user-id"), "anna");
        assert_eq!(seen[0].header("authorization"), "", "the token stays at the gateway");
        // The other issuer forwards the token and claims nothing; a header from outside still goes.
        let other = idp(Key::Rs256).sign()?;
        mesh.get("/api/auth/x").bearer(&other).header("x-user-id", "root").send()?.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        assert_eq!(seen[1].header("x-user-id"), "");
        assert_eq!(seen[1].header("authorization"), format!("Bearer {other}"));
        Ok(())
    })
}
