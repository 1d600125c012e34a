//! Load at a fixed rate, measured from the moment when each request was due.
//!
//! Requests are due at evenly spaced moments whatever the replies do. A request that has to wait for
//! its connection waits on the clock, so a stall is paid for by every request that it delays and
//! not only by the one that met it (no coordinated omission). A generator that measures from the
//! real send, as h2load does, would hide exactly the tail that a percentile is read for.
//!
//! One thread per connection, blocking: nothing of an event loop's granularity is in the numbers.

use super::http::Connection;
use anyhow::{Context as _, Result, anyhow};
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Connections are opened before the first request is due; this is ample on loopback.
const LEAD: Duration = Duration::from_millis(50);

/// What to send, where, how often and for how long.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    /// The listener.
    pub(super) to: SocketAddr,
    /// Whole HTTP/1.1 requests, sent in turn.
    pub(super) requests: &'a [String],
    /// Connections, each with at most one request at a time.
    pub(super) connections: u32,
    /// Requests per second over all connections.
    pub(super) rate: u32,
    /// How long requests fall due.
    pub(super) lasting: Duration,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Paced {
    /// Due-to-answered, sorted, in nanoseconds.
    pub(super) latencies: Vec<u64>,
    /// Due-to-sent of requests whose connection was free: what the generator itself added. Sorted.
    pub(super) lateness: Vec<u64>,
    /// Requests that were not answered with 200, and the first such status.
    pub(super) refused: Option<(u64, u16)>,
}

/// Wakes threads when they asked to be woken: the kernel may otherwise add 50 µs to every wait.
///
/// Threads inherit the setting from the one that starts them. Where the file is missing the
/// generator's lateness shows it.
pub(super) fn sharpen_timers() {
    let _ = fs::write("/proc/self/timerslack_ns", "1");
}

/// Offers the load and waits for every answer.
pub(super) fn offer(offer: Offer<'_>) -> Result<Paced> {
    let start = Instant::now() + LEAD;
    let runs = thread::scope(|scope| {
        let threads: Vec<_> = (0..offer.connections)
            .map(|number| scope.spawn(move || one_connection(offer, number, start)))
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut all = Paced::default();
    for run in runs {
        let run = run.map_err(|_| anyhow!("a load thread failed"))??;
        all.latencies.extend(run.latencies);
        all.lateness.extend(run.lateness);
        all.refused = match (all.refused, run.refused) {
            (Some((a, status)), Some((b, _))) => Some((a.saturating_add(b), status)),
            (a, b) => a.or(b),
        };
    }
    all.latencies.sort_unstable();
    all.lateness.sort_unstable();
    Ok(all)
}

/// The share of one connection: every `connections`-th request.
fn one_connection(offer: Offer<'_>, number: u32, start: Instant) -> Result<Paced> {
    let mut connection = Connection::open(offer.to)?;
    let mut run = Paced::default();
    let spacing = Duration::from_secs(1) / offer.rate.max(1);
    let period = spacing.saturating_mul(offer.connections);
    let mut due_in = spacing.saturating_mul(number);
    // Every connection goes through all requests, and begins with another one.
    let begin = usize::try_from(number).unwrap_or(0) % offer.requests.len().max(1);
    let mut requests = offer.requests.iter().cycle().skip(begin);
    while due_in < offer.lasting {
        let due = start + due_in;
        let free_in_time = Instant::now() <= due;
        wait_until(due);
        if free_in_time {
            run.lateness.push(nanos(due.elapsed()));
        }
        let request = requests.next().context("there is nothing to send")?;
        let status = connection.call(request.as_bytes())?.status;
        run.latencies.push(nanos(due.elapsed()));
        if status != 200 {
            let (count, first) = run.refused.unwrap_or((0, status));
            run.refused = Some((count.saturating_add(1), first));
        }
        due_in = due_in.saturating_add(period);
    }
    Ok(run)
}

/// Parking may end early without a reason, so the clock decides.
fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
