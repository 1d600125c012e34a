//! Ctrl-C and SIGTERM during the run: noted, so that everything is taken down before we end. Outside
//! the run they end the program as usual.

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Notes the signals for as long as it lives.
#[derive(Debug)]
pub(super) struct Interrupt {
    noted: Arc<AtomicBool>,
    /// Set when nobody looks at `noted` any more.
    over: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on the signals are noted.
    pub(super) fn watch() -> Result<Self> {
        let noted = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            register_conditional_default(signal, Arc::clone(&over))
                .and_then(|_| register(signal, Arc::clone(&noted)))
                .context("watching for Ctrl-C")?;
        }
        Ok(Self { noted, over })
    }

    /// An error once a signal has come.
    pub(super) fn check(&self) -> Result<()> {
        if self.noted.load(Ordering::Relaxed) {
            bail!("interrupted; everything was taken down");
        }
        Ok(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
