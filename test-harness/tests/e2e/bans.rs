//! Bans: made by penalties, escalating and decaying, seen, lifted and set by administrators; and who
//! is never banned.

use crate::workers::all_say;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use test_harness::mesh::SOON;
use test_harness::wait::{until, until_true};
use test_harness::{Mesh, Request, Response, policy};

/// `printf %s robot-secret-1 | sha256sum`.
const ROBOT: (&str, &str) =
    ("robot-secret-1", "7456216aa87fc24218cbd562c12c7ba657459d45adf45d3a2ae0624942cdc03c");

/// One request an hour, and a ban after `violations` more within a minute.
fn strict(name: &str, key: &Value, violations: u32, ban: &Value) -> Value {
    let mut penalty = json!({ "violations": violations, "within": "1m" });
    penalty.as_object_mut().unwrap().extend(ban.as_object().unwrap().clone());
    json!({ "name": name, "key": key, "requests": 1, "per": "1h", "penalty": penalty })
}

fn house(limits: &[Value]) -> Value {
    let mut authentication = policy::hs256();
    authentication["mode"] = json!("optional");
    authentication["api_keys"] = json!({
        "locations": [{ "header": "x-api-key" }],
        "keys": [{ "id": "robot", "sha256": ROBOT.1 }]
    });
    policy::with(&json!({
        "ip": { "exempt": ["10.9.0.0/16"] },
        "authentication": authentication,
        "rate_limits": limits
    }))
}

/// A long ban.
fn long() -> Value {
    json!({ "ban": "10m", "escalate": 2, "max_ban": "1h" })
}

fn from(request: Request, address: &str) -> Request {
    request.header("x-forwarded-for", address)
}

fn banned(answer: Response) -> Result<Response> {
    answer.expect_refusal(429, "banned")
}

fn limited(answer: Response) -> Result<Response> {
    answer.expect_refusal(429, "rate-limited")
}

fn wait_told(answer: &Response) -> Result<u64> {
    answer.header("retry-after").parse().context("retry-after")
}

/// The bans that an administrator sees.
fn seen(mesh: &mut Mesh) -> Result<Vec<Value>> {
    let answer = mesh.sidecar()?.read("/gateway/bans")?.expect(200)?.json();
    answer["bans"].as_array().cloned().context("no list of bans")
}

/// The one ban that there is, once it has been reported.
fn the_ban(mesh: &mut Mesh) -> Result<Value> {
    until("the ban to be seen", SOON, || {
        let bans = seen(mesh)?;
        ensure!(bans.len() < 2, "{bans:?}");
        Ok(bans.into_iter().next())
    })
}

/// Bans somebody, and is answered 200: in force. Gives the id.
fn ban(mesh: &mut Mesh, order: &Value) -> Result<String> {
    let answer = mesh.sidecar()?.post_json("/gateway/bans", order)?.expect(200)?;
    let id = answer.json()["id"].as_str().map(str::to_owned);
    id.with_context(|| format!("no id in {}", answer.text()))
}

fn lift(mesh: &mut Mesh, id: &str) -> Result<()> {
    mesh.sidecar()?.delete(&format!("/gateway/bans/{id}"))?.expect(200).map(|_| ())
}

/// Uses a limit up and violates it so often that it bans; the last refusal is still the limit's.
fn provoke(ask: impl Fn() -> Request, violations: u32) -> Result<()> {
    ask().send()?.expect(200)?;
    for _ in 0..violations {
        limited(ask().send()?)?;
    }
    Ok(())
}

