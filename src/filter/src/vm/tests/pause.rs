//! Requests that wait for their turn in a leaky bucket, on a timer as Envoy's.

use super::{ROOT, attribute, configured, details, host, serialize};
use crate::testing::FakeHost;
use crate::vm::{Action, Vm};
use crate::waiting::PAUSED_MAX;
use policy::time::Nanos;
use std::cell::RefCell;
use std::rc::Rc;

/// Ten a second, three may wait; `/slow` has one a second beside it.
const SMOOTH: &str = r#"{
    "version": 1,
    "rate_limits": [
        {"name": "slow", "match": {"paths": ["/slow"]}, "key": [], "algorithm": "leaky_bucket",
         "requests": 1, "per": "1s", "queue": 9},
        {"name": "smooth", "match": {"paths": ["/fast"]}, "key": [], "algorithm": "leaky_bucket",
         "requests": 10, "per": "1s", "queue": 3}
    ]
}"#;
/// How late a request may be that waits for its turn: the timer has whole milliseconds.
const LATE: Nanos = Nanos::from_millis(2);

/// One VM, and who went on when.
struct Worker {
    host: FakeHost,
    vm: Rc<Vm<FakeHost>>,
    went: RefCell<Vec<(u32, u64)>>,
    began: u64,
}

impl Worker {
    fn on(host: FakeHost) -> Self {
        let vm = configured(&host);
        let began = host.process.now.get();
        Self { host, vm, went: RefCell::default(), began }
    }

    fn new(policy: &str) -> Self {
        Self::on(host(policy))
    }

    fn send(&self, context: u32, path: &str) -> Action {
        self.vm.on_context_create(context, ROOT);
        *self.host.vm.request.borrow_mut() =
            serialize(&[(b":method", b"GET"), (b":path", path.as_bytes())]);
        self.host.vm.effective.set(Some(context));
        self.vm.on_request_headers(context, 2)
    }

    /// Sends some that are to be held, all at once.
    #[track_caller]
    fn held(&self, contexts: std::ops::Range<u32>, path: &str) {
        for context in contexts {
            let replies = self.host.vm.replies.borrow().len();
            assert_eq!(self.send(context, path), Action::Pause);
            assert_eq!(self.host.vm.replies.borrow().len(), replies, "{context} was answered");
        }
    }

    /// Lets milliseconds pass, with the ticks that the timer was set to.
    fn run(&self, millis: u64) {
        self.host.run(Nanos::from_millis(millis), || {
            self.host.vm.effective.set(Some(ROOT));
            let before = self.host.vm.continued.borrow().len();
            self.vm.on_tick(ROOT);
            let now = self.host.process.now.get() - self.began;
            let continued = self.host.vm.continued.borrow();
            self.went.borrow_mut().extend(continued[before..].iter().map(|one| (*one, now)));
        });
    }

    /// Whether these streams, and no others, went on, in this order and at these milliseconds, never
    /// early.
    #[track_caller]
    fn went(&self, expected: &[(u32, u64)]) {
        let went = self.went.borrow();
        assert_eq!(went.len(), expected.len(), "{went:?}");
        for ((context, at), (who, when)) in went.iter().zip(expected) {
            let turn = Nanos::from_millis(*when);
            let in_time = *at >= turn.0 && *at <= (turn + LATE).0;
            assert!(context == who && in_time, "{went:?} instead of {expected:?}");
        }
    }

    fn leave(&self, context: u32) {
        self.vm.on_log(context);
        self.vm.on_delete(context);
    }

    fn counted(&self, metric: &str) -> i64 {
        self.host.metric(metric)
    }
}

#[test]
fn a_request_goes_on_at_its_turn_and_not_before() {
    // Whatever part of a millisecond it begins in.
    for offset in [0, 1, 300_123, 999_999] {
        let host = host(SMOOTH);
        host.pass(Nanos(offset));
        let worker = Worker::on(host);
        assert_eq!(worker.send(2, "/fast"), Action::Continue);
        worker.held(3..4, "/fast");
        worker.run(99);
        worker.went(&[]);
        worker.run(3);
        worker.went(&[(3, 100)]);
        worker.run(2000);
        worker.went(&[(3, 100)]);
        assert_eq!(worker.vm.on_request_headers(3, 2), Action::Continue);
        assert_eq!(worker.counted("gateway_rate_limit_paused_total;limit=smooth"), 1);
        assert_eq!(worker.counted("gateway_rate_limit_total;limit=smooth;outcome=ok"), 2);
        assert!(worker.host.vm.replies.borrow().is_empty());
        // Nobody waits: the timer is as it was.
        assert!(worker.host.vm.period.get() >= 500);
    }
}

