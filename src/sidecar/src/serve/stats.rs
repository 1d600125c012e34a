//! The filter's statistics as Envoy prints them: names with labels inside, bins of histograms.
//!
//! A raw name is `wasmcustom.gateway_x_total;label=value;label=value`. It is read from there and not
//! from Envoy's own Prometheus page, so that labels are right where no `stats_tags` can be set.

use serde::Deserialize;
use serde_json::Number;

/// Labels in the order of the raw name.
pub(crate) type Labels = Vec<(String, String)>;

/// Everything that the filter counted.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Counters and gauges.
    pub(crate) values: Vec<Value>,
    /// Histograms.
    pub(crate) histograms: Vec<Histogram>,
}

/// A counter or a gauge.
#[derive(Debug, PartialEq)]
pub(crate) struct Value {
    /// As `gateway_x_total`.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its value.
    pub(crate) value: Number,
}

/// A histogram since the start of Envoy.
#[derive(Debug, PartialEq)]
pub(crate) struct Histogram {
    /// As `gateway_x_milliseconds`.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its bins, rising.
    pub(crate) bins: Vec<Bin>,
}

/// Values from `lower_bound` up to `lower_bound + width`, two significant digits wide.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct Bin {
    /// The smallest value.
    pub(crate) lower_bound: f64,
    /// Zero for the bin of zero.
    pub(crate) width: f64,
    /// How many values.
    pub(crate) count: u64,
}

impl Stats {
    /// The value of a series, whatever the order of its labels.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let has = |value: &Value, (key, wanted): &(&str, &str)| {
            value.labels.iter().any(|(label, given)| label == key && given == wanted)
        };
        let value = self.values.iter().find(|value| {
            value.name == name
                && value.labels.len() == labels.len()
                && labels.iter().all(|label| has(value, label))
        })?;
        value.value.as_u64()
    }

    /// The distinct values of a label of a metric, sorted.
    pub(crate) fn label_values(&self, name: &str, label: &str) -> Vec<&str> {
        let mut found: Vec<&str> = self
            .values
            .iter()
            .filter(|value| value.name == name)
            .flat_map(|value| &value.labels)
            .filter(|(key, _)| key == label)
            .map(|(_, value)| value.as_str())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Reads `/stats?format=json&histogram_buckets=detailed`. What is not ours is passed over.
///
/// # Errors
/// When it is not that document.
pub(crate) fn read(body: &[u8]) -> serde_json::Result<Stats> {
    let document: Document = serde_json::from_slice(body)?;
    let mut stats = Stats::default();
    for entry in document.stats {
        if let (Some(raw), Some(serde_json::Value::Number(value))) = (entry.name, entry.value)
            && let Some((name, labels)) = split(&raw)
        {
            stats.values.push(Value { name, labels, value });
        }
        for histogram in entry.histograms.into_iter().flat_map(|list| list.details) {
            if let Some((name, labels)) = split(&histogram.name) {
                let bins = histogram.totals;
                stats.histograms.push(Histogram { name, labels, bins });
            }
        }
    }
    Ok(stats)
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    stats: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: Option<String>,
    value: Option<serde_json::Value>,
    histograms: Option<Histograms>,
}

#[derive(Deserialize)]
struct Histograms {
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    name: String,
    #[serde(default)]
    totals: Vec<Bin>,
}

/// The parts of a raw name; `None` when it is not one of ours, or not well formed.
fn split(raw: &str) -> Option<(String, Labels)> {
    let mut parts = raw.strip_prefix("wasmcustom.")?.split(';');
    let name = parts.next().filter(|name| name.starts_with("gateway_") && is_name(name))?;
    let mut labels = Labels::new();
    for part in parts {
        let (key, value) = part.split_once('=')?;
        if !is_name(key) || labels.iter().any(|(known, _)| known == key) {
            return None;
        }
        labels.push((key.to_owned(), value.to_owned()));
    }
    Some((name.to_owned(), labels))
}

fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_out_of_raw_names() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!(split("wasmcustom.gateway_a"), Some(("gateway_a".into(), Vec::new())));
        assert_eq!(
            split("wasmcustom.gateway_a_total;service=x.y=z;class=2xx"),
            Some(("gateway_a_total".into(), labels(&[("service", "x.y=z"), ("class", "2xx")])))
        );
        for strange in [
            "cluster.x",
            "wasmcustom.other",
            "wasmcustom.gateway_a;b",
            "wasmcustom.gateway_a;b=1;b=2",
            "wasmcustom.gateway_a;B=1",
            "wasmcustom.gateway_a.b",
        ] {
            assert_eq!(split(strange), None, "{strange}");
        }
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        let body = br#"{"stats":[{"name":"x.y","value":"text"},{"name":"wasmcustom.gateway_a;k=v","value":3},
            {"histograms":{"supported_percentiles":[0],"details":[
              {"name":"wasmcustom.gateway_h_milliseconds;service=s","totals":[{"lower_bound":0,"width":0,"count":3}],
               "intervals":[],"percentiles":[{"cumulative":null,"interval":null}]}]}}]}"#;
        let stats = read(body).unwrap();
        assert_eq!(stats.get("gateway_a", &[("k", "v")]), Some(3));
        assert_eq!(stats.get("gateway_a", &[]), None);
        assert_eq!(stats.histograms[0].bins[0].count, 3);
        assert_eq!(stats.label_values("gateway_a", "k"), ["v"]);
    }
}
