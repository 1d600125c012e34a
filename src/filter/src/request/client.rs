//! The client's address.

use crate::host::{Host, attribute};
use std::net::{IpAddr, SocketAddr};

/// The client's address, as far as Envoy knows it.
pub(super) fn address<H: Host>(host: &H) -> Option<IpAddr> {
    read(&host.attribute(attribute::SOURCE_ADDRESS).ok()?)
}

/// Reads `8.8.8.8:0`, `[2001:db8::1]:443` or an address alone. A Unix socket has no address.
fn read(bytes: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(bytes).ok()?;
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let host = text.rsplit_once("]:").map_or(text, |(host, _)| host);
    let host = host.trim_start_matches('[');
    // The zone of a link-local address means something on this machine only.
    let host = host.split_once('%').map_or(host, |(host, _)| host);
    host.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Option<&str>) {
        let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(read(input.as_bytes()), expected);
    }

    #[test]
    fn addresses_lose_their_port() {
        check("8.8.8.8:0", Some("8.8.8.8"));
        check("127.0.0.1:51234", Some("127.0.0.1"));
        check("[2001:db8::1]:443", Some("2001:db8::1"));
        check("[::ffff:1.2.3.4]:443", Some("::ffff:1.2.3.4"));
        check("[fe80::1%eth0]:443", Some("fe80::1"));
        check("2001:db8::1", Some("2001:db8::1"));
        check("8.8.8.8", Some("8.8.8.8"));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for input in ["", "/run/envoy.sock", "@abstract/1", "8.8.8.8:99999", "a:1", "[]:1", "%"] {
            check(input, None);
        }
    }
}
