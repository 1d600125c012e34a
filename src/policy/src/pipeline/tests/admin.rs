//! Stories of administrators: how a key stands, that it be forgotten, that somebody be forgotten, and
//! what a policy may take of memory.

use super::api_keys::{KEY, key, with_keys};
use super::gateway::{
    GOOD, Gateway, SEED, breaker_settings, bucket, empty, limit_of, provider, with_jwt,
};
use crate::event::Event;
use crate::model::{
    Adaptive, Bucket, KeyPart, Leak, Limit, LimitAlgorithm, Penalty, Policy, Provider, Window,
};
use crate::pipeline::Step;
use crate::reason::Reason;
use crate::stage::limit::admin::{Known, Progress, Sweep, VALUE_OVERHEAD, read_key, reset_key};
use crate::stage::limit::memory;
use crate::store::StoreError;
use crate::sync::{KeyStanding, Named};
use crate::time::Nanos;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

const MINUTE: Nanos = Nanos::from_secs(60);
const BOB: (&str, &str) = ("authorization", "Bearer good:bob");

fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(part, value)| ((*part).to_string(), (*value).to_string())).collect()
}

fn providers(gateway: &Gateway) -> Vec<String> {
    let section = gateway.policy.authentication.iter();
    section.flat_map(|section| &section.providers).map(|one| one.name.clone()).collect()
}

/// How a key of the first limit stands.
fn read(gateway: &mut Gateway, key: &[(&str, &str)]) -> Option<Vec<KeyStanding>> {
    let names = providers(gateway);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let limit = gateway.policy.rate_limits[0].clone();
    let now = gateway.moment().monotonic;
    let mut events = |_: Event<'_>| {};
    read_key(&limit, &names, &words(key), &mut gateway.store, &mut events, SEED, now).unwrap()
}

fn reset(gateway: &mut Gateway, key: &[(&str, &str)]) -> Known {
    let names = providers(gateway);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let limit = gateway.policy.rate_limits[0].clone();
    let mut events = |_: Event<'_>| {};
    gateway.leases.forget();
    reset_key(&limit, &names, &words(key), &mut gateway.store, &mut events, SEED).unwrap()
}

/// Provider, known, remaining, milliseconds until full and until admitted.
type Shown<'a> = (Option<&'a str>, bool, u32, u64, u64);

#[track_caller]
fn stands(gateway: &mut Gateway, key: &[(&str, &str)], expected: &[Shown<'_>]) {
    let found = read(gateway, key).expect("a key of the limit");
    let shown: Vec<Shown<'_>> = found
        .iter()
        .map(|one| {
            let provider = one.provider.as_deref();
            (provider, one.known, one.remaining, one.reset_ms, one.retry_ms)
        })
        .collect();
    assert_eq!(shown, expected);
}

fn by(key: Vec<KeyPart>) -> Gateway {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("one", key, 2)];
    Gateway::new(policy)
}

#[test]
fn a_key_is_found_by_its_words_in_every_algorithm() {
    let (requests, per) = (2, MINUTE);
    let of = Bucket { requests, per, burst: 2 };
    for (algorithm, some, none) in [
        (bucket(2, MINUTE, 2), (1, 30_000, 0), (0, 60_000, 30_000)),
        // The part that 1,000 s lie in ends after two seconds; ten more count.
        (
            LimitAlgorithm::SlidingWindow(Window { requests, per }),
            (1, 62_000, 0),
            (0, 62_000, 62_000),
        ),
        (
            LimitAlgorithm::LeakyBucket(Leak { requests, per, queue: 1 }),
            (1, 30_000, 0),
            (0, 60_000, 30_000),
        ),
        (
            LimitAlgorithm::Adaptive(Adaptive { bucket: of, threshold: 500, floor: 100 }),
            (1, 30_000, 0),
            (0, 60_000, 30_000),
        ),
    ] {
        let mut gateway = by(vec![KeyPart::Ip]);
        gateway.policy.rate_limits[0].algorithm = algorithm;
        let client = [("ip", "192.0.2.1")];
        stands(&mut gateway, &client, &[(None, false, 2, 0, 0)]);
        gateway.forwarded("/a", &[GOOD]);
        stands(&mut gateway, &client, &[(None, true, some.0, some.1, some.2)]);
        gateway.send("/a", &[GOOD]);
        gateway.refused("/a", &[GOOD], Reason::RateLimited);
        stands(&mut gateway, &client, &[(None, true, none.0, none.1, none.2)]);
        stands(&mut gateway, &[("ip", "192.0.2.2")], &[(None, false, 2, 0, 0)]);
        assert_eq!(reset(&mut gateway, &client), Known::Yes);
        stands(&mut gateway, &client, &[(None, false, 2, 0, 0)]);
        assert_eq!(reset(&mut gateway, &client), Known::Yes, "forgotten already");
        gateway.forwarded("/a", &[GOOD]);
    }
}

