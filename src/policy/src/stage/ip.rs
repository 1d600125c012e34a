//! The IP lists: who may come at all, and who is never limited.

use crate::model::{Cidr, IpLists};
use core::net::IpAddr;

/// What the lists say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Pass,
    /// It may not.
    Deny,
}

/// Judges an address: `deny` wins over `allow`. An address that could not be read is on no list, so
/// it is denied wherever there is a list at all.
#[must_use]
pub fn check(lists: &IpLists, client: Option<IpAddr>) -> Verdict {
    if lists.allow.is_empty() && lists.deny.is_empty() {
        return Verdict::Pass;
    }
    let Some(address) = client else { return Verdict::Deny };
    let denied = any(&lists.deny, address);
    let allowed = lists.allow.is_empty() || any(&lists.allow, address);
    if allowed && !denied { Verdict::Pass } else { Verdict::Deny }
}

/// Whether an address is on the `exempt` list.
#[must_use]
pub fn is_exempt(lists: &IpLists, client: Option<IpAddr>) -> bool {
    client.is_some_and(|address| any(&lists.exempt, address))
}

fn any(list: &[Cidr], address: IpAddr) -> bool {
    list.iter().any(|cidr| contains(cidr, address))
}

/// Whether a prefix contains an address. A v4-mapped v6 address is the v4 address it maps: one
/// client must not have two spellings.
#[must_use]
pub fn contains(cidr: &Cidr, address: IpAddr) -> bool {
    match (cidr.network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32_u32.saturating_sub(u32::from(cidr.prefix));
            let differ = u32::from(network) ^ u32::from(address);
            differ.checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128_u32.saturating_sub(u32::from(cidr.prefix));
            let differ = u128::from(network) ^ u128::from(address);
            differ.checked_shr(shift).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether a prefix that is kept as text (`10.0.0.0/8`, or an address alone) contains an address.
/// What is no prefix contains nothing.
#[must_use]
pub fn is_within(prefix: &str, address: IpAddr) -> bool {
    let (network, length) = prefix.split_once('/').unwrap_or((prefix, ""));
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let longest = if network.is_ipv4() { 32 } else { 128 };
    let length = if prefix.contains('/') { length.parse().ok() } else { Some(longest) };
    let Some(length) = length.filter(|length| *length <= longest) else { return false };
    let mapped = network.is_ipv6() && network.to_canonical().is_ipv4();
    let prefix = if mapped { u8::checked_sub(length, 96) } else { Some(length) };
    let within = |prefix| contains(&Cidr { network: network.to_canonical(), prefix }, address);
    prefix.is_some_and(within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn cidr(network: &str, prefix: u8) -> Cidr {
        Cidr { network: network.parse().unwrap(), prefix }
    }

    #[track_caller]
    fn within(network: &str, prefix: u8, address: &str, expected: bool) {
        assert_eq!(contains(&cidr(network, prefix), address.parse().unwrap()), expected);
    }

    #[test]
    fn a_prefix_contains_its_network_and_nothing_else() {
        within("10.0.0.0", 8, "10.255.255.255", true);
        within("10.0.0.0", 8, "11.0.0.0", false);
        within("0.0.0.0", 0, "255.1.2.3", true);
        within("1.2.3.4", 32, "1.2.3.4", true);
        within("1.2.3.4", 32, "1.2.3.5", false);
        within("2001:db8::", 32, "2001:db8:ffff::1", true);
        within("2001:db8::", 32, "2001:db9::1", false);
        within("::", 0, "2001:db9::1", true);
        within("::1", 128, "::1", true);
        within("::", 0, "1.2.3.4", false);
        within("0.0.0.0", 0, "::1", false);
    }

    #[test]
    fn a_prefix_as_text_contains_what_it_says_and_broken_text_nothing() {
        let check = |prefix: &str, address: &str, expected: bool| {
            assert_eq!(is_within(prefix, address.parse().unwrap()), expected, "{prefix}");
        };
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("2001:db8::/32", "2001:db8::1", true);
        check("0.0.0.0/0", "10.1.2.3", true);
        for broken in
            ["", "/", "10.0.0.0/", "10.0.0.0/33", "x/8", "10.0.0.0/-1", "::ffff:1.2.3.4/8"]
        {
            check(broken, "10.1.2.3", false);
        }
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        within("203.0.113.0", 24, "::ffff:203.0.113.9", true);
        within("::", 0, "::ffff:203.0.113.9", false);
    }

    #[test]
    fn deny_wins_and_an_unknown_address_is_on_no_list() {
        let lists = IpLists {
            allow: vec![cidr("10.0.0.0", 8)],
            deny: vec![cidr("10.1.0.0", 16)],
            exempt: vec![cidr("10.9.0.0", 16)],
        };
        let of = |address: &str| check(&lists, Some(address.parse().unwrap()));
        assert_eq!(of("10.2.0.1"), Verdict::Pass);
        assert_eq!(of("10.1.0.1"), Verdict::Deny);
        assert_eq!(of("192.0.2.1"), Verdict::Deny);
        assert_eq!(check(&lists, None), Verdict::Deny);
        assert_eq!(check(&IpLists::default(), None), Verdict::Pass);
        assert!(is_exempt(&lists, Some("10.9.1.1".parse().unwrap())));
        assert!(!is_exempt(&lists, None));
    }
}
