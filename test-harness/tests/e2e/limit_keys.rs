//! What limits count by: every part of a key, any combination, nothing confused; and which requests
//! they count at all.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use test_harness::token::{Key, Token};
use test_harness::{Mesh, Request, policy};

/// `printf %s robot-secret-1 | sha256sum`, and of `next-secret-1`.
const ROBOT: (&str, &str) =
    ("robot-secret-1", "7456216aa87fc24218cbd562c12c7ba657459d45adf45d3a2ae0624942cdc03c");
const NEXT: (&str, &str) =
    ("next-secret-1", "12bdfd4f7d8e3522aa34db9e571e5ba7afe2d4c677f2fc065ad385b78a6b3060");

/// One request an hour for each key; counts requests below `/api/auth/NAME` only.
fn one_each(name: &str, key: &Value) -> Value {
    json!({ "name": name, "key": key, "requests": 1, "per": "1h",
            "match": { "paths": [format!("/api/auth/{name}/**")] } })
}

/// Two providers, API keys, and anonymous requests.
fn authentication() -> Value {
    let mut authentication = policy::hs256();
    authentication["mode"] = json!("optional");
    let providers = authentication["jwt"]["providers"].as_array_mut().unwrap();
    providers[0]["tier_claim"] = json!("plan");
    providers.push(json!({
        "name": "other", "issuer": "https://other.example", "audiences": ["tracseq-api"],
        "algorithms": ["ES256"], "keys": Key::Es256.trusted().unwrap()
    }));
    authentication["api_keys"] = json!({
        "locations": [{ "header": "x-api-key" }],
        "keys": [{ "id": "robot", "sha256": ROBOT.1, "tier": "internal" },
                 { "id": "next", "sha256": NEXT.1 }]
    });
    authentication
}

fn token(subject: &str) -> Token {
    Token::new(Key::Hs256(policy::JWT_SECRET.into()), subject)
}

fn bearer(token: Token) -> impl Fn(Request) -> Request {
    let token = token.sign().unwrap();
    move |request| request.bearer(&token)
}

fn header(name: &'static str, value: &'static str) -> impl Fn(Request) -> Request {
    move |request| request.header(name, value)
}

fn both(a: &'static str, b: &'static str) -> impl Fn(Request) -> Request {
    move |request| request.header("x-a", a).header("x-b", b)
}

type Change = Box<dyn Fn(Request) -> Request>;

/// A limit's key; then requests that are one client's, and one of another.
struct Case {
    name: &'static str,
    key: Value,
    same: [Change; 2],
    other: Change,
}

fn case(
    name: &'static str,
    key: Value,
    first: impl Fn(Request) -> Request + 'static,
    second: impl Fn(Request) -> Request + 'static,
    other: impl Fn(Request) -> Request + 'static,
) -> Case {
    Case { name, key, same: [Box::new(first), Box::new(second)], other: Box::new(other) }
}

fn cases() -> Vec<Case> {
    cases_of_one_part().into_iter().chain(cases_of_several_parts()).collect()
}

fn cases_of_one_part() -> Vec<Case> {
    let elsewhere = || Token::new(Key::Es256, "anna").claim("iss", "https://other.example");
    let anna = || bearer(token("anna"));
    let key = |key: (&'static str, &'static str)| header("x-api-key", key.0);
    let from = |address| header("x-forwarded-for", address);
    let claim = |tenant: &str| bearer(token("anna").claim("tenant", tenant));
    let plan = |plan: &str| bearer(token("anna").claim("plan", plan));
    vec![
        case("user", json!(["user"]), anna(), anna(), bearer(token("bert"))),
        case("provider", json!(["user"]), anna(), anna(), bearer(elsewhere())),
        case("nobody", json!(["user"]), |r| r, |r| r, anna()),
        // A user whose name is a key's id is not that key, which is a user of its own.
        case("robot", json!(["user"]), key(ROBOT), key(ROBOT), bearer(token("robot"))),
        case("api-key", json!(["api_key"]), key(ROBOT), key(ROBOT), key(NEXT)),
        case("no-api-key", json!(["api_key"]), anna(), |r| r, key(NEXT)),
        case("ip", json!(["ip"]), from("198.51.100.1"), from("198.51.100.1"), from("198.51.100.2")),
        case(
            "mapped",
            json!(["ip"]),
            from("198.51.100.1"),
            from("::ffff:198.51.100.1"),
            from("::1"),
        ),
        case(
            "header",
            json!(["header:x-a"]),
            header("x-a", "1"),
            header("x-a", "1"),
            header("x-a", "2"),
        ),
        case("no-header", json!(["header:x-a"]), |r| r, header("x-a", "-"), header("x-a", "")),
        case("claim", json!(["claim:tenant"]), claim("1"), claim("1"), claim("2")),
        case("tier", json!(["tier"]), plan("gold"), plan("gold"), plan("iron")),
        case("tier-of-key", json!(["tier"]), key(ROBOT), plan("internal"), plan("other")),
    ]
}

