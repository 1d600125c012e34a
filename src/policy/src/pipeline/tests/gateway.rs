//! A gateway to tell stories about: a policy, a store, a clock, a verifier, and what was heard.

use crate::event::Event;
use crate::facts::Facts;
use crate::headers::{Headers, serialize};
use crate::kernel::breaker::Permit;
use crate::model::{
    Algorithm, AuthMode, Authentication, Breaker, Breakers, Bucket, HttpsMode, IpLists, KeyPart,
    Keys, Limit, LimitAlgorithm, LimitMode, Match, Policy, Provider, Secret, SecretSource, Sidecar,
    TokenCache, TokenLocation, Unavailable,
};
use crate::pattern::PathPattern;
use crate::pipeline::{Means, Outcome, Passage, Step, Suspended, judge, resume};
use crate::reason::Reason;
use crate::reply::{Edits, Reply};
use crate::stage::limit::Leases;
use crate::stage::{Pause, Reports};
use crate::sync::BanMade;
use crate::testing::{FakeDigest, FakeSecrets, FakeStore};
use crate::time::{Moment, Nanos};
use crate::verify::{TokenError, Verified, Verify};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::IpAddr;
use serde_json::{Value, json};

/// Takes `good:NAME` for a token of NAME, `good:NAME/WORDS` for one with these permissions, and
/// `other:NAME` for one of the second provider's.
/// Some other words are bad in a certain way; the rest is untrusted.
pub(super) struct FakeVerify {
    /// Keys are on their way.
    pub(super) pending: bool,
    pub(super) asked: usize,
}

impl Verify for FakeVerify {
    fn verify(&mut self, token: &[u8], _now: Moment) -> Result<Verified, TokenError> {
        self.asked += 1;
        if self.pending {
            return Err(TokenError::Pending);
        }
        let token = core::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let other = token.strip_prefix("other:");
        let name = token.strip_prefix("good:").or(other).ok_or(match token {
            "" => TokenError::Malformed,
            "old" => TokenError::Expired,
            "early" => TokenError::NotYetValid,
            "unknown" => TokenError::UnknownKey { provider: 0 },
            "unchecked" => TokenError::KeysUnavailable { provider: 0 },
            "revoked" => TokenError::Revoked,
            "unseeded" => TokenError::Unseeded,
            _ => TokenError::Untrusted,
        })?;
        let (name, scope) = name.split_once('/').unwrap_or((name, ""));
        let subject = Some(name).filter(|name| !name.is_empty()).map(String::from);
        let list: Vec<&str> = scope.split(' ').filter(|word| word.starts_with("listed:")).collect();
        let claims = json!({
            "sub": name, "plan": "gold", "tenant": "t\n1", "scope": scope, "permissions": list,
            "number": 7, "roles": {"admin": true},
        });
        let Value::Object(claims) = claims else { return Err(TokenError::Malformed) };
        Ok(Verified { provider: usize::from(other.is_some()), subject, claims: claims.into() })
    }
}

