//! The suite's numbers as a Markdown table and as an SVG plot.

use super::super::Load;
use super::super::machine::Circumstances;
use super::super::plot::{self, Bar};
use super::super::report::shown;
use super::{Cache, Row, Who};
use std::fmt::Write as _;

/// The whole report.
pub(super) fn markdown(rows: &[Row], load: Load, circumstances: &Circumstances) -> String {
    let mut text = String::from("# Benchmark: tokens\n\n");
    for line in circumstances.lines() {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "\n{} rounds for each algorithm, all cases in every round, the order rotated; {} s saturated \
         per case and round, {} connections, `--concurrency 1`. Envoy's CPU time per request in \
         µs: medians over the rounds (smallest to largest). Δ is against the router alone, × against \
         `jwt_authn`, both within each round. The same token comes again and again: cold, every \
         request verifies it; warm, the cache has it.\n",
        load.rounds, load.seconds, load.connections
    );
    for (cache, title) in [(Cache::Cold, "Cold"), (Cache::Warm, "Warm")] {
        let _ = writeln!(
            text,
            "## {title}\n\n| algorithm | router alone | `jwt_authn` | Δ router | gateway | Δ router \
             | gateway × `jwt_authn` |\n|---|---|---|---|---|---|---|"
        );
        for row in rows {
            line(&mut text, row, cache);
        }
        text.push('\n');
    }
    text
}

fn line(text: &mut String, row: &Row, cache: Cache) {
    let (native, ours) = (Who::Native(cache), Who::Ours(cache));
    let delta = |who| shown(row.compared(who, Who::Router, |own, base| own - base), 1);
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} |",
        row.algorithm,
        shown(row.of(Who::Router), 1),
        shown(row.of(native), 1),
        delta(native),
        shown(row.of(ours), 1),
        delta(ours),
        shown(row.compared(ours, native, |own, base| own / base), 2),
    );
}

/// The plot: a panel for each cache, two bars for each algorithm.
pub(super) fn svg(rows: &[Row]) -> String {
    let panel = |cache, word: &str| {
        let bars = rows.iter().flat_map(|row| {
            [(Who::Native(cache), "jwt_authn", "#0072B2"), (Who::Ours(cache), "gateway", "#D55E00")]
                .map(|(who, name, colour)| Bar {
                    name: format!("{}, {name}", row.algorithm),
                    colour,
                    value: row.of(who),
                })
        });
        let title = format!("Envoy CPU time per request, {word}, µs (shorter is better)");
        (title, bars.collect())
    };
    plot::picture(&[panel(Cache::Cold, "cache cold"), panel(Cache::Warm, "cache warm")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_has_its_bars() {
        let row = |algorithm| Row { algorithm, rounds: vec![[50.0, 90.0, 99.0, 60.0, 61.0]] };
        let picture = svg(&[row("RS256"), row("EdDSA")]);
        assert_eq!(picture.matches("<rect x=").count(), 8);
    }
}
