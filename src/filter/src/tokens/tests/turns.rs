//! Streams that wait for keys first and for their turn afterwards.

use super::*;

#[test]
fn a_request_may_wait_for_keys_and_then_for_its_turn() {
    let smooth = json!({"rate_limits": [{
        "name": "user", "key": ["user"], "algorithm": "leaky_bucket",
        "requests": 10, "per": "1s", "queue": 1,
    }]});
    let [one, _] = Worker::two(&smooth);
    for context in 2..5 {
        assert_eq!(one.send(context, &token("old", &json!({}))), Action::Pause);
    }
    assert!(one.details().is_empty());
    one.answer(one.last(), b"200", &set(&["old"]));
    // Who it is is known now: one goes on, one has a turn, and one finds no place.
    assert_eq!(one.continued(), [2]);
    assert_eq!(one.details(), ["gateway.rate-limited"]);
    one.host.run(Nanos::from_millis(99), || one.tick());
    assert_eq!(one.continued(), [2]);
    one.host.run(Nanos::from_millis(3), || one.tick());
    assert_eq!(one.continued(), [2, 3]);
    // What authentication had found was kept, and nobody is asked again.
    assert_eq!(one.host.metric("gateway_authentication_total;method=jwt;outcome=accepted"), 3);
}
