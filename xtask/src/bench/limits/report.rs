//! The suite's numbers as Markdown tables and as an SVG plot.

use super::super::Load;
use super::super::machine::Circumstances;
use super::super::plot::{self, Bar};
use super::super::report::shown;
use super::Series;
use super::flood::{self, Flood};
use super::rows::{Keys, MANY, Row};
use std::fmt::Write as _;

/// The whole report.
pub(super) fn markdown(
    all: &[Series],
    flood: &Flood,
    load: Load,
    circumstances: &Circumstances,
) -> String {
    let mut text = String::from("# Benchmark: rate limits\n\n");
    for line in circumstances.lines() {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "\n{} rounds for each `--concurrency`, all cases in every round, the order rotated; {} s \
         saturated per case and round, {} connections. Envoy's CPU time per request in µs: medians \
         over the rounds (smallest to largest); differences and quotients within each round. *Many \
         keys* are {MANY} in turn.",
        load.rounds, load.seconds, load.connections
    );
    for series in all {
        table(&mut text, series);
        summary(&mut text, series);
    }
    flooded(&mut text, flood, load);
    text
}

/// A line for every row.
fn table(text: &mut String, series: &Series) {
    let _ = writeln!(
        text,
        "\n## `--concurrency {}`\n\n| row | Envoy CPU, µs/request | Δ router | Δ empty policy |\n\
         |---|---|---|---|",
        series.concurrency
    );
    for row in Row::all() {
        let delta = |base| shown(series.of([row, base], |[own, base]| own - base), 1);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.name(),
            shown(series.of([row], |[own]| own), 1),
            delta(Row::Router),
            delta(Row::Empty),
        );
    }
}

/// What one limit costs.
fn summary(text: &mut String, series: &Series) {
    let _ = writeln!(
        text,
        "\n| limits on | the first, µs | each further one, µs | 6 limits, × the same on many keys |\n\
         |---|---|---|---|"
    );
    for keys in Keys::ALL {
        let of = |count| Row::Limits { count, keys };
        let many = Row::Limits { count: 6, keys: Keys::Many };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            keys.name(),
            shown(series.of([of(1), Row::Empty], |[one, none]| one - none), 1),
            shown(series.of([of(6), of(1)], |[six, one]| (six - one) / 5.0), 2),
            shown(series.of([of(6), many], |[own, many]| own / many), 2),
        );
    }
}

/// The flood.
fn flooded(text: &mut String, flood: &Flood, load: Load) {
    let latency = |quantile: fn([f64; 2]) -> f64| {
        let quiet = shown(flood.of(|round| quantile(round.quiet)), 0);
        let loud = shown(flood.of(|round| quantile(round.flooded)), 0);
        (quiet, loud)
    };
    let (quiet_median, loud_median) = latency(|[median, _]| median);
    let (quiet_tail, loud_tail) = latency(|[_, tail]| tail);
    let _ = writeln!(
        text,
        "\n## A flood\n\n`--concurrency {}`. A limit of {} requests per second and key; the flood: {} \
         per second by one key. The others: {} per second by {MANY} keys.\n\n\
         | number | value |\n|---|---|\n\
         | Envoy CPU per request, all allowed, at the flood's rate, µs | {} |\n\
         | Envoy CPU per refused request of the flood, µs | {} |\n\
         | refused × allowed | {} |\n\
         | refused of the flood, % | {} |\n\
         | the others' requests answered with 200 during the flood, % | {} |\n\
         | the others' median without · with the flood, µs | {quiet_median} · {loud_median} |\n\
         | the others' p99 without · with the flood, µs | {quiet_tail} · {loud_tail} |",
        flood::CONCURRENCY,
        load.rate / flood::TIMES,
        load.rate,
        load.rate / flood::TIMES,
        shown(flood.of(|round| round.allowed), 1),
        shown(flood.of(|round| round.refused), 1),
        shown(flood.of(|round| round.refused / round.allowed), 2),
        shown(flood.of(|round| round.share_refused), 1),
        shown(flood.of(|round| round.share_kept), 2),
    );
}

/// The plot: a panel for each `--concurrency`, and one for the flood.
pub(super) fn svg(all: &[Series], flood: &Flood) -> String {
    let panel = |series: &Series| {
        let bars = Row::all().into_iter().map(|row| Bar {
            name: row.name().replace('`', ""),
            colour: colour(row),
            value: series.of([row], |[own]| own),
        });
        let title = format!(
            "Envoy CPU time per request, --concurrency {}, µs (shorter is better)",
            series.concurrency
        );
        (title, bars.collect())
    };
    let bar = |name: &str, colour, value| Bar { name: name.to_owned(), colour, value };
    let flood = vec![
        bar("allowed", "#56B4E9", flood.of(|round| round.allowed)),
        bar("refused in a flood", "#D55E00", flood.of(|round| round.refused)),
    ];
    let mut panels: Vec<_> = all.iter().map(panel).collect();
    panels.push(("Envoy CPU time per request at a fixed rate, µs".to_owned(), flood));
    plot::picture(&panels)
}

/// Colours that stay apart for colour-blind readers, as in the other suites.
const fn colour(row: Row) -> &'static str {
    match row {
        Row::Router => "#999999",
        Row::Native(_) => "#0072B2",
        Row::Empty => "#56B4E9",
        Row::Limits { keys: Keys::Many, .. } => "#009E73",
        Row::Limits { keys: Keys::One, .. } => "#D55E00",
        Row::Limits { keys: Keys::Leased, .. } => "#E69F00",
    }
}
