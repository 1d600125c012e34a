//! Load as fast as Envoy answers, by wrk.

use super::tools;
use anyhow::{Result, anyhow, bail};
use std::path::Path;

/// What one run of wrk reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Saturated {
    /// `Requests/sec`.
    pub(super) per_second: f64,
    /// `Non-2xx or 3xx responses`.
    pub(super) refused: u64,
}

/// What wrk sends.
pub(super) struct What<'a> {
    /// Where to.
    pub(super) url: &'a str,
    /// Headers of every request.
    pub(super) headers: &'a [(String, String)],
    /// A Lua script that makes the requests; without one they are all the same.
    pub(super) script: Option<&'a Path>,
}

/// Runs wrk with one thread; blocks for `seconds`.
pub(super) fn saturate(
    wrk: &Path,
    what: &What<'_>,
    (connections, seconds): (u32, u32),
) -> Result<Saturated> {
    let mut command = tools::command(wrk);
    command.args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--timeout",
        "10s",
    ]);
    for (name, value) in what.headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    if let Some(script) = what.script {
        command.arg("-s").arg(script);
    }
    let output = command.arg(what.url).output();
    let output = output.map_err(|e| anyhow!("{}: {e}", wrk.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("wrk failed: {}", errors.trim());
    }
    read(&text).ok_or_else(|| anyhow!("wrk printed no `Requests/sec`:\n{text}"))
}

/// Reads wrk's summary.
fn read(text: &str) -> Option<Saturated> {
    let number =
        |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    Some(Saturated {
        per_second: number("Requests/sec:")?.parse().ok()?,
        refused: number("Non-2xx or 3xx responses:").and_then(|n| n.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::{Saturated, read};

    #[test]
    fn rate_and_refusals_are_read() {
        let text = "  9 requests in 2.00s, 1MB read\n  Non-2xx or 3xx responses: 4\n\
                    Requests/sec:   4321.50\nTransfer/sec:      1.00MB\n";
        assert_eq!(read(text), Some(Saturated { per_second: 4321.5, refused: 4 }));
        assert_eq!(read("unable to connect"), None);
    }
}
