//! The timer of a plugin: set to whatever is due next, with as few calls to the host as may be.
//!
//! Envoy's timer has whole milliseconds, fires a period after it was set, and again a period after
//! each tick has returned. It counts from when its event loop last woke up, so it may fire a little
//! early: whoever finds nothing due sets it again.

use crate::host::Host;
use policy::time::Nanos;
use std::cell::Cell;

/// The shortest period, and how late a tick may be because an earlier setting is kept.
const STEP: Nanos = Nanos::from_millis(1);

/// The timer, as far as this plugin knows.
#[derive(Debug)]
pub(super) struct Timer {
    /// What it is set to.
    period: Cell<Nanos>,
    /// When it fires.
    due: Cell<Nanos>,
}

impl Timer {
    /// A timer that was just set.
    pub(super) fn set(period: Nanos, now: Nanos) -> Self {
        Self { period: Cell::new(period), due: Cell::new(now + period) }
    }

    /// At the end of a tick, when the host is about to start the period again: sets it so that it
    /// fires at `target`, or up to a millisecond later.
    pub(super) fn restart<H: Host>(&self, host: &H, target: Nanos, now: Nanos) {
        let wanted = whole(target - now);
        if wanted != self.period.get() && host.tick_every(wanted).is_ok() {
            self.period.set(wanted);
        }
        self.due.set(now + self.period.get());
    }

    /// Between two ticks: sees to it that it fires by `target`, or up to a millisecond later. One
    /// that fires too early finds out by itself.
    pub(super) fn hurry<H: Host>(&self, host: &H, target: Nanos, now: Nanos) {
        // What is overdue comes as soon as this callback returns. Whatever is set here is earlier
        // than what was set before: a crowd of callers cannot put a tick off.
        if self.due.get() <= target.max(now) + STEP {
            return;
        }
        let wanted = whole(target - now);
        if host.tick_every(wanted).is_ok() {
            self.period.set(wanted);
            self.due.set(now + wanted);
        }
    }
}

/// In whole milliseconds, rounded up, so that nobody is woken before his turn.
fn whole(span: Nanos) -> Nanos {
    Nanos::from_millis(span.0.div_ceil(STEP.0)).max(STEP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHost;

    const MS: u64 = 1_000_000;

    fn timer() -> (FakeHost, Timer) {
        (FakeHost::new(1), Timer::set(Nanos(500 * MS), Nanos::ZERO))
    }

    #[test]
    fn a_period_is_rounded_up_and_never_nothing() {
        let (host, timer) = timer();
        for (target, period) in
            [(MS, 1), (MS + 1, 2), (2 * MS - 1, 2), (0, 1), (499 * MS + 1, 500), (1, 1)]
        {
            timer.restart(&host, Nanos(target), Nanos::ZERO);
            assert_eq!(host.vm.period.get(), period, "{target}");
        }
    }

    #[test]
    fn it_is_set_earlier_when_that_is_needed_and_left_alone_otherwise() {
        let (host, timer) = timer();
        timer.hurry(&host, Nanos(100 * MS + 300), Nanos::ZERO);
        assert_eq!(host.vm.period.get(), 101);
        host.vm.period.set(0);
        // The same target, seen later, and one that is later.
        timer.hurry(&host, Nanos(100 * MS + 300), Nanos(40 * MS + 700));
        timer.hurry(&host, Nanos(300 * MS), Nanos(50 * MS));
        assert_eq!(host.vm.period.get(), 0);
        timer.hurry(&host, Nanos(60 * MS), Nanos(50 * MS));
        assert_eq!(host.vm.period.get(), 10);
    }

    #[test]
    fn a_tick_that_is_late_already_is_not_put_off() {
        let (host, timer) = timer();
        timer.hurry(&host, Nanos(510 * MS), Nanos(505 * MS));
        assert_eq!(host.vm.period.get(), 0);
    }

    #[test]
    fn what_the_host_does_not_take_is_tried_again() {
        let (host, timer) = timer();
        host.process.hostility.set(1000);
        timer.hurry(&host, Nanos(10 * MS), Nanos::ZERO);
        host.process.hostility.set(0);
        timer.hurry(&host, Nanos(10 * MS), Nanos::ZERO);
        assert_eq!(host.vm.period.get(), 10);
    }
}