#[test]
fn requests_go_on_one_by_one_and_those_beyond_the_queue_are_refused() {
    let worker = Worker::new(SMOOTH);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..6, "/fast");
    assert_eq!(worker.send(6, "/fast"), Action::Pause);
    assert_eq!(details(&worker.host), ["gateway.rate-limited"]);
    worker.run(1000);
    worker.went(&[(3, 100), (4, 200), (5, 300)]);
}

#[test]
fn workers_share_the_line_and_each_keeps_its_own_time() {
    let one = Worker::new(SMOOTH);
    let two = Worker::on(one.host.sibling());
    assert_eq!(one.send(2, "/fast"), Action::Continue);
    two.held(2..3, "/fast");
    one.held(3..4, "/fast");
    two.held(3..4, "/fast");
    assert_eq!(one.send(4, "/fast"), Action::Pause);
    assert_eq!(details(&one.host), ["gateway.rate-limited"]);
    two.run(1000);
    two.went(&[(2, 100), (3, 300)]);
    one.host.process.now.set(one.began);
    one.run(1000);
    one.went(&[(3, 200)]);
}

#[test]
fn a_nearer_turn_sets_the_timer_anew() {
    let worker = Worker::new(SMOOTH);
    for (context, path) in [(2, "/slow"), (3, "/fast")] {
        assert_eq!(worker.send(context, path), Action::Continue);
    }
    worker.held(4..6, "/slow");
    worker.run(50);
    // The rest is looked after meanwhile.
    assert_eq!(worker.counted("gateway_policy_generation"), 1);
    worker.held(6..8, "/fast");
    worker.run(2500);
    worker.went(&[(6, 100), (7, 200), (4, 1000), (5, 2000)]);
}

#[test]
fn the_last_in_the_line_gives_its_place_back_when_it_leaves() {
    let worker = Worker::new(SMOOTH);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..6, "/fast");
    worker.leave(5);
    worker.held(6..7, "/fast");
    // Deleted without a log entry.
    worker.vm.on_delete(6);
    worker.held(7..8, "/fast");
    // Answered by somebody else, as for a time-out.
    worker.vm.on_response_headers(7);
    worker.held(8..9, "/fast");
    worker.run(1000);
    worker.went(&[(3, 100), (4, 200), (8, 300)]);
    worker.leave(7);
    assert!(details(&worker.host).is_empty());
}

#[test]
fn nobody_ticks_for_one_who_left() {
    let worker = Worker::new(SMOOTH);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..4, "/fast");
    worker.leave(3);
    worker.run(60);
    assert_eq!(worker.host.vm.period.get(), 500);
}

#[test]
fn a_tick_that_takes_long_puts_nobody_off() {
    let worker = Worker::new(&SMOOTH.replace("\"requests\": 10,", "\"requests\": 50,"));
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..6, "/fast");
    worker.host.vm.pass_on.set(5_000_000);
    worker.run(200);
    // Each is there when what is done for it has taken its time.
    worker.went(&[(3, 25), (4, 45), (5, 65)]);
}

#[test]
fn one_in_the_middle_that_leaves_lets_its_turn_pass() {
    let worker = Worker::new(SMOOTH);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..6, "/fast");
    worker.leave(4);
    assert_eq!(worker.send(6, "/fast"), Action::Pause);
    assert_eq!(details(&worker.host), ["gateway.rate-limited"]);
    worker.run(1000);
    worker.went(&[(3, 100), (5, 300)]);
}

#[test]
fn who_finds_no_room_to_wait_is_refused_however_long_the_queue_is() {
    let policy = SMOOTH.replace("\"queue\": 9", "\"queue\": 10000");
    let worker = Worker::new(&policy);
    assert_eq!(worker.send(2, "/slow"), Action::Continue);
    let most = u32::try_from(PAUSED_MAX).unwrap();
    worker.held(3..3 + most, "/slow");
    assert_eq!(worker.send(9000, "/slow"), Action::Pause);
    assert_eq!(details(&worker.host), ["gateway.rate-limited"]);
    assert_eq!(worker.counted("gateway_rate_limit_total;limit=slow;outcome=over"), 1);
    worker.leave(2 + most);
    worker.held(9001..9002, "/slow");
}

#[test]
fn a_plugin_that_was_replaced_lets_go_on_whom_it_holds() {
    let worker = Worker::new(SMOOTH);
    worker.run(600);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..5, "/fast");
    // Each plugin has a timer of its own, and this host has but one.
    let timer = (worker.host.vm.period.get(), worker.host.vm.due.get());
    worker.host.configure("gateway", r#"{"version": 1, "name": "another"}"#);
    worker.host.pass(Nanos(1));
    worker.vm.on_context_create(900, 0);
    let size = worker.host.vm.configuration.borrow().len();
    assert!(worker.vm.on_configure(900, size));
    worker.vm.on_tick(900);
    assert_eq!(worker.counted("gateway_policy_generation"), 2);
    worker.host.vm.period.set(timer.0);
    worker.host.vm.due.set(timer.1);
    worker.run(1000);
    worker.went(&[(3, 700), (4, 800)]);
}