#[test]
fn words_that_are_no_key_of_the_limit_are_said_to_be_none() {
    let mut gateway = by(vec![KeyPart::Ip, KeyPart::Endpoint]);
    for wrong in [
        &[][..],
        &[("ip", "192.0.2.1")],
        &[("ip", "192.0.2.1"), ("endpoint", "a"), ("user", "x")],
        &[("ip", "192.0.2.1"), ("service", "a")],
        &[("ip", "here"), ("endpoint", "a")],
        &[("ip", "192.0.2.1"), ("endpoint", "a"), ("provider", "own")],
    ] {
        assert_eq!(read(&mut gateway, wrong), None, "{wrong:?}");
        assert_eq!(reset(&mut gateway, wrong), Known::No, "{wrong:?}");
    }
    stands(&mut gateway, &[("ip", "-"), ("endpoint", "a")], &[(None, false, 2, 0, 0)]);
    let mut gateway = by(vec![]);
    gateway.forwarded("/a", &[GOOD]);
    stands(&mut gateway, &[], &[(None, true, 1, 30_000, 0)]);
}

#[test]
fn what_a_report_calls_a_key_finds_it_again() {
    let header = KeyPart::Header("x-a".to_string());
    let mut gateway = by(vec![KeyPart::User, header, KeyPart::Ip]);
    for _ in 0..3 {
        gateway.send("/a", &[GOOD, ("x-a", "b")]);
    }
    assert_eq!(gateway.told.limited, ["one user=ada,provider=own,header:x-a=b,ip=192.0.2.1"]);
    let pairs = [("user", "ada"), ("provider", "own"), ("header:x-a", "b"), ("ip", "192.0.2.1")];
    stands(&mut gateway, &pairs, &[(Some("own"), true, 0, 60_000, 30_000)]);
    let mapped = [("user", "ada"), ("header:x-a", "b"), ("ip", "::ffff:192.0.2.1")];
    stands(&mut gateway, &mapped, &[(Some("own"), true, 0, 60_000, 30_000)]);
}

#[test]
fn a_user_without_a_provider_is_looked_for_at_each_and_among_api_keys() {
    let mut policy = with_keys(vec![key("ada", "robot-secret")]);
    let other = Provider { name: "idp".to_string(), ..provider() };
    policy.authentication.as_mut().unwrap().providers.push(other);
    policy.rate_limits = vec![limit_of("one", vec![KeyPart::User], 2)];
    let mut gateway = Gateway::new(policy);
    let theirs = ("authorization", "Bearer other:ada");
    gateway.forwarded("/a", &[theirs]);
    let unknown = (Some("own"), false, 2, 0, 0);
    let known = (Some("idp"), true, 1, 30_000, 0);
    stands(&mut gateway, &[("user", "ada")], &[unknown, known]);
    stands(&mut gateway, &[("user", "ada"), ("provider", "idp")], &[known]);
    gateway.forwarded("/a", &[KEY]);
    stands(&mut gateway, &[("user", "ada")], &[unknown, known, (None, true, 1, 30_000, 0)]);
    stands(&mut gateway, &[("user", "-")], &[(None, false, 2, 0, 0)]);
    assert_eq!(reset(&mut gateway, &[("user", "ada"), ("provider", "own")]), Known::Yes);
    stands(&mut gateway, &[("user", "ada"), ("provider", "idp")], &[known]);
    assert_eq!(reset(&mut gateway, &[("user", "ada")]), Known::Yes);
    let gone = (Some("idp"), false, 2, 0, 0);
    stands(&mut gateway, &[("user", "ada")], &[unknown, gone]);
}

#[test]
fn a_store_that_is_down_says_so() {
    let mut gateway = by(vec![]);
    gateway.store.down = true;
    let limit = gateway.policy.rate_limits[0].clone();
    let none = BTreeMap::new();
    let mut events = |_: Event<'_>| {};
    let store = &mut gateway.store;
    let read = read_key(&limit, &[], &none, store, &mut events, SEED, Nanos::ZERO);
    assert_eq!(read, Err(StoreError::Unavailable));
    let reset = reset_key(&limit, &[], &none, store, &mut events, SEED);
    assert_eq!(reset, Err(StoreError::Unavailable));
    let mut sweep = Sweep::new(&with_limits(), &named("user", "ada"), SEED).unwrap();
    assert_eq!(sweep.step(1, store), Err(StoreError::Unavailable));
    store.down = false;
    let mut more = 0;
    while sweep.step(1, store) == Ok(Progress::More) {
        more += 1;
    }
    assert_eq!(more, 4 * 16, "the set that failed is looked at again");
}

fn named(kind: &str, name: &str) -> Named {
    Named { kind: kind.to_string(), provider: None, name: name.to_string() }
}

/// One limit of each algorithm by user and address, one by something else, and a penalty.
fn with_limits() -> Policy {
    let (requests, per) = (2, MINUTE);
    let of = Bucket { requests, per, burst: 2 };
    let both = vec![KeyPart::User, KeyPart::Ip];
    let algorithms = [
        bucket(2, MINUTE, 2),
        LimitAlgorithm::SlidingWindow(Window { requests, per }),
        LimitAlgorithm::LeakyBucket(Leak { requests, per, queue: 9 }),
        LimitAlgorithm::Adaptive(Adaptive { bucket: of, threshold: 500, floor: 100 }),
    ];
    let limits = algorithms
        .map(|algorithm| Limit { algorithm, ..limit_of(algorithm.name(), both.clone(), 2) });
    let mut limits = limits.to_vec();
    limits.push(limit_of("tier", vec![KeyPart::Tier], 9));
    Policy { rate_limits: limits, ..with_jwt() }
}

