//! Stories of whole requests: what each one meets, takes, gives back and leaves behind.

use super::*;
use crate::headers::{Headers, serialize};
use crate::model::{
    Algorithm, AuthMode, Authentication, Breakers, Bucket, Cidr, Fallback, HttpsMode, IpLists,
    KeyPart, Keys, LimitMode, Match, Provider, Secret, TokenLocation, Unavailable,
};
use crate::pattern::PathPattern;
use crate::testing::FakeStore;
use crate::time::Nanos;
use crate::verify::{TokenError, Verified};
use alloc::borrow::ToOwned;
use alloc::string::ToString;
use alloc::{format, vec};
use core::net::IpAddr;
use serde_json::{Value, json};

/// Takes `good:NAME` for a token of NAME, `old` for an expired one, nothing else.
struct FakeVerify;

impl Verify for FakeVerify {
    fn verify(&mut self, token: &[u8], _now: Nanos) -> Result<Verified, TokenError> {
        let token = core::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        if token == "old" {
            return Err(TokenError::Expired);
        }
        let name = token.strip_prefix("good:").ok_or(TokenError::Untrusted)?;
        let claims = json!({"sub": name, "plan": "gold", "tenant": "t\n1"});
        let Value::Object(claims) = claims else { return Err(TokenError::Malformed) };
        Ok(Verified { provider: 0, subject: Some(name.to_owned()), claims })
    }
}

fn provider() -> Provider {
    Provider {
        name: "own".to_string(),
        issuer: None,
        audiences: vec![],
        algorithms: vec![Algorithm::Hs256],
        keys: Keys::Secret(Secret::new(vec![])),
        locations: vec![TokenLocation::Header {
            name: "authorization".to_string(),
            scheme: Some("Bearer".to_string()),
        }],
        subject_claim: "sub".to_string(),
        require_subject: false,
        tier_claim: Some("plan".to_string()),
        require_expiry: true,
        max_lifetime: None,
        typ: None,
        forward_token: false,
        forward_claims: vec![
            ("sub".to_string(), "x-user".to_string()),
            ("tenant".to_string(), "x-tenant".to_string()),
        ],
    }
}

fn breaker_settings() -> Breaker {
    Breaker {
        failure_threshold: 2,
        timeout: Nanos::from_secs(5),
        max_timeout: Nanos::from_secs(5),
        backoff: 1,
        half_open_calls: 1,
        success_threshold: 1,
        failure_statuses: vec![500],
        ignore_statuses: vec![],
        fallback: None,
    }
}

fn limit_of(name: &str, key: Vec<KeyPart>, burst: u32) -> Limit {
    Limit {
        name: name.to_string(),
        matches: Match::default(),
        key,
        bucket: Bucket { requests: burst, per: Nanos::from_secs(60), burst },
        cost: 1,
        mode: LimitMode::Enforce,
        on_unavailable: Unavailable::Refuse,
        table_sets: 16,
    }
}

fn empty() -> Policy {
    Policy {
        name: "test".to_string(),
        hash: 0,
        https: HttpsMode::Off,
        ip: IpLists::default(),
        endpoints: vec![],
        authentication: None,
        security_headers: vec![],
        rate_limits: vec![],
        circuit_breakers: Breakers::default(),
        sidecar: None,
        variables: vec![],
        warnings: vec![],
    }
}

fn with_jwt() -> Policy {
    let authentication = Authentication {
        mode: AuthMode::Required,
        public: vec![PathPattern::parse("/health").unwrap()],
        clock_skew: Nanos::ZERO,
        providers: vec![provider()],
    };
    Policy { authentication: Some(authentication), ..empty() }
}

/// A gateway: a policy, a store, a clock, and what was heard.
struct Gateway {
    policy: Policy,
    store: FakeStore,
    now: u64,
    heard: Vec<String>,
    client: Option<IpAddr>,
}

impl Gateway {
    fn new(policy: Policy) -> Self {
        let client = "192.0.2.1".parse().ok();
        Self { policy, store: FakeStore::default(), now: 1_000, heard: vec![], client }
    }

    fn moment(&self) -> Moment {
        Moment { monotonic: Nanos::from_secs(self.now), wall: Nanos::from_secs(self.now) }
    }

