//! Stories of pages that send requests in somebody's name.

use super::gateway::{GOOD, Gateway, with_jwt};
use crate::model::{AuthMode, Csrf, CsrfToken, Mode, Secret, SecretSource, TokenLocation};
use crate::pipeline::{Passage, Step};
use crate::reason::Reason;
use alloc::string::{String, ToString};
use alloc::vec;

const SESSION: (&str, &str) = ("cookie", "session=good:ada");
const RUNNING_OUT: u64 = 24 * 60 * 60;

fn signed_token() -> CsrfToken {
    CsrfToken {
        secret: SecretSource::Known(Secret::new(b"secret".to_vec())),
        cookie: "csrf-token".to_string(),
        header: "x-csrf-token".to_string(),
    }
}

/// Tokens stand in the cookie `session` or in `authorization`; the upstream has `legacy`.
fn gateway() -> Gateway {
    let mut policy = with_jwt();
    let authentication = policy.authentication.as_mut().unwrap();
    authentication.providers[0].locations.push(TokenLocation::Cookie("session".to_string()));
    authentication.mode = AuthMode::Optional;
    policy.csrf = Some(Csrf {
        mode: Mode::Enforce,
        trusted_origins: vec!["https://app.example".to_string()],
        cookie: Some("legacy".to_string()),
        token: None,
    });
    let mut gateway = Gateway::new(policy);
    gateway.method = "POST";
    gateway
}

fn with_token() -> Gateway {
    let mut gateway = gateway();
    gateway.policy.csrf.as_mut().unwrap().token = Some(signed_token());
    gateway
}

#[track_caller]
fn check(gateway: &mut Gateway, headers: &[(&str, &str)], passes: bool) {
    if passes {
        gateway.forwarded("/a", headers);
    } else {
        gateway.refused("/a", headers, Reason::CsrfRejected);
    }
}

#[test]
fn only_what_changes_something_must_show_where_it_comes_from() {
    let mut gateway = gateway();
    for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
        gateway.method = method;
        check(&mut gateway, &[SESSION], true);
    }
    assert_eq!(gateway.heard("Csrf"), 0);
    for method in ["POST", "PUT", "PATCH", "DELETE", "get", "MKCOL", ""] {
        gateway.method = method;
        check(&mut gateway, &[SESSION], false);
    }
    assert_eq!(gateway.heard("Csrf(Denied)"), 7);
}

#[test]
fn a_websocket_of_another_page_is_refused() {
    let mut gateway = gateway();
    gateway.method = "GET";
    let upgrade = ("upgrade", "websocket");
    check(&mut gateway, &[SESSION, upgrade], false);
    check(&mut gateway, &[SESSION, upgrade, ("origin", "https://evil.example")], false);
    check(&mut gateway, &[SESSION, upgrade, ("sec-fetch-site", "same-origin")], true);
    check(&mut gateway, &[upgrade], true);
}

/// A page could once switch the check off by its own good token in the query, beside a victim's
/// session of the upstream.
#[test]
fn a_credential_in_the_query_does_not_speak_for_a_session_in_a_cookie() {
    let mut gateway = gateway();
    let authentication = gateway.policy.authentication.as_mut().unwrap();
    let query = TokenLocation::Query("access_token".to_string());
    authentication.providers[0].locations.push(query);
    let legacy = ("cookie", "legacy=victim");
    let path = "/a?access_token=good:mallory";
    let evil = ("sec-fetch-site", "cross-site");
    gateway.refused(path, &[legacy, evil], Reason::CsrfRejected);
    gateway.forwarded(path, &[evil]);
}

#[test]
fn only_where_a_cookie_is_the_credential() {
    let mut gateway = gateway();
    check(&mut gateway, &[GOOD], true);
    check(&mut gateway, &[GOOD, SESSION], true);
    check(&mut gateway, &[GOOD, ("cookie", "legacy=1")], true);
    check(&mut gateway, &[], true);
    check(&mut gateway, &[("cookie", "other=1")], true);
    check(&mut gateway, &[("cookie", "legacy=1")], false);
    check(&mut gateway, &[("cookie", "legacy=1; legacy=2")], false);
    check(&mut gateway, &[SESSION], false);
    gateway.refused("/health", &[("cookie", "legacy=1")], Reason::CsrfRejected);
    gateway.policy.csrf.as_mut().unwrap().cookie = None;
    check(&mut gateway, &[("cookie", "legacy=1")], true);
}

