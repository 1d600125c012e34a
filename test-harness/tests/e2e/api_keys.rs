//! API keys from the policy and from the sidecar.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, Response, policy};

/// `printf %s robot-secret-1 | sha256sum`, and so on.
const ROBOT: &str = "robot-secret-1";
const ROBOT_SHA: &str = "7456216aa87fc24218cbd562c12c7ba657459d45adf45d3a2ae0624942cdc03c";
const OLD: &str = "old-secret-1";
const OLD_SHA: &str = "7f386d013d955d1a98a8ea559127eb0cc8d985740955d7f9b84c7004aa43e5d0";
const NEXT: &str = "next-secret-1";
const NEXT_SHA: &str = "12bdfd4f7d8e3522aa34db9e571e5ba7afe2d4c677f2fc065ad385b78a6b3060";
const HOME: &str = "home-secret-1";
const HOME_SHA: &str = "bc1462835103583f76e6ac19abe495bc57bf955954546867782366836bbd3e53";

/// Keys in two places, beside tokens, and one rule.
fn policy() -> Value {
    let mut authentication = policy::hs256();
    authentication["api_keys"] = json!({
        "locations": [{ "header": "x-api-key" }, { "query": "api_key" }],
        "keys": [
            { "id": "robot", "sha256": ROBOT_SHA, "permissions": ["samples:*:read"] },
            { "id": "old", "sha256": OLD_SHA, "expires": "2020-01-01T00:00:00Z" },
            { "id": "next", "sha256": NEXT_SHA, "expires": "2100-01-01T00:00:00Z" },
            { "id": "home", "sha256": HOME_SHA, "cidrs": ["198.51.100.0/24", "2001:db8::/32"] }
        ],
        "forward": { "key": false, "id": "x-key-id" }
    });
    policy::with(&json!({
        "authentication": authentication,
        "authorization": { "rules": [{ "path": "/api/samples/**", "require": ["samples:7:read"] }] }
    }))
}

fn with_key(mesh: &Mesh, path: &str, key: &str) -> Result<Response> {
    mesh.get(path).header("x-api-key", key).send()
}

/// Refused, in the same words whatever the reason.
fn refused(answer: Response) -> Result<()> {
    let answer = answer.expect_refusal(401, "api-key-invalid")?;
    let text = answer.text();
    for word in ["expire", "cidr", "address", "unknown", "revoked"] {
        assert!(!text.to_lowercase().contains(word), "the answer says why: {text}");
    }
    Ok(())
}

#[test]
fn a_key_of_the_policy_lets_in_as_far_as_its_permissions_go() -> Result<()> {
    Mesh::with(policy()).run(|mesh| {
        with_key(mesh, "/api/samples/7", ROBOT)?.expect(200)?;
        with_key(mesh, "/api/samples/7", NEXT)?.expect_refusal(403, "permission-denied")?;
        with_key(mesh, "/api/auth/x", NEXT)?.expect(200)?;
        refused(with_key(mesh, "/api/auth/x", OLD)?)?;
        let labels = [("method", "api_key"), ("outcome", "accepted")];
        mesh.until_metric("gateway_authentication_total", &labels, 3)?;
        let labels = [("method", "api_key"), ("outcome", "api-key-invalid")];
        mesh.until_metric("gateway_authentication_total", &labels, 1)
    })
}

#[test]
fn a_wrong_key_is_refused_and_never_told_why() -> Result<()> {
    let long = "x".repeat(8000);
    Mesh::with(policy()).run(|mesh| {
        let wrong = ["", "robot", ROBOT_SHA, "robot-secret-2", "robot-secret-1 ", "Robot-secret-1"];
        for key in wrong.into_iter().chain([long.as_str()]) {
            let answer = with_key(mesh, "/api/auth/x", key)?;
            // An empty one is none; blanks around a header's value are not part of it.
            match key {
                "" => answer.expect(401).map(|_| ())?,
                "robot-secret-1 " => answer.expect(200).map(|_| ())?,
                _ => refused(answer).with_context(|| key.to_owned())?,
            }
        }
        Ok(())
    })
}