    fn send(&mut self, path: &str, headers: &[(&str, &str)]) -> Step {
        let mut all = vec![(":method", "GET"), (":path", path), (":authority", "h")];
        all.extend_from_slice(&[(":scheme", "http"), ("x-request-id", "r-1")]);
        all.extend_from_slice(headers);
        let bytes: Vec<_> = all.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
        let bytes = serialize(&bytes);
        let facts =
            Facts { headers: Headers::new(&bytes), client: self.client, service: Some("svc") };
        let now = self.moment();
        let heard = &mut self.heard;
        let mut means = Means {
            store: &mut self.store,
            verify: &mut FakeVerify,
            events: &mut |event: Event<'_>| heard.push(format!("{event:?}")),
            seed: [1, 2],
        };
        judge(&self.policy, &facts, &mut means, now)
    }

    fn finish(&mut self, passage: Passage, status: u16, service: &str) {
        let now = self.moment();
        let outcome = Outcome {
            status,
            flags: 0,
            details: b"via_upstream",
            service: Some(service),
            duration: Nanos::ZERO,
        };
        let heard = &mut self.heard;
        let mut events = |event: Event<'_>| heard.push(format!("{event:?}"));
        passage.finish(&self.policy, &outcome, &mut self.store, &mut events, [1, 2], now);
    }

