//! A run as a Markdown table.

use super::Load;
use super::machine::Circumstances;
use super::sample::{Sample, Series, Variant};
use super::stats::Spread;
use std::fmt::Write as _;

/// The whole report.
pub(super) fn markdown(all: &[Series], load: Load, circumstances: &Circumstances) -> String {
    let mut text = String::from("# Benchmark\n\n");
    for line in circumstances.lines() {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "\n{} rounds, all cases in every round, the order rotated; per case and round {} s \
         saturated and {} s at {} requests/s, {} connections, HTTP/1.1 keep-alive. \
         Values are medians over the rounds (smallest to largest).",
        load.rounds, load.seconds, load.seconds, load.rate, load.connections
    );
    let mut workers: Vec<u32> = all.iter().map(|series| series.case.concurrency).collect();
    workers.dedup();
    for concurrency in workers {
        let _ = writeln!(text, "\n## `--concurrency {concurrency}`\n");
        table(&mut text, all, concurrency, load);
    }
    text.push_str(&notes(all));
    text
}

/// One row per variant.
fn table(text: &mut String, all: &[Series], concurrency: u32, load: Load) {
    let _ = writeln!(
        text,
        "| variant | Envoy CPU, µs/request | Δ router | × native chain | requests/s, saturated \
         | p50 · p95 · p99 at {}/s, µs | memory, MiB |\n|---|---|---|---|---|---|---|",
        load.rate
    );
    let rows: Vec<&Series> = all.iter().filter(|s| s.case.concurrency == concurrency).collect();
    let base = |variant| rows.iter().find(|series| series.case.variant == variant);
    for series in &rows {
        let delta = base(Variant::Router).map(|router| series.against(router, |a, b| a - b));
        let ratio = base(Variant::Native).map(|native| series.against(native, |a, b| a / b));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            series.case.variant.name(),
            shown(series.of(|sample| sample.cpu), 1),
            delta.map_or("–".to_owned(), |spread| shown(spread, 1)),
            ratio.map_or("–".to_owned(), |spread| shown(spread, 2)),
            shown(series.of(|sample| sample.per_second), 0),
            latencies(series),
            series.resident_kib / 1024,
        );
    }
}

/// `12.3 (11.9–13.0)`.
pub(super) fn shown(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

/// Medians of the three percentiles; the spread of the last, which moves most.
fn latencies(series: &Series) -> String {
    let [p50, p95, p99] = percentiles(series);
    format!("{:.0} · {:.0} · {}", p50.median, p95.median, shown(p99, 0))
}

/// The spreads of the three percentiles.
pub(super) fn percentiles(series: &Series) -> [Spread; 3] {
    let of = |pick: fn([f64; 3]) -> f64| series.of(|sample: &Sample| pick(sample.latency));
    [of(|[p50, _, _]| p50), of(|[_, p95, _]| p95), of(|[_, _, p99]| p99)]
}

/// A generator that is late by more than this was kept from its processor by something else, and so
/// was Envoy: its own work takes a few microseconds.
const QUIET_US: f64 = 500.0;

/// What the reader must know to judge the numbers.
fn notes(all: &[Series]) -> String {
    let lateness = all.iter().map(|series| series.of(|sample| sample.lateness).median);
    let lateness = lateness.fold(0.0, f64::max);
    let mut text = format!(
        "\nLatency counts from the moment a request was due. Of it, the generator itself added up \
         to {lateness:.0} µs at p99 (the largest median of a case). Δ and × compare within each \
         round. What each variant is: `docs/benchmarks.md`.\n"
    );
    if lateness > QUIET_US {
        text.push_str(
            "\n**The machine was not quiet**: the generator itself came late. Take the order of the \
             variants from this run, not the numbers.\n",
        );
    }
    text
}
