//! Networks, durations and header values at their edges.

use super::network::origin_fault;
use super::*;
use crate::time::Nanos;

#[track_caller]
fn check_cidr(text: &str, expected: Result<&str, &str>) {
    let shown = parse_cidr(text).map(|cidr| format!("{}/{}", cidr.network, cidr.prefix));
    assert_eq!(shown.as_deref().map_err(String::as_str), expected, "{text}");
}

#[test]
fn a_network_is_read_with_its_host_bits_zero() {
    check_cidr("0.0.0.0/0", Ok("0.0.0.0/0"));
    check_cidr("10.0.0.0/8", Ok("10.0.0.0/8"));
    check_cidr("10.1.2.3", Ok("10.1.2.3/32"));
    check_cidr("::/0", Ok("::/0"));
    check_cidr("2001:db8::/32", Ok("2001:db8::/32"));
    check_cidr("2001:db8::1", Ok("2001:db8::1/128"));
    check_cidr("::ffff:10.0.0.0/104", Ok("10.0.0.0/8"));
    check_cidr("::ffff:0:0/96", Ok("0.0.0.0/0"));
    let bits = "has bits set beyond its prefix; it may mean ";
    check_cidr("10.0.0.1/31", Err(&format!("{bits}10.0.0.0/31")));
    check_cidr("2001:db8::1/64", Err(&format!("{bits}2001:db8::/64")));
    check_cidr("::ffff:0:0/80", Err(&format!("{bits}::/80")));
    check_cidr("10.0.0.0/33", Err("has a prefix longer than 32"));
    check_cidr("::/1000", Err("has a prefix longer than 128"));
    for text in ["", "/", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "010.0.0.0/8", "a", "::1%eth0"] {
        check_cidr(text, Err("is neither a network nor an address"));
    }
}

#[test]
fn a_duration_is_digits_and_a_unit() {
    for (text, expected) in [
        ("0s", Some(0)),
        ("250ms", Some(250_000_000)),
        ("60s", Some(60_000_000_000)),
        ("10m", Some(600_000_000_000)),
        ("1h", Some(3_600_000_000_000)),
        ("1d", Some(86_400_000_000_000)),
        ("99999999999999999999d", Some(u64::MAX)),
        ("", None),
        ("5", None),
        ("s", None),
        ("1.5s", None),
        ("-1s", None),
        ("1m30s", None),
        ("1 s", None),
        ("1S", None),
        ("\u{661}s", None),
    ] {
        assert_eq!(parse_span(text), expected.map(Nanos), "{text}");
    }
}

#[test]
fn a_duration_is_shown_as_people_write_it() {
    for text in ["0s", "250ms", "90s", "10m", "25h", "365d"] {
        assert_eq!(show_span(parse_span(text).unwrap()), text);
    }
    assert_eq!(show_span(Nanos(1)), "1ns");
}

#[test]
fn a_header_value_cannot_end_its_line() {
    for text in ["a", "a b", "default-src 'none'"] {
        assert!(is_header_value(text), "{text:?}");
    }
    for text in ["", " a", "a ", "a\r\nb", "a\n", "a\u{0}", "\u{e9}", "a\tb"] {
        assert!(!is_header_value(text), "{text:?}");
    }
}
