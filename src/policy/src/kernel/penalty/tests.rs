//! Counting, escalating, forgiving.

use super::super::testing::{Dice, ms};
use super::*;

/// Three in ten seconds: a minute, then five, then twenty-five, an hour at most.
const fn penalty() -> Penalty {
    Penalty {
        violations: 3,
        within: Nanos::from_secs(10),
        ban: Nanos::from_secs(60),
        escalate: 5,
        max_ban: Nanos::from_secs(3_600),
    }
}

const NO_BANS: [u64; 0] = [];

/// So many violations at once; the bans that they lead to, in seconds.
fn offend(conduct: &mut Conduct, times: u32, now: Nanos) -> std::vec::Vec<u64> {
    let mut bans = std::vec::Vec::new();
    for _ in 0..times {
        let (new, ban) = violate(*conduct, &penalty(), now);
        *conduct = new;
        bans.extend(ban.map(Nanos::as_secs));
    }
    bans
}

#[test]
fn the_last_of_so_many_violations_bans_and_counting_starts_anew() {
    let mut conduct = Conduct::default();
    assert_eq!(offend(&mut conduct, 2, ms(0)), NO_BANS);
    assert_eq!(offend(&mut conduct, 1, ms(9_999)), [60]);
    assert_eq!((conduct.count, conduct.level), (0, 1));
    assert_eq!(conduct.ban_end, ms(69_999));
    assert_eq!(offend(&mut conduct, 2, ms(70_000)), NO_BANS);
}

#[test]
fn violations_that_are_too_far_apart_do_not_add_up() {
    let mut conduct = Conduct::default();
    assert_eq!(offend(&mut conduct, 2, ms(0)), NO_BANS);
    assert_eq!(offend(&mut conduct, 2, ms(10_000)), NO_BANS);
    assert_eq!(conduct.since, ms(10_000));
    let mut conduct = Conduct::default();
    for at in 2..1_000 {
        assert_eq!(
            offend(&mut conduct, 1, ms(at * 5_000)),
            NO_BANS,
            "two in ten seconds, for ever"
        );
    }
}

#[test]
fn each_ban_is_longer_up_to_the_longest() {
    let mut conduct = Conduct::default();
    let mut now = ms(0);
    let mut bans = std::vec::Vec::new();
    for _ in 0..6 {
        bans.extend(offend(&mut conduct, 3, now));
        now = conduct.ban_end;
    }
    assert_eq!(bans, [60, 300, 1_500, 3_600, 3_600, 3_600]);
}

#[test]
fn violations_during_a_ban_count_for_the_next_one() {
    // An administrator has lifted the first one, or requests that were on their way arrive.
    let mut conduct = Conduct::default();
    assert_eq!(offend(&mut conduct, 3, ms(0)), [60]);
    assert_eq!(offend(&mut conduct, 3, ms(1)), [300]);
    assert_eq!(conduct.ban_end, ms(300_001));
}

#[test]
fn a_level_is_forgotten_for_each_longest_ban_without_one_and_only_once() {
    let mut conduct = Conduct::default();
    for _ in 0..3 {
        let at = conduct.ban_end.max(ms(0));
        offend(&mut conduct, 3, at);
    }
    assert_eq!(conduct.level, 3);
    let end = conduct.ban_end;
    let after = |hours: u64, millis: u64| {
        end + Nanos::from_secs(3_600 * hours) + Nanos::from_millis(millis)
    };
    let level = |now: Nanos| violate(conduct, &penalty(), now).0.level;
    assert_eq!(level(after(1, 0) - Nanos(1)), 3);
    assert_eq!(level(after(1, 0)), 2);
    assert_eq!(level(after(2, 0)), 1);
    assert_eq!(level(after(900, 0)), 0);
    // Looking often forgives no more than looking once.
    let mut often = conduct;
    for minute in 0..90 {
        often = violate(often, &penalty(), end + Nanos::from_secs(60 * minute)).0;
    }
    assert_eq!(often.level, 2);
    assert_eq!(offend(&mut often, 2, after(2, 0)), NO_BANS);
    assert_eq!(often.level, 1);
    assert_eq!(offend(&mut often, 1, after(2, 1)), [300]);
}

#[test]
fn numbers_beyond_all_bounds_and_clocks_that_step_back_overflow_nothing() {
    let mut dice = Dice(1);
    for _ in 0..20_000 {
        let odd = |dice: &mut Dice| [0, 1, 77, u64::MAX / 2, u64::MAX][dice.below(5) as usize];
        let short = |dice: &mut Dice| [0, 1, 77, u32::MAX / 2, u32::MAX][dice.below(5) as usize];
        let penalty = Penalty {
            violations: short(&mut dice),
            within: Nanos(odd(&mut dice)),
            ban: Nanos(odd(&mut dice)),
            escalate: short(&mut dice),
            max_ban: Nanos(odd(&mut dice)),
        };
        let old = Conduct {
            since: Nanos(odd(&mut dice)),
            count: short(&mut dice),
            level: short(&mut dice),
            ban_end: Nanos(odd(&mut dice)),
        };
        let now = Nanos(odd(&mut dice));
        let (new, ban) = violate(old, &penalty, now);
        assert!(ban.is_none_or(|ban| ban <= penalty.max_ban && new.ban_end == now + ban));
        assert_eq!(ban.is_some(), new.count == 0);
        assert!(new.level <= old.level.saturating_add(1));
    }
}
