//! Every algorithm, every place where a token may stand, and what becomes of it.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use test_harness::raw::Raw;
use test_harness::token::{Key, Token};
use test_harness::{Mesh, policy};

fn issuer(key: &Key) -> String {
    format!("https://{}.example", key.algorithm().to_lowercase())
}

/// One issuer for each algorithm, each with a key of its own.
fn twelve_issuers() -> Result<Value> {
    let provider = |key: &Key| -> Result<Value> {
        Ok(json!({
            "name": key.algorithm().to_lowercase(), "issuer": issuer(key),
            "audiences": ["tracseq-api"], "algorithms": [key.algorithm()], "keys": key.trusted()?
        }))
    };
    let providers: Vec<Value> = Key::all().iter().map(provider).collect::<Result<_>>()?;
    Ok(policy::with(&json!({ "authentication": { "jwt": { "providers": providers } } })))
}

#[test]
fn good_tokens_of_all_twelve_algorithms_pass_unknown_and_known() -> Result<()> {
    Mesh::with(twelve_issuers()?).concurrency(1).run(|mesh| {
        for key in Key::all() {
            let token = Token::new(key.clone(), "anna").claim("iss", issuer(&key)).sign()?;
            for time in ["first", "second"] {
                let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
                answer.expect(200).with_context(|| format!("{} {time}", key.algorithm()))?;
            }
        }
        mesh.until_metric("gateway_token_cache_total", &[("result", "miss")], 12)?;
        mesh.until_metric("gateway_token_cache_total", &[("result", "hit")], 12)
    })
}

#[test]
fn no_issuers_key_vouches_for_another_issuer() -> Result<()> {
    Mesh::with(twelve_issuers()?).run(|mesh| {
        let all = Key::all();
        for (key, next) in all.iter().zip(all.iter().cycle().skip(1)) {
            let token = Token::new(key.clone(), "anna").claim("iss", issuer(next)).sign()?;
            let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
            let what = format!("{} for {}", key.algorithm(), next.algorithm());
            answer.expect_refusal(401, "token-untrusted").context(what)?;
        }
        assert_eq!(mesh.upstream("auth")?.count(), 0, "something got through");
        Ok(())
    })
}

#[test]
fn a_signature_with_any_bit_changed_is_refused() -> Result<()> {
    Mesh::with(twelve_issuers()?).run(|mesh| {
        for key in Key::all() {
            let token = Token::new(key.clone(), "anna").claim("iss", issuer(&key)).sign()?;
            let (text, signature) = token.rsplit_once('.').context("no signature")?;
            // Not the last letter: some of its bits belong to nothing.
            for at in [0, signature.len() / 2, signature.len() - 2] {
                let mut letters = signature.as_bytes().to_vec();
                letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
                let changed = format!("{text}.{}", String::from_utf8(letters)?);
                let answer = mesh.get("/api/auth/x").bearer(&changed).send()?;
                let what = format!("{} at {at}", key.algorithm());
                answer.expect_refusal(401, "token-untrusted").context(what)?;
            }
        }
        assert_eq!(mesh.upstream("auth")?.count(), 0, "something got through");
        Ok(())
    })
}

/// One issuer whose tokens may stand in four places.
fn places(forward: &Value) -> Value {
    let mut authentication = policy::hs256();
    let provider = &mut authentication["jwt"]["providers"][0];
    provider["locations"] = json!([
        { "header": "authorization", "scheme": "Bearer" },
        { "header": "x-token" },
        { "cookie": "session" },
        { "query": "access_token" }
    ]);
    provider["forward"] = forward.clone();
    policy::with(&json!({ "authentication": authentication }))
}

#[test]
fn a_token_is_found_in_every_place_and_goes_no_further() -> Result<()> {
    Mesh::with(places(&json!({ "token": false }))).run(|mesh| {
        let token = mesh.token("anna")?;
        let bearer = format!("Bearer {token}");
        let cookies = format!("a=1; session={token}; b=2");
        let path = "/api/auth/x?q=1&r=2";
        mesh.get(path).header("authorization", &bearer).send()?.expect(200)?;
        mesh.get(path).header("authorization", format!("bEARER   {token}")).send()?.expect(200)?;
        mesh.get(path).header("x-token", &token).send()?.expect(200)?;
        mesh.get(path).header("cookie", &cookies).send()?.expect(200)?;
        let in_query = format!("/api/auth/x?q=1&access_token={token}&r=2");
        mesh.get(&in_query).send()?.expect(200)?;
        // The same one twice is one.
        mesh.get(path).bearer(&token).header("cookie", &cookies).send()?.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        assert_eq!(seen.len(), 6);
        for request in &seen {
            let all = format!("{request:?}");
            assert!(!all.contains(&token), "the service sees the token: {all}");
            assert_eq!(request.target, "/api/auth/x?q=1&r=2");
        }
        let kept: Vec<&str> = seen[3].header("cookie").split("; ").collect();
        assert_eq!(kept, ["a=1", "b=2"], "other cookies are nobody's business");
        Ok(())
    })
}

