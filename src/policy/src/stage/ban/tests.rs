//! Who is forgotten first.

use super::*;

#[test]
fn whoever_has_done_most_is_forgotten_last_and_the_forgiven_first() {
    let now = Nanos::from_secs(1_000);
    let penalty = Penalty {
        violations: 9,
        within: Nanos::from_secs(60),
        ban: Nanos::from_secs(60),
        escalate: 1,
        max_ban: Nanos::from_secs(600),
    };
    let weight = |since: u64, count, level, ban_end: u64| {
        let (since, ban_end) = (Nanos::from_secs(since), Nanos::from_secs(ban_end));
        Violations::new(Conduct { since, count, level, ban_end }, &penalty).weight(now)
    };
    let by_weight = [
        weight(940, 8, 0, 0),
        weight(999, 1, 0, 0),
        weight(950, 2, 0, 0),
        weight(950, 8, 0, 0),
        weight(100, 0, 1, 401),
        weight(0, 0, 2, 0),
    ];
    assert_eq!(by_weight[0], 0, "its time is over");
    assert!(by_weight.is_sorted_by(|one, other| one < other), "{by_weight:?}");
    assert_eq!(weight(100, 0, 1, 400), 0, "forgiven");
}
