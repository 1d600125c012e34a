//! What limits remember across a change of the policy: what is unchanged counts on, other numbers are
//! applied to what there is, another way of counting begins anew.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_harness::mesh::SOON;
use test_harness::wait::until_true;
use test_harness::{Mesh, Response, policy};

/// A limit of a service; so slow that nothing comes back during a test.
fn limit(name: &str, service: &str, algorithm: &str, requests: u32, more: &Value) -> Value {
    let mut limit = json!({ "name": name, "key": [], "algorithm": algorithm,
        "match": { "services": [service] }, "requests": requests, "per": "1h" });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

fn policy(mark: &str, limits: &[Value]) -> Value {
    policy::with(&json!({
        "rate_limits": limits,
        "security_headers": { "preset": "seed", "override": { "X-Frame-Options": mark } }
    }))
}

/// Brings a policy into force on all workers. `/none` has no service, so that no limit counts it.
fn change(mesh: &mut Mesh, mark: &str, limits: &[Value]) -> Result<()> {
    mesh.set_policy(&policy(mark, limits))?;
    until_true("the policy to be in force", SOON, || {
        let mut all = true;
        for _ in 0..20 {
            all &= mesh.get("/none").send()?.expect(404)?.header("x-frame-options") == mark;
        }
        Ok(all)
    })
}

fn ask(mesh: &Mesh, service: &str) -> Result<Response> {
    mesh.get(&format!("/api/{service}/x")).send()
}

/// Asks once, is admitted, and so many are left.
fn leaves(mesh: &Mesh, service: &str, left: u32) -> Result<()> {
    let answer = ask(mesh, service)?.expect(200).with_context(|| service.to_owned())?;
    let told = answer.header("x-ratelimit-remaining");
    ensure!(told == left.to_string(), "{service}: {told} are left instead of {left}");
    Ok(())
}

fn refuses(mesh: &Mesh, service: &str) -> Result<()> {
    let answer = ask(mesh, service)?.expect_refusal(429, "rate-limited");
    answer.map(|_| ()).with_context(|| service.to_owned())
}

fn of_every_algorithm() -> Vec<Value> {
    vec![
        limit("bucket", "auth", "token_bucket", 2, &json!({})),
        limit("window", "samples", "sliding_window", 2, &json!({})),
        limit("queue", "storage", "leaky_bucket", 1, &json!({ "queue": 0 })),
        limit("load", "templates", "adaptive", 2, &json!({})),
    ]
}

#[test]
fn what_is_unchanged_counts_on_whatever_stands_around_it() -> Result<()> {
    let services = ["auth", "samples", "storage", "templates"];
    Mesh::with(policy("DENY", &of_every_algorithm())).run(|mesh| {
        for service in services {
            ask(mesh, service)?.expect(200)?;
            if service != "storage" {
                ask(mesh, service)?.expect(200)?;
            }
            refuses(mesh, service)?;
        }
        // Another order, and new ones before and after.
        let mut limits = vec![limit("new", "sequencing", "token_bucket", 1, &json!({}))];
        limits.extend(of_every_algorithm().into_iter().rev());
        limits.push(limit("newer", "sequencing", "sliding_window", 9, &json!({})));
        change(mesh, "SAMEORIGIN", &limits)?;
        services.iter().try_for_each(|service| refuses(mesh, service))?;
        // Away, and back.
        change(mesh, "DENY", &[])?;
        services.iter().try_for_each(|service| ask(mesh, service)?.expect(200).map(|_| ()))?;
        change(mesh, "SAMEORIGIN", &of_every_algorithm())?;
        services.iter().try_for_each(|service| refuses(mesh, service))
    })
}

#[test]
fn other_numbers_are_applied_to_what_was_counted() -> Result<()> {
    let numbers = |bucket: &Value, window: u32, queue: u32, load: &Value| {
        [
            limit("bucket", "auth", "token_bucket", 10, bucket),
            limit("window", "samples", "sliding_window", window, &json!({})),
            limit("queue", "storage", "leaky_bucket", 1, &json!({ "queue": queue })),
            limit("load", "templates", "adaptive", 10, load),
        ]
    };
    let before = numbers(&json!({}), 10, 0, &json!({}));
    Mesh::with(policy("DENY", &before)).run(|mesh| {
        for left in [9, 8, 7, 6] {
            leaves(mesh, "auth", left)?;
            leaves(mesh, "samples", left)?;
            leaves(mesh, "templates", left)?;
        }
        leaves(mesh, "storage", 0)?;
        // Larger: what was taken stays taken, and the rest is there.
        change(
            mesh,
            "SAMEORIGIN",
            &numbers(&json!({ "burst": 20 }), 20, 0, &json!({ "burst": 20 })),
        )?;
        leaves(mesh, "auth", 15)?;
        leaves(mesh, "samples", 15)?;
        leaves(mesh, "templates", 15)?;
        refuses(mesh, "storage")?;
        // Smaller than what was taken: nothing is left.
        change(mesh, "DENY", &numbers(&json!({ "burst": 4 }), 4, 0, &json!({ "burst": 4 })))?;
        for service in ["auth", "samples", "storage", "templates"] {
            refuses(mesh, service)?;
        }
        Ok(())
    })
}

#[test]
fn another_way_of_counting_begins_anew() -> Result<()> {
    let one = |algorithm: &str, more: &Value| vec![limit("one", "auth", algorithm, 2, more)];
    Mesh::with(policy("DENY", &one("token_bucket", &json!({})))).run(|mesh| {
        leaves(mesh, "auth", 1)?;
        let ways = [
            ("SAMEORIGIN", one("sliding_window", &json!({}))),
            ("DENY", one("sliding_window", &json!({ "per": "2h" }))),
            ("SAMEORIGIN", one("adaptive", &json!({}))),
            ("DENY", one("token_bucket", &json!({}))),
            ("SAMEORIGIN", one("token_bucket", &json!({ "key": ["service"] }))),
        ];
        for (mark, limits) in ways {
            leaves(mesh, "auth", 0)?;
            refuses(mesh, "auth")?;
            change(mesh, mark, &limits)?;
            leaves(mesh, "auth", 1).with_context(|| limits[0].to_string())?;
        }
        // What is read as another kind of record is none that is broken.
        assert_eq!(mesh.metric("gateway_record_unreadable_total", &[])?, 0);
        Ok(())
    })
}