#[test]
fn a_key_is_good_only_from_its_addresses() -> Result<()> {
    Mesh::with(policy()).behind_proxy().run(|mesh| {
        let from = |address: &str| {
            let request = mesh.get("/api/auth/x").header("x-api-key", HOME);
            request.header("x-forwarded-for", address).send()
        };
        from("198.51.100.7")?.expect(200)?;
        from("2001:db8::7")?.expect(200)?;
        refused(from("203.0.113.7")?)?;
        refused(from("2001:db9::7")?)?;
        // What the trusted proxy added counts, not what the client wrote before it.
        refused(from("198.51.100.7, 203.0.113.7")?)
    })
}

#[test]
fn a_key_goes_no_further_and_its_name_does() -> Result<()> {
    Mesh::with(policy()).run(|mesh| {
        with_key(mesh, "/api/auth/x?q=1", ROBOT)?.expect(200)?;
        let target = format!("/api/auth/x?q=1&api_key={ROBOT}&r=2");
        mesh.get(&target).header("x-key-id", "root").send()?.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        assert_eq!(seen[0].header("x-api-key"), "");
        assert_eq!(seen[0].target, "/api/auth/x?q=1");
        assert_eq!(seen[1].target, "/api/auth/x?q=1&r=2");
        for request in seen {
            assert_eq!(request.header("x-key-id"), "robot");
            assert!(!format!("{request:?}").contains(ROBOT), "{request:?}");
        }
        Ok(())
    })
}

#[test]
fn a_key_is_forwarded_where_the_policy_says_so_but_never_in_the_query() -> Result<()> {
    let mut policy = policy();
    policy["authentication"]["api_keys"]["forward"] = json!({ "key": true });
    Mesh::with(policy).run(|mesh| {
        with_key(mesh, "/api/auth/x", ROBOT)?.expect(200)?;
        mesh.get(&format!("/api/auth/x?api_key={ROBOT}")).send()?.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        assert_eq!(seen[0].header("x-api-key"), ROBOT);
        assert!(!seen[1].target.contains(ROBOT), "{}", seen[1].target);
        Ok(())
    })
}

