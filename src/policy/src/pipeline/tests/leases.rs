//! Stories of what workers hold: hot keys that cost no shared data, refusals that are remembered, and
//! that neither admits more than the limit says.

use super::gateway::{GOOD, Gateway, bucket, empty, header, limit_of, with_jwt};
use crate::model::{KeyPart, Limit, LimitAlgorithm, Penalty, Window};
use crate::pipeline::Step;
use crate::reason::Reason;
use crate::stage::limit::Leases;
use crate::time::Nanos;
use alloc::vec;
use alloc::vec::Vec;

const MINUTE: Nanos = Nanos::from_secs(60);

fn with(algorithm: LimitAlgorithm) -> Gateway {
    let mut policy = empty();
    policy.rate_limits = vec![Limit { algorithm, ..limit_of("one", vec![KeyPart::Ip], 1) }];
    Gateway::new(policy)
}

/// A hundred thousand a second.
const fn fast() -> LimitAlgorithm {
    bucket(100_000, Nanos::SECOND, 100_000)
}

const fn window(requests: u32, per: Nanos) -> LimitAlgorithm {
    LimitAlgorithm::SlidingWindow(Window { requests, per })
}

/// How many of so many requests at once are admitted.
fn admitted(gateway: &mut Gateway, requests: u32) -> usize {
    (0..requests).filter(|_| gateway.reason("/a", &[]).is_none()).count()
}

#[test]
fn a_hot_key_costs_shared_data_once_in_hundreds_of_requests() {
    for algorithm in [fast(), window(100_000, Nanos::SECOND)] {
        let mut gateway = with(algorithm);
        assert_eq!(admitted(&mut gateway, 10_000), 10_000);
        assert!(gateway.store.reads < 60, "{} reads", gateway.store.reads);
        assert_eq!(gateway.store.reads, gateway.store.swaps, "one read and one write each");
    }
}

#[test]
fn a_slow_limit_is_asked_each_time() {
    for algorithm in [
        bucket(999, Nanos::SECOND, 999),
        // Too small a burst: what leasing holds back would be more than a hundredth.
        bucket(100_000, Nanos::SECOND, 99_999),
        window(999, Nanos::SECOND),
        window(1_000, Nanos::from_millis(999)),
    ] {
        let mut gateway = with(algorithm);
        assert_eq!(admitted(&mut gateway, 900), 900);
        assert_eq!(gateway.store.reads, 900, "{algorithm:?}");
    }
}

#[test]
fn the_burst_of_a_leased_limit_is_exact_to_a_hundredth_from_below() {
    let mut gateway = with(bucket(1_000, Nanos::SECOND, 1_000));
    // What comes back in ten milliseconds is held back.
    assert_eq!(admitted(&mut gateway, 2_000), 990);
    let mut gateway = with(window(1_000, Nanos::SECOND));
    assert_eq!(admitted(&mut gateway, 2_000), 1_000, "a window holds nothing back");
}

#[test]
fn a_response_counts_what_a_worker_holds_as_left() {
    let mut gateway = with(bucket(10_000, Nanos::SECOND, 10_000));
    let mut last = 9_900;
    for _ in 0..600 {
        let (_, passage) = gateway.forwarded("/a", &[]);
        let headers = gateway.added(&passage, &[]);
        let remaining = headers.iter().find_map(|one| one.strip_prefix("x-ratelimit-remaining: "));
        last -= 1;
        assert_eq!(remaining.unwrap().parse(), Ok(last));
    }
}

#[test]
fn tokens_are_not_spent_after_their_time_and_go_back() {
    let mut gateway = with(bucket(2_000, Nanos::SECOND, 4_000));
    // 20 are held back. Twice as many each time: 1, 2, 4, ... 128 are taken by 255 requests.
    assert_eq!(admitted(&mut gateway, 200), 200);
    let reads = gateway.store.reads;
    assert_eq!(admitted(&mut gateway, 55), 55);
    assert_eq!(gateway.store.reads, reads, "held");
    let mut gateway = with(bucket(2_000, Nanos::SECOND, 4_000));
    assert_eq!(admitted(&mut gateway, 200), 200);
    gateway.ms = 10;
    assert_eq!(admitted(&mut gateway, 1), 1);
    assert!(gateway.store.reads > reads, "over");
    // 200 were spent. Of the 55 that were not, 20 had come back by themselves and 35 went back. The
    // next lease was as large as what was used of the last one, and its 73 are lost with the worker's
    // memory.
    gateway.leases.forget();
    assert_eq!(admitted(&mut gateway, 5_000), 3_980 - 200 - 73);
}

