//! The signals that ask us to stop. The first one ends the start or begins the drain, and one more
//! cuts the drain short.

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Queue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Signals this close together are one wish: a closing terminal and `timeout` send several.
const ONE_WISH: Duration = Duration::from_millis(500);

/// What has been asked so far.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// We shall stop.
    pub(super) stop: Arc<AtomicBool>,
    /// We shall stop at once.
    pub(super) at_once: Arc<AtomicBool>,
}

impl Signals {
    /// From now on the signals are noted instead of ending us.
    pub(super) fn watch() -> Result<Self> {
        let signals = Self::default();
        let mut queue = Queue::new([SIGHUP, SIGINT, SIGTERM]).context("watching for Ctrl-C")?;
        let (stop, at_once) = (Arc::clone(&signals.stop), Arc::clone(&signals.at_once));
        std::thread::spawn(move || {
            let mut first: Option<Instant> = None;
            for _ in queue.forever() {
                match first {
                    None => stop.store(true, Ordering::Relaxed),
                    Some(at) if at.elapsed() < ONE_WISH => {}
                    Some(_) => at_once.store(true, Ordering::Relaxed),
                }
                first = first.or_else(|| Some(Instant::now()));
            }
        });
        Ok(signals)
    }

    /// Whether we shall stop.
    pub(super) fn asked(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether we shall stop at once.
    pub(super) fn asked_again(&self) -> bool {
        self.at_once.load(Ordering::Relaxed)
    }
}
