//! Rate limits: their numbers as read, and what an administrator may change of them.

use crate::document::{good, minimal, read};
use policy::model::{
    Adaptive, Bucket, KeyPart, Leak, Limit, LimitAlgorithm, LimitMode, Penalty, Unavailable, Window,
};
use policy::replica::overrides::Override;
use policy::time::Nanos;
use serde_json::{Value, json};

/// The one limit of a document that has nothing else.
fn limit(written: &Value) -> Limit {
    let mut written = written.clone();
    for (key, value) in [("name", json!("l")), ("key", json!([])), ("per", json!("1m"))] {
        let map = written.as_object_mut().unwrap();
        map.entry(key).or_insert(value);
    }
    let document = json!({ "version": 1, "rate_limits": [written] });
    read(&document).unwrap_or_else(|mistakes| panic!("{mistakes:#?}")).rate_limits.remove(0)
}

#[test]
fn every_algorithm_has_its_numbers() {
    let per = Nanos::from_secs(60);
    let [everyone, user, window, smooth, load] = &read(&good()).unwrap().rate_limits[..] else {
        panic!("five limits")
    };
    let bucket = |requests, burst| LimitAlgorithm::TokenBucket(Bucket { requests, per, burst });
    assert_eq!((everyone.algorithm, everyone.cost), (bucket(6000, 500), 1));
    assert_eq!((user.algorithm, user.cost), (bucket(100, 100), 2));
    assert_eq!((everyone.table_sets, everyone.keys_max()), (1, 1));
    assert_eq!((user.table_sets, user.keys_max()), (128, 1024));
    assert_eq!((user.mode, user.on_unavailable), (LimitMode::Shadow, Unavailable::Refuse));
    assert_eq!(user.key[5], KeyPart::Header("x-lab".into()));
    let expected = LimitAlgorithm::SlidingWindow(Window { requests: 100, per });
    assert_eq!((window.algorithm, window.cost), (expected, 3));
    let expected = Leak { requests: 50, per: Nanos::SECOND, queue: 100 };
    assert_eq!(smooth.algorithm, LimitAlgorithm::LeakyBucket(expected));
    let bucket = Bucket { requests: 10_000, per, burst: 1000 };
    let expected = Adaptive { bucket, threshold: 750, floor: 125 };
    assert_eq!(load.algorithm, LimitAlgorithm::Adaptive(expected));
    assert_eq!(everyone.penalty, None);
    let expected = Penalty {
        violations: 10,
        within: Nanos::from_secs(30),
        ban: Nanos::from_secs(120),
        escalate: 3,
        max_ban: Nanos::from_secs(7200),
    };
    assert_eq!(window.penalty, Some(expected));
}

#[test]
fn what_is_left_out_of_a_limit_is_as_the_contract_says() {
    let l = limit(&json!({ "requests": 7, "key": ["ip"],
        "penalty": { "violations": 1, "within": "1s", "ban": "1s" } }));
    let bucket = Bucket { requests: 7, per: Nanos::from_secs(60), burst: 7 };
    assert_eq!(l.algorithm, LimitAlgorithm::TokenBucket(bucket));
    assert_eq!((l.cost, l.table_sets), (1, 4096));
    assert_eq!((l.mode, l.on_unavailable), (LimitMode::Enforce, Unavailable::Allow));
    let penalty = l.penalty.unwrap();
    assert_eq!((penalty.escalate, penalty.max_ban), (2, Nanos::from_secs(3600)));
    let expected = Adaptive { bucket, threshold: 800, floor: 100 };
    for written in [
        json!({ "requests": 7, "algorithm": "adaptive" }),
        json!({ "requests": 7, "algorithm": "adaptive", "adaptive": {} }),
    ] {
        assert_eq!(limit(&written).algorithm, LimitAlgorithm::Adaptive(expected));
    }
}

