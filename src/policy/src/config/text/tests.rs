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

#[track_caller]
fn check_time(text: &str, expected: Option<u64>) {
    assert_eq!(parse_time(text).map(|time| time.0), expected, "{text}");
}

#[test]
fn a_time_is_read_to_the_nanosecond() {
    let secs = |secs: u64| Some(secs * 1_000_000_000);
    check_time("1970-01-01T00:00:00Z", Some(0));
    check_time("1970-01-01T00:00:00.000000001Z", Some(1));
    check_time("1970-01-01T00:00:00.5Z", Some(500_000_000));
    check_time("1970-01-01T01:00:00+01:00", Some(0));
    check_time("1969-12-31T23:30:00-00:30", Some(0));
    check_time("2000-02-29T12:00:00Z", secs(951_825_600));
    check_time("2011-03-22T18:43:00Z", secs(1_300_819_380));
    check_time("2023-11-14T22:13:20Z", secs(1_700_000_000));
    check_time("2024-12-31T23:59:59Z", secs(1_735_689_599));
    check_time("2027-01-01T00:00:00Z", secs(1_798_761_600));
    check_time("2027-01-01T05:30:00+05:30", secs(1_798_761_600));
    check_time("2026-12-31T19:00:00-05:00", secs(1_798_761_600));
    check_time("2100-03-01T00:00:00Z", secs(4_107_542_400));
    check_time("2554-07-21T23:34:33Z", secs(18_446_744_073));
}

#[test]
fn what_is_not_quite_a_time_is_refused() {
    for text in [
        "",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-01-01t00:00:00Z",
        "2027-01-01T00:00:00z",
        "2027-01-01 00:00:00Z",
        "2027-1-1T00:00:00Z",
        "2027-01-01T00:00Z",
        "2027-01-01T00:00:00ZZ",
        "2027-01-01T00:00:00.Z",
        "2027-01-01T00:00:00.1234567890Z",
        "2027-01-01T00:00:00,5Z",
        "2027-01-01T00:00:00+01",
        "2027-01-01T00:00:00+0100",
        "2027-01-01T00:00:00+24:00",
        "2027-01-01T00:00:00+01:60",
        "2027-01-01T00:00:00+01:00x",
        "2027-01-01T00:00:00 +01:00",
        "2027-00-01T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "2027-01-00T00:00:00Z",
        "2027-01-32T00:00:00Z",
        "2027-04-31T00:00:00Z",
        "2027-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:60:00Z",
        "2016-12-31T23:59:60Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z",
        "2554-07-21T23:34:34Z",
        "9999-12-31T23:59:59Z",
        "+027-01-01T00:00:00Z",
        "-2027-01-01T00:00:00Z",
        "\u{662}027-01-01T00:00:00Z",
        "2027-01-01T00:00:0\u{e9}Z",
    ] {
        check_time(text, None);
    }
}

#[track_caller]
fn check_form(format: Format, good: &[&str], bad: &[&str]) {
    for text in good {
        assert_eq!(format.fault(text), None, "{text:?}");
    }
    for text in bad {
        assert!(format.fault(text).is_some(), "{text:?}");
    }
}

#[test]
fn a_permission_is_segments_of_which_each_may_be_a_star() {
    let long = "a".repeat(257);
    check_form(
        Format::Permission,
        &["a", "*", "samples:read", "samples:*:read", "admin:*", "*:*", "https://x/y", "a.b-c_d/e"],
        &[
            "", ":", "a:", ":a", "a::b", "a*", "a:*b", "**", "a b", "a\tb", "a\"", "a\\", "\u{e9}",
            &long,
        ],
    );
}

#[test]
fn an_origin_is_as_browsers_write_it() {
    check_form(
        Format::Origin,
        &[
            "https://app.example",
            "https://app.example:8443",
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[2001:db8::1]",
            "https://[::1]:444",
            "https://xn--bcher-kva.example",
        ],
        &[
            "",
            "null",
            "*",
            "app.example",
            "//app.example",
            "https:app.example",
            "https://",
            "https://:443",
            "https://app.example/",
            "https://app.example/x",
            "https://app.example?x",
            "https://app.example#x",
            "https://app.example:",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:0",
            "https://app.example:0444",
            "https://app.example:+1",
            "https://app.example:65536",
            "HTTPS://app.example",
            "https://App.example",
            "https://b\u{fc}cher.example",
            "https://a b",
            "https://a@b",
            "https://a,b",
            "https://*.example",
            "https://[2001:DB8::1]",
            "https://[2001:db8:0:0::1]",
            "https://[::1",
            "https://[::1]x",
            "https://::1",
            "chrome-extension://abc",
            "file://",
        ],
    );
    let meant = "is not as browsers write it, which is https://app.example";
    assert_eq!(origin_fault("HTTPS://App.Example:443").as_deref(), Some(meant));
}

#[test]
fn a_file_has_one_spelling() {
    check_form(
        Format::File,
        &["/a", "/run/secrets/jwks.json", "/a b/..c/d"],
        &[
            "", "/", "a", "a/b", "./a", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/..", "/a\n",
            "/a\0",
        ],
    );
}

#[test]
fn what_a_fetch_asks_for_cannot_end_its_line() {
    check_form(
        Format::Target,
        &["/", "/jwks.json", "/a?b=c&d", "/%20"],
        &["", "jwks.json", "/a b", "/a\r\n", "/a#b", "/\u{e9}", "https://a/b"],
    );
    check_form(
        Format::Authority,
        &["idp", "idp.example", "IDP.example:8443", "127.0.0.1:80", "[::1]", "[::1]:443", "a_b"],
        &[
            "",
            ":80",
            "a:",
            "a:x",
            "a:0",
            "a:99999",
            "a/b",
            "a b",
            "a@b",
            "https://a",
            "::1",
            "[a]",
            "a\n",
        ],
    );
}

#[test]
fn a_hash_is_64_digits_and_not_that_of_nothing() {
    let digits = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";
    check_form(
        Format::Sha256,
        &[digits],
        &[
            "",
            &digits[1..],
            &format!("{digits}0"),
            &format!(" {}", &digits[1..]),
            &format!("+{}", &digits[1..]),
            &digits.replace('0', "g"),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ],
    );
}
