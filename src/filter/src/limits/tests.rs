//! Numbers that change at run time, as one plugin sees them.

use super::*;
use crate::testing::FakeHost;
use policy::config::{self, Environment};
use policy::store::{Change, update};
use serde_json::json;
use std::collections::BTreeMap;

fn in_force(host: &FakeHost) -> InForce<FakeHost> {
    let limit = |name| json!({"name": name, "key": [], "algorithm": "token_bucket", "requests": 10, "per": "1m"});
    let document = json!({"version": 1, "rate_limits": [limit("one"), limit("two")]});
    let variables = |_: &str| None;
    let policy = config::read(&document, Environment::Given(&variables)).unwrap();
    InForce::new(host, policy)
}

/// The sidecar hands over what is changed of one limit.
fn change(host: &FakeHost, limit: &str, numbers: Option<&Override>) {
    let all: BTreeMap<&str, &Override> = numbers.into_iter().map(|one| (limit, one)).collect();
    let key = overrides::bucket(limit).key();
    update(&mut SharedData(host.clone()), &key, |_| Change::Write(overrides::encode(&all), ()))
        .unwrap();
}

fn requests(number: u32) -> Override {
    Override { requests: Some(number), ..Override::default() }
}

#[track_caller]
fn check(in_force: &InForce<FakeHost>, expected: [u32; 2]) {
    let policy = in_force.policy();
    let numbers: Vec<u32> =
        policy.rate_limits.iter().map(|limit| limit.algorithm.requests()).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_change_is_seen_with_the_next_generation_and_not_before() {
    let host = FakeHost::new(1);
    let policy = in_force(&host);
    assert_eq!(policy.keep_up(1), News::Some);
    assert_eq!(policy.keep_up(1), News::None);
    change(&host, "two", Some(&requests(5)));
    assert_eq!(policy.keep_up(1), News::None);
    check(&policy, [10, 10]);
    assert_eq!(policy.keep_up(2), News::Some);
    check(&policy, [10, 5]);
    change(&host, "two", None);
    policy.keep_up(3);
    check(&policy, [10, 10]);
    // Nothing is changed any more, so nothing is copied either.
    assert!(std::ptr::eq(&raw const *policy.policy(), policy.written()));
}

#[test]
fn a_generation_that_changed_no_number_leaves_the_policy_as_it_is() {
    let host = FakeHost::new(1);
    let policy = in_force(&host);
    change(&host, "one", Some(&requests(5)));
    policy.keep_up(1);
    let before = policy.policy();
    assert_eq!(policy.keep_up(2), News::Some);
    assert!(Rc::ptr_eq(&before, &policy.policy()));
}

#[test]
fn what_does_not_fit_is_said_once_and_leaves_the_policys_numbers() {
    let host = FakeHost::new(1);
    let policy = in_force(&host);
    change(&host, "one", Some(&requests(0)));
    change(&host, "two", Some(&requests(5)));
    for generation in 1..9 {
        policy.keep_up(generation);
        check(&policy, [10, 5]);
    }
    change(&host, "two", Some(&requests(6)));
    policy.keep_up(9);
    check(&policy, [10, 6]);
    assert_eq!(host.logged("override of a limit not taken"), 1);
    change(&host, "one", Some(&Override { mode: Some("nonsense".into()), ..requests(7) }));
    policy.keep_up(10);
    check(&policy, [10, 6]);
    assert_eq!(host.logged("override of a limit not taken"), 2);
}

#[test]
fn what_cannot_be_read_stays_in_force_and_is_read_again() {
    let host = FakeHost::new(1);
    let policy = in_force(&host);
    change(&host, "one", Some(&requests(5)));
    policy.keep_up(1);
    change(&host, "one", Some(&requests(6)));
    host.vm.shareless.set(true);
    assert_eq!(policy.keep_up(2), News::Some);
    assert_eq!(policy.keep_up(2), News::Some);
    check(&policy, [5, 10]);
    host.vm.shareless.set(false);
    assert_eq!(policy.keep_up(2), News::Some);
    check(&policy, [6, 10]);
    assert_eq!(policy.keep_up(2), News::None);
}