/// Envoy's YAML reader hands a bare 0.8 over as text; JSON and Kubernetes as a number.
#[test]
fn a_fraction_is_exact_however_it_is_written() {
    for (written, expected) in [
        (json!(0.001), 1),
        (json!("0.001"), 1),
        (json!(0.7), 700),
        (json!("0.7"), 700),
        (json!("+.700"), 700),
        (json!(7e-1), 700),
        (json!(0.29), 290),
        (json!(0.999), 999),
    ] {
        let adaptive = json!({ "threshold": written, "floor": written });
        let l = limit(&json!({ "requests": 1, "algorithm": "adaptive", "adaptive": adaptive }));
        let LimitAlgorithm::Adaptive(adaptive) = l.algorithm else { panic!("{l:?}") };
        assert_eq!((adaptive.threshold, adaptive.floor), (expected, expected), "{written}");
    }
}

#[test]
fn administrators_see_a_limit_as_it_is_written() {
    let [_, user, _, smooth, load] = &read(&good()).unwrap().rate_limits[..] else {
        panic!("five limits")
    };
    let shown = |limit: &Limit| serde_json::to_value(limit.in_force()).unwrap();
    let key =
        ["user", "endpoint", "service", "ip", "tier", "header:x-lab", "claim:tenant", "api_key"];
    let expected = json!({
        "name": "per-user-endpoint", "algorithm": "token_bucket", "key": key, "requests": 100,
        "per_ms": 60_000, "burst": 100, "queue": null, "cost": 2, "mode": "shadow",
        "penalty": false, "keys_max": 1024,
    });
    assert_eq!(shown(user), expected);
    let expected = json!({
        "name": "smooth", "algorithm": "leaky_bucket", "key": ["service"], "requests": 50,
        "per_ms": 1000, "burst": null, "queue": 100, "cost": 1, "mode": "enforce",
        "penalty": false, "keys_max": 32_768,
    });
    assert_eq!(shown(smooth), expected);
    let load = load.in_force();
    assert_eq!((load.burst, load.queue, load.keys_max), (Some(1000), None, 1));
}

/// Changes a limit, as the filter does, and what is shown of it, as the sidecar does: both must come
/// out alike.
#[track_caller]
fn changed(limit: &Limit, change: &Value) -> Result<Limit, String> {
    let change: Override = serde_json::from_value(change.clone()).unwrap();
    let shown = limit.in_force().with(&change);
    let limit = limit.with(&change);
    match (&limit, shown) {
        (Ok(limit), Ok(shown)) => assert_eq!(limit.in_force(), shown),
        (Err(sentence), Err(mistakes)) => {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            assert_eq!(*sentence, lines.join("; "));
        }
        (limit, shown) => panic!("{limit:?} and {shown:?}"),
    }
    limit
}

/// What may be changed of a limit with each algorithm, and what it comes out as.
#[test]
fn an_override_changes_what_it_names_and_nothing_else() {
    let bucket = limit(&json!({ "requests": 100, "burst": 20 }));
    let same = limit(&json!({ "requests": 100 }));
    let window = limit(&json!({ "requests": 100, "algorithm": "sliding_window" }));
    let leak = limit(&json!({ "requests": 100, "algorithm": "leaky_bucket", "queue": 9 }));
    let load = limit(
        &json!({ "requests": 100, "algorithm": "adaptive", "adaptive": { "threshold": 0.3 } }),
    );
    let show = |limit: &Limit| {
        let l = limit.in_force();
        (l.requests, l.per_ms, l.burst, l.queue, l.mode)
    };
    for (limit, change, expected) in [
        (&bucket, json!({}), (100, 60_000, Some(20), None, "enforce")),
        (&bucket, json!({ "requests": 200 }), (200, 60_000, Some(20), None, "enforce")),
        (&same, json!({ "requests": 200 }), (200, 60_000, Some(200), None, "enforce")),
        (&same, json!({ "burst": 5 }), (100, 60_000, Some(5), None, "enforce")),
        (&same, json!({ "per_ms": 1, "mode": "shadow" }), (100, 1, Some(100), None, "shadow")),
        (&window, json!({ "requests": 1, "per_ms": 10 }), (1, 10, None, None, "enforce")),
        (&leak, json!({ "requests": 1 }), (1, 60_000, None, Some(9), "enforce")),
        (&load, json!({ "requests": 7 }), (7, 60_000, Some(7), None, "enforce")),
    ] {
        let (requests, per_ms, burst, queue, mode) = expected;
        let expected = (requests, per_ms, burst, queue, mode.to_string());
        assert_eq!(show(&changed(limit, &change).unwrap()), expected, "{change}");
    }
    let LimitAlgorithm::Adaptive(load) = changed(&load, &json!({ "burst": 1 })).unwrap().algorithm
    else {
        panic!("another algorithm")
    };
    assert_eq!((load.threshold, load.floor, load.bucket.burst), (300, 100, 1));
}

