//! The four set-ups, made from the one bootstrap that users run (`envoy/envoy.yaml`).
//!
//! All of them lose the access log, the health check filter and the compressors, so that what differs
//! is the work of the policy alone. The two without our filter lose the pinning wasm service too.

use super::gateway::{self, Chain, Plan, SECRET_JWK};
use super::sample::{Case, Variant};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The service that is called: its cluster goes to the upstream of the benchmark.
pub(super) const SERVICE: &str = "samples";
/// What is asked for; the demo policy knows it as endpoint `sample`.
pub(super) const PATH: &str = "/api/samples/1";
/// So many requests a second that no limit refuses one.
const PLENTY: u32 = 1_000_000;
/// Buckets of values that the native limit keeps; its default of 20 would throw them out all the
/// time in the suite of limits.
const NATIVE_BUCKETS: u32 = 2048;
/// Entries of the native token cache; ours is sized by the policy. One token is used here.
pub(super) const NATIVE_CACHE: u32 = 1000;

/// How the Envoy of a case of the mix is set up.
pub(super) fn plan(case: Case, demo: &Value) -> Result<Plan> {
    let chain = match case.variant {
        Variant::Router => Chain::Native { filters: Vec::new(), outlier_detection: false },
        Variant::Native => Chain::Native { filters: native_chain(demo)?, outlier_detection: true },
        Variant::Empty => Chain::Ours { policy: json!({ "version": 1 }), has_sidecar: false },
        Variant::Demo => Chain::Ours { policy: policy(demo), has_sidecar: true },
    };
    let (name, token) = (case.slug(), gateway::demo_token()?);
    Ok(Plan { name, concurrency: case.concurrency, chain, token })
}

/// Turns the adapted bootstrap into one with this chain.
pub(super) fn set_up(bootstrap: &mut Value, chain: &Chain) -> Result<()> {
    let manager = connection_manager(bootstrap)?;
    manager.as_object_mut().context("no connection manager")?.remove("access_log");
    let filters = manager.get_mut("http_filters").and_then(Value::as_array_mut);
    let filters = filters.context("`http_filters` is not a list")?;
    let is_ours = matches!(chain, Chain::Ours { .. });
    filters.retain(|filter| match filter.get("name").and_then(Value::as_str) {
        Some("envoy.filters.http.router") => true,
        Some("gateway") => is_ours,
        _ => false,
    });
    if let Chain::Native { filters: native, outlier_detection } = chain {
        filters.splice(0..0, native.iter().cloned());
        if *outlier_detection {
            take_failing_hosts_out(bootstrap)?;
        }
        bootstrap.as_object_mut().context("no bootstrap")?.remove("bootstrap_extensions");
    }
    Ok(())
}

/// The demo policy with limits that refuse nothing.
fn policy(demo: &Value) -> Value {
    let mut policy = demo.clone();
    let limits = policy.get_mut("rate_limits").and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten().filter_map(Value::as_object_mut) {
        limit.insert("requests".to_owned(), json!(PLENTY));
        limit.insert("per".to_owned(), json!("1s"));
        // It is the same as `requests` then; a sliding window has none.
        limit.remove("burst");
    }
    policy
}

/// The first HTTP connection manager.
fn connection_manager(bootstrap: &mut Value) -> Result<&mut Value> {
    let path = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    bootstrap.pointer_mut(path).with_context(|| format!("envoy.yaml has no `{path}`"))
}

/// The `stat_prefix` of the connection manager.
pub(super) fn stat_prefix(bootstrap: &mut Value) -> Result<String> {
    let manager = connection_manager(bootstrap)?;
    let prefix = manager.get("stat_prefix").and_then(Value::as_str);
    Ok(prefix.context("the connection manager has no `stat_prefix`")?.to_owned())
}

/// The native stand-in for the breaker: hosts are taken out after failures in a row.
fn take_failing_hosts_out(bootstrap: &mut Value) -> Result<()> {
    let clusters = bootstrap.pointer_mut("/static_resources/clusters");
    let clusters = clusters.and_then(Value::as_array_mut).context("envoy.yaml has no clusters")?;
    let service = clusters.iter_mut().find(|c| c.get("name").is_some_and(|name| name == SERVICE));
    let service = service.and_then(Value::as_object_mut).context("no cluster for the service")?;
    service.insert(
        "outlier_detection".to_owned(),
        json!({ "consecutive_5xx": 5, "base_ejection_time": "10s", "max_ejection_percent": 100 }),
    );
    Ok(())
}

