//! Limits in the hands of an administrator: other numbers at run time, how a key stands, forgetting
//! one, who is refused most; and what is no sense changes nothing.

use crate::workers::all_say;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_harness::mesh::SOON;
use test_harness::wait::{until, until_true};
use test_harness::{Mesh, Request, Response, policy};

/// `printf %s robot-secret-1 | sha256sum`.
const ROBOT: (&str, &str) =
    ("robot-secret-1", "7456216aa87fc24218cbd562c12c7ba657459d45adf45d3a2ae0624942cdc03c");

/// A limit of a service; so slow that nothing comes back during a test.
fn limit(name: &str, service: &str, key: &Value, more: &Value) -> Value {
    let mut limit = json!({ "name": name, "key": key, "requests": 3, "per": "1h",
        "match": { "services": [service] } });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

/// One limit for each algorithm, of a client that says who it is.
fn by_client() -> Value {
    let key = json!(["header:x-client"]);
    let limit = |name: &str, service: &str, algorithm: &str, queue: Option<u32>| {
        let mut more = json!({ "algorithm": algorithm });
        if let Some(queue) = queue {
            more["queue"] = json!(queue);
        }
        limit(name, service, &key, &more)
    };
    policy::with(&json!({ "rate_limits": [
        limit("bucket", "auth", "token_bucket", None),
        limit("window", "samples", "sliding_window", None),
        limit("queue", "storage", "leaky_bucket", Some(0)),
        limit("load", "templates", "adaptive", None)
    ]}))
}

const ALL: [(&str, &str); 4] =
    [("bucket", "auth"), ("window", "samples"), ("queue", "storage"), ("load", "templates")];

/// Limits of users, API keys and addresses.
fn by_identity() -> Value {
    let mut authentication = policy::hs256();
    authentication["mode"] = json!("optional");
    authentication["api_keys"] = json!({
        "locations": [{ "header": "x-api-key" }],
        "keys": [{ "id": "robot", "sha256": ROBOT.1 }]
    });
    let window = json!({ "algorithm": "sliding_window" });
    policy::with(&json!({ "authentication": authentication, "rate_limits": [
        limit("users", "auth", &json!(["user"]), &json!({})),
        limit("users-places", "samples", &json!(["user", "service"]), &window),
        limit("robots", "storage", &json!(["api_key"]), &json!({})),
        limit("places", "templates", &json!(["ip"]), &window)
    ]}))
}

fn put(mesh: &mut Mesh, limit: &str, numbers: &Value) -> Result<Response> {
    let path = format!("/gateway/rate-limits/{limit}");
    mesh.sidecar()?.admin("PUT", &path)?.json(numbers).send()
}

/// What the sidecar says to an administrator of a limit, or of a key.
fn shown(mesh: &mut Mesh, what: &str) -> Result<Value> {
    Ok(mesh.sidecar()?.read(&format!("/gateway/rate-limits/{what}"))?.expect(200)?.json())
}

/// What it says of all limits.
fn list(mesh: &mut Mesh) -> Result<Value> {
    Ok(mesh.sidecar()?.read("/gateway/rate-limits")?.expect(200)?.json())
}

/// A request of a client that nobody has seen before; what is left to it tells the limit's size.
fn stranger(mesh: &Mesh, service: &str) -> Request {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("stranger-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    mesh.get(&format!("/api/{service}/x")).header("x-client", name)
}

/// On every worker a new client has so many requests left after its first.
fn leaves(mesh: &Mesh, service: &str, left: u32) -> Result<()> {
    let fits = |answer: Response| {
        let answer = answer.expect(200)?;
        let told = answer.header("x-ratelimit-remaining").to_owned();
        ensure!(told == left.to_string(), "{service}: {told} are left instead of {left}");
        Ok(answer)
    };
    all_say(|| stranger(mesh, service), fits)
}

#[test]
fn other_numbers_are_in_force_everywhere_once_the_answer_is_there() -> Result<()> {
    Mesh::with(by_client()).concurrency(4).run(|mesh| {
        leaves(mesh, "auth", 2)?;
        let said = put(mesh, "bucket", &json!({ "requests": 20, "burst": 10 }))?.expect(200)?;
        leaves(mesh, "auth", 9)?;
        ensure!(said.json()["burst"] == 10 && said.json()["policy"]["burst"] == 3, "{said:?}");
        put(mesh, "window", &json!({ "requests": 7, "per": "2h" }))?.expect(200)?;
        leaves(mesh, "samples", 6)?;
        put(mesh, "load", &json!({ "burst": 5 }))?.expect(200)?;
        leaves(mesh, "templates", 4)?;
        // A burst that was no word of its own follows the requests.
        put(mesh, "load", &json!({ "requests": 8 }))?.expect(200)?;
        leaves(mesh, "templates", 7)?;
        let bucket = shown(mesh, "bucket")?;
        ensure!(bucket["requests"] == 20 && bucket["override"]["requests"] == 20, "{bucket}");
        let delete = |mesh: &mut Mesh, limit: &str| {
            mesh.sidecar()?.delete(&format!("/gateway/rate-limits/{limit}"))
        };
        for (limit, service) in [("bucket", "auth"), ("window", "samples"), ("load", "templates")] {
            delete(mesh, limit)?.expect(200)?;
            leaves(mesh, service, 2)?;
            ensure!(shown(mesh, limit)?["override"].is_null());
            delete(mesh, limit)?.expect(404)?;
        }
        Ok(())
    })
}

#[test]
fn a_limit_is_put_on_trial_and_back_at_run_time() -> Result<()> {
    Mesh::with(by_client()).concurrency(4).run(|mesh| {
        for (limit, service) in ALL {
            let to = mesh.gateway();
            let path = format!("/api/{service}/x");
            let ask = || Request::new(to, "GET", &path).header("x-client", "greedy");
            until_true("the limit to refuse", SOON, || Ok(ask().send()?.status == 429))?;
            all_say(ask, |answer| answer.expect_refusal(429, "rate-limited"))?;
            put(mesh, limit, &json!({ "mode": "shadow" }))?.expect(200)?;
            all_say(ask, |answer| answer.expect(200)).context(limit)?;
            put(mesh, limit, &json!({ "mode": "enforce" }))?.expect(200)?;
            all_say(ask, |answer| answer.expect_refusal(429, "rate-limited")).context(limit)?;
        }
        Ok(())
    })
}

#[test]
fn other_numbers_outlive_envoy_and_sidecar_and_a_change_of_the_policy() -> Result<()> {
    Mesh::with(by_client()).concurrency(4).run(|mesh| {
        put(mesh, "bucket", &json!({ "burst": 10 }))?.expect(200)?;
        mesh.restart_sidecar()?;
        leaves(mesh, "auth", 9)?;
        let mut changed = by_client();
        changed["rate_limits"][0]["burst"] = json!(5);
        mesh.set_policy(&changed)?;
        until_true("the sidecar to hear of the policy", SOON, || {
            let bucket = mesh.sidecar()?.read("/gateway/rate-limits/bucket")?.json();
            Ok(bucket["policy"]["burst"] == 5)
        })?;
        leaves(mesh, "auth", 9)?;
        mesh.restart_envoy()?;
        until_true("the numbers to be handed over", SOON, || {
            let answer = stranger(mesh, "auth").send()?.expect(200)?;
            Ok(answer.header("x-ratelimit-remaining") == "9")
        })?;
        leaves(mesh, "auth", 9)
    })
}

#[test]
fn numbers_for_a_filter_that_is_away_wait_for_it() -> Result<()> {
    Mesh::with(by_client()).run(|mesh| {
        mesh.envoy().process().kill9()?;
        until_true("the sidecar to miss it", SOON, || Ok(list(mesh)?["connected"] == false))?;
        put(mesh, "bucket", &json!({ "burst": 10 }))?.expect(202)?;
        let key = "/gateway/rate-limits/bucket/header:x-client=anna";
        let status = mesh.sidecar()?.read(key)?.status;
        ensure!(status == 503, "a key was read without a filter: {status}");
        mesh.sidecar()?.delete(key)?.expect(202)?;
        mesh.restart_envoy()?;
        until_true("the numbers to be handed over", SOON, || {
            let answer = stranger(mesh, "auth").send()?.expect(200)?;
            Ok(answer.header("x-ratelimit-remaining") == "9")
        })
    })
}

#[test]
fn a_key_is_read_and_forgotten_whatever_the_algorithm() -> Result<()> {
    Mesh::with(by_client()).concurrency(4).run(|mesh| {
        for (limit, service) in ALL {
            let ask = |mesh: &Mesh, client: &str| {
                mesh.get(&format!("/api/{service}/x")).header("x-client", client).send()
            };
            // The queue has room for one only.
            let (whole, before) = if limit == "queue" { (1, 0) } else { (3, 2) };
            let mine = format!("{limit}/header:x-client=anna");
            let fresh = shown(mesh, &mine)?;
            ensure!(
                fresh["remaining"] == whole && fresh["standings"][0]["known"] == false,
                "{fresh}"
            );
            ask(mesh, "anna")?.expect(200)?;
            ask(mesh, "bert")?.expect(200)?;
            // Looking takes nothing.
            for _ in 0..3 {
                let read = shown(mesh, &mine)?;
                ensure!(read["remaining"] == before, "{limit}: {read}");
                ensure!(read["standings"][0]["known"] == true, "{limit}: {read}");
                ensure!(read["reset_ms"].as_u64() > Some(0), "{limit}: {read}");
            }
            until_true("the limit to refuse", SOON, || Ok(ask(mesh, "anna")?.status == 429))?;
            let read = shown(mesh, &mine)?;
            ensure!(
                read["remaining"] == 0 && read["retry_ms"].as_u64() > Some(0),
                "{limit}: {read}"
            );
            mesh.sidecar()?.delete(&format!("/gateway/rate-limits/{mine}"))?.expect(200)?;
            let answer = ask(mesh, "anna")?.expect(200).context(limit)?;
            let left = answer.header("x-ratelimit-remaining");
            ensure!(left == before.to_string(), "{limit}: {left}");
            let theirs = shown(mesh, &format!("{limit}/header:x-client=bert"))?;
            ensure!(theirs["remaining"] == before, "{limit} forgot bert, too: {theirs}");
        }
        Ok(())
    })
}

/// What a worker remembers of refusals is forgotten with the key.
#[test]
fn a_key_that_is_forgotten_is_let_in_by_every_worker() -> Result<()> {
    let wide = |algorithm: &str| json!({ "algorithm": algorithm, "requests": 80 });
    let key = json!(["header:x-client"]);
    let policy = policy::with(&json!({ "rate_limits": [
        limit("bucket", "auth", &key, &wide("token_bucket")),
        limit("window", "samples", &key, &wide("sliding_window"))
    ]}));
    Mesh::with(policy).concurrency(4).run(|mesh| {
        for (limit, service) in [("bucket", "auth"), ("window", "samples")] {
            let (to, path) = (mesh.gateway(), format!("/api/{service}/x"));
            let ask = || Request::new(to, "GET", &path).header("x-client", "anna");
            until_true("the limit to refuse", SOON, || Ok(ask().send()?.status == 429))?;
            all_say(ask, |answer| answer.expect_refusal(429, "rate-limited"))?;
            let path = format!("/gateway/rate-limits/{limit}/header:x-client=anna");
            mesh.sidecar()?.delete(&path)?.expect(200)?;
            all_say(ask, |answer| answer.expect(200)).context(limit)?;
        }
        Ok(())
    })
}

#[test]
fn a_value_may_hold_whatever_separates_values() -> Result<()> {
    Mesh::with(by_client()).run(|mesh| {
        for (client, encoded) in [
            ("a,b=c", "a%2Cb%3Dc"),
            ("50%25/x", "50%2525%2Fx"),
            ("two words?&#", "two%20words%3F%26%23"),
            ("header:x-client=anna", "header%3Ax-client%3Danna"),
        ] {
            let request = mesh.get("/api/auth/x").header("x-client", client);
            request.send()?.expect(200)?;
            let path = format!("bucket/header:x-client={encoded}");
            let read = shown(mesh, &path)?;
            ensure!(read["remaining"] == 2, "{client}: {read}");
            mesh.sidecar()?.delete(&format!("/gateway/rate-limits/{path}"))?.expect(200)?;
            ensure!(shown(mesh, &path)?["remaining"] == 3, "{client}");
        }
        Ok(())
    })
}

#[test]
fn somebody_is_forgotten_by_every_limit_and_nobody_else_is() -> Result<()> {
    Mesh::with(by_identity()).concurrency(4).behind_proxy().run(|mesh| {
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        let ask = |mesh: &Mesh, who: &str, service: &str| {
            let request = mesh.get(&format!("/api/{service}/x"));
            match who {
                "anna" => request.bearer(&anna),
                "bert" => request.bearer(&bert),
                "robot" => request.header("x-api-key", ROBOT.0),
                address => request.header("x-forwarded-for", address),
            }
        };
        let here = "198.51.100.7";
        let there = "198.51.100.8";
        let all = [
            ("anna", "auth"),
            ("anna", "samples"),
            ("bert", "auth"),
            ("bert", "samples"),
            ("robot", "storage"),
            (here, "templates"),
            (there, "templates"),
        ];
        for (who, service) in all {
            for _ in 0..3 {
                ask(mesh, who, service).send()?.expect(200)?;
            }
            ask(mesh, who, service).send()?.expect_refusal(429, "rate-limited")?;
        }
        let forgotten = [
            (json!({ "user": "anna" }), "anna"),
            (json!({ "ip": here }), here),
            (json!({ "api_key": "robot" }), "robot"),
            (json!({ "user": "bert", "provider": "tracseq" }), "bert"),
        ];
        for (order, who) in forgotten {
            let reset = mesh.sidecar()?.post_json("/gateway/rate-limits/reset", &order)?;
            reset.expect(200).with_context(|| order.to_string())?;
            for (other, service) in all {
                // Whoever was forgotten before has used up what that gave by now.
                let times = if other == who { 3 } else { 0 };
                for _ in 0..times {
                    let answer = ask(mesh, other, service).send()?;
                    answer.expect(200).with_context(|| format!("{other} after {order}"))?;
                }
                let answer = ask(mesh, other, service).send()?;
                let refused = answer.expect_refusal(429, "rate-limited");
                refused.with_context(|| format!("{other} at {service} after {order}"))?;
            }
        }
        // Nobody can be forgotten more than that.
        let nobody = json!({ "user": "nobody" });
        mesh.sidecar()?.post_json("/gateway/rate-limits/reset", &nobody)?.expect(200)?;
        Ok(())
    })
}

/// So many refusals, of which one may have faded: what is listed is of the last while.
fn about(count: u64) -> [Option<u64>; 2] {
    [Some(count), Some(count - 1)]
}

#[test]
fn who_is_refused_most_is_listed_and_named_to_administrators_only() -> Result<()> {
    Mesh::with(by_identity()).concurrency(4).run(|mesh| {
        let (anna, bert) = (mesh.token("anna")?, mesh.token("bert")?);
        for (token, times) in [(&anna, 30), (&bert, 10)] {
            for _ in 0..times {
                mesh.get("/api/auth/x").bearer(token).send()?;
            }
        }
        let of = |list: &Value, limit: &str| {
            let rows = list["limits"].as_array().cloned().unwrap_or_default();
            rows.into_iter().find(|row| row["name"] == limit).context("no such limit")
        };
        let refused = |row: &Value, key: usize| row["top_keys"][key]["refused"].as_u64();
        let row = until("all refusals to be reported", SOON, || {
            let row = of(&list(mesh)?, "users")?;
            let all = about(27).contains(&refused(&row, 0)) && about(7).contains(&refused(&row, 1));
            Ok(all.then_some(row))
        })?;
        ensure!(row["totals"]["over"] == 34 && row["algorithm"] == "token_bucket", "{row}");
        let top = &row["top_keys"];
        ensure!(top.as_array().is_some_and(|top| top.len() == 2), "{top}");
        ensure!(top[0]["key"].as_str().is_some_and(|key| key.contains("anna")), "{top}");
        let masked = mesh.sidecar()?.get("/gateway/rate-limits")?.expect(200)?;
        ensure!(about(27).contains(&refused(&of(&masked.json(), "users")?, 0)));
        let masked = masked.text();
        for name in ["anna", "bert"] {
            ensure!(!masked.contains(name), "{masked}");
        }
        // What is listed is what a key is read and forgotten by.
        let key = top[0]["key"].as_str().context("no key")?.to_owned();
        let path = format!("/gateway/rate-limits/users/{key}");
        ensure!(mesh.sidecar()?.read(&path)?.expect(200)?.json()["remaining"] == 0);
        mesh.sidecar()?.delete(&path)?.expect(200)?;
        mesh.get("/api/auth/x").bearer(&anna).send()?.expect(200)?;
        mesh.get("/api/auth/x").bearer(&bert).send()?.expect(429)?;
        Ok(())
    })
}

/// Method, path below `/gateway`, body; the statuses that fit, and what the answer must name.
type Wrong = (&'static str, &'static str, Value, [u16; 2], &'static str);

fn wrong_orders() -> Vec<Wrong> {
    let limit = "/rate-limits/bucket";
    let input = [400, 422];
    vec![
        ("PUT", limit, json!({}), input, "requests"),
        ("PUT", limit, json!([]), input, ""),
        ("PUT", limit, json!({ "requests": 0 }), input, "requests"),
        ("PUT", limit, json!({ "requests": -1 }), input, "requests"),
        ("PUT", limit, json!({ "requests": 1.5 }), input, "requests"),
        ("PUT", limit, json!({ "requests": "many" }), input, "requests"),
        ("PUT", limit, json!({ "requests": 5_000_000_000_u64 }), input, "requests"),
        ("PUT", limit, json!({ "per": "0s" }), input, "per"),
        ("PUT", limit, json!({ "per": 60 }), input, "per"),
        ("PUT", limit, json!({ "per": "2 fortnights" }), input, "per"),
        ("PUT", limit, json!({ "burst": 0 }), input, "burst"),
        ("PUT", limit, json!({ "mode": "maybe" }), input, "mode"),
        ("PUT", limit, json!({ "mode": "shadow", "cost": 2 }), input, "cost"),
        ("PUT", "/rate-limits/window", json!({ "burst": 5 }), input, "burst"),
        ("PUT", "/rate-limits/queue", json!({ "burst": 5 }), input, "burst"),
        ("PUT", "/rate-limits/dear", json!({ "burst": 4 }), input, "burst"),
        ("PUT", "/rate-limits/dear", json!({ "requests": 4 }), input, "burst"),
        ("PUT", "/rate-limits/nobodys", json!({ "requests": 5 }), [404, 404], "nobodys"),
        ("DELETE", "/rate-limits/nobodys", Value::Null, [404, 404], "nobodys"),
        ("GET", "/rate-limits/nobodys", Value::Null, [404, 404], "nobodys"),
        ("GET", "/rate-limits/bucket/user=anna", Value::Null, [400, 422], "user"),
        ("GET", "/rate-limits/bucket/header:x-client", Value::Null, [400, 422], "key"),
        ("DELETE", "/rate-limits/bucket/-", Value::Null, [400, 422], "header:x-client"),
        ("DELETE", "/rate-limits/nobodys/user=anna", Value::Null, [404, 404], "nobodys"),
        ("POST", "/rate-limits/reset", json!({}), input, "user"),
        ("POST", "/rate-limits/reset", json!({ "user": "a", "ip": "192.0.2.1" }), input, "ip"),
        ("POST", "/rate-limits/reset", json!({ "ip": "nowhere" }), input, "ip"),
        ("POST", "/rate-limits/reset", json!({ "user": 7 }), input, "user"),
        ("POST", "/rate-limits/reset", json!({ "user": "a", "nonsense": 1 }), input, "nonsense"),
        ("POST", "/bans", json!({}), input, "user"),
        ("POST", "/bans", json!({ "user": "" }), input, "user"),
        ("POST", "/bans", json!({ "user": "a", "api_key": "b" }), input, "api_key"),
        ("POST", "/bans", json!({ "ip": "192.0.2.0/24" }), input, "ip"),
        ("POST", "/bans", json!({ "ip": "192.0.2.1", "duration": "0s" }), input, "duration"),
        ("POST", "/bans", json!({ "ip": "192.0.2.1", "duration": "-5s" }), input, "duration"),
        ("POST", "/bans", json!({ "ip": "192.0.2.1", "duration": 60 }), input, "duration"),
        (
            "POST",
            "/bans",
            json!({ "ip": "192.0.2.1", "expires": "1999-01-01T00:00:00Z" }),
            input,
            "expires",
        ),
        ("POST", "/bans", json!({ "ip": "192.0.2.1", "provider": "tracseq" }), input, "provider"),
        ("POST", "/bans", json!({ "ip": "192.0.2.1", "nonsense": 1 }), input, "nonsense"),
        ("DELETE", "/bans/nonsense", Value::Null, [404, 404], ""),
    ]
}

#[test]
fn a_bad_order_names_its_field_and_changes_nothing() -> Result<()> {
    let mut policy = by_client();
    let dear = limit("dear", "sequencing", &json!([]), &json!({ "requests": 9, "cost": 5 }));
    policy["rate_limits"].as_array_mut().unwrap().push(dear);
    Mesh::with(policy).run(|mesh| {
        let before = list(mesh)?;
        for (method, path, body, statuses, names) in wrong_orders() {
            let said = || format!("{method} {path} {body}");
            let path = format!("/gateway{path}");
            let mut request = mesh.sidecar()?.admin(method, &path)?;
            if !body.is_null() {
                request = request.json(&body);
            }
            let answer = request.send()?;
            let fits = statuses.contains(&answer.status);
            ensure!(fits, "{}: {} {}", said(), answer.status, answer.text());
            let kind = answer.header("content-type").to_owned();
            ensure!(kind == "application/problem+json", "{}: {kind}", said());
            ensure!(answer.text().contains(names), "{}: {}", said(), answer.text());
        }
        let after = list(mesh)?;
        ensure!(before == after, "{before}\n{after}");
        let bans = mesh.sidecar()?.read("/gateway/bans")?.expect(200)?.json();
        ensure!(bans["total"] == 0, "{bans}");
        Ok(())
    })
}

#[test]
fn every_change_needs_the_token_and_is_written_down() -> Result<()> {
    Mesh::with(by_client()).run(|mesh| {
        let sidecar = mesh.sidecar()?.address();
        for (method, path, body) in [
            ("PUT", "/gateway/rate-limits/bucket", json!({ "burst": 10 })),
            ("DELETE", "/gateway/rate-limits/bucket", Value::Null),
            ("DELETE", "/gateway/rate-limits/bucket/header:x-client=anna", Value::Null),
            ("POST", "/gateway/rate-limits/reset", json!({ "user": "anna" })),
            ("POST", "/gateway/bans", json!({ "user": "anna" })),
        ] {
            for token in ["", "wrong"] {
                let request = Request::new(sidecar, method, path).json(&body).bearer(token);
                request.send()?.expect(401).with_context(|| format!("{method} {path}"))?;
            }
        }
        leaves(mesh, "auth", 2)?;
        put(mesh, "bucket", &json!({ "burst": 10 }))?.expect(200)?;
        let order = json!({ "ip": "203.0.113.7", "duration": "1h" });
        mesh.sidecar()?.post_json("/gateway/bans", &order)?.expect(200)?;
        let log = mesh.sidecar()?.process().stdout()? + &mesh.sidecar()?.process().stderr()?;
        let audit: Vec<&str> = log.lines().filter(|line| line.contains("\"audit\":true")).collect();
        for what in ["override-limit", "ban"] {
            let what = format!("\"what\":\"{what}\"");
            ensure!(audit.iter().any(|line| line.contains(&what)), "{what} in {audit:#?}");
        }
        Ok(())
    })
}
