//! The one asynchronous runtime behind the harness's blocking functions. Tests stay plain functions.

use anyhow::{Context, Result};
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

/// Worker threads: services and load generators of one test binary; they wait more than they work.
const WORKERS: usize = 2;

/// The runtime, made on first use and kept until the process ends.
///
/// # Errors
/// The system grants no threads.
pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("harness")
            .enable_all()
            .build()
    });
    made.as_ref().map_err(|e| anyhow::anyhow!("{e}")).context("cannot start the harness's runtime")
}