#[test]
fn what_the_browser_says_of_the_site_comes_first() {
    let mut gateway = gateway();
    let trusted = ("origin", "https://app.example");
    for (site, passes, with_trusted_origin) in [
        ("same-origin", true, true),
        ("none", true, true),
        ("same-site", false, true),
        ("cross-site", false, true),
        ("", false, false),
        ("Same-Origin", false, false),
        ("same-origin, same-origin", false, false),
        ("future-site", false, false),
    ] {
        let site = ("sec-fetch-site", site);
        check(&mut gateway, &[SESSION, site], passes);
        check(&mut gateway, &[SESSION, site, trusted], with_trusted_origin);
        // Its own origin is none that another site's page would have.
        check(&mut gateway, &[SESSION, site, ("origin", "http://h")], passes);
        check(&mut gateway, &[SESSION, site, ("origin", "https://evil.test")], passes);
    }
    let own = ("sec-fetch-site", "same-origin");
    check(&mut gateway, &[SESSION, own, own], false);
    let cross = ("sec-fetch-site", "cross-site");
    check(&mut gateway, &[SESSION, cross, trusted, trusted], false);
    check(&mut gateway, &[SESSION, cross, ("referer", "https://app.example/x")], false);
}

#[test]
fn an_origin_is_the_requests_own_or_a_trusted_one() {
    let mut gateway = gateway();
    for (origin, passes) in [
        ("http://h", true),
        ("http://h:80", true),
        ("http://H", true),
        ("https://app.example", true),
        ("https://app.example:443", true),
        ("https://h", false),
        ("http://h:8080", false),
        ("http://app.example", false),
        ("https://app.example.evil.test", false),
        ("https://evil.test", false),
        ("https://x.app.example", false),
        ("null", false),
        ("", false),
        ("http://h/", false),
        ("http://h@evil.test", false),
    ] {
        check(&mut gateway, &[SESSION, ("origin", origin)], passes);
        // A referer does not mend it.
        let referer = ("referer", "http://h/page");
        check(&mut gateway, &[SESSION, ("origin", origin), referer], passes);
    }
    let own = ("origin", "http://h");
    check(&mut gateway, &[SESSION, own, own], false);
}

#[test]
fn the_own_origin_has_the_scheme_that_the_client_used() {
    let mut gateway = gateway();
    let https = ("x-forwarded-proto", "https");
    check(&mut gateway, &[SESSION, https, ("origin", "https://h")], true);
    check(&mut gateway, &[SESSION, https, ("origin", "https://h:443")], true);
    check(&mut gateway, &[SESSION, https, ("origin", "http://h")], false);
    check(&mut gateway, &[SESSION, (":authority", "h2"), ("origin", "http://h")], false);
}

#[test]
fn without_an_origin_the_referers_counts() {
    let mut gateway = gateway();
    for (referer, passes) in [
        ("http://h/page?x#y", true),
        ("http://h", true),
        ("https://app.example/deep/page", true),
        ("https://evil.test/http://h/", false),
        ("https://evil.test?http://h/", false),
        ("http://h.evil.test/", false),
        ("http://h@evil.test/", false),
        ("/page", false),
        ("", false),
        ("about:blank", false),
    ] {
        check(&mut gateway, &[SESSION, ("referer", referer)], passes);
    }
    let own = ("referer", "http://h/");
    check(&mut gateway, &[SESSION, own, own], false);
}

#[test]
fn in_shadow_mode_a_rejection_is_counted_and_lets_pass() {
    let mut gateway = gateway();
    gateway.policy.csrf.as_mut().unwrap().mode = Mode::Shadow;
    check(&mut gateway, &[SESSION], true);
    check(&mut gateway, &[SESSION, ("origin", "http://h")], true);
    assert_eq!(gateway.heard("Csrf(ShadowDenied)"), 1);
    assert_eq!(gateway.heard("Csrf(Allowed)"), 1);
}

/// The token in a `Set-Cookie`, and everything after it.
fn issued(gateway: &Gateway, passage: &Passage) -> Option<(String, String)> {
    let added = gateway.added(passage, &["set-cookie"]);
    let cookie = added.iter().find_map(|line| line.strip_prefix("set-cookie: csrf-token="))?;
    let (token, rest) = cookie.split_once(';').unwrap();
    Some((token.to_string(), rest.to_string()))
}