#[test]
fn who_keeps_violating_a_limit_is_banned_everywhere_seen_and_lifted() -> Result<()> {
    Mesh::with(house(&[strict("per-user", &json!(["user"]), 3, &long())])).concurrency(4).run(
        |mesh| {
            let to = mesh.gateway();
            let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
            let ask = |token: &str| Request::new(to, "GET", "/api/auth/x").bearer(token);
            provoke(|| ask(&anna), 3)?;
            all_say(|| ask(&anna), banned)?;
            let told = banned(ask(&anna).send()?)?;
            let wait = wait_told(&told)?;
            ensure!((590..=600).contains(&wait), "retry-after {wait}");
            let kind = told.json()["type"].as_str().unwrap_or_default().to_owned();
            ensure!(kind.ends_with("#abnormal-usage-detected"), "{kind}");
            // Others at the same address are not meant, whether or not they have a name.
            ask(&bert).send()?.expect(200)?;
            Request::new(to, "GET", "/api/auth/x").send()?.expect(200)?;
            mesh.until_metric("gateway_bans_total", &[("limit", "per-user")], 1)?;
            let ban = the_ban(mesh)?;
            for (field, value) in [
                ("kind", json!("user")),
                ("name", json!("anna")),
                ("provider", json!("tracseq")),
                ("source", json!("penalty")),
                ("limit", json!("per-user")),
                ("level", json!(0)),
            ] {
                ensure!(ban[field] == value, "{field}: {ban}");
            }
            let masked = mesh.sidecar()?.get("/gateway/bans")?.expect(200)?.text();
            ensure!(!masked.contains("anna") && masked.contains("***"), "{masked}");
            let metrics = mesh.sidecar()?.get("/metrics")?.expect(200)?.text();
            ensure!(metrics.contains("gateway_bans_active 1"), "{metrics}");
            let id = ban["id"].as_str().context("no id")?.to_owned();
            Request::new(mesh.sidecar()?.address(), "DELETE", &format!("/gateway/bans/{id}"))
                .send()?
                .expect(401)?;
            lift(mesh, &id)?;
            all_say(|| ask(&anna), limited_or_banned_anew)?;
            ensure!(mesh.sidecar()?.delete(&format!("/gateway/bans/{id}"))?.status == 404);
            Ok(())
        },
    )
}

/// After a ban was lifted the limit is still used up, so that the client may earn another ban; this
/// one is the second, and twice as long.
fn limited_or_banned_anew(answer: Response) -> Result<Response> {
    if answer.json()["code"] == "banned" {
        let wait = wait_told(&answer)?;
        ensure!(wait > 600, "the lifted ban is in force: {wait} s");
        return banned(answer);
    }
    limited(answer)
}

/// That this is what somebody is told who was banned for so long, a moment after `violated`.
fn is_banned_for(answer: &Response, seconds: u64, violated: Instant) -> Result<()> {
    let told = wait_told(answer)?;
    // What is left, rounded up: a machine that hangs in between must not make a difference.
    let least = seconds.saturating_sub(violated.elapsed().as_secs());
    ensure!((least..=seconds).contains(&told), "told {told} s instead of {least} to {seconds}");
    Ok(())
}

/// Is banned for so long since a violation; gives the moment before the next one, which comes as
/// soon as this ban is over.
fn sit_out(ask: impl Fn() -> Request, seconds: u64, violated: Instant) -> Result<Instant> {
    is_banned_for(&banned(ask().send()?)?, seconds, violated)?;
    let mut next = Instant::now();
    until_true("the end of the ban", SOON, || {
        next = Instant::now();
        let answer = ask().send()?;
        if answer.json()["code"] == "banned" {
            return Ok(false);
        }
        limited(answer)?;
        Ok(true)
    })?;
    let lasted = violated.elapsed();
    ensure!(lasted >= Duration::from_secs(seconds), "{seconds} s were over after {lasted:?}");
    Ok(next)
}

/// Bans of 3 seconds, then of 6 (not 9: that is the most); for each 6 seconds without one a step is
/// forgotten. The next request has 3 seconds to meet the first ban.
#[test]
fn bans_grow_with_each_and_shrink_with_time() -> Result<()> {
    let ban = json!({ "ban": "3s", "escalate": 3, "max_ban": "6s" });
    Mesh::with(house(&[strict("per-client", &json!(["ip"]), 1, &ban)])).run(|mesh| {
        let to = mesh.gateway();
        let ask = || Request::new(to, "GET", "/api/auth/x");
        ask().send()?.expect(200)?;
        let violated = Instant::now();
        limited(ask().send()?)?;
        let violated = sit_out(ask, 3, violated)?;
        is_banned_for(&banned(ask().send()?)?, 6, violated)?;
        // Twice the 6 seconds without a ban, and it is as if there had been none.
        let over = Instant::now() + Duration::from_millis(6000 + 2 * 6000 + 500);
        until_true("quiet times", SOON, || Ok(Instant::now() > over))?;
        let violated = Instant::now();
        limited(ask().send()?)?;
        sit_out(ask, 3, violated).map(|_| ())
    })
}

