//! How much of Envoy's memory a policy's limits may take, in words.

use policy::model::Policy;

/// A sentence, for a policy with rate limits.
pub(super) fn note(policy: &Policy) -> Option<String> {
    if policy.rate_limits.is_empty() {
        return None;
    }
    let bytes = policy::stage::limit::memory(policy);
    Some(format!("rate limits take at most {} of shared memory in each Envoy", shown(bytes)))
}

/// A size with one decimal place, rounded up: less would be said than may be taken.
fn shown(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    let (unit, name) = if bytes < MIB { (KIB, "KiB") } else { (MIB, "MiB") };
    let tenths = u128::from(bytes).saturating_mul(10).div_ceil(u128::from(unit));
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_in_the_unit_that_fits() {
        let mib = 1024 * 1024;
        for (bytes, expected) in [
            (0, "0.0 KiB"),
            (1, "0.1 KiB"),
            (1024, "1.0 KiB"),
            (mib, "1.0 MiB"),
            (mib + 1, "1.1 MiB"),
            (3 * mib, "3.0 MiB"),
            (u64::MAX, "17592186044416.0 MiB"),
        ] {
            assert_eq!(shown(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn only_limits_have_something_to_say() {
        let note = |limits: serde_json::Value| {
            let document = serde_json::json!({ "version": 1, "rate_limits": limits });
            note(&super::super::judge(&document).unwrap())
        };
        assert_eq!(note(serde_json::json!([])), None);
        let one = serde_json::json!({ "name": "a", "key": [], "requests": 1, "per": "1s" });
        let small = note(serde_json::json!([one])).unwrap();
        assert!(small.starts_with("rate limits take at most "), "{small}");
        assert!(small.ends_with(" KiB of shared memory in each Envoy"), "{small}");
        let many = serde_json::json!({ "name": "a", "key": ["ip"], "requests": 1, "per": "1s" });
        let many = note(serde_json::json!([many])).unwrap();
        assert!(many.contains(" MiB "), "{many}");
    }
}
