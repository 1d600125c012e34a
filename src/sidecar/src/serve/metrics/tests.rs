//! The page as Prometheus would read it.

use crate::serve::tests::{app, envoy, nobody, request, send};
use std::collections::{BTreeMap, HashMap, HashSet};

const STATS: &str = r#"{"stats":[
    {"name":"wasmcustom.gateway_requests_total;service=auth;decision=allowed;reason=none","value":7},
    {"name":"wasmcustom.gateway_requests_total;service=a\"b\\c;decision=refused;reason=ip-denied","value":1},
    {"name":"wasmcustom.gateway_breaker_state;service=auth;state=open","value":1},
    {"name":"wasmcustom.gateway_policy_generation","value":4},
    {"name":"wasmcustom.gateway_jwks_fetch_total;provider=idp;outcome=ok","value":3},
    {"name":"wasmcustom.gateway_state_generation","value":9},
    {"name":"wasmcustom.gateway_sidecar_connected","value":1},
    {"name":"wasmcustom.gateway_sidecar_sync_age_seconds","value":99},
    {"name":"wasmcustom.gateway_bans_total;limit=logins","value":5},
    {"name":"wasmcustom.gateway_rate_limit_paused_total;limit=smooth","value":6},
    {"name":"wasmcustom.gateway_something_new_total;k=v","value":2},
    {"histograms":{"supported_percentiles":[50],"details":[
      {"name":"wasmcustom.gateway_request_duration_milliseconds;service=auth","totals":[
        {"lower_bound":0,"width":0,"count":2},{"lower_bound":5,"width":0.1,"count":3},
        {"lower_bound":240,"width":10,"count":1},{"lower_bound":250,"width":10,"count":1},
        {"lower_bound":100000,"width":10000,"count":1}],"intervals":[],"percentiles":[]},
      {"name":"wasmcustom.gateway_request_duration_milliseconds;service=idle","totals":[],"intervals":[],"percentiles":[]}]}}]}"#;

/// Checks a page by the rules of the text format and gives its samples.
#[track_caller]
fn exposition(page: &str, open: bool) -> BTreeMap<String, f64> {
    let mut types: HashMap<&str, &str> = HashMap::new();
    let mut helped = HashSet::new();
    let mut samples = BTreeMap::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(helped.insert(family), "{family} has HELP twice");
            assert!(!rest[family.len()..].trim().is_empty(), "{family} has no words");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "TYPE follows HELP");
            assert!(types.insert(name, kind).is_none(), "{name} has TYPE twice");
        } else if line == "# EOF" {
            assert!(open);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let endings: &[&str] = match types[family] {
                "histogram" => &["_bucket", "_sum", "_count"],
                "counter" if open => &["_total"],
                _ => &[""],
            };
            let fits = |ending: &&str| name.strip_suffix(*ending) == Some(family);
            assert!(endings.iter().any(fits), "{name} is not of {family}");
            if types[family] == "counter" {
                assert!(name.ends_with("_total"), "{name}");
            }
            let value = value.parse().unwrap();
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    assert_eq!(page.ends_with("# EOF\n"), open);
    let in_order = |service: &str| {
        let label = format!("service=\"{service}\"");
        page.lines()
            .filter(|line| line.contains("_bucket{") && line.contains(&label))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(in_order("auth").is_sorted());
    samples
}

async fn page(envoy: std::net::SocketAddr, accept: &str) -> (String, String) {
    let app = app("127.0.0.1:9902", envoy);
    let mut request = request("GET /metrics", None, "");
    request.headers_mut().insert("accept", accept.parse().unwrap());
    let (status, headers, body) = send(&app, request).await;
    assert_eq!(status, 200);
    (headers["content-type"].to_str().unwrap().to_owned(), body)
}

#[tokio::test]
async fn the_page_joins_the_filter_and_the_sidecar() {
    let (kind, page) = page(envoy(STATS).await, "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let samples = exposition(&page, false);
    let is = |series: &str, value: f64| {
        assert_eq!(samples.get(series), Some(&value), "{series}\n{page}")
    };
    is(r#"gateway_requests_total{service="auth",decision="allowed",reason="none"}"#, 7.0);
    is(r#"gateway_requests_total{service="a\"b\\c",decision="refused",reason="ip-denied"}"#, 1.0);
    is(r#"gateway_breaker_state{service="auth",state="open"}"#, 1.0);
    is("gateway_policy_generation", 4.0);
    is(r#"gateway_something_new_total{k="v"}"#, 2.0);
    is("gateway_envoy_up", 1.0);
    is("gateway_revocations", 0.0);
    is("gateway_api_keys", 0.0);
    is("gateway_bans_active", 0.0);
    is(r#"gateway_bans_total{limit="logins"}"#, 5.0);
    is(r#"gateway_rate_limit_paused_total{limit="smooth"}"#, 6.0);
    for outcome in ["counted", "repeated", "refused", "failed"] {
        is(&format!(r#"gateway_reports_total{{outcome="{outcome}"}}"#), 0.0);
    }
    assert!(!samples.contains_key("gateway_load_ratio"), "nobody has asked for it");
    assert!(page.contains("# HELP gateway_bans_total Bans that penalties"), "{page}");
    is(r#"gateway_jwks_fetch_total{provider="idp",outcome="ok"}"#, 3.0);
    is("gateway_state_generation", 9.0);
    assert!(page.contains("# HELP gateway_jwks_fetch_total Fetches of key sets"), "{page}");
    assert!(samples["gateway_sidecar_sync_age_seconds"] < 90.0, "the sidecar's own view wins");
}

#[tokio::test]
async fn durations_are_in_seconds_and_cumulative() {
    let (_, page) = page(envoy(STATS).await, "").await;
    let samples = exposition(&page, false);
    let bucket = |le: &str| {
        samples[&format!(r#"gateway_request_duration_seconds_bucket{{service="auth",le="{le}"}}"#)]
    };
    assert_eq!(bucket("0.001"), 2.0);
    assert_eq!(bucket("0.002"), 2.0);
    assert_eq!(bucket("0.005"), 5.0);
    assert_eq!(bucket("0.25"), 6.0);
    assert_eq!(bucket("0.5"), 7.0);
    assert_eq!(bucket("60"), 7.0);
    assert_eq!(bucket("+Inf"), 8.0);
    assert_eq!(samples[r#"gateway_request_duration_seconds_count{service="auth"}"#], 8.0);
    let sum = samples[r#"gateway_request_duration_seconds_sum{service="auth"}"#];
    assert!((sum - (0.015 + 0.2445 + 0.2545 + 104.9995)).abs() < 1e-9, "{sum}");
    assert_eq!(samples[r#"gateway_request_duration_seconds_count{service="idle"}"#], 0.0);
}

#[tokio::test]
async fn open_metrics_is_given_to_who_asks() {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let (kind, page) = page(envoy(STATS).await, accept).await;
    assert!(kind.starts_with("application/openmetrics-text"));
    let samples = exposition(&page, true);
    assert!(
        samples.contains_key(r#"gateway_request_duration_seconds_bucket{service="auth",le="1.0"}"#)
    );
    assert!(page.contains("# TYPE gateway_requests counter\n"));
}

#[tokio::test]
async fn without_envoy_the_sidecars_own_metrics_still_come() {
    let (_, page) = page(nobody().await, "").await;
    let samples = exposition(&page, false);
    assert_eq!(samples["gateway_envoy_up"], 0.0);
    assert!(samples.keys().any(|series| series.starts_with("gateway_build_info{")));
}