#[test]
fn a_token_is_forwarded_where_the_policy_says_so() -> Result<()> {
    Mesh::with(places(&json!({ "token": true }))).run(|mesh| {
        let token = mesh.token("anna")?;
        mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
        let cookie = format!("session={token}");
        mesh.get("/api/auth/x").header("cookie", &cookie).send()?.expect(200)?;
        let seen = mesh.upstream("auth")?.seen();
        assert_eq!(seen[0].header("authorization"), format!("Bearer {token}"));
        assert_eq!(seen[1].header("cookie"), cookie);
        Ok(())
    })
}

#[test]
fn two_different_tokens_are_refused_whatever_their_order() -> Result<()> {
    Mesh::with(places(&json!({ "token": false }))).run(|mesh| {
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        for (one, other) in [(anna.as_str(), bert.as_str()), (&bert, &anna), (&anna, "x")] {
            let bearer = || mesh.get("/api/auth/x").bearer(one);
            let in_query = format!("/api/auth/x?access_token={one}&access_token={other}");
            let beside = format!("/api/auth/x?access_token={other}");
            let requests = [
                bearer().header("cookie", format!("session={other}")),
                bearer().header("x-token", other),
                bearer().header("authorization", format!("Bearer {other}")),
                mesh.get(&beside).bearer(one),
                mesh.get(&in_query),
                mesh.get("/api/auth/x").header("cookie", format!("session={one}; session={other}")),
                mesh.get("/api/auth/x")
                    .header("cookie", format!("session={one}"))
                    .header("cookie", format!("session={other}")),
            ];
            for (number, request) in requests.into_iter().enumerate() {
                let answer = request.send()?;
                let what = format!("request {number}, {other} beside {one}");
                answer.expect_refusal(401, "token-malformed").context(what)?;
            }
        }
        assert_eq!(mesh.upstream("auth")?.count(), 0, "something got through");
        Ok(())
    })
}

#[test]
fn a_token_counts_only_in_a_place_that_its_own_issuer_names() -> Result<()> {
    let mut policy = places(&json!({ "token": false }));
    let providers = policy["authentication"]["jwt"]["providers"].as_array_mut().unwrap();
    providers.push(json!({
        "name": "strict", "issuer": "https://strict.example", "audiences": ["tracseq-api"],
        "algorithms": ["ES256"], "keys": Key::Es256.trusted()?
    }));
    Mesh::with(policy).run(|mesh| {
        let token = Token::new(Key::Es256, "anna").claim("iss", "https://strict.example").sign()?;
        mesh.get("/api/auth/x").bearer(&token).send()?.expect(200)?;
        let cookie = format!("session={token}");
        let answer = mesh.get("/api/auth/x").header("cookie", &cookie).send()?;
        answer.expect_refusal(401, "token-untrusted")?;
        let answer = mesh.get(&format!("/api/auth/x?access_token={token}")).send()?;
        answer.expect_refusal(401, "token-untrusted")?;
        Ok(())
    })
}

#[test]
fn a_clients_own_identity_headers_never_arrive_whatever_their_spelling() -> Result<()> {
    let claims = json!({ "sub": "x-user-id", "tenant": "x-tenant", "level": "x-level" });
    let mut policy = places(&json!({ "token": false, "claims": claims }));
    policy["authentication"]["public"] = json!(["/api/auth/open"]);
    Mesh::with(policy).run(|mesh| {
        let token = Token::new(Key::Hs256(policy::JWT_SECRET.into()), "anna");
        let token = token.claim("level", 3).claim("tenant", "lab\r\nx-admin: yes").sign()?;
        let lies = "X-User-Id: root\r\nx-user-id: admin\r\nx_user_id: root\r\nX-TENANT: t\r\n\
                    x_tenant: t\r\nx-level: 9\r\n";
        for path in ["/api/auth/x", "/api/auth/open"] {
            let mut raw = Raw::connect(mesh.gateway())?;
            let head = format!(
                "GET {path} HTTP/1.1\r\nhost: a\r\n{lies}authorization: Bearer {token}\r\n\r\n"
            );
            assert_eq!(raw.send(head)?.answer()?.status(), 200, "{path}");
        }
        let seen = mesh.upstream("auth")?.seen();
        let said = |request: usize, name: &str| -> Vec<&str> {
            let spelled = |n: &str| n.replace('_', "-").eq_ignore_ascii_case(name);
            let headers = seen[request].headers.iter();
            headers.filter(|(n, _)| spelled(n)).map(|(_, v)| v.as_str()).collect()
        };
        assert_eq!(said(0, "x-user-id"), ["anna"]);
        assert_eq!(said(0, "x-level"), ["3"]);
        assert!(said(0, "x-tenant").is_empty(), "a claim with a line break is no header");
        assert!(said(0, "x-admin").is_empty());
        for name in ["x-user-id", "x-tenant", "x-level"] {
            assert!(said(1, name).is_empty(), "{name} on a public path");
        }
        Ok(())
    })
}
