//! A million revoked tokens: none that is good is refused, none that is revoked passes, memory stays
//! bounded. Alone in its file, so that no other test runs beside it: memory and time are measured.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use test_harness::token::{Key, Token, now};
use test_harness::wait::until_true;
use test_harness::{Mesh, policy};

/// How many.
const MILLION: u32 = 1_000_000;
/// So many in one call.
const AT_ONCE: u32 = 10_000;
/// Good tokens, and revoked ones, that are tried.
const TRIED: u32 = 2_000;
/// 24 bytes for each, the rest for Envoy's own map and for batches on their way.
const MEMORY_MAX: u64 = 200 << 20;
/// A call with ten thousand, on a busy machine.
const CALL_WITHIN: Duration = Duration::from_secs(60);
/// All of them, handed over to an Envoy that starts anew. The default for a list of usual size is 2 s.
const SEEDED_WITHIN: Duration = Duration::from_secs(30);

fn token(jti: &str) -> Result<String> {
    Token::new(Key::Hs256(policy::JWT_SECRET.into()), "anna").claim("jti", jti).sign()
}

/// Revokes the next ten thousand; whether they are in force already.
fn revoke(mesh: &mut Mesh, from: u32) -> Result<bool> {
    let expires = now() + 24 * 3600;
    let one = |n: u32| json!({ "jti": format!("gone-{n}"), "expires": expires });
    let list: Vec<Value> = (from..from + AT_ONCE).map(one).collect();
    let order = json!({ "revocations": list });
    let request = mesh.sidecar()?.admin("POST", "/gateway/revocations")?;
    let answer = request.json(&order).within(CALL_WITHIN).send()?;
    match answer.status {
        202 => Ok(false),
        _ => answer.expect(200).map(|_| true),
    }
}

/// None that is good is refused, none that is revoked passes.
fn judged_rightly(mesh: &Mesh) -> Result<()> {
    for n in 0..TRIED {
        let good = mesh.get("/api/auth/x").bearer(&token(&format!("good-{n}"))?).send()?;
        good.expect(200).with_context(|| format!("good-{n}"))?;
        let which = n * (MILLION / TRIED);
        let gone = mesh.get("/api/auth/x").bearer(&token(&format!("gone-{which}"))?).send()?;
        gone.expect_refusal(401, "token-revoked").with_context(|| format!("gone-{which}"))?;
    }
    Ok(())
}

#[test]
fn a_million_revoked_tokens_are_known_and_no_good_one_is_refused() -> Result<()> {
    let policy = policy::with(&json!({
        "authentication": policy::hs256(), "revocation": { "seed_deadline": "30s" }
    }));
    Mesh::with(policy).concurrency(2).run(|mesh| {
        mesh.get("/api/auth/x").bearer(&token("first")?).send()?.expect(200)?;
        let before = mesh.envoy().process().resident_bytes()?;
        let start = Instant::now();
        let (mut slowest, mut late) = (Duration::ZERO, 0);
        for from in (0..MILLION).step_by(AT_ONCE as usize) {
            let call = Instant::now();
            late += u32::from(!revoke(mesh, from)?);
            slowest = slowest.max(call.elapsed());
        }
        // The same once more changes nothing, and is in force when everything before it is.
        until_true("all to be in force", SEEDED_WITHIN, || revoke(mesh, MILLION - AT_ONCE))?;
        let took = start.elapsed();
        println!("{MILLION} revoked in {took:?}, {AT_ONCE} at once in {slowest:?} at worst");
        println!("{late} calls were answered 202: the filter had not taken them yet");
        judged_rightly(mesh)?;
        let grown = mesh.envoy().process().resident_bytes()?.saturating_sub(before);
        let sidecar = mesh.sidecar()?.process().resident_bytes()?;
        println!("Envoy has grown by {} MiB; the sidecar has {} MiB", grown >> 20, sidecar >> 20);
        ensure!(grown < MEMORY_MAX, "Envoy has grown by {grown} bytes");
        let more = mesh.sidecar()?.post_json("/gateway/revocations", &json!({ "jti": "more" }))?;
        more.expect(409)?;

        mesh.restart_envoy()?;
        let start = Instant::now();
        mesh.until_seeded(SEEDED_WITHIN)?;
        println!("handed over to a new Envoy in {:?}", start.elapsed());
        judged_rightly(mesh)?;
        mesh.sidecar()?.restart()?;
        println!("the sidecar answers {:?} after its start", start.elapsed());
        judged_rightly(mesh)
    })
}