#[test]
fn an_address_is_banned_before_anything_else_is_asked() -> Result<()> {
    let limit = strict("per-address", &json!(["ip"]), 2, &long());
    Mesh::with(house(&[limit])).concurrency(4).behind_proxy().run(|mesh| {
        let to = mesh.gateway();
        let ask = || from(Request::new(to, "GET", "/api/auth/x"), "198.51.100.7");
        provoke(ask, 2)?;
        all_say(ask, banned)?;
        // Not even a bad token is looked at, nor is the limit.
        let over = mesh.metric("gateway_rate_limit_total", &[("outcome", "over")])?;
        banned(ask().bearer("nonsense").send()?)?;
        banned(ask().bearer(&mesh.token("anna")?).send()?)?;
        ensure!(mesh.metric("gateway_rate_limit_total", &[("outcome", "over")])? == over);
        from(mesh.get("/api/auth/x"), "198.51.100.8").send()?.expect(200)?;
        let ban = the_ban(mesh)?;
        ensure!(ban["kind"] == "ip" && ban["name"] == "198.51.100.7", "{ban}");
        Ok(())
    })
}

#[test]
fn nobody_is_banned_for_another_who_shares_an_address() -> Result<()> {
    let limit = strict("per-user", &json!(["user", "service"]), 2, &long());
    Mesh::with(house(&[limit])).behind_proxy().run(|mesh| {
        let ask = |token: Option<&str>| {
            let request = from(mesh.get("/api/auth/x"), "198.51.100.7");
            token.into_iter().fold(request, |request, token| request.bearer(token))
        };
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        provoke(|| ask(Some(&anna)), 2)?;
        banned(ask(Some(&anna)).send()?)?;
        // Nor does anna come in by another door, whatever she asks for.
        banned(mesh.get("/api/storage/x").bearer(&anna).send()?)?;
        ask(Some(&bert)).send()?.expect(200)?;
        // Without a name nobody can be told apart by it: the limit refuses, nobody is banned.
        ask(None).send()?.expect(200)?;
        for _ in 0..5 {
            limited(ask(None).send()?)?;
        }
        limited(ask(Some(&bert)).send()?)?;
        Ok(())
    })
}

