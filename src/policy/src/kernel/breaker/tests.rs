//! The cases that a breaker must get right, with their numbers.

use super::*;
use alloc::vec::Vec;

fn settings() -> Settings {
    Settings {
        failure_threshold: 3,
        timeout: Nanos::from_secs(5),
        max_timeout: Nanos::from_secs(30),
        backoff: 2,
        half_open_calls: 3,
        success_threshold: 2,
        failure_statuses: Vec::new(),
        ignore_statuses: Vec::new(),
        fallback: None,
    }
}

fn at(secs: u64) -> Nanos {
    Nanos::from_secs(1_000 + secs)
}

/// A breaker with its settings, driven like a story.
struct Story {
    breaker: Breaker,
    settings: Settings,
}

impl Story {
    fn new() -> Self {
        Self { breaker: Breaker::default(), settings: settings() }
    }

    fn admit(&mut self, now: Nanos) -> Admission {
        let (breaker, admission) = self.breaker.admit(&self.settings, now);
        self.breaker = breaker;
        admission
    }

    #[track_caller]
    fn pass(&mut self, now: Nanos) -> Permit {
        match self.admit(now) {
            Admission::Pass(permit) => permit,
            Admission::Refuse(wait) => panic!("refused, wait {wait:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, now: Nanos) -> Nanos {
        match self.admit(now) {
            Admission::Refuse(wait) => wait,
            Admission::Pass(permit) => panic!("passed with {permit:?}"),
        }
    }

    fn end(&mut self, permit: Permit, result: CallResult, now: Nanos) {
        self.breaker = self.breaker.record(&self.settings, permit, result, now);
    }

    fn call(&mut self, result: CallResult, now: Nanos) {
        let permit = self.pass(now);
        self.end(permit, result, now);
    }

    fn trip(&mut self, now: Nanos) {
        for _ in 0..3 {
            self.call(CallResult::Failure, now);
        }
        assert_eq!(self.breaker.state, State::Open);
    }
}

#[test]
fn consecutive_failures_open_it_and_a_success_between_starts_over() {
    let mut story = Story::new();
    story.call(CallResult::Failure, at(0));
    story.call(CallResult::Failure, at(0));
    story.call(CallResult::Success, at(0));
    story.call(CallResult::Failure, at(0));
    story.call(CallResult::Failure, at(0));
    assert_eq!(story.breaker.state, State::Closed);
    story.call(CallResult::Ignored, at(0));
    story.call(CallResult::Failure, at(0));
    assert_eq!(story.breaker.state, State::Open);
}

#[test]
fn an_open_breaker_refuses_until_exactly_its_deadline() {
    let mut story = Story::new();
    story.trip(at(0));
    assert_eq!(story.refused(at(3)), Nanos::from_secs(2));
    assert_eq!(story.refused(at(5) - Nanos(1)), Nanos(1));
    story.pass(at(5));
    assert_eq!(story.breaker.state, State::HalfOpen);
}

#[test]
fn half_open_admits_exactly_its_probes_and_one_more_for_each_that_ends() {
    let mut story = Story::new();
    story.trip(at(0));
    let first = story.pass(at(5));
    story.pass(at(5));
    story.pass(at(5));
    assert_eq!(story.refused(at(6)), Nanos::from_secs(4));
    story.end(first, CallResult::Ignored, at(6));
    story.end(first, CallResult::Ignored, at(6));
    story.pass(at(6));
    story.refused(at(6));
}

#[test]
fn enough_successes_close_it_and_one_failure_reopens_it_for_longer() {
    let mut story = Story::new();
    story.trip(at(0));
    story.call(CallResult::Success, at(5));
    assert_eq!(story.breaker.state, State::HalfOpen);
    story.call(CallResult::Failure, at(5));
    assert_eq!(story.breaker.state, State::Open);
    assert_eq!(story.refused(at(11)), Nanos::from_secs(4), "the second opening lasts 10 s");
    story.call(CallResult::Success, at(15));
    story.call(CallResult::Success, at(15));
    assert_eq!(story.breaker.state, State::Closed);
    assert_eq!(story.breaker.reopenings, 0);
    story.trip(at(20));
    assert_eq!(story.refused(at(20)), Nanos::from_secs(5), "the back-off starts over");
}

#[test]
fn the_back_off_is_capped() {
    let mut story = Story::new();
    let mut now = at(0);
    story.trip(now);
    for _ in 0..40 {
        now = now + story.refused(now);
        story.call(CallResult::Failure, now);
    }
    assert_eq!(story.refused(now), Nanos::from_secs(30));
}

#[test]
fn a_late_result_of_an_earlier_generation_is_dropped() {
    let mut story = Story::new();
    let old = story.pass(at(0));
    story.trip(at(0));
    story.end(old, CallResult::Success, at(1));
    assert_eq!(story.breaker.state, State::Open);
    story.pass(at(5));
    let before = story.breaker;
    story.end(old, CallResult::Failure, at(5));
    story.end(old, CallResult::Success, at(5));
    assert_eq!(story.breaker, before);
}

#[test]
fn a_probe_that_answers_after_the_next_half_open_is_void() {
    let mut story = Story::new();
    story.trip(at(0));
    let stale = story.pass(at(5));
    story.call(CallResult::Failure, at(5));
    story.pass(at(15));
    let before = story.breaker;
    story.end(stale, CallResult::Success, at(15));
    assert_eq!(story.breaker, before);
}

#[test]
fn lost_probes_never_wedge_it() {
    let mut story = Story::new();
    story.trip(at(0));
    let lost = story.pass(at(5));
    story.pass(at(5));
    story.pass(at(5));
    story.refused(at(9));
    // The leases ended; their places are free, and the old holder cannot return a new lease.
    story.pass(at(10));
    story.pass(at(10));
    story.pass(at(10));
    story.end(lost, CallResult::Ignored, at(10));
    story.refused(at(10));
}

/// A reviewer's case: with leases of `timeout` and probes that take longer, every result was
/// dropped, so half-open never ended, whatever the service answered.
#[test]
fn probes_slower_than_the_timeout_still_decide() {
    for (result, decided) in
        [(CallResult::Success, State::Closed), (CallResult::Failure, State::Open)]
    {
        let mut story = Story::new();
        story.trip(at(0));
        let slow = [story.pass(at(5)), story.pass(at(5))];
        story.pass(at(11));
        for permit in slow {
            story.end(permit, result, at(12));
        }
        assert_eq!(story.breaker.state, decided);
    }
}

#[test]
fn a_policy_with_a_shorter_time_shortens_an_open_breaker() {
    let mut story = Story::new();
    story.settings.timeout = Nanos::from_secs(600);
    story.settings.max_timeout = Nanos::from_secs(600);
    story.trip(at(0));
    story.settings.timeout = Nanos::SECOND;
    story.settings.max_timeout = Nanos::from_secs(5);
    assert_eq!(story.refused(at(1)), Nanos::from_secs(4));
    story.pass(at(5));
}

#[test]
fn a_thousand_aborted_probes_and_then_good_ones_close_it() {
    let mut story = Story::new();
    story.trip(at(0));
    for _ in 0..1_000 {
        story.call(CallResult::Ignored, at(5));
    }
    story.call(CallResult::Success, at(5));
    story.call(CallResult::Success, at(5));
    assert_eq!(story.breaker.state, State::Closed);
}

#[test]
fn a_reset_closes_it_from_every_state_and_drops_what_is_in_flight() {
    let mut story = Story::new();
    let closed_era = story.pass(at(0));
    story.trip(at(0));
    story.breaker = story.breaker.reset(at(1));
    assert_eq!(story.breaker.state, State::Closed);
    for _ in 0..3 {
        story.end(closed_era, CallResult::Failure, at(1));
    }
    assert_eq!(story.breaker.state, State::Closed);
    story.trip(at(2));
    let probe = story.pass(at(7));
    story.breaker = story.breaker.reset(at(7));
    story.end(probe, CallResult::Failure, at(7));
    assert_eq!(story.breaker.state, State::Closed);
}

#[test]
fn a_clock_that_steps_back_keeps_it_open_longer_by_the_step_and_no_more() {
    let mut story = Story::new();
    story.trip(at(900));
    assert_eq!(story.refused(at(0)), Nanos::from_secs(30), "nobody is told to wait for ever");
    story.refused(at(904));
    story.pass(at(905));
}

#[test]
fn a_shorter_half_open_after_a_policy_change_admits_no_more_than_the_new_number() {
    let mut story = Story::new();
    story.trip(at(0));
    story.settings.half_open_calls = 1;
    story.pass(at(5));
    story.refused(at(5));
}

/// Random walks against the rules that must hold in any state.
#[test]
fn permits_taken_less_returned_is_what_is_in_flight() {
    let mut seed = 7_u64;
    let mut random = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let mut story = Story::new();
    let mut flying: Vec<Permit> = Vec::new();
    let mut now = at(0);
    for _ in 0..200_000 {
        match random(10) {
            0 => now = now + Nanos::from_millis(random(3_000)),
            1..=5 => {
                if let Admission::Pass(permit) = story.admit(now) {
                    flying.push(permit);
                }
            }
            _ if !flying.is_empty() => {
                let index = usize::try_from(random(flying.len() as u64)).unwrap();
                let permit = flying.swap_remove(index);
                let result = match random(4) {
                    0 => CallResult::Success,
                    1 => CallResult::Ignored,
                    _ => CallResult::Failure,
                };
                story.end(permit, result, now);
            }
            _ => {}
        }
        let held = story.breaker.leases.iter().filter(|lease| **lease > now).count();
        assert!(held <= 3);
        let probes = flying.iter().filter(|permit| {
            permit.generation == story.breaker.generation
                && permit.probe.is_some_and(|probe| {
                    story.breaker.leases.get(probe.slot) == Some(&probe.expires)
                        && probe.expires > now
                })
        });
        assert_eq!(probes.count(), held, "every lease in force has exactly one holder");
        if story.breaker.state == State::Closed {
            assert!(story.breaker.failures < 3);
        }
        flying.truncate(64);
        if flying.len() == 64 {
            // Lost outcomes: the leases of these end by time alone.
            flying.clear();
            now = now + Nanos::from_secs(6);
        }
    }
}
