//! Envoy's statistics, as a snapshot of its admin's text form.

use std::collections::BTreeMap;

/// What Envoy puts before the filter's own names.
const FILTER: &str = "wasmcustom.";
/// Where Envoy counts the policies that it was offered.
const DISCOVERY: &str = "extension_config_discovery.";

/// Counters and gauges by full name.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    numbers: BTreeMap<String, u64>,
}

impl Stats {
    /// Reads `name: value` lines; lines with anything but a number (histograms) are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Self { numbers: text.lines().filter_map(line).collect() }
    }

    /// A number by its exact name; one that does not exist is 0, as it is before its first use.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or_default()
    }

    /// The sum of the filter's numbers called `name` that carry all of `labels`.
    #[must_use]
    pub fn filter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.numbers
            .iter()
            .filter_map(|(full, value)| {
                let mut parts = full.strip_prefix(FILTER)?.split(';');
                let is = parts.next() == Some(name);
                let have: Vec<&str> = parts.collect();
                (is && wanted.iter().all(|w| have.contains(&w.as_str()))).then_some(*value)
            })
            .sum()
    }

    /// The sum of the numbers whose full name `fits`.
    #[must_use]
    pub fn sum(&self, fits: impl Fn(&str) -> bool) -> u64 {
        self.numbers.iter().filter(|(name, _)| fits(name)).map(|(_, value)| value).sum()
    }

    /// Policies that Envoy was offered and the filter accepted, the first one included.
    /// (`config_reload` would count those that were refused, too.)
    #[must_use]
    pub fn policies_taken(&self) -> u64 {
        self.sum(|n| n.starts_with(DISCOVERY) && n.ends_with(".update_success"))
    }

    /// Policies that Envoy was offered and that were refused.
    #[must_use]
    pub fn policies_refused(&self) -> u64 {
        let bad = |n: &str| n.ends_with(".config_fail") || n.ends_with(".update_rejected");
        self.sum(|n| n.starts_with(DISCOVERY) && bad(n))
    }

    /// The names and values for which `fits` holds, one a line, for messages.
    #[must_use]
    pub fn lines(&self, fits: impl Fn(&str, u64) -> bool) -> String {
        let fitting = self.numbers.iter().filter(|(name, value)| fits(name, **value));
        fitting.map(|(name, value)| format!("{name}: {value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_matched_in_any_order() {
        let stats = Stats::parse(
            "wasmcustom.gateway_x_total;service=a;class=2xx: 3\n\
             wasmcustom.gateway_x_total;service=b;class=2xx: 4\n\
             some.histogram: P0(nan,1)\n",
        );
        assert_eq!(stats.filter("gateway_x_total", &[]), 7);
        assert_eq!(stats.filter("gateway_x_total", &[("class", "2xx"), ("service", "b")]), 4);
        assert_eq!(stats.filter("gateway_x", &[]), 0);
    }
}
