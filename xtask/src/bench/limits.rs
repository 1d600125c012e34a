//! The suite `limits`: what one, three and six rate limits add to a request, on many keys, on one
//! key and on one key with worker leases, beside Envoy's `local_ratelimit`; and a flood of requests
//! that a limit refuses.
//!
//! The Envoys of one `--concurrency` are started, measured in rounds and stopped before the next.

mod flood;
mod report;
mod rows;

use super::gateway::{Chain, Gateway, Plan, Setting, demo_token};
use super::stats::{Spread, spread};
use super::variants::rate_limit_by;
use super::{Load, Run, WARM_UP_SECONDS, metered, wrk};
use crate::workspace;
use anyhow::{Context as _, Result, bail};
use rows::{KEY_HEADER, Keys, MANY, Row};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Rounds unless others are asked for: what is looked for is a microsecond in fifty.
const ROUNDS: u32 = 7;
/// Seconds of a case in a round, unless others are asked for.
const SECONDS: u32 = 1;
/// Worker threads.
const CONCURRENCIES: [u32; 3] = [1, 2, 4];
/// What `--quick` measures.
const QUICK: [u32; 1] = [2];

/// All numbers of one `--concurrency`.
struct Series {
    concurrency: u32,
    /// For each round the CPU microseconds per request, in the order of [`Row::all`].
    rounds: Vec<Vec<f64>>,
}

impl Series {
    /// A number made of some rows, taken round by round: what drifts during the run falls out.
    fn of<const N: usize>(&self, rows: [Row; N], number: impl Fn([f64; N]) -> f64) -> Spread {
        let all = Row::all();
        let places = rows.map(|row| all.iter().position(|one| *one == row).unwrap_or(usize::MAX));
        let taken = self.rounds.iter().filter_map(|round| {
            let mut values = [0.0; N];
            for (value, place) in values.iter_mut().zip(places) {
                *value = *round.get(place)?;
            }
            Some(number(values))
        });
        spread(&taken.collect::<Vec<_>>())
    }

    fn json(&self) -> Value {
        let numbers = |place: usize| -> Vec<_> {
            self.rounds.iter().filter_map(|round| round.get(place)).collect()
        };
        let rows = Row::all().into_iter().enumerate();
        let rows = rows.map(|(place, row)| (row.slug(), json!(numbers(place))));
        json!({ "concurrency": self.concurrency, "cpu_us": Value::Object(rows.collect()) })
    }
}

/// Measures and writes.
pub(super) fn run(run: &Run<'_>, setting: &Setting<'_>) -> Result<()> {
    super::paced::sharpen_timers();
    let load = run.load(ROUNDS, SECONDS)?;
    let scripts = Scripts::write(setting.work)?;
    let concurrencies = if run.args.quick { &QUICK[..] } else { &CONCURRENCIES };
    let mut all = Vec::new();
    for concurrency in concurrencies {
        let what = format!("limits: --concurrency {concurrency}");
        let measure = || measure(*concurrency, &scripts, run.wrk, load, setting);
        all.push(workspace::timed(&what, measure)?);
    }
    let flood = workspace::timed("limits: a flood", || flood::measure(load, setting))?;
    let raw = json!({
        "circumstances": run.circumstances.json(),
        "load": {
            "rounds": load.rounds, "seconds": load.seconds,
            "rate": load.rate, "connections": load.connections,
        },
        "series": all.iter().map(Series::json).collect::<Vec<_>>(),
        "flood": flood.json(),
    });
    let table = report::markdown(&all, &flood, load, run.circumstances);
    run.write("limits", &table, &report::svg(&all, &flood), &raw)
}

/// wrk's scripts.
struct Scripts {
    many: PathBuf,
    one: PathBuf,
}

