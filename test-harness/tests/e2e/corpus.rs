//! The hostile tokens that the token crate is tested with, once more through a real Envoy: each must
//! get the same verdict here. Those whose verdict depends on the moment are left to that crate; the
//! edges of a token's life are tried here with tokens of this moment.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use test_harness::mesh::SOON;
use test_harness::raw::Raw;
use test_harness::token::{Key, Token, now};
use test_harness::wait::{until, until_true};
use test_harness::{Mesh, policy};

fn corpus() -> Result<Value> {
    let root = test_harness::artefacts::workspace();
    let text = std::fs::read_to_string(root.join("src/token/tests/corpus.json"))?;
    Ok(serde_json::from_str(&text)?)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let digit = DIGITS.iter().position(|one| *one == letter)?;
        (bits, count) = (bits << 6 | u32::try_from(digit).ok()?, count + 6);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

/// A setup as a policy. What cannot stand in one is put into a file.
fn policy(name: &str, setup: &Value, files: &Path) -> Result<Value> {
    let mut providers = Vec::new();
    for (index, made) in setup["providers"].as_array().context("providers")?.iter().enumerate() {
        let mut provider = Map::new();
        provider.insert("name".to_owned(), json!(format!("p{index}")));
        for key in ["issuer", "algorithms", "require_expiry", "require_subject", "subject_claim"] {
            if let Some(value) = made.get(key).filter(|value| !value.is_null()) {
                provider.insert(key.to_owned(), value.clone());
            }
        }
        if made["audiences"].as_array().is_some_and(|list| !list.is_empty()) {
            provider.insert("audiences".to_owned(), made["audiences"].clone());
        }
        if let Some(typ) = made.get("typ") {
            provider.insert("typ".to_owned(), typ.clone());
        }
        if let Some(seconds) = made["max_lifetime"].as_u64() {
            provider.insert("max_lifetime".to_owned(), json!(format!("{seconds}s")));
        }
        let keys = match made["keys"]["secret"].as_str() {
            None => json!({ "jwks_inline": made["keys"]["jwks"] }),
            Some(secret) => match String::from_utf8(decode(secret).context("a secret")?) {
                Ok(text) => json!({ "secret": { "inline_secret": text } }),
                Err(error) => {
                    let file = files.join(format!("{name}-{index}"));
                    std::fs::write(&file, error.into_bytes())?;
                    json!({ "secret": { "file": file } })
                }
            },
        };
        provider.insert("keys".to_owned(), keys);
        providers.push(Value::Object(provider));
    }
    let skew = setup["skew"].as_u64().unwrap_or(0);
    let jwt = json!({ "clock_skew": format!("{skew}s"), "providers": providers });
    Ok(policy::with(&json!({
        "authentication": { "jwt": jwt },
        // By this header policies can be told apart.
        "security_headers": { "override": { "Content-Security-Policy": format!("sandbox {name}") } }
    })))
}

/// A token as it is sent, and the code that it is refused with; `None` means accepted.
#[derive(Debug)]
struct Case {
    name: String,
    token: Vec<u8>,
    want: Option<&'static str>,
}

fn case(case: &Value) -> Result<Case> {
    let words = |key: &str| case[key].as_str().unwrap_or_default();
    let name = format!("{}: {}: {}", words("setup"), words("group"), words("name"));
    let want = match words("want") {
        "accepted" => None,
        "malformed" => Some("token-malformed"),
        "untrusted" => Some("token-untrusted"),
        "expired" => Some("token-expired"),
        "not-yet-valid" => Some("token-not-yet-valid"),
        other => anyhow::bail!("{name}: unknown verdict {other}"),
    };
    let token = match case["token"].as_str() {
        Some(token) => token.as_bytes().to_vec(),
        None => {
            let digits = words("hex").as_bytes().chunks(2);
            let bytes = digits.map(|two| Ok(u8::from_str_radix(str::from_utf8(two)?, 16)?));
            bytes.collect::<Result<_>>()?
        }
    };
    Ok(Case { name, token, want })
}

fn is_blank(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| b" \t\r\n".contains(byte))
}

/// What is different from what the case asks for.
fn complaint(mesh: &Mesh, case: &Case) -> Result<Option<String>> {
    // Blanks at the ends of a header's value are not part of it: without them the token may be good.
    if is_blank(case.token.first()) || is_blank(case.token.last()) {
        return Ok(None);
    }
    if case.token.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
        let mut head = b"GET /api/auth/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ".to_vec();
        head.extend_from_slice(&case.token);
        head.extend_from_slice(b"\r\n\r\n");
        let status = Raw::connect(mesh.gateway())?.send(head)?.answer()?.status();
        return Ok((status == 200).then(|| format!("{}: got 200", case.name)));
    }
    let value = [b"Bearer ", case.token.as_slice()].concat();
    // Keys from a file are handed over a moment after the policy.
    let answer = until("keys", SOON, || {
        let answer = mesh.get("/api/auth/x").header("authorization", &value).send()?;
        Ok((answer.status != 503).then_some(answer))
    })?;
    let body = answer.json();
    let code = body["code"].as_str();
    let status = if code.is_some() { 401 } else { 200 };
    let fits = case.want == code && answer.status == status;
    let got = code.unwrap_or("accepted");
    let says = || format!("{}: want {:?}, got {} {got}", case.name, case.want, answer.status);
    Ok((!fits).then(says))
}