    #[track_caller]
    fn forwarded(&mut self, path: &str, headers: &[(&str, &str)]) -> (Edits, Passage) {
        match self.send(path, headers) {
            Step::Forward(edits, passage) => (edits, passage),
            Step::Reply(reply, _) => panic!("refused: {reply:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, path: &str, headers: &[(&str, &str)], reason: Reason) -> Reply {
        match self.send(path, headers) {
            Step::Reply(reply, _) => {
                assert_eq!(reply.reason, reason);
                reply
            }
            Step::Forward(..) => panic!("forwarded instead of {reason:?}"),
        }
    }

    fn call(&mut self, status: u16) {
        let (_, passage) = self.forwarded("/a", &[]);
        self.finish(passage, status, "svc");
    }

    fn heard(&self, what: &str) -> usize {
        self.heard.iter().filter(|event| event.contains(what)).count()
    }
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

const GOOD: (&str, &str) = ("authorization", "Bearer good:ada");
const BAD: (&str, &str) = ("authorization", "Bearer forged");

#[test]
fn an_empty_policy_lets_everything_pass_and_touches_nothing() {
    let mut gateway = Gateway::new(empty());
    let (edits, passage) = gateway.forwarded("/a", &[]);
    assert!(edits.is_empty());
    let mut added = 0;
    passage.response_headers(&gateway.policy, &mut |_| false, &mut |_, _| added += 1);
    assert_eq!(added, 0);
    gateway.finish(passage, 200, "svc");
    assert_eq!(gateway.store.reads, 0);
    assert_eq!(gateway.heard("Finished"), 1);
}

#[test]
fn the_stages_refuse_in_the_order_of_the_contract() {
    let mut policy = with_jwt();
    policy.https = HttpsMode::Refuse;
    policy.ip.deny = vec![Cidr { network: "192.0.2.0".parse().unwrap(), prefix: 24 }];
    policy.rate_limits = vec![limit_of("all", vec![], 1)];
    let mut gateway = Gateway::new(policy);
    gateway.refused("/a", &[], Reason::HttpsRequired);
    gateway.policy.https = HttpsMode::Off;
    gateway.refused("/a", &[], Reason::IpDenied);
    gateway.policy.ip.deny.clear();
    assert_eq!(gateway.store.reads, 0, "what needs no state is judged before state is touched");
    gateway.refused("/a", &[], Reason::CredentialsMissing);
    gateway.refused("/a", &[], Reason::RateLimited);
}

#[test]
fn a_problem_says_what_a_program_needs() {
    let mut gateway = Gateway::new(with_jwt());
    let reply = gateway.refused("/a?secret=1", &[], Reason::CredentialsMissing);
    assert_eq!(reply.status, 401);
    assert_eq!(header(&reply, "content-type"), Some("application/problem+json"));
    assert_eq!(header(&reply, "www-authenticate"), Some("Bearer realm=\"test\""));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = json!({
        "type": "about:blank", "title": "Unauthorized", "status": 401,
        "detail": "A credential is required.", "instance": "/a",
        "code": "credentials-missing", "request_id": "r-1",
    });
    assert_eq!(body, expected);
    let reply = gateway.refused("/a", &[BAD], Reason::TokenUntrusted);
    assert!(header(&reply, "www-authenticate").unwrap().contains("error=\"invalid_token\""));
}

#[test]
fn a_grpc_call_is_refused_in_its_own_terms() {
    let mut gateway = Gateway::new(with_jwt());
    let grpc = ("content-type", "application/grpc+proto");
    let reply = gateway.refused("/a", &[grpc], Reason::CredentialsMissing);
    assert_eq!(reply.grpc_status, Some(16));
    assert_eq!(reply.body, b"A credential is required.");
}

#[test]
fn nobody_outside_may_say_who_he_is() {
    let mut gateway = Gateway::new(with_jwt());
    let forged = ("x-user", "root");
    let (edits, _) = gateway.forwarded("/health", &[forged]);
    assert_eq!(edits.remove, ["x-user"], "on public paths too");
    let (edits, _) = gateway.forwarded("/a", &[forged, ("x-tenant", "evil"), GOOD]);
    assert_eq!(edits.remove, ["x-user", "x-tenant", "authorization"]);
    assert_eq!(edits.set, [("x-user".to_string(), b"ada".to_vec())], "no line break in a header");
}

#[test]
fn a_public_path_is_public_only_when_it_can_be_read_in_one_way() {
    let mut policy = with_jwt();
    if let Some(authentication) = &mut policy.authentication {
        authentication.public = vec![PathPattern::parse("/docs/**").unwrap()];
    }
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/docs/a", &[]);
    for path in ["/docs/../api/admin", "/docs/%2e%2e/api/admin", "/docs/..%2fapi", "/docs/..\\api"]
    {
        gateway.refused(path, &[], Reason::CredentialsMissing);
    }
}

/// A reviewer's case: both tables had one name, and each read the other's sets as rubbish.
#[test]
fn a_limit_named_breaker_leaves_the_breakers_alone() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("breaker", vec![KeyPart::Ip], 1_000)];
    policy.rate_limits[0].table_sets = 512;
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    for client in 0..5_000_u32 {
        gateway.client = Some(IpAddr::from(client.to_be_bytes()));
        gateway.refused("/a", &[], Reason::BreakerOpen);
    }
    assert_eq!(gateway.heard("RecordUnreadable"), 0);
}

#[test]
fn two_different_tokens_are_refused_even_if_both_are_good() {
    let mut policy = with_jwt();
    if let Some(authentication) = &mut policy.authentication {
        let query = TokenLocation::Query("t".to_string());
        authentication.providers[0].locations.push(query);
    }
    let mut gateway = Gateway::new(policy);
    gateway.refused("/a?t=good:bob", &[GOOD], Reason::TokenMalformed);
    gateway.forwarded("/a?t=good:ada", &[GOOD]);
}

#[test]
fn a_limit_by_user_counts_each_user_alone() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("user", vec![KeyPart::User], 2)];
    let mut gateway = Gateway::new(policy);
    let bob = ("authorization", "Bearer good:bob");
    gateway.forwarded("/a", &[GOOD]);
    gateway.forwarded("/a", &[GOOD]);
    let reply = gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.forwarded("/a", &[bob]);
    assert_eq!(header(&reply, "retry-after"), Some("30"));
    assert_eq!(header(&reply, "ratelimit"), Some("\"user\";r=0;t=30"));
    assert_eq!(header(&reply, "ratelimit-policy"), Some("\"user\";q=2;w=60"));
    assert_eq!(header(&reply, "x-ratelimit-remaining"), Some("0"));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["violated-policies"], json!(["user"]));
    assert_eq!(body["retry_after"], 30);
    gateway.now += 30;
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn a_refusal_by_one_limit_gives_back_what_the_others_took() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("all", vec![], 3), limit_of("user", vec![KeyPart::User], 1)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[GOOD]);
    for _ in 0..10 {
        gateway.refused("/a", &[GOOD], Reason::RateLimited);
    }
    gateway.forwarded("/a", &[("authorization", "Bearer good:bob")]);
    gateway.forwarded("/a", &[("authorization", "Bearer good:eve")]);
    gateway.refused("/a", &[("authorization", "Bearer good:kim")], Reason::RateLimited);
}