#[test]
fn an_override_that_makes_no_limit_is_refused_in_the_words_of_the_policy() {
    let bucket = limit(&json!({ "requests": 100, "cost": 3 }));
    let window = limit(&json!({ "requests": 100, "algorithm": "sliding_window" }));
    let leak = limit(&json!({ "requests": 100, "algorithm": "leaky_bucket", "queue": 9 }));
    let year = 31_536_000_000_u64;
    for (limit, change, expected) in [
        (&bucket, json!({ "requests": 0 }), "requests: 0 is too small; allowed: a whole number"),
        (&bucket, json!({ "per_ms": 0 }), "per: \"0ms\" is too short; allowed: a duration"),
        (&bucket, json!({ "per_ms": year + 1 }), "per: \"31536000001ms\" is too long; allowed: "),
        (&bucket, json!({ "per_ms": u64::MAX }), "per: \"18446744073709551615ms\" is too long; "),
        (
            &bucket,
            json!({ "burst": 2 }),
            "cost: 3 is more than the bucket ever holds, which is 2; ",
        ),
        (
            &bucket,
            json!({ "requests": 2 }),
            "cost: 3 is more than the bucket ever holds, which is 2",
        ),
        (
            &bucket,
            json!({ "mode": "off" }),
            "mode: \"off\" is not known; allowed: one of enforce, ",
        ),
        (
            &bucket,
            json!({ "requests": 1, "per_ms": year, "burst": 11 }),
            "burst: a bucket of 11 takes more than ten years to fill; allowed: at most 3650d to",
        ),
        (&window, json!({ "burst": 5 }), "burst: means nothing to a limit with algorithm sliding_"),
        (&window, json!({ "per_ms": 9 }), "per: 9ms is too short for a sliding_window, which "),
        (&leak, json!({ "burst": 5 }), "burst: means nothing to a limit with algorithm leaky_"),
        (&leak, json!({ "per_ms": 1, "requests": 1001 }), "requests: 1001 in 1ms are less than a "),
    ] {
        let sentence = changed(limit, &change).unwrap_err();
        assert!(sentence.starts_with(expected), "{sentence}\n  does not start with\n{expected}");
    }
    let two = changed(&bucket, &json!({ "requests": 0, "mode": "x" })).unwrap_err();
    assert!(two.contains("requests: 0") && two.contains("; mode: \"x\""), "{two}");
}

/// A filter of another version may name what nobody here knows.
#[test]
fn a_limit_that_cannot_be_understood_is_not_changed() {
    let good = read(&minimal()).unwrap().rate_limits.remove(0).in_force();
    for strange in [
        policy::sync::LimitInForce { algorithm: "fixed_window".into(), ..good.clone() },
        policy::sync::LimitInForce { burst: None, ..good.clone() },
        policy::sync::LimitInForce { mode: "off".into(), ..good },
    ] {
        let mistakes = strange.with(&Override::default()).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].wrong.contains("cannot be understood"), "{mistakes:?}");
    }
}
