//! The hostile tokens that the token crate is tested with, once more through a real Envoy: each must
//! get the same verdict here.
//!
//! They were made for one moment, and Envoy's clock is another one. Where a shared secret signed a
//! token, its times are moved to now and it is signed again; any other token is judged with the times
//! that it has, and most of those have expired.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use test_harness::mesh::SOON;
use test_harness::raw::Raw;
use test_harness::token::{Key, Token, base64url, now};
use test_harness::wait::until_true;
use test_harness::{Mesh, policy};

/// Times closer to the moment than this are not moved: the test itself takes time.
const MARGIN: u64 = 60;
/// Setups that no policy can express: a clock skew of centuries, a secret that is not known.
const NO_POLICY: [&str; 2] = ["hs-skew-huge", "hs-unknown"];

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

/// What may become of a token, by its code; `None` means accepted.
type Verdicts = Vec<Option<&'static str>>;

/// A token as it is sent, and what may become of it.
#[derive(Debug)]
struct Case {
    name: String,
    token: Vec<u8>,
    verdicts: Verdicts,
}

/// The times in a payload, as far as it can be read.
fn times(token: &str) -> Map<String, Value> {
    let payload = token.split('.').nth(1).and_then(decode).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

/// Moves every time in a payload, and signs it again, where the token was signed with this secret.
fn moved(token: &str, secret: &[u8], from: u64, skew: u64) -> Result<Option<String>> {
    let Some((text, signature)) = token.rsplit_once('.') else { return Ok(None) };
    let Some((header, payload)) = text.split_once('.') else { return Ok(None) };
    let key = Key::Hs256(secret.to_vec());
    if key.sign(text.as_bytes())? != signature {
        return Ok(None);
    }
    let Some(payload) = decode(payload) else { return Ok(None) };
    let (mut out, mut digits) = (Vec::new(), Vec::new());
    for byte in payload.iter().copied().chain([b' ']) {
        if byte.is_ascii_digit() {
            digits.push(byte);
            continue;
        }
        let number: Option<u64> = str::from_utf8(&digits)?.parse().ok();
        match number.filter(|n| digits.len() == 10 && n.abs_diff(from) < 100_000_000) {
            Some(time) if time.abs_diff(from) < MARGIN + skew => return Ok(None),
            Some(time) => out.extend((time + now() - from).to_string().into_bytes()),
            None => out.extend_from_slice(&digits),
        }
        digits.clear();
        out.push(byte);
    }
    out.pop();
    let text = format!("{header}.{}", base64url(&out));
    Ok(Some(format!("{text}.{}", key.sign(text.as_bytes())?)))
}

fn case(corpus: &Value, case: &Value) -> Result<Case> {
    let words = |key: &str| case[key].as_str().unwrap_or_default();
    let setup = &corpus["setups"][words("setup")];
    let name = format!("{}: {}: {}", words("setup"), words("group"), words("name"));
    let wanted = match words("want") {
        "accepted" => None,
        "malformed" => Some("token-malformed"),
        "untrusted" => Some("token-untrusted"),
        "expired" => Some("token-expired"),
        "not-yet-valid" => Some("token-not-yet-valid"),
        other => anyhow::bail!("{name}: unknown verdict {other}"),
    };
    let Some(token) = case["token"].as_str() else {
        let digits = words("hex").as_bytes().chunks(2);
        let bytes = digits.map(|two| Ok(u8::from_str_radix(str::from_utf8(two)?, 16)?));
        return Ok(Case { name, token: bytes.collect::<Result<_>>()?, verdicts: vec![wanted] });
    };
    let from = case["now"].as_u64().or(corpus["now"].as_u64()).context("now")?;
    let skew = setup["skew"].as_u64().unwrap_or(0);
    let secret = setup["providers"][0]["keys"]["secret"].as_str().and_then(decode);
    if let Some(secret) = secret.filter(|secret| !secret.is_empty())
        && let Some(moved) = moved(token, &secret, from, skew)?
    {
        return Ok(Case { name, token: moved.into_bytes(), verdicts: vec![wanted] });
    }
    let times = times(token);
    let at = |claim: &str| times.get(claim).and_then(Value::as_f64);
    let here = now() as f64;
    let over = at("exp").is_some_and(|exp| exp + skew as f64 <= here);
    let early = [at("nbf"), at("iat")].iter().flatten().any(|start| *start > here + skew as f64);
    let by_now = match (over, early) {
        (true, _) => Some("token-expired"),
        (_, true) => Some("token-not-yet-valid"),
        _ => None,
    };
    let verdicts = match wanted {
        Some("token-malformed") => vec![wanted],
        // Whether the key or the audience is wrong: one is seen before the times, the other after.
        Some("token-untrusted") => vec![wanted, by_now.or(wanted)],
        _ => vec![by_now],
    };
    Ok(Case { name, token: token.as_bytes().to_vec(), verdicts })
}

/// Whether the bytes can be the value of a header as they are.
fn fits_a_header(token: &[u8]) -> bool {
    let control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    let blank = |byte: Option<&u8>| byte.is_some_and(|byte| *byte == b' ');
    !token.iter().any(control) && !blank(token.first()) && !blank(token.last())
}

fn complaint(mesh: &Mesh, case: &Case) -> Result<Option<String>> {
    if !fits_a_header(&case.token) {
        // The same token without its blanks may well be good; with anything else it must not pass.
        if case.token.iter().all(|byte| *byte >= 0x20) {
            return Ok(None);
        }
        let mut head = b"GET /api/auth/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ".to_vec();
        head.extend_from_slice(&case.token);
        head.extend_from_slice(b"\r\n\r\n");
        let status = Raw::connect(mesh.gateway())?.send(head)?.answer()?.status();
        return Ok((status == 200).then(|| format!("{}: got 200", case.name)));
    }
    let value = [b"Bearer ", case.token.as_slice()].concat();
    let answer = mesh.get("/api/auth/x").header("authorization", value).send()?;
    let body = answer.json();
    let code = body["code"].as_str();
    let status = if code.is_some() { 401 } else { 200 };
    let fits = case.verdicts.contains(&code) && answer.status == status;
    // What is too long for any header is Envoy's to refuse.
    let too_long = case.token.len() > 50_000 && answer.status == 431;
    let got = code.unwrap_or("accepted");
    let says = || format!("{}: want {:?}, got {} {got}", case.name, case.verdicts, answer.status);
    Ok((!fits && !too_long).then(says))
}

#[test]
fn every_token_of_the_corpus_gets_its_verdict_from_the_gateway() -> Result<()> {
    let corpus = corpus()?;
    let files = tempfile::tempdir()?;
    let dir = files.path().canonicalize()?;
    let mut by_setup: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    for one in corpus["cases"].as_array().context("cases")? {
        let setup = one["setup"].as_str().context("setup")?;
        if !NO_POLICY.contains(&setup) {
            by_setup.entry(setup).or_default().push(case(&corpus, one)?);
        }
    }
    let total: usize = by_setup.values().map(Vec::len).sum();
    ensure!(total > 800, "the corpus has shrunk to {total}");
    let exact = by_setup.values().flatten().filter(|case| case.verdicts.len() == 1).count();
    let good = by_setup.values().flatten().filter(|case| case.verdicts == [None]).count();
    println!("{total} tokens, {exact} with one verdict, {good} of them good");
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