impl Scripts {
    fn write(dir: &Path) -> Result<Self> {
        let write = |keys: u32| {
            let path = dir.join(format!("keys-{keys}.lua"));
            fs::write(&path, script(keys))
                .with_context(|| format!("writing {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self { many: write(MANY)?, one: write(1)? })
    }

    fn of(&self, row: Row) -> &Path {
        match row.keys() {
            Keys::Many => &self.many,
            Keys::One | Keys::Leased => &self.one,
        }
    }
}

/// Has wrk send as many keys in turn. The requests are made beforehand: wrk is on the same
/// processors as Envoy.
fn script(keys: u32) -> String {
    format!(
        "local keys, turn, requests = {keys}, 0, {{}}\n\
         function init(args)\n  for i = 1, keys do\n    \
         wrk.headers[\"{KEY_HEADER}\"] = \"key-\" .. i\n    requests[i] = wrk.format()\n  end\nend\n\
         function request()\n  turn = turn % keys + 1\n  return requests[turn]\nend\n"
    )
}

/// All rounds of one `--concurrency`.
fn measure(
    concurrency: u32,
    scripts: &Scripts,
    wrk: &Path,
    load: Load,
    setting: &Setting<'_>,
) -> Result<Series> {
    let start = |row: Row| {
        let gateway = start(row, concurrency, setting).with_context(|| row.slug())?;
        Ok::<_, anyhow::Error>((row, gateway))
    };
    let running = Row::all().into_iter().map(start).collect::<Result<Vec<_>>>()?;
    let load_once = |(row, gateway): &(Row, Gateway), seconds| {
        let (url, headers) = (gateway.url(), gateway.headers());
        let what = wrk::What { url: &url, headers, script: Some(scripts.of(*row)) };
        let loaded = metered(gateway, || wrk::saturate(wrk, &what, (load.connections, seconds)));
        loaded.map(|(_, cpu)| cpu).with_context(|| format!("measuring {}", gateway.name()))
    };
    for case in &running {
        load_once(case, WARM_UP_SECONDS)?;
    }
    let mut rounds = Vec::new();
    for round in 0..load.rounds {
        let mut numbers = vec![0.0; running.len()];
        let mut order: Vec<usize> = (0..running.len()).collect();
        order.rotate_left(usize::try_from(round).unwrap_or(0) % running.len().max(1));
        for place in order {
            if let (Some(case), Some(number)) = (running.get(place), numbers.get_mut(place)) {
                *number = load_once(case, load.seconds)?;
            }
        }
        rounds.push(numbers);
    }
    Ok(Series { concurrency, rounds })
}

/// Starts one Envoy, and makes sure that it counts what its row says.
fn start(row: Row, concurrency: u32, setting: &Setting<'_>) -> Result<Gateway> {
    let chain = match row {
        Row::Router => Chain::Native { filters: Vec::new(), outlier_detection: false },
        Row::Native(_) => {
            Chain::Native { filters: vec![rate_limit_by(KEY_HEADER)], outlier_detection: false }
        }
        Row::Empty => Chain::Ours { policy: json!({ "version": 1 }), has_sidecar: false },
        Row::Limits { count, keys } => {
            let limits: Vec<_> = (1..=count).map(|number| keys.limit(number)).collect();
            let policy = json!({ "version": 1, "rate_limits": limits });
            Chain::Ours { policy, has_sidecar: false }
        }
    };
    let name = format!("limits-{}-{concurrency}", row.slug());
    let gateway = Gateway::start(Plan { name, concurrency, chain, token: demo_token()? }, setting)?;
    let answer = gateway.ask(&gateway.request_with(&[keyed(0)]))?;
    let limited = answer.has_header("x-ratelimit-remaining");
    if answer.status != 200 || limited != row.is_limited() {
        bail!("answered {}, a limit was at work: {limited}", answer.status);
    }
    Ok(gateway)
}

/// The header that a limit counts by.
fn keyed(number: u32) -> (String, String) {
    (KEY_HEADER.to_owned(), format!("key-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_taken_round_by_round() {
        let rows = Row::all();
        let round = |base: f64, step: f64| {
            rows.iter().map(|row| if *row == Row::Empty { base } else { base + step }).collect()
        };
        let series = Series { concurrency: 1, rounds: vec![round(10.0, 1.0), round(90.0, 3.0)] };
        let one = Row::Limits { count: 1, keys: Keys::Many };
        let delta = series.of([one, Row::Empty], |[own, base]| own - base);
        assert_eq!(delta, Spread { median: 2.0, min: 1.0, max: 3.0 });
    }

    #[test]
    fn a_script_sends_each_key_in_turn() {
        let text = script(3);
        assert!(text.starts_with("local keys, turn, requests = 3, 0, {}\n"), "{text}");
        assert!(text.contains("wrk.headers[\"x-bench-key\"] = \"key-\" .. i"), "{text}");
    }
}
