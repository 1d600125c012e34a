//! Text that Prometheus reads. A page holds each family once and each series once: the first one
//! that is put there stays.

use super::stats::{Bin, Labels};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Which text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client that sends this `Accept` wants.
    pub(crate) fn of(accept: Option<&str>) -> Self {
        let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its `content-type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Rises only; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Upper bounds in milliseconds. Each begins a bin of Envoy's histograms, so that no bin is cut.
const BOUNDS_MS: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
    30_000.0, 60_000.0,
];

/// One series' value.
#[derive(Clone, Debug)]
pub(crate) enum Sample {
    /// Of a counter or a gauge, as it is printed.
    Number(String),
    /// Milliseconds in Envoy's bins; printed in seconds.
    Milliseconds(Vec<Bin>),
}

/// What is to be printed.
#[derive(Debug, Default)]
pub(crate) struct Page {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    kind: Type,
    help: String,
    series: BTreeMap<Labels, Sample>,
}

impl Page {
    /// Puts a series on the page, unless it is there already or the family has another type.
    pub(crate) fn put(
        &mut self,
        (name, kind, help): (&str, Type, &str),
        labels: Labels,
        sample: Sample,
    ) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind,
            help: help.to_owned(),
            series: BTreeMap::new(),
        });
        if family.kind == kind {
            family.series.entry(labels).or_insert(sample);
        }
    }

    /// The page as text.
    pub(crate) fn print(&self, format: Format) -> String {
        let mut out = String::new();
        for (name, family) in &self.families {
            family.print(&mut out, name, format);
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

impl Family {
    fn print(&self, out: &mut String, name: &str, format: Format) {
        // OpenMetrics names a counter's family without the ending of its samples.
        let family = match (format, self.kind) {
            (Format::OpenMetrics, Type::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        line(out, format_args!("# HELP {family} {}", escape(&self.help, Quotes::Kept)));
        line(out, format_args!("# TYPE {family} {}", self.kind.name()));
        for (labels, sample) in &self.series {
            match sample {
                Sample::Number(number) => {
                    line(out, format_args!("{name}{} {number}", braces(labels, None)));
                }
                Sample::Milliseconds(bins) => histogram(out, name, labels, bins, format),
            }
        }
    }
}

fn histogram(out: &mut String, name: &str, labels: &Labels, bins: &[Bin], format: Format) {
    for bound in BOUNDS_MS {
        let below: u64 = bins.iter().filter(|bin| is_within(bin, bound)).map(|bin| bin.count).sum();
        let seconds = bound / 1000.0;
        let le = match format {
            Format::Prometheus => format!("{seconds}"),
            Format::OpenMetrics => format!("{seconds:?}"),
        };
        line(out, format_args!("{name}_bucket{} {below}", braces(labels, Some(&le))));
    }
    let count: u64 = bins.iter().map(|bin| bin.count).sum();
    line(out, format_args!("{name}_bucket{} {count}", braces(labels, Some("+Inf"))));
    // The sum of nothing is -0 in floating point, which a page should not show.
    let sum: f64 = bins.iter().map(weight).sum::<f64>() + 0.0;
    line(out, format_args!("{name}_sum{} {}", braces(labels, None), sum / 1000.0));
    line(out, format_args!("{name}_count{} {count}", braces(labels, None)));
}

/// The filter records whole milliseconds, so a bin that is not wider than one holds one value.
fn is_single(bin: &Bin) -> bool {
    bin.width <= 1.0
}

/// Whether all of a bin is at most `bound`. A wide bin that begins at the bound counts above it.
fn is_within(bin: &Bin, bound: f64) -> bool {
    if is_single(bin) { bin.lower_bound <= bound } else { bin.lower_bound + bin.width <= bound }
}

/// The sum of a bin's values, those of a wide bin at its middle.
#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 do not occur")]
fn weight(bin: &Bin) -> f64 {
    let value =
        if is_single(bin) { bin.lower_bound } else { bin.lower_bound + (bin.width - 1.0) / 2.0 };
    value * bin.count as f64
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    if writeln!(out, "{text}").is_err() {
        out.push('\n');
    }
}

fn braces(labels: &Labels, le: Option<&str>) -> String {
    let mut parts: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{}\"", escape(value, Quotes::Escaped)))
        .collect();
    parts.extend(le.map(|bound| format!("le=\"{bound}\"")));
    if parts.is_empty() { String::new() } else { format!("{{{}}}", parts.join(",")) }
}

enum Quotes {
    Kept,
    Escaped,
}

fn escape(text: &str, quotes: Quotes) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    match quotes {
        Quotes::Kept => text,
        Quotes::Escaped => text.replace('"', "\\\""),
    }
}