#[test]
fn a_lease_of_a_window_ends_with_the_part_that_it_was_counted_in() {
    let mut gateway = with(window(10_000, Nanos::SECOND));
    gateway.ms = 95;
    admitted(&mut gateway, 200);
    let reads = gateway.store.reads;
    gateway.ms = 99;
    admitted(&mut gateway, 1);
    assert_eq!(gateway.store.reads, reads, "held");
    gateway.ms = 100;
    admitted(&mut gateway, 1);
    assert_eq!(gateway.store.reads, reads + 1, "over after five milliseconds");
}

#[test]
fn forgetting_drops_what_is_held_and_what_is_remembered() {
    let mut gateway = with(bucket(1_000, Nanos::SECOND, 1_000));
    admitted(&mut gateway, 500);
    gateway.leases.forget();
    gateway.store.values.clear();
    assert_eq!(admitted(&mut gateway, 2_000), 990);
    gateway.store.values.clear();
    assert_eq!(admitted(&mut gateway, 1), 0, "remembered");
    gateway.leases.forget();
    assert_eq!(admitted(&mut gateway, 2_000), 990);
}

#[test]
fn a_remembered_refusal_costs_no_shared_data_and_ends_in_time() {
    for (algorithm, wait) in
        [(bucket(120, MINUTE, 3), 500), (window(3, Nanos::from_secs(1)), 1_100)]
    {
        let mut gateway = with(algorithm);
        assert_eq!(admitted(&mut gateway, 4), 3);
        let reads = gateway.store.reads;
        let reply = gateway.refused("/a", &[], Reason::RateLimited);
        let told = header(&reply, "ratelimit").unwrap().len();
        for ms in 0..wait.min(1_000) {
            gateway.ms = ms;
            gateway.refused("/a", &[], Reason::RateLimited);
        }
        assert_eq!(gateway.store.reads, reads, "{algorithm:?}");
        assert_eq!(gateway.told.limited.len() as u64, wait.min(1_000) + 2);
        assert!(told > 0);
        gateway.ms = wait - 1;
        gateway.refused("/a", &[], Reason::RateLimited);
        gateway.ms = wait;
        gateway.forwarded("/a", &[]);
    }
}

#[test]
fn a_remembered_refusal_tells_what_is_left_to_wait() {
    let mut gateway = with(bucket(1, MINUTE, 1));
    gateway.forwarded("/a", &[]);
    gateway.refused("/a", &[], Reason::RateLimited);
    gateway.ms = 900;
    let reply = gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(header(&reply, "retry-after"), Some("60"), "59.1 seconds, rounded up");
    assert_eq!(gateway.store.reads, 2);
    gateway.ms = 1_000;
    gateway.refused("/a", &[], Reason::RateLimited);
    assert_eq!(gateway.store.reads, 3, "others may have given tokens back: asked once a second");
}

#[test]
fn each_refusal_of_a_limit_with_a_penalty_is_heard_of() {
    let mut gateway = with(bucket(1_000, Nanos::SECOND, 1_000));
    gateway.policy.rate_limits[0].penalty = Some(Penalty {
        violations: 1_000,
        within: MINUTE,
        ban: MINUTE,
        escalate: 1,
        max_ban: MINUTE,
    });
    assert_eq!(admitted(&mut gateway, 990 + 1_000), 990);
    gateway.refused("/a", &[], Reason::Banned);
}

#[test]
fn what_a_later_refusal_gives_back_is_held_again() {
    let mut policy = empty();
    policy.rate_limits = vec![
        Limit { algorithm: bucket(3_000, Nanos::SECOND, 3_000), ..limit_of("fast", vec![], 1) },
        limit_of("slow", vec![], 0),
    ];
    let mut gateway = Gateway::new(policy);
    for _ in 0..1_000 {
        gateway.refused("/a", &[], Reason::RateLimited);
    }
    gateway.policy.rate_limits.pop();
    assert_eq!(admitted(&mut gateway, 5_000), 3_000 - 30);
}

#[test]
fn tokens_that_come_back_end_the_memory_of_a_refusal() {
    let mut policy = with_jwt();
    policy.rate_limits = vec![limit_of("one", vec![], 1), limit_of("user", vec![KeyPart::User], 0)];
    let mut gateway = Gateway::new(policy);
    gateway.verify.pending = true;
    let held = gateway.held("/a", &[GOOD]);
    gateway.refused("/a", &[GOOD], Reason::RateLimited);
    gateway.verify.pending = false;
    let step = gateway.resume("/a", &[GOOD], held);
    assert!(matches!(step, Step::Reply(..)), "{step:?}");
    gateway.policy.rate_limits.pop();
    gateway.forwarded("/a", &[GOOD]);
}

