//! Stories of bans that the sidecar keeps: made or lifted by an administrator, or handed back after a
//! restart.

use super::api_keys::{KEY, key, with_keys};
use super::bans::{KEYS, by_ip, by_user, offend};
use super::gateway::{GOOD, Gateway, empty, header, provider, sidecar};
use crate::model::{Cidr, Policy, Provider};
use crate::reason::Reason;
use crate::replica::bans::{Kind, Name, Record, Verdict, bucket, encode};
use crate::store::Versioned;
use crate::time::Nanos;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

/// Hands bans over as the sidecar does.
fn hand_over(gateway: &mut Gateway, name: &Name<'_>, records: &[(Verdict, u64, u64)]) {
    let (print, provider) = (name.print(KEYS), name.provider_print(KEYS));
    let record =
        |(verdict, serial, until_ms)| Record { print, provider, serial, verdict, until_ms };
    let records: Vec<Record> = records.iter().copied().map(record).collect();
    let value = Versioned { bytes: encode(&records), cas: 1 };
    gateway.store.values.insert(bucket(&print).key().to_vec(), value);
    gateway.state_keys = Some(KEYS);
    gateway.policy.sidecar = Some(sidecar());
}

/// Milliseconds since 1970, so many seconds from now.
fn ms_after(gateway: &Gateway, secs: u64) -> u64 {
    (gateway.moment().wall + Nanos::from_secs(secs)).as_millis()
}

const CLIENT: Name<'_> = Name { kind: Kind::Ip, provider: None, name: "192.0.2.1" };

#[test]
fn an_exempt_address_is_never_banned() {
    let mut gateway = by_user();
    let exempt = Cidr { network: IpAddr::V4(Ipv4Addr::new(10, 9, 0, 0)), prefix: 16 };
    gateway.policy.ip.exempt = vec![exempt];
    let never = [(Verdict::Banned, 0, u64::MAX)];
    let office = Name { name: "10.9.1.1", ..CLIENT };
    hand_over(&mut gateway, &office, &never);
    hand_over(&mut gateway, &Name { kind: Kind::User, provider: None, name: "ada" }, &never);
    gateway.client = "10.9.1.1".parse().ok();
    gateway.forwarded("/a", &[GOOD]);
    gateway.client = "10.8.1.1".parse().ok();
    gateway.refused("/a", &[GOOD], Reason::Banned);
}

#[test]
fn an_administrators_ban_holds_by_the_clock_on_the_wall() {
    let mut gateway = Gateway::new(empty());
    gateway.wall = Nanos::from_secs(1_000_000);
    let until = ms_after(&gateway, 90);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Banned, 0, until)]);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("90"));
    gateway.client = "::ffff:192.0.2.1".parse().ok();
    gateway.refused("/a", &[], Reason::Banned);
    gateway.client = "192.0.2.2".parse().ok();
    gateway.forwarded("/a", &[]);
    gateway.client = "192.0.2.1".parse().ok();
    gateway.now += 90;
    gateway.forwarded("/a", &[]);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Banned, 0, u64::MAX)]);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), None, "nobody knows when");
}

#[test]
fn a_ban_of_a_user_is_one_at_his_provider_or_at_every_one() {
    let mut policy = with_keys(vec![key("ada", "robot-secret")]);
    let other = Provider { name: "idp".to_string(), ..provider() };
    policy.authentication.as_mut().unwrap().providers.push(other);
    let theirs = ("authorization", "Bearer other:ada");
    let user = |provider| Name { kind: Kind::User, provider, name: "ada" };
    type Case<'a> = (Name<'a>, [(&'a str, &'a str); 3], [bool; 3]);
    let all = [GOOD, theirs, KEY];
    let cases: [Case<'_>; 4] = [
        (user(None), all, [true, true, false]),
        (user(Some("own")), all, [true, false, false]),
        (user(Some("idp")), all, [false, true, false]),
        (Name { kind: Kind::ApiKey, provider: None, name: "ada" }, all, [false, false, true]),
    ];
    for (name, requests, expected) in cases {
        let mut gateway = Gateway::new(Policy { ..policy.clone() });
        hand_over(&mut gateway, &name, &[(Verdict::Banned, 0, u64::MAX)]);
        let banned = requests.map(|header| gateway.reason("/a", &[header]) == Some(Reason::Banned));
        assert_eq!(banned, expected, "{name:?}");
    }
}

#[test]
fn a_ban_that_was_lifted_is_over_and_a_later_one_is_not() {
    let mut gateway = by_ip();
    offend(&mut gateway, &[]);
    let serial = u64::from_str_radix(&gateway.told.bans[0].serial, 16).unwrap();
    let until = ms_after(&gateway, 300);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Lifted, serial + 1, until)]);
    gateway.refused("/a", &[], Reason::Banned);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Lifted, serial, until)]);
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.refused("/a", &[], Reason::RateLimited);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("600"), "what he did is not forgotten");
}

#[test]
fn a_ban_that_was_lifted_does_not_come_back_with_a_shorter_one() {
    let mut gateway = by_ip();
    let penalty = gateway.policy.rate_limits[0].penalty.as_mut().unwrap();
    penalty.ban = Nanos::from_secs(3_000);
    offend(&mut gateway, &[]);
    let serial = u64::from_str_radix(&gateway.told.bans[0].serial, 16).unwrap();
    let until = ms_after(&gateway, 3_000);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Lifted, serial, until)]);
    let penalty = gateway.policy.rate_limits[0].penalty.as_mut().unwrap();
    (penalty.ban, penalty.escalate) = (Nanos::from_secs(100), 1);
    for _ in 0..3 {
        gateway.refused("/a", &[], Reason::RateLimited);
    }
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("100"), "the new one, not the lifted one");
    gateway.now += 100;
    gateway.forwarded("/a", &[]);
}

/// The clock on the wall was set forward: by it the ban that was lifted is long over.
#[test]
fn what_was_lifted_stays_lifted_whatever_the_clock_on_the_wall_says() {
    let mut gateway = by_ip();
    offend(&mut gateway, &[]);
    let serial = u64::from_str_radix(&gateway.told.bans[0].serial, 16).unwrap();
    let until = ms_after(&gateway, 300);
    gateway.wall = Nanos::from_secs(1_000_000);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Lifted, serial, until)]);
    gateway.refused("/a", &[], Reason::RateLimited);
}

#[test]
fn the_longer_of_two_bans_holds() {
    let mut gateway = by_ip();
    offend(&mut gateway, &[]);
    let serial = u64::from_str_radix(&gateway.told.bans[0].serial, 16).unwrap();
    let until = ms_after(&gateway, 1_000);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Banned, serial, until)]);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("1000"));
    let until = ms_after(&gateway, 10);
    hand_over(&mut gateway, &CLIENT, &[(Verdict::Banned, 0, until)]);
    let reply = gateway.refused("/a", &[], Reason::Banned);
    assert_eq!(header(&reply, "retry-after"), Some("300"));
}
