//! The simulator: many workers on one store, through the pipeline as Envoy's workers go through it,
//! on a seeded schedule, and held against a model that only knows what was let through.
//!
//! Between a worker's read and its write others get in; workers die with what they hold; time stands
//! still and jumps; clients wait for their turn and go away; strangers spray keys. Whatever happens,
//! no limit may admit more than its numbers say, and where more is asked for than it allows it must
//! admit nearly all of that. A failure says how to run its schedule again. Together the tests take more
//! than a million steps.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the helpers of a test may fail it"
)]

#[path = "simulator/model.rs"]
mod model;
#[path = "simulator/scenes.rs"]
mod scenes;
#[path = "simulator/spray.rs"]
mod spray;
#[path = "simulator/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};

/// Reruns one schedule of each test.
const SEED: &str = "SIMULATOR_SEED";

/// A seed's schedule: how many steps it took, or what went wrong.
type Scene = fn(u64) -> Result<u64, String>;

/// Plays a scene with as many seeds, on all processors. Fails with the first seed that failed; tells
/// how many steps all took together.
#[track_caller]
fn play(name: &str, scene: Scene, seeds: u64) -> u64 {
    let wanted = env::var(SEED).ok();
    let seeds = match &wanted {
        Some(seed) => seed.parse().map_or(0..0, |seed| seed..seed + 1),
        None => 0..seeds,
    };
    let (next, steps) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let failure = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failure.lock().unwrap().is_some() {
                return;
            }
            let ended = catch_unwind(AssertUnwindSafe(|| scene(seed)));
            match ended.unwrap_or_else(|_| Err("it panicked, see above".to_string())) {
                Ok(took) => {
                    steps.fetch_add(took, Ordering::Relaxed);
                }
                Err(wrong) => *failure.lock().unwrap() = Some((seed, wrong)),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    if let Some((seed, wrong)) = failure.into_inner().unwrap() {
        panic!(
            "seed {seed}: {wrong}\n    again: {SEED}={seed} cargo test -p policy --test simulator {name}"
        );
    }
    steps.into_inner()
}

/// Whether all seeds are played, not one.
fn is_whole() -> bool {
    env::var_os(SEED).is_none()
}

/// All algorithms, several limits to a request, give-backs, waiting, deaths, failures, evictions,
/// clocks that stand and jump, numbers that change.
#[test]
fn whatever_happens_no_limit_admits_more_than_its_numbers_say() {
    let name = "whatever_happens_no_limit_admits_more_than_its_numbers_say";
    let steps = play(name, scenes::chaos, 48);
    assert!(!is_whole() || steps >= 520_000, "{steps} steps");
}

/// Each algorithm alone, leased and not, more asked for than it allows.
#[test]
fn where_more_is_asked_for_a_limit_admits_nearly_all_that_it_allows() {
    let name = "where_more_is_asked_for_a_limit_admits_nearly_all_that_it_allows";
    let steps = play(name, scenes::throughput, 27);
    assert!(!is_whole() || steps >= 320_000, "{steps} steps");
}

/// Idle, then one worker hot, then all at once: the worst that leases can do.
#[test]
fn what_workers_hold_in_advance_is_never_too_much() {
    let name = "what_workers_hold_in_advance_is_never_too_much";
    let steps = play(name, scenes::pulses, 8);
    assert!(!is_whole() || steps >= 120_000, "{steps} steps");
}

/// A flood that a later limit refuses, beside clients that it does not.
#[test]
fn what_refused_requests_have_taken_is_there_for_others() {
    let name = "what_refused_requests_have_taken_is_there_for_others";
    let steps = play(name, scenes::give_back, 6);
    assert!(!is_whole() || steps >= 180_000, "{steps} steps");
}

/// A table of one set, every request of another stranger, and one client that is limited.
#[test]
fn a_limited_client_stays_limited_in_a_table_that_overflows() {
    let name = "a_limited_client_stays_limited_in_a_table_that_overflows";
    let steps = play(name, scenes::overflow, 8);
    assert!(!is_whole() || steps >= 80_000, "{steps} steps");
}

/// As many keys as an attacker on a fast line sends in minutes.
#[test]
fn a_limited_client_stays_limited_while_ten_million_keys_are_sprayed() {
    spray::ten_million();
}