/// IP lists, token, two limits, security headers: the demo policy in Envoy's own filters.
fn native_chain(policy: &Value) -> Result<Vec<Value>> {
    let text = |pointer: &str| {
        let value = policy.pointer(pointer).and_then(Value::as_str);
        value.map(str::to_owned).with_context(|| format!("the demo policy has no `{pointer}`"))
    };
    let provider = "/authentication/jwt/providers/0";
    let issuer = text(&format!("{provider}/issuer"))?;
    let audience = text(&format!("{provider}/audiences/0"))?;
    Ok(vec![rbac(policy)?, jwt_authn(&issuer, &audience), local_ratelimit(), header_mutation()])
}

/// `ip.deny`.
fn rbac(policy: &Value) -> Result<Value> {
    let denied = policy.pointer("/ip/deny").and_then(Value::as_array);
    let denied = denied.context("the demo policy has no `ip.deny`")?;
    let principal = |cidr: &Value| {
        let (address, bits) = cidr.as_str()?.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        Some(json!({ "remote_ip": { "address_prefix": address, "prefix_len": bits } }))
    };
    let principals = denied.iter().map(principal).collect::<Option<Vec<_>>>();
    let principals = principals.context("`ip.deny` holds something that is no prefix")?;
    Ok(filter(
        "rbac",
        "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        json!({ "rules": { "action": "DENY", "policies": { "deny": {
            "permissions": [{ "any": true }],
            "principals": principals,
        } } } }),
    ))
}

/// The same token, verified once and then found in the cache; the same claim handed on.
fn jwt_authn(issuer: &str, audience: &str) -> Value {
    let jwks = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": SECRET_JWK }] });
    jwt_provider(json!({
        "issuer": issuer,
        "audiences": [audience],
        "local_jwks": { "inline_string": jwks.to_string() },
        "jwt_cache_config": { "jwt_cache_size": NATIVE_CACHE },
        "claim_to_headers": [{ "header_name": "x-user-id", "claim_name": "sub" }],
    }))
}

/// `jwt_authn` with one provider that every request needs.
pub(super) fn jwt_provider(provider: Value) -> Value {
    filter(
        "jwt_authn",
        "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": { "tracseq": provider },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "tracseq" } }],
        }),
    )
}

/// `everyone` and `per-user`, with the rate limit headers that our filter sends as well.
fn local_ratelimit() -> Value {
    rate_limit_by("x-user-id")
}

/// `local_ratelimit` with a bucket for all and one per value of that request header.
pub(super) fn rate_limit_by(header: &str) -> Value {
    let bucket = json!({
        "max_tokens": PLENTY, "tokens_per_fill": PLENTY, "fill_interval": "1s",
    });
    let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
    filter(
        "local_ratelimit",
        "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        json!({
            "stat_prefix": "everyone",
            "token_bucket": bucket,
            "filter_enabled": always,
            "filter_enforced": always,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limits": [{ "actions": [{
                "request_headers": { "header_name": header, "descriptor_key": "who" },
            }] }],
            // An empty value stands for any: a bucket per value.
            "descriptors": [{ "entries": [{ "key": "who" }], "token_bucket": bucket }],
            "max_dynamic_descriptors": NATIVE_BUCKETS,
        }),
    )
}

/// Preset `seed`; like ours it keeps what the upstream set itself.
fn header_mutation() -> Value {
    let headers = [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("X-XSS-Protection", "1; mode=block"),
        ("Strict-Transport-Security", "max-age=31536000"),
        ("Content-Security-Policy", "default-src 'self'"),
        ("Referrer-Policy", "strict-origin-when-cross-origin"),
        ("Permissions-Policy", "geolocation=(), microphone=(), camera=()"),
    ];
    let mutations = headers.map(|(key, value)| {
        json!({ "append": {
            "header": { "key": key, "value": value },
            "append_action": "ADD_IF_ABSENT",
        } })
    });
    filter(
        "header_mutation",
        "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        json!({ "mutations": { "response_mutations": mutations } }),
    )
}

/// A filter's entry in the chain.
fn filter(name: &str, kind: &str, mut config: Value) -> Value {
    if let Some(fields) = config.as_object_mut() {
        fields.insert("@type".to_owned(), json!(kind));
    }
    json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": config })
}