#[track_caller]
fn sweep(gateway: &mut Gateway, named: &Named) -> u64 {
    let mut sweep = Sweep::new(&gateway.policy, named, SEED).expect("somebody");
    for _ in 0..1_000 {
        if let Progress::Done { erased } = sweep.step(7, &mut gateway.store).unwrap() {
            gateway.leases.forget();
            return erased;
        }
    }
    panic!("no end");
}

#[test]
fn somebody_is_forgotten_by_every_limit_and_nobody_else_is() {
    let mut gateway = Gateway::new(with_limits());
    for request in [GOOD, BOB] {
        for last in 0..20_u8 {
            gateway.client = Some(IpAddr::from([10, 0, 0, last]));
            gateway.send("/a", &[request]);
        }
    }
    gateway.policy.rate_limits.truncate(4);
    assert_eq!(sweep(&mut gateway, &named("user", "eve")), 0);
    assert_eq!(sweep(&mut gateway, &named("ip", "10.0.0.3")), 4 * 2);
    assert_eq!(sweep(&mut gateway, &named("ip", "::ffff:10.0.0.4")), 4 * 2);
    let elsewhere = Named { provider: Some("idp".to_string()), ..named("user", "ada") };
    assert_eq!(sweep(&mut gateway, &elsewhere), 0);
    assert_eq!(sweep(&mut gateway, &named("user", "ada")), 4 * 18);
    assert_eq!(sweep(&mut gateway, &named("user", "ada")), 0);
    assert_eq!(sweep(&mut gateway, &named("api_key", "bob")), 0);
    assert_eq!(sweep(&mut gateway, &named("user", "bob")), 4 * 18);
    for (kind, name) in [("group", "ada"), ("ip", "here"), ("ip", "-")] {
        assert!(Sweep::new(&gateway.policy, &named(kind, name), SEED).is_none(), "{kind} {name}");
    }
}

#[test]
fn violations_are_forgotten_with_their_author() {
    let mut gateway = by(vec![KeyPart::User]);
    gateway.policy.rate_limits[0].penalty = Some(Penalty {
        violations: 3,
        within: Nanos::from_secs(600),
        ban: Nanos::from_secs(300),
        escalate: 2,
        max_ban: Nanos::from_secs(3_600),
    });
    for _ in 0..3 {
        for _ in 0..2 {
            gateway.forwarded("/a", &[GOOD]);
        }
        for _ in 0..2 {
            gateway.refused("/a", &[GOOD], Reason::RateLimited);
        }
        assert_eq!(sweep(&mut gateway, &named("user", "ada")), 2, "the bucket and the violations");
    }
}

#[test]
fn an_api_key_is_swept_by_its_id() {
    let mut policy = with_keys(vec![key("ada", "robot-secret")]);
    policy.rate_limits =
        vec![limit_of("user", vec![KeyPart::User], 2), limit_of("key", vec![KeyPart::ApiKey], 2)];
    let mut gateway = Gateway::new(policy);
    gateway.forwarded("/a", &[KEY]);
    gateway.forwarded("/a", &[GOOD]);
    assert_eq!(sweep(&mut gateway, &named("api_key", "ada")), 2);
    // A token's user counts by name in one limit. In the other he is one of many without a key, whose
    // record is nobody's.
    assert_eq!(sweep(&mut gateway, &named("user", "ada")), 1);
}

#[test]
fn memory_is_stated_from_the_policy_and_holds() {
    assert_eq!(memory(&empty()), 0);
    let mut policy = empty();
    policy.rate_limits = vec![limit_of("one", vec![KeyPart::Ip], 2)];
    let mut gateway = Gateway::new(policy);
    for client in 0..10_000_u32 {
        gateway.client = Some(IpAddr::from(client.to_be_bytes()));
        assert!(matches!(gateway.send("/a", &[]), Step::Forward(..)));
    }
    let values = gateway.store.values.iter();
    let used: usize = values.map(|(key, value)| key.len() + value.bytes.len()).sum();
    let stated = memory(&gateway.policy);
    assert_eq!(stated, used as u64 + 16 * VALUE_OVERHEAD, "every set is full");
    gateway.policy.circuit_breakers.default = Some(breaker_settings());
    let with_breakers = memory(&gateway.policy);
    assert!(with_breakers > stated);
    gateway.policy.rate_limits[0].penalty =
        Some(Penalty { violations: 1, within: MINUTE, ban: MINUTE, escalate: 1, max_ban: MINUTE });
    let more = memory(&gateway.policy) - with_breakers;
    assert!((3 << 20..5 << 20).contains(&more), "bans and violations: {more}");
}