pub(super) fn provider() -> Provider {
    Provider {
        name: "own".to_string(),
        issuer: None,
        audiences: vec![],
        algorithms: vec![Algorithm::Hs256],
        keys: Keys::Secret(SecretSource::Known(Secret::new(vec![]))),
        locations: vec![TokenLocation::Header {
            name: "authorization".to_string(),
            scheme: Some("Bearer".to_string()),
        }],
        subject_claim: "sub".to_string(),
        require_subject: false,
        tier_claim: Some("plan".to_string()),
        permission_claims: vec!["permissions".to_string(), "scope".to_string(), "none".to_string()],
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

pub(super) fn breaker_settings() -> Breaker {
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

pub(super) fn limit_of(name: &str, key: Vec<KeyPart>, burst: u32) -> Limit {
    Limit {
        name: name.to_string(),
        matches: Match::default(),
        key,
        algorithm: bucket(burst, Nanos::from_secs(60), burst),
        cost: 1,
        mode: LimitMode::Enforce,
        on_unavailable: Unavailable::Refuse,
        table_sets: 16,
        penalty: None,
    }
}

pub(super) const fn bucket(requests: u32, per: Nanos, burst: u32) -> LimitAlgorithm {
    LimitAlgorithm::TokenBucket(Bucket { requests, per, burst })
}

pub(super) fn empty() -> Policy {
    Policy {
        name: "test".to_string(),
        hash: 0,
        https: HttpsMode::Off,
        ip: IpLists::default(),
        endpoints: vec![],
        authentication: None,
        revocation: None,
        authorization: None,
        csrf: None,
        security_headers: vec![],
        rate_limits: vec![],
        circuit_breakers: Breakers::default(),
        sidecar: None,
        variables: vec![],
        warnings: vec![],
    }
}

pub(super) fn authentication() -> Authentication {
    Authentication {
        mode: AuthMode::Required,
        public: patterns(&["/health"]),
        clock_skew: Nanos::ZERO,
        cache: TokenCache { max_entries: 0, ttl: Nanos::SECOND },
        providers: vec![provider()],
        api_keys: None,
    }
}

pub(super) fn sidecar() -> Sidecar {
    Sidecar { cluster: "gateway-sidecar".to_string(), token: Secret::new(vec![]) }
}

pub(super) fn patterns(texts: &[&str]) -> Vec<PathPattern> {
    texts.iter().map(|text| PathPattern::parse(text).unwrap()).collect()
}

pub(super) fn with_jwt() -> Policy {
    Policy { authentication: Some(authentication()), ..empty() }
}

/// The keys of the fingerprints.
pub(super) const SEED: [u64; 2] = [1, 2];

/// What was reported by name.
#[derive(Default)]
pub(super) struct Told {
    /// Refused keys, `limit key`, each time.
    pub(super) limited: Vec<String>,
    pub(super) bans: Vec<BanMade>,
}

impl Reports for Told {
    fn limited(&mut self, limit: &str, _tag: u64, key: &dyn Fn() -> Option<String>) {
        let key = key().unwrap_or_else(|| "too long".to_string());
        self.limited.push(format!("{limit} {key}"));
    }

    fn banned(&mut self, ban: BanMade) {
        self.bans.push(ban);
    }
}

/// A gateway and its world.
pub(super) struct Gateway {
    pub(super) policy: Policy,
    pub(super) store: FakeStore,
    pub(super) verify: FakeVerify,
    pub(super) now: u64,
    /// Milliseconds beside that.
    pub(super) ms: u64,
    /// How far the clock on the wall is ahead of the other.
    pub(super) wall: Nanos,
    pub(super) heard: Vec<String>,
    pub(super) told: Told,
    pub(super) leases: Leases,
    pub(super) state_keys: Option<[u64; 2]>,
    pub(super) load: u32,
    pub(super) pause: Pause,
    /// How many random bytes were asked for so far, which are what they get.
    pub(super) dice: u8,
    pub(super) client: Option<IpAddr>,
    pub(super) method: &'static str,
    pub(super) service: Option<&'static str>,
}

impl Gateway {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            store: FakeStore::default(),
            verify: FakeVerify { pending: false, asked: 0 },
            now: 1_000,
            ms: 0,
            wall: Nanos::ZERO,
            heard: vec![],
            told: Told::default(),
            leases: Leases::default(),
            state_keys: None,
            load: 0,
            pause: Pause::Room,
            dice: 9,
            client: "192.0.2.1".parse().ok(),
            method: "GET",
            service: Some("svc"),
        }
    }

    pub(super) fn moment(&self) -> Moment {
        let now = Nanos::from_secs(self.now) + Nanos::from_millis(self.ms);
        Moment { monotonic: now, wall: now + self.wall }
    }

    pub(super) fn send(&mut self, path: &str, headers: &[(&str, &str)]) -> Step {
        self.judge(path, headers, None)
    }

    pub(super) fn resume(&mut self, path: &str, headers: &[(&str, &str)], held: Suspended) -> Step {
        self.judge(path, headers, Some(held))
    }

    fn judge(&mut self, path: &str, headers: &[(&str, &str)], held: Option<Suspended>) -> Step {
        let mut all = vec![(":method", self.method), (":path", path), (":authority", "h")];
        all.extend_from_slice(&[(":scheme", "http"), ("x-request-id", "r-1")]);
        all.extend_from_slice(headers);
        let bytes: Vec<_> = all.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
        let bytes = serialize(&bytes);
        let facts =
            Facts { headers: Headers::new(&bytes), client: self.client, service: self.service };
        self.with(|policy, means, now| match held {
            None => judge(policy, &facts, means, now),
            Some(held) => resume(policy, &facts, means, held, now),
        })
    }

    /// Does something with what the stages have.
    pub(super) fn with<T>(&mut self, act: impl FnOnce(&Policy, &mut Means<'_>, Moment) -> T) -> T {
        let now = self.moment();
        let heard = &mut self.heard;
        let dice = &mut self.dice;
        let mut means = Means {
            store: &mut self.store,
            verify: &mut self.verify,
            digest: &FakeDigest,
            secrets: &FakeSecrets,
            random: &mut |bytes: &mut [u8]| {
                bytes.fill(*dice);
                *dice = dice.wrapping_add(1);
            },
            events: &mut |event: Event<'_>| heard.push(format!("{event:?}")),
            reports: &mut self.told,
            leases: &mut self.leases,
            seed: SEED,
            state_keys: self.state_keys,
            load: self.load,
            pause: self.pause,
        };
        act(&self.policy, &mut means, now)
    }

    pub(super) fn finish(&mut self, passage: Passage, status: u16, service: &str) {
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
        passage.finish(&self.policy, &outcome, &mut self.store, &mut events, SEED, now);
    }

    #[track_caller]
    pub(super) fn forwarded(&mut self, path: &str, headers: &[(&str, &str)]) -> (Edits, Passage) {
        match self.send(path, headers) {
            Step::Forward(edits, passage) => (edits, passage),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn refused(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        reason: Reason,
    ) -> Reply {
        match self.send(path, headers) {
            Step::Reply(reply, _) => {
                assert_eq!(reply.reason, reason, "{path}");
                reply
            }
            other => panic!("{path} not refused for {reason:?}: {other:?}"),
        }
    }

    /// Why a request is refused; `None` for one that is not.
    pub(super) fn reason(&mut self, path: &str, headers: &[(&str, &str)]) -> Option<Reason> {
        match self.send(path, headers) {
            Step::Reply(reply, _) => Some(reply.reason),
            Step::Forward(..) | Step::Wait(_) => None,
        }
    }

    #[track_caller]
    pub(super) fn held(&mut self, path: &str, headers: &[(&str, &str)]) -> Suspended {
        match self.send(path, headers) {
            Step::Wait(held) => held,
            other => panic!("does not wait: {other:?}"),
        }
    }

    /// A request ends while it waits.
    pub(super) fn abandon(&mut self, held: Suspended) -> Passage {
        let now = self.moment();
        let heard = &mut self.heard;
        let mut events = |event: Event<'_>| heard.push(format!("{event:?}"));
        held.abandon(&self.policy, &mut self.store, &mut events, now)
    }

    pub(super) fn call(&mut self, status: u16) {
        let (_, passage) = self.forwarded("/a", &[]);
        self.finish(passage, status, "svc");
    }

    pub(super) fn heard(&self, what: &str) -> usize {
        self.heard.iter().filter(|event| event.contains(what)).count()
    }

    /// The headers that a response gets; `present` are those that it has.
    pub(super) fn added(&self, passage: &Passage, present: &[&str]) -> Vec<String> {
        let mut added = vec![];
        let mut is_present = |name: &str| present.contains(&name);
        let mut add = |name: &str, value: &str| added.push(format!("{name}: {value}"));
        passage.response_headers(&self.policy, &mut is_present, &mut add);
        added
    }
}

pub(super) fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    headers(reply, name).first().copied()
}

pub(super) fn headers<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    let found = reply.headers.iter().filter(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str()).collect()
}

/// Whether a passage holds a permit of a breaker.
pub(super) const fn permit(passage: &Passage) -> Option<Permit> {
    passage.permit
}

pub(super) const GOOD: (&str, &str) = ("authorization", "Bearer good:ada");
pub(super) const BAD: (&str, &str) = ("authorization", "Bearer forged");
