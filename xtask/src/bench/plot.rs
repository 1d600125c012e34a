//! A run as an SVG plot: CPU time per request, and latency at the fixed load.

use super::Load;
use super::report::percentiles;
use super::sample::{Series, Variant};
use super::stats::Spread;
use std::fmt::Write as _;

/// Width of the picture; two panels of bars fit a page.
const WIDTH: f64 = 960.0;
/// Where bars begin: room for the longest name.
const LEFT: f64 = 260.0;
/// Where the longest bar ends: room for its number.
const RIGHT: f64 = 120.0;
/// Height of one bar with its gap.
const ROW: f64 = 26.0;
/// Height of a panel's title.
const TITLE: f64 = 44.0;

/// One bar.
pub(super) struct Bar {
    /// What stands before it.
    pub(super) name: String,
    /// Its colour.
    pub(super) colour: &'static str,
    /// Its length, and the line through its end.
    pub(super) value: Spread,
}

/// The whole picture.
pub(super) fn svg(all: &[Series], load: Load) -> String {
    let cpu = all.iter().map(|series| bar(series, series.of(|sample| sample.cpu)));
    let tail = all.iter().map(|series| bar(series, percentiles(series)[2]));
    let rate = all.iter().map(|series| bar(series, series.of(|sample| sample.per_second)));
    let panels = [
        ("Envoy CPU time per request, µs (shorter is better)".to_owned(), cpu.collect::<Vec<_>>()),
        (
            format!("p99 latency at {} requests/s, µs (shorter is better)", load.rate),
            tail.collect(),
        ),
        ("Requests per second, saturated (longer is better)".to_owned(), rate.collect()),
    ];
    picture(&panels)
}

/// Panels one below the other.
pub(super) fn picture(panels: &[(String, Vec<Bar>)]) -> String {
    let mut body = String::new();
    let mut top = 10.0;
    for (title, bars) in panels {
        top = panel(&mut body, title, bars, top);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn bar(series: &Series, value: Spread) -> Bar {
    let workers = series.case.concurrency;
    let plural = if workers == 1 { "worker" } else { "workers" };
    Bar {
        name: format!("{}, {workers} {plural}", series.case.variant.name()),
        colour: colour(series.case.variant),
        value,
    }
}

/// Colours that stay apart for colour-blind readers (Okabe and Ito's palette).
const fn colour(variant: Variant) -> &'static str {
    match variant {
        Variant::Router => "#999999",
        Variant::Native => "#0072B2",
        Variant::Empty => "#56B4E9",
        Variant::Demo => "#D55E00",
    }
}

/// Draws one panel; where the next one begins.
fn panel(body: &mut String, title: &str, bars: &[Bar], top: f64) -> f64 {
    let largest = bars.iter().map(|bar| bar.value.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / largest;
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{:.1}\" font-size=\"15\" font-weight=\"bold\">{title}</text>",
        top + TITLE / 2.0
    );
    let mut y = top + TITLE;
    for bar in bars {
        draw(body, bar, y, scale);
        y += ROW;
    }
    y + 10.0
}

/// The name, the bar, a line from the smallest to the largest value, the median as a number.
fn draw(body: &mut String, bar: &Bar, y: f64, scale: f64) {
    let Spread { median, min, max } = bar.value;
    let height = ROW - 8.0;
    let middle = y + height / 2.0;
    let text = middle + 4.5;
    let digits = if max < 1000.0 { 1 } else { 0 };
    let (low, high) = (LEFT + min * scale, LEFT + max * scale);
    let _ = writeln!(
        body,
        "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
         <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"/>\
         <line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" \
         stroke=\"#000000\" stroke-width=\"2\"/>\
         <text x=\"{:.1}\" y=\"{text:.1}\">{median:.digits$}</text>",
        LEFT - 8.0,
        bar.name,
        median * scale,
        bar.colour,
        high + 6.0,
    );
}

#[cfg(test)]
mod tests {
    use super::super::Load;
    use super::super::sample::{Case, Sample, Series, Variant};
    use super::svg;

    #[test]
    fn every_case_is_drawn_once_in_every_panel() {
        let sample = Sample {
            cpu: 50.0,
            per_second: 9000.0,
            paced_cpu: 60.0,
            latency: [100.0, 200.0, 300.0],
            lateness: 5.0,
        };
        let all = Variant::ALL.map(|variant| Series {
            case: Case { variant, concurrency: 1 },
            samples: vec![sample],
            resident_kib: 0,
        });
        let load = Load { rounds: 1, seconds: 1, rate: 100, connections: 1 };
        let picture = svg(&all, load);
        assert_eq!(picture.matches("<rect x=").count(), 12);
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }
}