#[test]
fn the_last_tokens_are_not_idle_at_one_worker() {
    let mut gateway = with(bucket(1_000, Nanos::SECOND, 1_000));
    assert_eq!(admitted(&mut gateway, 950), 950);
    let _hot = core::mem::take(&mut gateway.leases);
    let left = admitted(&mut gateway, 50);
    assert!(left >= 30, "{left} of 40");
}

/// Workers that take from one key as they like: whatever they hold, no span admits more than the
/// limit says.
#[track_caller]
fn bounded(algorithm: LimitAlgorithm, bound: impl Fn(u64) -> u64) {
    let mut gateway = with(algorithm);
    let mut workers: Vec<Leases> = (0..3).map(|_| Leases::default()).collect();
    let mut dice = 0x2545_F491_4F6C_DD1D_u64;
    let mut roll = |n: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (dice >> 33) % n
    };
    let mut log: Vec<(u64, u64)> = vec![];
    for _ in 0..1_000 {
        gateway.ms += roll(12);
        let worker = &mut workers[usize::try_from(roll(3)).unwrap()];
        core::mem::swap(&mut gateway.leases, worker);
        let requests = if roll(40) == 0 { 1_500 } else { roll(30) };
        let count = admitted(&mut gateway, u32::try_from(requests).unwrap()) as u64;
        core::mem::swap(&mut gateway.leases, worker);
        gateway.heard.clear();
        gateway.told.limited.clear();
        log.push((gateway.ms, count));
    }
    let total: u64 = log.iter().map(|(_, count)| count).sum();
    assert!(total > 4_000, "{total} says little");
    for (from, (start, _)) in log.iter().enumerate() {
        let mut sum = 0;
        for (end, count) in log.iter().skip(from).take(600) {
            sum += count;
            assert!(sum <= bound(end - start), "{sum} in {} ms of {algorithm:?}", end - start);
        }
    }
}

/// Does something as each of five workers.
fn each_of_five(gateway: &mut Gateway, workers: &mut [Leases; 5], requests: u32) -> usize {
    let mut count = 0;
    for worker in workers {
        core::mem::swap(&mut gateway.leases, worker);
        count += admitted(gateway, requests);
        core::mem::swap(&mut gateway.leases, worker);
    }
    count
}

/// The worst that leases can do: everybody holds as much as he may, the bucket fills up again, and
/// then all come at once.
#[test]
fn what_workers_hold_and_what_came_back_meanwhile_are_no_more_than_the_burst() {
    for (wait, least) in [(9, 19_900), (300, 19_700)] {
        let mut gateway = with(bucket(20_000, Nanos::SECOND, 20_000));
        let mut workers: [Leases; 5] = core::array::from_fn(|_| Leases::default());
        // They are used to large leases,
        each_of_five(&mut gateway, &mut workers, 300);
        gateway.ms += 1_000;
        // each takes one,
        assert_eq!(each_of_five(&mut gateway, &mut workers, 1), 5);
        gateway.ms += wait;
        let reads = gateway.store.reads;
        // and spends it at the last moment, or too late.
        let mut count = each_of_five(&mut gateway, &mut workers, 5_000);
        // What was left of the last leases.
        count += each_of_five(&mut gateway, &mut workers, 256);
        assert!((least..=20_000).contains(&count), "{count} after {wait} ms");
        assert!(gateway.store.reads > reads);
    }
}

/// Leases that are taken and go back unspent, again and again, while the bucket is full: whatever
/// went back as well as having been earned meanwhile would pile up.
#[test]
fn leases_that_go_back_again_and_again_pile_nothing_up() {
    for rounds in 1..8 {
        let mut gateway = with(bucket(1_000, Nanos::SECOND, 1_000));
        let mut workers: [Leases; 5] = core::array::from_fn(|_| Leases::default());
        each_of_five(&mut gateway, &mut workers, 100);
        gateway.ms += 1_000;
        for _ in 0..rounds {
            each_of_five(&mut gateway, &mut workers, 1);
            gateway.ms += 10;
        }
        gateway.ms -= 1;
        let mut count = each_of_five(&mut gateway, &mut workers, 1_000);
        count += each_of_five(&mut gateway, &mut workers, 256);
        assert!((940..=1_000).contains(&count), "{count} after {rounds} rounds");
    }
}

#[test]
fn no_span_admits_more_than_burst_and_rate_whatever_workers_hold() {
    bounded(bucket(1_000, Nanos::SECOND, 1_000), |ms| 1_000 + ms);
    bounded(bucket(3_000, Nanos::SECOND, 3_500), |ms| 3_500 + 3 * ms);
}

#[test]
fn no_window_admits_more_than_the_limit_whatever_workers_hold() {
    bounded(window(2_000, Nanos::SECOND), |ms| if ms < 1_000 { 2_000 } else { u64::MAX });
}