/// Keys of several parts: where one value ends and the next begins makes a difference.
fn cases_of_several_parts() -> Vec<Case> {
    let anna = || bearer(token("anna"));
    vec![
        case("pair", json!(["user", "header:x-a"]), anna(), anna(), bearer(token("bert"))),
        case(
            "cut",
            json!(["header:x-a", "header:x-b"]),
            both("ab", "c"),
            both("ab", "c"),
            both("a", "bc"),
        ),
        case(
            "bar",
            json!(["header:x-a", "header:x-b"]),
            both("a|b", "c"),
            both("a|b", "c"),
            both("a", "b|c"),
        ),
        case(
            "swap",
            json!(["header:x-a", "header:x-b"]),
            both("1", "2"),
            both("1", "2"),
            both("2", "1"),
        ),
        case(
            "void",
            json!(["header:x-a", "header:x-b"]),
            both("a", "-"),
            header("x-a", "a"),
            header("x-b", "a"),
        ),
    ]
}

#[test]
fn each_part_of_a_key_tells_clients_apart_and_nothing_else_does() -> Result<()> {
    let limits: Vec<Value> = cases().iter().map(|c| one_each(c.name, &c.key)).collect();
    let sections = json!({ "authentication": authentication(), "rate_limits": limits });
    Mesh::with(policy::with(&sections)).behind_proxy().run(|mesh| {
        for Case { name, same: [first, second], other, .. } in cases() {
            // Where it goes makes no difference, if the key does not say so.
            let ask = |what: &str| mesh.get(&format!("/api/auth/{name}/{what}"));
            first(ask("1")).send()?.expect(200).context(name)?;
            second(ask("2")).send()?.expect_refusal(429, "rate-limited").context(name)?;
            other(ask("3")).send()?.expect(200).context(name)?;
        }
        Ok(())
    })
}

#[test]
fn services_and_endpoints_are_counted_apart() -> Result<()> {
    let limit = |name: &str, key: &str, services: &Value| {
        json!({ "name": name, "key": [key], "requests": 1, "per": "1h",
                "match": { "services": services } })
    };
    let policy = policy::with(&json!({
        "endpoints": [
            { "name": "sample", "path": "/api/samples/{id}", "methods": ["GET"] },
            { "name": "samples", "path": "/api/samples" }
        ],
        "rate_limits": [
            limit("services", "service", &json!(["auth", "storage"])),
            limit("endpoints", "endpoint", &json!(["samples"]))
        ]
    }));
    Mesh::with(policy).run(|mesh| {
        let refused = |method: &str, path: &str| {
            let answer = mesh.request(method, path).send()?;
            answer.expect_refusal(429, "rate-limited").context(path.to_owned())
        };
        let good = |method: &str, path: &str| {
            mesh.request(method, path).send()?.expect(200).context(path.to_owned())
        };
        good("GET", "/api/auth/1")?;
        refused("GET", "/api/auth/2")?;
        good("GET", "/api/storage/1")?;
        good("GET", "/api/samples/1")?;
        refused("GET", "/api/samples/2")?;
        good("GET", "/api/samples")?;
        refused("POST", "/api/samples")?;
        // No endpoint: all these share `other`.
        good("DELETE", "/api/samples/3")?;
        refused("GET", "/api/samples/4/parts")?;
        Ok(())
    })
}