#[test]
fn nobody_hangs_when_the_plugin_is_destroyed() {
    let worker = Worker::new(SMOOTH);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..6, "/fast");
    worker.host.vm.gone.borrow_mut().push(4);
    worker.vm.on_delete(ROOT);
    worker.vm.on_delete(ROOT);
    assert_eq!(details(&worker.host), ["gateway.state-unavailable"; 2]);
    assert_eq!(*worker.host.vm.answered.borrow(), [Some(3), Some(5)]);
    for context in 2..6 {
        worker.leave(context);
    }
    assert!(worker.host.vm.continued.borrow().is_empty());
    let refused = "service=samples;decision=refused;reason=state-unavailable";
    assert_eq!(worker.counted(&format!("gateway_requests_total;{refused}")), 2);
}

#[test]
fn a_request_that_cannot_be_read_at_its_turn_is_refused() {
    let worker = Worker::new(SMOOTH);
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..4, "/fast");
    worker.host.vm.unreadable.set(true);
    worker.run(150);
    assert_eq!(details(&worker.host), ["gateway.state-unavailable"]);
    worker.went(&[]);
}

/// One step of a host that has lost its mind, with a queue.
fn step(worker: &Worker, said: &mut [(bool, bool)]) {
    let Worker { host, vm, .. } = worker;
    let context = 2 + u32::try_from(host.draw() % 8).unwrap();
    let seen = &mut said[context as usize];
    let (replies, continued) = (host.vm.replies.borrow().len(), host.vm.continued.borrow().len());
    match host.draw() % 8 {
        0..=2 => {
            let path = [b"/fast", b"/slow"][host.draw() as usize % 2];
            *host.vm.request.borrow_mut() = serialize(&[(b":method", b"GET"), (b":path", path)]);
            host.vm.effective.set(Some(context));
            if vm.on_request_headers(context, 2) == Action::Continue {
                assert!(!seen.0, "forwarded after a reply");
            }
        }
        3 | 4 => {
            host.pass(Nanos(host.draw() % 200_000_000));
            vm.on_tick(ROOT);
        }
        5 => vm.on_response_headers(context),
        6 => vm.on_log(context),
        _ => {
            vm.on_delete(context);
            *seen = (false, false);
            vm.on_context_create(context, ROOT);
        }
    }
    for context in &host.vm.continued.borrow()[continued..] {
        let (replied, went) = &mut said[*context as usize];
        assert!(!*replied, "{context} went on after a reply");
        assert!(!std::mem::replace(went, true), "{context} went on twice");
    }
    for context in host.vm.answered.borrow()[replies..].iter().flatten() {
        let (replied, _) = &mut said[*context as usize];
        assert!(!std::mem::replace(replied, true), "{context} was answered twice");
    }
}

#[test]
fn no_host_lets_a_request_go_on_twice_or_after_a_reply() {
    for seed in 0..super::SEEDS {
        let worker = Worker::new(SMOOTH);
        worker.host.process.random_from(seed);
        for context in 2..10 {
            worker.vm.on_context_create(context, ROOT);
        }
        worker.host.process.hostility.set([0, 30, 300][usize::try_from(seed % 3).unwrap()]);
        let mut said = vec![(false, false); 10];
        for _ in 0..400 {
            step(&worker, &mut said);
        }
        // A sane host is served again, and nobody is left behind.
        worker.host.process.hostility.set(0);
        worker.host.pass(Nanos::from_secs(100));
        worker.vm.on_tick(ROOT);
        assert_eq!(worker.send(50, "/fast"), Action::Continue, "seed {seed}");
        worker.held(51..52, "/fast");
        worker.host.pass(Nanos::from_millis(101));
        worker.vm.on_tick(ROOT);
        assert_eq!(worker.host.vm.continued.borrow().last(), Some(&51), "seed {seed}");
    }
}

#[test]
fn a_breaker_that_opened_meanwhile_refuses_at_the_turn() {
    let breakers = r#""circuit_breakers": {"default": {"failure_threshold": 1, "timeout": "9s"}},
        "rate_limits""#;
    let worker = Worker::new(&SMOOTH.replace("\"rate_limits\"", breakers));
    assert_eq!(worker.send(2, "/fast"), Action::Continue);
    worker.held(3..4, "/fast");
    attribute(&worker.host, b"response\0code", &503_u64.to_le_bytes());
    attribute(&worker.host, b"response\0code_details", b"via_upstream");
    worker.leave(2);
    worker.run(150);
    assert_eq!(details(&worker.host), ["gateway.breaker-open"]);
    worker.went(&[]);
}