/// The address beside the name is no way round that: a key that has a name bans by name only.
#[test]
fn where_a_key_has_a_name_no_address_is_banned() -> Result<()> {
    let limit = strict("both", &json!(["ip", "user"]), 2, &long());
    Mesh::with(house(&[limit])).behind_proxy().run(|mesh| {
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        let ask = || from(mesh.get("/api/auth/x"), "198.51.100.7");
        provoke(ask, 5)?;
        limited(ask().send()?)?;
        provoke(|| ask().bearer(&anna), 2)?;
        banned(ask().bearer(&anna).send()?)?;
        limited(ask().send()?)?;
        ask().bearer(&bert).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn an_api_key_is_banned_by_its_id() -> Result<()> {
    Mesh::with(house(&[strict("per-key", &json!(["api_key"]), 2, &long())])).run(|mesh| {
        let to = mesh.gateway();
        let ask = || Request::new(to, "GET", "/api/auth/x").header("x-api-key", ROBOT.0);
        provoke(ask, 2)?;
        banned(ask().send()?)?;
        let robot = mesh.token("robot")?;
        mesh.get("/api/auth/x").bearer(&robot).send()?.expect(200)?;
        let ban = the_ban(mesh)?;
        ensure!(ban["kind"] == "api_key" && ban["name"] == "robot", "{ban}");
        Ok(())
    })
}

#[test]
fn who_is_exempt_is_never_banned_and_a_trial_bans_nobody() -> Result<()> {
    let mut trial = strict("trial", &json!(["ip"]), 1, &long());
    trial["mode"] = json!("shadow");
    let limits = [strict("per-user", &json!(["user"]), 1, &long()), trial];
    Mesh::with(house(&limits)).behind_proxy().run(|mesh| {
        let to = mesh.gateway();
        let exempt = || from(Request::new(to, "GET", "/api/auth/x"), "10.9.0.1");
        for _ in 0..4 {
            exempt().send()?.expect(200)?;
        }
        // An administrator is told so, not that it is in force.
        let order = json!({ "ip": "10.9.0.1" });
        let refused = mesh.sidecar()?.post_json("/gateway/bans", &order)?.expect(422)?;
        ensure!(refused.text().contains("ip.exempt"), "{}", refused.text());
        exempt().send()?.expect(200)?;
        let anna = mesh.token("anna")?;
        let ask = || from(Request::new(to, "GET", "/api/auth/x"), "198.51.100.7").bearer(&anna);
        provoke(ask, 1)?;
        banned(ask().send()?)?;
        exempt().bearer(&anna).send()?.expect(200).context("anna, at an exempt address")?;
        mesh.until_metric("gateway_bans_total", &[("limit", "per-user")], 1)?;
        ensure!(mesh.metric("gateway_bans_total", &[("limit", "trial")])? == 0);
        Ok(())
    })
}

#[test]
fn an_administrator_bans_and_lifts_and_every_worker_goes_by_it() -> Result<()> {
    Mesh::with(house(&[])).concurrency(4).behind_proxy().run(|mesh| {
        let to = mesh.gateway();
        let anna = mesh.token("anna")?;
        let ask = |who: &str| {
            let request = Request::new(to, "GET", "/api/auth/x");
            match who {
                "ip" => from(request, "198.51.100.7"),
                "user" => request.bearer(&anna),
                _ => request.header("x-api-key", ROBOT.0),
            }
        };
        for (who, order, most) in [
            (
                "ip",
                json!({ "ip": "198.51.100.7", "duration": "1h", "note": "scanner" }),
                Some(3600),
            ),
            ("ip", json!({ "ip": "::ffff:198.51.100.7" }), None),
            ("user", json!({ "user": "anna", "duration": "10m" }), Some(600)),
            ("user", json!({ "user": "anna", "provider": "tracseq", "duration": "90s" }), Some(90)),
            ("api_key", json!({ "api_key": "robot" }), None),
        ] {
            let said = || format!("{order}");
            ask(who).send()?.expect(200).with_context(said)?;
            let id = ban(mesh, &order).with_context(said)?;
            all_say(|| ask(who), banned).with_context(said)?;
            let told = banned(ask(who).send()?)?;
            // Of a ban without an end nothing can be told.
            let wait = (!told.header("retry-after").is_empty()).then(|| wait_told(&told));
            let wait = wait.transpose()?;
            let near = |most: u64| wait.is_some_and(|wait| (most - 60..=most).contains(&wait));
            ensure!(most.map_or(wait.is_none(), near), "{order}: {wait:?}");
            let row = the_ban(mesh)?;
            ensure!(row["id"] == id.as_str() && row["source"] == "admin", "{row}");
            for other in ["ip", "user", "api_key"].into_iter().filter(|other| *other != who) {
                ask(other).send()?.expect(200).with_context(said)?;
            }
            lift(mesh, &id).with_context(said)?;
            all_say(|| ask(who), |answer| answer.expect(200)).with_context(said)?;
        }
        Ok(())
    })
}

#[test]
fn bans_outlive_envoy_and_sidecar() -> Result<()> {
    Mesh::with(house(&[strict("per-user", &json!(["user"]), 1, &long())])).concurrency(4).run(
        |mesh| {
            let to = mesh.gateway();
            let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
            let ask = |token: &str| Request::new(to, "GET", "/api/auth/x").bearer(token);
            provoke(|| ask(&anna), 1)?;
            the_ban(mesh)?;
            ban(mesh, &json!({ "user": "bert" }))?;
            mesh.sidecar()?.kill9()?;
            for token in [&anna, &bert] {
                all_say(|| ask(token), banned).context("while the sidecar is gone")?;
            }
            mesh.restart_sidecar()?;
            ensure!(seen(mesh)?.len() == 2, "{:?}", seen(mesh));
            mesh.restart_envoy()?;
            for token in [&anna, &bert] {
                until_true("the bans to be handed over", SOON, || {
                    Ok(ask(token).send()?.json()["code"] == "banned")
                })?;
                all_say(|| ask(token), banned).context("after Envoy's restart")?;
            }
            let wait = wait_told(&ask(&anna).send()?)?;
            ensure!(wait <= 600, "retry-after {wait}");
            Ok(())
        },
    )
}