#[test]
fn only_what_matches_is_counted() -> Result<()> {
    let limit = |name: &str, matches: &Value| json!({ "name": name, "key": [], "requests": 1, "per": "1h", "match": matches });
    let policy = policy::with(&json!({
        "authentication": authentication(),
        "rate_limits": [
            limit("posts", &json!({ "services": ["samples"], "methods": ["POST", "PUT"] })),
            limit("gold", &json!({ "services": ["storage"], "tiers": ["gold"] }))
        ]
    }));
    Mesh::with(policy).run(|mesh| {
        for (method, status) in
            [("GET", 200), ("POST", 200), ("GET", 200), ("PUT", 429), ("GET", 200)]
        {
            mesh.request(method, "/api/samples/x").send()?.expect(status).context(method)?;
        }
        let ask = |plan: &str| {
            let token = token("anna").claim("plan", plan).sign()?;
            mesh.get("/api/storage/x").bearer(&token).send()
        };
        for (plan, status) in [("gold", 200), ("iron", 200), ("gold", 429), ("iron", 200)] {
            ask(plan)?.expect(status).context(plan)?;
        }
        mesh.get("/api/storage/x").send()?.expect(200)?;
        Ok(())
    })
}

/// A limit on a path is not slipped past by another spelling of it.
#[test]
fn a_path_is_limited_however_it_is_spelt() -> Result<()> {
    let limit = json!({ "name": "logins", "key": [], "requests": 1, "per": "1h",
        "match": { "paths": ["/api/auth/login"] } });
    Mesh::with(policy::with(&json!({ "rate_limits": [limit] }))).run(|mesh| {
        mesh.get("/api/auth/logins").send()?.expect(200)?;
        mesh.get("/api/auth/login").send()?.expect(200)?;
        for spelt in [
            "/api/auth/login",
            "/api/auth/login?again=1",
            "/api//auth/login",
            "/api/auth/./login",
            "/api/auth/x/../login",
            "/api/auth/%6Cogin",
            "/api/auth/login;v=1",
        ] {
            let answer = mesh.get(spelt).send()?;
            answer.expect_refusal(429, "rate-limited").context(spelt)?;
        }
        mesh.get("/api/auth/other").send()?.expect(200)?;
        Ok(())
    })
}

/// A limit that needs nobody's name counts before anybody is asked who it is.
#[test]
fn guessing_credentials_is_limited() -> Result<()> {
    let limit = json!({ "name": "guesses", "key": ["ip"], "requests": 3, "per": "1h" });
    let sections = json!({ "authentication": policy::hs256(), "rate_limits": [limit] });
    Mesh::with(policy::with(&sections)).behind_proxy().run(|mesh| {
        let ask = |from: &str| mesh.get("/api/auth/x").header("x-forwarded-for", from);
        for guess in ["a", "b.c.d", "e"] {
            ask("198.51.100.7").bearer(guess).send()?.expect_refusal(401, "token-malformed")?;
        }
        let good = mesh.token("anna")?;
        ask("198.51.100.7").bearer(&good).send()?.expect_refusal(429, "rate-limited")?;
        ask("198.51.100.8").bearer(&good).send()?.expect(200)?;
        Ok(())
    })
}

#[test]
fn who_is_exempt_meets_no_limit() -> Result<()> {
    let limits = json!([
        { "name": "everyone", "key": [], "requests": 1, "per": "1h" },
        { "name": "queue", "key": [], "algorithm": "leaky_bucket", "requests": 1, "per": "1h", "queue": 0 }
    ]);
    let sections =
        json!({ "ip": { "exempt": ["10.9.0.0/16", "2001:db8::/32"] }, "rate_limits": limits });
    Mesh::with(policy::with(&sections)).behind_proxy().run(|mesh| {
        let ask = |from: &str| mesh.get("/api/auth/x").header("x-forwarded-for", from).send();
        for from in ["10.9.1.1", "10.9.1.1", "2001:db8::9", "::ffff:10.9.0.1"] {
            ask(from)?.expect(200).context(from.to_owned())?;
        }
        // They used nothing up, either.
        ask("10.8.1.1")?.expect(200)?;
        ask("10.8.1.1")?.expect_refusal(429, "rate-limited")?;
        Ok(())
    })
}