#[test]
fn a_bad_token_keeps_what_it_took_so_that_guessing_is_limited() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("ip", vec![KeyPart::Ip], 2)];
    let mut gateway = Gateway::new(policy);
    gateway.refused("/a", &[BAD], Reason::TokenUntrusted);
    gateway.refused("/a", &[BAD], Reason::TokenUntrusted);
    gateway.refused("/a", &[BAD], Reason::RateLimited);
    gateway.client = "192.0.2.2".parse().ok();
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn the_response_tells_the_limit_nearest_to_exhaustion() {
    let mut policy = with_jwt();
    policy.rate_limits =
        vec![limit_of("wide", vec![], 100), limit_of("tight", vec![KeyPart::User], 4)];
    policy.security_headers = vec![("x-frame-options".to_string(), "DENY".to_string())];
    let mut gateway = Gateway::new(policy);
    let (_, passage) = gateway.forwarded("/a", &[GOOD]);
    let mut added = vec![];
    let mut present = |name: &str| name == "x-ratelimit-limit";
    let mut add = |name: &str, value: &str| added.push(format!("{name}: {value}"));
    passage.response_headers(&gateway.policy, &mut present, &mut add);
    let expected = [
        "x-frame-options: DENY",
        "ratelimit: \"tight\";r=3;t=15",
        "ratelimit-policy: \"tight\";q=4;w=60",
        "x-ratelimit-remaining: 3",
        "x-ratelimit-reset: 15",
    ];
    assert_eq!(added, expected);
}

#[test]
fn exempt_addresses_and_unmatched_requests_are_not_counted() {
    let mut policy = empty();
    let mut only_api = limit_of("api", vec![], 1);
    only_api.matches.paths = vec![PathPattern::parse("/api/**").unwrap()];
    only_api.matches.methods = vec!["GET".to_string()];
    policy.rate_limits = vec![only_api];
    policy.ip.exempt = vec![Cidr { network: "10.9.0.0".parse().unwrap(), prefix: 16 }];
    let mut gateway = Gateway::new(policy);
    for _ in 0..3 {
        gateway.forwarded("/other", &[]);
    }
    gateway.forwarded("/api/x", &[]);
    gateway.refused("/api/x", &[], Reason::RateLimited);
    gateway.client = "10.9.1.1".parse().ok();
    gateway.forwarded("/api/x", &[]);
}

#[test]
fn a_limit_in_shadow_reports_and_never_refuses() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("trial", vec![], 1)];
    policy.rate_limits[0].mode = LimitMode::Shadow;
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[]);
    gateway.forwarded("/a", &[]);
    assert_eq!(gateway.heard("ShadowOver"), 1);
}

#[test]
fn without_shared_state_a_limit_does_what_its_policy_says_and_breakers_let_pass() {
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("all", vec![], 1)];
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.store.down = true;
    let reply = gateway.refused("/a", &[], Reason::StateUnavailable);
    assert_eq!(reply.status, 503);
    assert_eq!(gateway.heard("ErrorRefused"), 1);
    gateway.policy.rate_limits[0].on_unavailable = Unavailable::Allow;
    gateway.call(500);
    gateway.call(500);
    gateway.call(200);
    assert_eq!(gateway.heard("ErrorAllowed"), 3);
}

#[test]
fn a_breaker_opens_refuses_probes_and_recovers() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    policy.rate_limits = vec![limit_of("all", vec![], 4)];
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    for _ in 0..10 {
        let reply = gateway.refused("/a", &[], Reason::BreakerOpen);
        assert_eq!(reply.status, 503);
        assert_eq!(header(&reply, "retry-after"), Some("5"));
        assert_eq!(header(&reply, "x-circuit-open"), Some("true"));
    }
    gateway.now += 5;
    let (_, probe) = gateway.forwarded("/a", &[]);
    gateway.refused("/a", &[], Reason::BreakerOpen);
    gateway.finish(probe, 200, "svc");
    // The refusals took no token: of four, three were taken by calls that went through.
    gateway.call(200);
    for to in ["to: Closed", "to: Open", "to: HalfOpen"] {
        assert!(gateway.heard(to) >= 1, "{to}");
    }
    assert_eq!(gateway.heard("BreakerTransition"), 4, "created, open, half-open, closed");
}

