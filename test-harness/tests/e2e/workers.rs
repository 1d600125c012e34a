//! What every worker thread of an Envoy says.

use anyhow::{Context, Result};
use test_harness::{Request, Response};

/// New connections, each to any of four workers: the chance that one worker gets none is below one in
/// a hundred thousand.
const CONNECTIONS: usize = 40;

/// Sends a request on so many new connections that every worker gets it; each answer must fit.
pub(crate) fn all_say(
    request: impl Fn() -> Request,
    fits: impl Fn(Response) -> Result<Response>,
) -> Result<()> {
    for number in 0..CONNECTIONS {
        fits(request().send()?).with_context(|| format!("on connection {number}"))?;
    }
    Ok(())
}
