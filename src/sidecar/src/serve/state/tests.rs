//! What changes have in common, without the filter.

use super::*;
use crate::log::tests::{keep, lines_with};
use crate::serve::tests::{ADMIN, app, envoy, expect, nobody, request, send};
use crate::store::Revocation;
use policy::replica::revocations::Kind;

fn put(app: &App, value: &str, expires: u32) -> Change {
    let one = Revocation {
        kind: Kind::Token,
        issuer: None,
        value: value.to_owned(),
        issued_before: None,
        expires: Some(expires),
        created: 1,
        note: None,
    };
    Change::PutRevocation(one.print(app.replica.keys()), one)
}

#[tokio::test]
async fn a_clock_that_runs_ahead_for_a_moment_costs_nothing() {
    let app = app("127.0.0.1:9902", nobody().await);
    let changes = vec![put(&app, "a", 5_000), put(&app, "b", 900_000)];
    app.replica.change(|_| Ok::<_, StoreError>((changes, ()))).unwrap();
    let there = |app: &App| app.replica.held().revocations().len();
    for (now, left) in [
        // At the start nobody knows whether the clock is right.
        (1_000_000, 2),
        (1_000, 2),
        (1_010, 2),
        (1_000_000, 2),
        (1_020, 2),
        (5_119, 2),
        (5_200, 2),
        (5_210, 1),
        (5_220, 1),
    ] {
        tick(&app, now).await;
        assert_eq!(there(&app), left, "{now}");
    }
}

/// Sends a request, and goes away before it is answered; waits for its audit line.
async fn gone_client(app: &Arc<App>, line: &str, body: &str, id: &str) -> Vec<String> {
    keep();
    let mut request = request(line, Some(ADMIN), body);
    request.headers_mut().insert("x-request-id", id.parse().unwrap());
    {
        let sending = send(app, request);
        tokio::pin!(sending);
        // A few turns: until it is handed over, and no further.
        let taken =
            |app: &App| app.replica.position().number > 0 || app.channel.status().pending > 0;
        while !taken(app) {
            tokio::select! {
                biased;
                _ = &mut sending => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let said = async {
        loop {
            let lines = lines_with(id);
            if !lines.is_empty() {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), said).await.unwrap()
}

/// A filter that polled once, so that whoever orders something waits for it.
async fn silent_filter(app: &Arc<App>) {
    let poll = r#"{"protocol": 3, "instance": "ab", "wait_ms": 0, "done": [],
        "state": {"store": "00000000000000ab", "number": 0},
        "wants": {"files": [], "revocations_max": 10, "api_keys": false, "load": false, "limits": [], "providers": [], "exempt": []},
        "policy": {"name": "p", "hash": "1", "generation": 7}}"#;
    let poll = request("POST /sync", Some(crate::serve::tests::SYNC), poll);
    expect(send(app, poll).await, 200, None);
}

#[tokio::test]
async fn a_change_has_its_audit_line_though_its_maker_has_gone() {
    let app = app("127.0.0.1:9902", nobody().await);
    silent_filter(&app).await;
    let lines =
        gone_client(&app, "POST /gateway/revocations", r#"{"jti": "a"}"#, "gone-revoke").await;
    for part in [r#""audit":true"#, r#""what":"revoke""#, r#""number":1"#, r#""durable""#] {
        assert!(lines[0].contains(part), "{}", lines[0]);
    }
}

#[tokio::test]
async fn a_reset_has_its_audit_line_though_its_maker_has_gone() {
    let app = app("127.0.0.1:9902", envoy("{}").await);
    silent_filter(&app).await;
    let line = "POST /gateway/circuit-breakers/auth/reset";
    let lines = gone_client(&app, line, "", "gone-reset").await;
    assert!(lines[0].contains(r#""what":"reset-breaker""#), "{}", lines[0]);
}