#[test]
fn an_open_breaker_answers_with_the_fallback_of_its_service() {
    let mut policy = empty();
    let fallback = Fallback {
        status: 200,
        body: "[]".to_string(),
        content_type: "application/json".to_string(),
    };
    let settings = Breaker { failure_threshold: 1, fallback: Some(fallback), ..breaker_settings() };
    policy.circuit_breakers.services = vec![("svc".to_string(), settings)];
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    let reply = gateway.refused("/a", &[], Reason::BreakerOpen);
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"[]"[..]));
    assert_eq!(header(&reply, "x-circuit-open"), Some("true"));
}

#[test]
fn a_route_that_changed_after_the_verdict_is_settled_where_the_request_went() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    for _ in 0..2 {
        let (_, passage) = gateway.forwarded("/a", &[]);
        gateway.finish(passage, 500, "elsewhere");
    }
    assert_eq!(gateway.heard("service: \"elsewhere\", from: Some(Closed), to: Open"), 1);
    gateway.call(200);
}

#[test]
fn an_operator_closes_a_breaker_that_is_known_and_no_other() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    gateway.refused("/a", &[], Reason::BreakerOpen);
    let now = gateway.moment();
    let mut quiet = |_: Event<'_>| {};
    let mut reset =
        |service: &str| reset_breaker(service, &mut gateway.store, &mut quiet, [1, 2], now);
    assert_eq!(reset("nobody"), Ok(ResetOutcome::Unknown));
    assert_eq!(reset("svc"), Ok(ResetOutcome::Closed));
    gateway.call(200);
}

#[test]
fn a_probe_that_becomes_a_websocket_closes_the_breaker_at_once_and_is_counted_once() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    gateway.now += 5;
    let (_, mut probe) = gateway.forwarded("/a", &[]);
    assert!(probe.is_probe());
    let now = gateway.moment();
    let mut quiet = |_: Event<'_>| {};
    probe.upgraded(&gateway.policy, &mut gateway.store, &mut quiet, [1, 2], now);
    gateway.call(200);
    let before = gateway.heard("BreakerCall");
    gateway.finish(probe, 101, "svc");
    assert_eq!(gateway.heard("BreakerCall"), before);
}

#[test]
fn a_request_that_the_shell_refused_after_all_gives_its_permit_back() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    gateway.call(500);
    gateway.call(500);
    gateway.now += 5;
    let (_, probe) = gateway.forwarded("/a", &[]);
    gateway.finish(probe.refused(Reason::StateUnavailable), 503, "svc");
    assert_eq!(gateway.heard("refused: Some(StateUnavailable)"), 1);
    let (_, next) = gateway.forwarded("/a", &[]);
    gateway.finish(next, 200, "svc");
    assert_eq!(gateway.heard("to: Closed"), 2, "created closed, and closed again");
}

#[test]
fn a_stream_that_was_never_seen_is_counted_and_settles_nothing() {
    let mut policy = empty();
    policy.circuit_breakers.default = Some(breaker_settings());
    let mut gateway = Gateway::new(policy);
    let outcome =
        Outcome { status: 400, flags: 0, details: b"", service: None, duration: Nanos::ZERO };
    let now = gateway.moment();
    let heard = &mut gateway.heard;
    let mut events = |event: Event<'_>| heard.push(format!("{event:?}"));
    let store = &mut gateway.store;
    Passage::unseen().finish(&gateway.policy, &outcome, store, &mut events, [1, 2], now);
    assert_eq!(
        gateway.heard,
        [
            "Finished { service: \"none\", refused: None, status: 400, from_upstream: false, duration: Nanos(0) }"
        ]
    );
    assert_eq!(gateway.store.reads, 0);
}

#[test]
fn a_clear_text_get_is_sent_to_https_and_a_post_is_not() {
    let mut policy = empty();
    policy.https = HttpsMode::Redirect;
    let mut gateway = Gateway::new(policy);
    let reply = gateway.refused("/a?b=c", &[], Reason::HttpsRequired);
    assert_eq!((reply.status, header(&reply, "location")), (308, Some("https://h/a?b=c")));
    gateway.forwarded("/a", &[("x-forwarded-proto", "https")]);
}
