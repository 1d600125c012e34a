//! What names a place in a network: prefixes of addresses, hosts with ports, origins of web pages.

use crate::model::Cidr;
use alloc::format;
use alloc::string::{String, ToString};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads a network. An address alone is a network of one; set bits beyond the prefix are a mistake,
/// because the author then thought of another network than the one that would be used.
pub(in crate::config) fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let not = || "is neither a network nor an address".to_string();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| not())?;
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let prefix = digits.parse::<u8>().unwrap_or(u8::MAX);
            if prefix > longest {
                return Err(format!("has a prefix longer than {longest}"));
            }
            prefix
        }
        Some(_) => return Err(not()),
    };
    let network = mask(address, prefix);
    if network != address {
        return Err(format!("has bits set beyond its prefix; it may mean {network}/{prefix}"));
    }
    Ok(unmapped(network, prefix))
}

/// The address with everything after the prefix cleared.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !host))
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
        }
    }
}

/// `::ffff:a.b.c.d` counts as v4, as it does for a request's address.
fn unmapped(network: IpAddr, prefix: u8) -> Cidr {
    /// Leading bits of every v4-mapped v6 address.
    const MAPPED_BITS: u8 = 96;
    if let IpAddr::V6(v6) = network
        && let (Some(v4), Some(prefix)) = (v6.to_ipv4_mapped(), prefix.checked_sub(MAPPED_BITS))
    {
        return Cidr { network: IpAddr::V4(v4), prefix };
    }
    Cidr { network, prefix }
}

/// A host and its port, apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

/// Reads `host` or `host:port`; an IPv6 address stands in brackets.
fn parse_authority(text: &str) -> Option<Authority<'_>> {
    let split = match text.strip_prefix('[') {
        // The brackets stay with the host.
        Some(rest) => rest.find(']').map(|end| end + 2)?,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at_checked(split)?;
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let legal = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(name)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) => Some(parse_port(digits)?),
        None => return None,
    };
    legal.then_some(Authority { host, port })
}

/// A port as everybody writes it: no sign, no leading zero.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Whether a text can be the `:authority` of a request.
pub(super) fn is_authority(text: &str) -> bool {
    parse_authority(text).is_some()
}

/// Says what is wrong with an origin. It must be written as browsers write it (RFC 6454 section
/// 6.2), because it is compared byte by byte.
pub(super) fn origin_fault(text: &str) -> Option<String> {
    let not = || Some("is not an origin".to_string());
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None if text == "null" => {
            return Some("is the origin of every sandboxed page, an attacker's too".to_string());
        }
        None => return Some("has no scheme".to_string()),
    };
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Some("has another scheme than https or http".to_string()),
    };
    if rest.contains('*') {
        return Some("has a wildcard; each origin is named whole".to_string());
    }
    if let Some(end) = rest.find(['/', '?', '#']) {
        let host = rest.get(..end).unwrap_or_default();
        return Some(format!("has more than an origin; it may mean {scheme}://{host}"));
    }
    let Some(Authority { host, port }) = parse_authority(rest) else { return not() };
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => match inner.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => return not(),
        },
        None => host.to_ascii_lowercase(),
    };
    let port = port.filter(|port| *port != default);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let canonical = format!("{scheme}://{host}{port}");
    (canonical != text).then(|| format!("is not as browsers write it, which is {canonical}"))
}

/// Whether an origin is of this machine, where nobody sits on the way.
pub(in crate::config) fn is_loopback_origin(origin: &str) -> bool {
    let host = origin.split_once("://").and_then(|(_, rest)| parse_authority(rest)).map(|a| a.host);
    let host = host.unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    address || host == "localhost" || host.ends_with(".localhost")
}
