//! What a running Envoy has used and served, read from the kernel and from Envoy's own counters.

use super::http;
use anyhow::{Result, anyhow, bail};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

/// CPU time that all threads of a process have spent running so far, in nanoseconds.
///
/// `schedstat` counts in nanoseconds; the ticks of `stat` (10 ms) are too coarse for a run of
/// seconds. Threads that ended take their time with them: Envoy's threads live as long as it does.
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let dir = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&dir).map_err(|e| anyhow!("{dir}: {e}; is Envoy gone?"))?;
    let mut sum = 0_u64;
    for task in tasks.flatten() {
        let path = task.path().join("schedstat");
        let text = fs::read_to_string(&path).map_err(|e| anyhow!("{}: {e}", path.display()))?;
        let run = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        sum = sum.saturating_add(
            run.ok_or_else(|| anyhow!("{}: no number in `{text}`", path.display()))?,
        );
    }
    Ok(sum)
}

/// Resident memory of a process in KiB; 0 when the kernel does not say.
pub(super) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Envoy's counters of answered requests of one connection manager.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Served {
    /// `downstream_rq_2xx`.
    pub(super) good: u64,
    /// All other classes together.
    pub(super) other: u64,
}

impl Served {
    /// What came since an earlier reading.
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            good: self.good.saturating_sub(earlier.good),
            other: self.other.saturating_sub(earlier.other),
        }
    }
}

/// Reads the counters of the connection manager with that `stat_prefix`.
pub(super) fn served(admin: SocketAddr, stat_prefix: &str) -> Result<Served> {
    let filter = format!("/stats?filter=^http%5C.{stat_prefix}%5C.downstream_rq_[1-5]xx$");
    let text = http::get(admin, &filter)?;
    let stats = counters(&text);
    let mut served = Served::default();
    for (name, value) in &stats {
        if name.ends_with("_2xx") {
            served.good = *value;
        } else {
            served.other = served.other.saturating_add(*value);
        }
    }
    if stats.is_empty() {
        bail!("Envoy has no counters for `http.{stat_prefix}`");
    }
    Ok(served)
}

/// `name: number` lines; histograms and texts are left out.
fn counters(text: &str) -> BTreeMap<&str, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs.filter_map(|(name, value)| Some((name, value.trim().parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::counters;

    #[test]
    fn only_numbers_are_counters() {
        let text = "http.a.downstream_rq_2xx: 12\nhttp.a.length: No recorded values\n";
        let found = counters(text);
        assert_eq!(found.get("http.a.downstream_rq_2xx"), Some(&12));
        assert_eq!(found.len(), 1);
    }
}
