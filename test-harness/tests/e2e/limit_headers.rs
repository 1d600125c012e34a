//! What clients are told of limits, read by a parser of structured fields that shares no code with
//! what writes them; and that it is true.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use sfv::{BareItem, Item, List, ListEntry, Parser};
use std::time::{Duration, Instant};
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, Response, policy};

const SECOND: Duration = Duration::from_secs(1);
/// Every limit of these tests gives one request in so many seconds.
const PER: u64 = 6;
/// So often a slow machine may try what has to be done within a second.
const ATTEMPTS: usize = 5;

/// A limit for one service, two requests at once.
fn limit(service: &str, algorithm: &str, more: &Value) -> Value {
    let name = algorithm.replace('_', "-");
    let mut limit = json!({ "name": name, "key": [], "algorithm": algorithm,
        "match": { "services": [service] }, "requests": 1, "per": format!("{PER}s") });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

fn limits() -> [(&'static str, Value); 4] {
    let adaptive = json!({ "burst": 2, "adaptive": { "threshold": 0.999, "floor": 1.0 } });
    [
        ("auth", limit("auth", "token_bucket", &json!({ "burst": 2 }))),
        ("samples", limit("samples", "sliding_window", &json!({ "requests": 2 }))),
        ("storage", limit("storage", "leaky_bucket", &json!({ "queue": 1 }))),
        ("templates", limit("templates", "adaptive", &adaptive)),
    ]
}

/// A member of a list: its text, and an integer for each of its parameters.
struct Member {
    text: String,
    parameters: Vec<(String, i64)>,
}

impl Member {
    fn get(&self, name: &str) -> Option<i64> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

/// The one member of a header that is a List of Strings with integer parameters.
fn member(answer: &Response, header: &str) -> Result<Member> {
    let fields = answer.headers(header);
    let [field] = fields.as_slice() else { return Err(anyhow!("{header} is there {fields:?}")) };
    let list: List = Parser::new(field).parse().map_err(|e| anyhow!("{header}: {field}: {e}"))?;
    let [ListEntry::Item(Item { bare_item: BareItem::String(text), params })] = list.as_slice()
    else {
        return Err(anyhow!("{header} is not one string: {field}"));
    };
    let number = |(key, value): (&sfv::Key, &BareItem)| {
        let value = value.as_integer().with_context(|| format!("{header}: {key:?}: {field}"))?;
        let value = i64::from(value);
        ensure!(value >= 0, "{header}: {key:?} is negative: {field}");
        Ok((key.as_str().to_owned(), value))
    };
    let parameters = params.iter().map(number).collect::<Result<_>>()?;
    Ok(Member { text: text.as_str().to_owned(), parameters })
}

fn integer(answer: &Response, header: &str) -> Result<i64> {
    answer.header(header).parse().with_context(|| format!("{header}: {answer:?}"))
}

/// Reads all five headers, and that they say the same. Gives what is left and when all is back.
fn told(answer: &Response, limit: &Value) -> Result<(i64, i64)> {
    let (now, policy) = (member(answer, "ratelimit")?, member(answer, "ratelimit-policy")?);
    ensure!(json!(now.text) == limit["name"] && now.text == policy.text, "{answer:?}");
    let quota = policy.get("q").context("no quota")?;
    ensure!(json!(quota) == limit["requests"], "q={quota}");
    ensure!(policy.get("w") == Some(PER as i64), "w={:?}", policy.get("w"));
    let (left, reset) = (now.get("r").context("no r")?, now.get("t").context("no t")?);
    ensure!(integer(answer, "x-ratelimit-remaining")? == left, "{answer:?}");
    ensure!(integer(answer, "x-ratelimit-reset")? == reset, "{answer:?}");
    ensure!(integer(answer, "x-ratelimit-limit")? >= left.max(1), "{answer:?}");
    Ok((left, reset))
}

/// Uses a limit up, is refused, comes back when told, and passes.
fn is_true(mesh: &Mesh, service: &str, limit: &Value) -> Result<()> {
    let ask = || mesh.get(&format!("/api/{service}/x"));
    let labels = [("limit", limit["name"].as_str().unwrap_or_default())];
    let paused = || mesh.metric("gateway_rate_limit_paused_total", &labels);
    let begin = Instant::now();
    let first = ask().send()?.expect(200)?;
    let (second, refused, at) = std::thread::scope(|scope| -> Result<_> {
        // In a queue this one waits; otherwise it is answered at once.
        let second = scope.spawn(|| ask().send());
        until_true("it to be judged", SOON, || Ok(second.is_finished() || paused()? > 0))?;
        let (refused, at) = (ask().send()?, Instant::now());
        let second = second.join().map_err(|_| anyhow!("a thread failed"))??.expect(200)?;
        Ok((second, refused, at))
    })?;
    ensure!(told(&first, limit)?.0 == 1, "after the first: {first:?}");
    ensure!(told(&second, limit)?.0 == 0, "after the second: {second:?}");
    let refused = refused.expect_refusal(429, "rate-limited")?;
    let (left, reset) = told(&refused, limit)?;
    let wait = integer(&refused, "retry-after")?;
    ensure!(left == 0 && wait == reset && wait >= 1, "{refused:?}");
    let body = refused.json();
    ensure!(body["violated-policies"] == json!([limit["name"]]), "{body}");
    ensure!(body["retry_after"] == json!(wait), "{body}");
    let back = at + Duration::from_secs(wait.try_into()?);
    until_true("the time that was told", SOON, || Ok(Instant::now() >= back))?;
    ask().send()?.expect(200).with_context(|| format!("told to come back in {wait} s"))?;
    println!("{}: told {wait} s, passed after {:?}", limit["name"], begin.elapsed());
    Ok(())
}

#[test]
fn every_algorithm_tells_what_is_left_and_when_to_come_back() -> Result<()> {
    let all: Vec<Value> = limits().into_iter().map(|(_, limit)| limit).collect();
    Mesh::with(policy::with(&json!({ "rate_limits": all }))).run(|mesh| {
        let mesh = &*mesh;
        std::thread::scope(|scope| {
            let check = |(service, limit): (&'static str, Value)| {
                scope.spawn(move || {
                    is_true(mesh, service, &limit).with_context(|| limit.to_string())
                })
            };
            let threads: Vec<_> = limits().into_iter().map(check).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread failed"))?)
        })
    })
}

/// Not only not too early: a second before the time that a client is told it would be refused.
#[test]
fn a_client_is_not_told_to_wait_longer_than_it_must() -> Result<()> {
    let key = json!({ "burst": 1, "key": ["header:x-client"] });
    let limit = limit("auth", "token_bucket", &key);
    Mesh::with(policy::with(&json!({ "rate_limits": [limit] }))).run(|mesh| {
        for client in 0..ATTEMPTS {
            if let InTime::Yes = waits_no_longer(mesh, client)? {
                return Ok(());
            }
        }
        bail!("{ATTEMPTS} times a request took most of a second: too slow a machine to tell")
    })
}

/// Whether requests were answered so fast that what they say tells anything.
enum InTime {
    Yes,
    No,
}

/// As a client that nobody has seen before.
fn waits_no_longer(mesh: &Mesh, client: usize) -> Result<InTime> {
    let ask = || mesh.get("/api/auth/x").header("x-client", client.to_string()).send();
    let begin = Instant::now();
    ask()?.expect(200)?;
    // The token was taken between `begin` and now, and comes back `PER` later.
    let early = Instant::now() + Duration::from_secs(PER) - SECOND;
    let refused = ask()?;
    if begin.elapsed() >= SECOND {
        return Ok(InTime::No);
    }
    let refused = refused.expect_refusal(429, "rate-limited")?;
    ensure!(integer(&refused, "retry-after")? == PER as i64, "{refused:?}");
    until_true("a second before", SOON, || Ok(Instant::now() >= early))?;
    let refused = ask()?;
    if begin.elapsed() >= Duration::from_secs(PER) {
        return Ok(InTime::No);
    }
    let refused = refused.expect_refusal(429, "rate-limited")?;
    ensure!(integer(&refused, "retry-after")? == 1, "{refused:?}");
    Ok(InTime::Yes)
}

#[test]
fn of_several_limits_the_one_nearest_to_exhaustion_is_told() -> Result<()> {
    let bucket = |name: &str, requests: u32| json!({ "name": name, "key": [], "requests": requests, "per": "1h" });
    let limits = json!([bucket("wide", 100), bucket("narrow", 3), bucket("other", 50)]);
    Mesh::with(policy::with(&json!({ "rate_limits": limits }))).run(|mesh| {
        for left in [2, 1, 0] {
            let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
            let now = member(&answer, "ratelimit")?;
            assert_eq!((now.text.as_str(), now.get("r")), ("narrow", Some(left)));
            assert_eq!(member(&answer, "ratelimit-policy")?.text, "narrow");
        }
        Ok(())
    })
}

/// `w` is in whole seconds: what is none is left out.
#[test]
fn a_window_that_is_no_whole_number_of_seconds_is_not_told() -> Result<()> {
    let limit = json!({ "name": "short", "key": [], "requests": 9, "per": "1500ms" });
    Mesh::with(policy::with(&json!({ "rate_limits": [limit] }))).run(|mesh| {
        let answer = mesh.get("/api/auth/x").send()?.expect(200)?;
        let policy = member(&answer, "ratelimit-policy")?;
        assert_eq!((policy.get("q"), policy.get("w")), (Some(9), None));
        Ok(())
    })
}