#[test]
fn every_token_of_the_corpus_gets_its_verdict_from_the_gateway() -> Result<()> {
    let corpus = corpus()?;
    let files = tempfile::tempdir()?;
    let dir = files.path().canonicalize()?;
    let mut by_setup: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    for one in corpus["cases"].as_array().context("cases")? {
        if one["clock"] == "any" {
            by_setup.entry(one["setup"].as_str().context("setup")?).or_default().push(case(one)?);
        }
    }
    let total: usize = by_setup.values().map(Vec::len).sum();
    let good = by_setup.values().flatten().filter(|case| case.want.is_none()).count();
    println!("{total} tokens, {good} of them good");
    ensure!(total > 1500 && good > 200, "the corpus has shrunk to {total}, {good} of them good");
    Mesh::with(policy::base()).files(&dir).concurrency(1).run(|mesh| {
        let mut complaints = Vec::new();
        for (setup, cases) in &by_setup {
            mesh.set_policy(&policy(setup, &corpus["setups"][*setup], &dir)?)?;
            let wanted = format!("sandbox {setup}");
            until_true(&format!("the policy {setup}"), SOON, || {
                let answer = mesh.get("/api/auth/x").bearer("x.y.z").send()?;
                Ok(answer.header("content-security-policy") == wanted && answer.status == 401)
            })?;
            for case in cases {
                complaints.extend(complaint(mesh, case).with_context(|| case.name.clone())?);
            }
        }
        ensure!(complaints.is_empty(), "{} wrong:\n{}", complaints.len(), complaints.join("\n"));
        Ok(())
    })
}

/// Seconds from an edge of a token's life on which a verdict is sure, on a busy machine.
const NEAR: i64 = 5;

#[test]
fn the_edges_of_a_tokens_life_are_where_the_skew_puts_them() -> Result<()> {
    for skew in [0_i64, 30] {
        let mut authentication = policy::hs256();
        authentication["jwt"]["clock_skew"] = json!(format!("{skew}s"));
        authentication["jwt"]["providers"][0]["max_lifetime"] = json!("1h");
        let policy = policy::with(&json!({ "authentication": authentication }));
        Mesh::with(policy).run(|mesh| {
            let token = || Token::new(Key::Hs256(policy::JWT_SECRET.into()), "anna");
            let at = |offset: i64| now().saturating_add_signed(offset);
            let near = NEAR;
            let cases: Vec<(&str, Token, Option<&str>)> = vec![
                ("exp to come", token().claim("exp", at(near)), None),
                ("exp within the skew", token().claim("exp", at(near - skew)), None),
                ("exp beyond the skew", token().claim("exp", at(-skew)), Some("token-expired")),
                ("exp long gone", token().claim("exp", 1), Some("token-expired")),
                ("exp 0", token().claim("exp", 0), Some("token-expired")),
                ("nbf now", token().claim("nbf", at(0)), None),
                ("nbf within the skew", token().claim("nbf", at(skew - near.min(skew))), None),
                ("nbf beyond", token().claim("nbf", at(skew + near)), Some("token-not-yet-valid")),
                ("iat beyond", token().claim("iat", at(skew + near)), Some("token-not-yet-valid")),
                ("iat within the skew", token().claim("iat", at(skew - near.min(skew))), None),
                ("fraction", token().claim("exp", at(near) as f64 + 0.5), None),
                (
                    "fraction gone",
                    token().claim("exp", at(-skew) as f64 - 0.5),
                    Some("token-expired"),
                ),
                ("an hour", token().claim("iat", at(0)).claim("exp", at(3600)), None),
                (
                    "an hour and a second",
                    token().claim("iat", at(0)).claim("exp", at(3601)),
                    Some("token-untrusted"),
                ),
                ("milliseconds", token().claim("exp", at(600) * 1000), Some("token-untrusted")),
            ];
            for (what, token, code) in cases {
                let answer = mesh.get("/api/auth/x").bearer(&token.sign()?).send()?;
                let right = match code {
                    None => answer.expect(200),
                    Some(code) => answer.expect_refusal(401, code),
                };
                right.with_context(|| format!("{what} with a skew of {skew} s"))?;
            }
            // Alive until its very end, dead from then on.
            let end = now() + 3;
            let short = token().claim("exp", end).sign()?;
            let skew = u64::try_from(skew)?;
            until_true("its end", Duration::from_secs(60), || {
                let before = now();
                let answer = mesh.get("/api/auth/x").bearer(&short).send()?;
                match answer.status {
                    200 => ensure!(before < end + skew, "accepted after its end"),
                    _ => ensure!(now() >= end + skew, "refused before its end"),
                }
                Ok(answer.status == 401)
            })
        })?;
    }
    Ok(())
}