#[test]
fn two_credentials_in_one_request_are_refused() -> Result<()> {
    Mesh::with(policy()).run(|mesh| {
        let token = mesh.token("anna")?;
        let requests = [
            mesh.get("/api/auth/x").bearer(&token).header("x-api-key", ROBOT),
            mesh.get(&format!("/api/auth/x?api_key={ROBOT}")).bearer(&token),
            mesh.get("/api/auth/x").header("x-api-key", ROBOT).header("x-api-key", NEXT),
            mesh.get(&format!("/api/auth/x?api_key={NEXT}")).header("x-api-key", ROBOT),
        ];
        let codes = ["token-malformed", "token-malformed", "api-key-invalid", "api-key-invalid"];
        for (request, code) in requests.into_iter().zip(codes) {
            let what = format!("{request:?}");
            request.send()?.expect_refusal(401, code).context(what)?;
        }
        assert_eq!(mesh.upstream("auth")?.count(), 0, "something got through");
        mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_limit_counts_by_key_and_no_user_has_a_keys_name() -> Result<()> {
    let mut policy = policy();
    policy["rate_limits"] = json!([{ "name": "each", "key": ["user"], "algorithm": "token_bucket",
        "requests": 1, "per": "1h", "burst": 2 }]);
    Mesh::with(policy).run(|mesh| {
        for _ in 0..2 {
            with_key(mesh, "/api/auth/x", ROBOT)?.expect(200)?;
        }
        with_key(mesh, "/api/auth/x", ROBOT)?.expect_refusal(429, "rate-limited")?;
        with_key(mesh, "/api/auth/x", NEXT)?.expect(200)?;
        mesh.get("/api/auth/x").bearer(&mesh.token("robot")?).send()?.expect(200)?;
        Ok(())
    })
}

/// Makes a key at the sidecar; its secret.
fn make(mesh: &mut Mesh, order: &Value) -> Result<String> {
    let answer = mesh.sidecar()?.post_json("/gateway/api-keys", order)?;
    anyhow::ensure!(answer.status / 100 == 2, "{}: {}", answer.status, answer.text());
    let secret = answer.json()["secret"].as_str().map(str::to_owned);
    secret.with_context(|| format!("no secret in {}", answer.text()))
}

#[test]
fn a_key_that_the_sidecar_makes_works_at_once_and_is_shown_once() -> Result<()> {
    Mesh::with(policy()).concurrency(4).run(|mesh| {
        let order = json!({ "id": "made", "permissions": ["samples:7:read"], "tier": "internal" });
        let key = make(mesh, &order)?;
        for _ in 0..16 {
            with_key(mesh, "/api/samples/7", &key)?.expect(200)?;
        }
        let list = mesh.sidecar()?.read("/gateway/api-keys")?.expect(200)?.text();
        assert!(list.contains("made"), "{list}");
        assert!(!list.contains(&key), "the secret is shown again: {list}");
        let again = mesh.sidecar()?.post_json("/gateway/api-keys", &order)?;
        again.expect(409)?;
        // It is kept, and known again wherever either side starts anew.
        mesh.restart_sidecar()?;
        with_key(mesh, "/api/samples/7", &key)?.expect(200)?;
        mesh.restart_envoy()?;
        until_true("the keys to be handed over", SOON, || {
            Ok(with_key(mesh, "/api/samples/7", &key)?.status == 200)
        })?;
        mesh.sidecar()?.kill9()?;
        with_key(mesh, "/api/samples/7", &key)?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_deleted_key_is_refused_at_once() -> Result<()> {
    Mesh::with(policy()).concurrency(4).run(|mesh| {
        let key = make(mesh, &json!({ "id": "short" }))?;
        with_key(mesh, "/api/auth/x", &key)?.expect(200)?;
        let gone = mesh.sidecar()?.delete("/gateway/api-keys/short")?;
        assert!(gone.status / 100 == 2, "{}: {}", gone.status, gone.text());
        for _ in 0..16 {
            refused(with_key(mesh, "/api/auth/x", &key)?)?;
        }
        mesh.sidecar()?.delete("/gateway/api-keys/short")?.expect(404)?;
        Ok(())
    })
}

#[test]
fn a_rotated_key_and_its_successor_both_work_for_a_while() -> Result<()> {
    Mesh::with(policy()).run(|mesh| {
        let old = make(mesh, &json!({ "id": "turn" }))?;
        let order = json!({ "overlap": "6s" });
        let begun = Instant::now();
        let turned = mesh.sidecar()?.post_json("/gateway/api-keys/turn/rotate", &order)?;
        let new = turned.json()["secret"].as_str().context("no secret")?.to_owned();
        assert_ne!(old, new);
        with_key(mesh, "/api/auth/x", &new)?.expect(200)?;
        let meanwhile = with_key(mesh, "/api/auth/x", &old)?;
        // Whole seconds are counted: of six, five are sure. A machine that took longer shows nothing.
        if begun.elapsed() < Duration::from_secs(5) {
            meanwhile.expect(200)?;
        }
        until_true("the old one to end", SOON, || {
            Ok(with_key(mesh, "/api/auth/x", &old)?.status == 401)
        })?;
        refused(with_key(mesh, "/api/auth/x", &old)?)?;
        with_key(mesh, "/api/auth/x", &new)?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_key_that_the_sidecar_makes_expires_and_keeps_to_its_addresses() -> Result<()> {
    Mesh::with(policy()).behind_proxy().run(|mesh| {
        let key = make(mesh, &json!({ "id": "away", "cidrs": ["198.51.100.0/24"] }))?;
        let from = |address: &str| {
            let request = mesh.get("/api/auth/x").header("x-api-key", &key);
            request.header("x-forwarded-for", address).send()
        };
        from("198.51.100.7")?.expect(200)?;
        refused(from("203.0.113.7")?)?;
        let past = json!({ "id": "past", "expires": "2020-01-01T00:00:00Z" });
        let answer = mesh.sidecar()?.post_json("/gateway/api-keys", &past)?;
        assert!(matches!(answer.status, 400 | 422), "{}: {}", answer.status, answer.text());
        Ok(())
    })
}