#[test]
fn a_browser_with_a_session_gets_a_token_once_beside_the_upstreams_cookies() {
    let mut gateway = with_token();
    gateway.method = "GET";
    let (_, passage) = gateway.forwarded("/a", &[SESSION]);
    let (token, rest) = issued(&gateway, &passage).unwrap();
    assert_eq!(rest, " Path=/; SameSite=Strict");
    let (_, passage) = gateway.forwarded("/a", &[SESSION, ("x-forwarded-proto", "https")]);
    assert_eq!(issued(&gateway, &passage).unwrap().1, " Path=/; SameSite=Strict; Secure");
    let both = ["session=good:ada; csrf-token=", &token].concat();
    let (_, passage) = gateway.forwarded("/a", &[("cookie", &both)]);
    assert_eq!(issued(&gateway, &passage), None, "it has one");
    let other = ["session=good:bob; csrf-token=", &token].concat();
    let (_, passage) = gateway.forwarded("/a", &[("cookie", &other)]);
    assert!(issued(&gateway, &passage).is_some(), "it has another session's");
    for headers in [&[][..], &[GOOD], &[("cookie", "csrf-token=x")]] {
        let (_, passage) = gateway.forwarded("/a", headers);
        assert_eq!(issued(&gateway, &passage), None, "no session, no token");
    }
    let (_, passage) = gateway.forwarded("/a", &[("cookie", "legacy=1")]);
    assert!(issued(&gateway, &passage).is_some(), "the upstream's session counts");
}

#[test]
fn a_refused_browser_gets_its_token_with_the_refusal() {
    let mut gateway = with_token();
    let step = gateway.send("/a", &[SESSION]);
    let Step::Reply(reply, passage) = step else { panic!("not refused: {step:?}") };
    assert_eq!(reply.reason, Reason::CsrfRejected);
    let (token, _) = issued(&gateway, &passage).unwrap();
    let both = ["session=good:ada; csrf-token=", &token].concat();
    check(&mut gateway, &[("cookie", &both), ("x-csrf-token", &token)], true);
}

#[test]
fn the_double_submit_token_counts_where_the_browser_says_nothing() {
    let mut gateway = with_token();
    gateway.method = "GET";
    let (_, passage) = gateway.forwarded("/a", &[SESSION]);
    let (token, _) = issued(&gateway, &passage).unwrap();
    gateway.method = "POST";
    let cookie = ["session=good:ada; csrf-token=", &token].concat();
    let (cookie, header) = (("cookie", cookie.as_str()), ("x-csrf-token", token.as_str()));
    check(&mut gateway, &[cookie, header], true);
    check(&mut gateway, &[cookie], false);
    check(&mut gateway, &[SESSION, header], false);
    check(&mut gateway, &[cookie, ("x-csrf-token", "")], false);
    check(&mut gateway, &[cookie, header, header], false);
    let evil = ("origin", "https://evil.test");
    check(&mut gateway, &[cookie, header, evil], false);
    check(&mut gateway, &[cookie, header, ("sec-fetch-site", "cross-site")], false);
    let fixed = ["session=good:bob; csrf-token=", &token].concat();
    check(&mut gateway, &[("cookie", &fixed), header], false);
    let two = [cookie.1, "; csrf-token=x"].concat();
    check(&mut gateway, &[("cookie", &two), header], false);
    gateway.now += RUNNING_OUT - 1;
    check(&mut gateway, &[cookie, header], true);
    gateway.now += 1;
    check(&mut gateway, &[cookie, header], false);
}

#[test]
fn while_the_secret_has_not_been_handed_over_the_token_cannot_be_checked() {
    let mut gateway = with_token();
    let token = gateway.policy.csrf.as_mut().unwrap().token.as_mut().unwrap();
    token.secret = SecretSource::File("/not-yet".to_string());
    let reply = gateway.refused("/a", &[SESSION], Reason::KeysUnavailable);
    assert_eq!(reply.status, 503);
    check(&mut gateway, &[SESSION, ("origin", "http://h")], true);
    let token = gateway.policy.csrf.as_mut().unwrap().token.as_mut().unwrap();
    token.secret = SecretSource::File("/there".to_string());
    let (_, passage) = gateway.forwarded("/a", &[SESSION, ("origin", "http://h")]);
    assert!(issued(&gateway, &passage).is_some());
    let token = gateway.policy.csrf.as_mut().unwrap().token.as_mut().unwrap();
    token.secret = SecretSource::Known(Secret::new(vec![]));
    gateway.refused("/a", &[SESSION], Reason::KeysUnavailable);
}
