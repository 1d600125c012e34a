//! `cargo xtask bench`: what the gateway costs, beside Envoy's native filters in the same run.
//!
//! Every case is an Envoy of its own that runs all the time; rounds load one after the other, in an
//! order that rotates, so that what drifts on the machine meets all of them. A benchmark is not a test:
//! it never fails on a number, only when what it would measure is not what it says (an answer that is
//! not a 200). How to read the result: `docs/benchmarks.md`.

mod gateway;
mod http;
mod machine;
mod paced;
mod plot;
mod process;
mod report;
mod sample;
mod stats;
mod tools;
mod upstream;
mod variants;
mod wrk;

use crate::workspace::{self, Workspace};
use anyhow::{Context as _, Result, bail};
use gateway::{Gateway, Setting};
use machine::Circumstances;
use sample::{Case, Sample, Series, Variant};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use upstream::Upstream;

/// Loads a fresh Envoy this long before its first round: connections, caches, V8's lazy start.
const WARM_UP_SECONDS: u32 = 1;

/// What can be chosen for a run.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Rounds; every case is measured once in each.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Seconds of each of the two loads of a case in a round.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Requests per second of the fixed load.
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// Connections of either load.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Only these variants (router, native, empty, demo); all by default.
    #[arg(long, value_delimiter = ',')]
    variants: Vec<String>,
    /// Two rounds of one second: shows that the suite works, not what the gateway costs.
    #[arg(long)]
    quick: bool,
    /// This Envoy instead of the pinned one.
    #[arg(long)]
    envoy_version: Option<String>,
}

/// The load of a run.
#[derive(Clone, Copy, Debug)]
struct Load {
    rounds: u32,
    seconds: u32,
    rate: u32,
    connections: u32,
}

/// Runs the suite.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> Result<()> {
    let load = load(args)?;
    let variants = chosen(&args.variants)?;
    let wrk = tools::find(tools::WRK, ctx)?;
    let envoy = gateway::artefacts(ctx, args.envoy_version.as_deref(), &variants)?;
    let work = tempfile::tempdir().context("creating a folder for the run")?;
    let mut upstream = Upstream::start(ctx, &work.path().join("upstream"))?;
    let circumstances = Circumstances::gather(ctx, &envoy, &wrk, upstream.version());
    let setting = Setting {
        envoy: &envoy,
        dist: &ctx.dist(),
        files: &ctx.root().join("envoy"),
        upstream: upstream.address(),
        work: work.path(),
    };
    let gateways = workspace::timed("starting an Envoy for every case", || {
        let start = |case: Case| {
            Gateway::start(case, &setting).with_context(|| format!("starting {}", case.slug()))
        };
        cases(&variants).into_iter().map(start).collect::<Result<Vec<_>>>()
    })?;
    let all = measure(&gateways, &wrk, load)?;
    upstream.must_run()?;
    write(ctx, &all, load, &circumstances)
}

/// The load that the flags describe.
fn load(args: &Args) -> Result<Load> {
    let (rounds, seconds) = if args.quick { (2, 1) } else { (args.rounds, args.seconds) };
    let Args { rate, connections, .. } = *args;
    if [rounds, seconds, rate, connections].contains(&0) {
        bail!("--rounds, --seconds, --rate and --connections must be at least 1");
    }
    Ok(Load { rounds, seconds, rate, connections })
}

/// The variants named on the command line.
fn chosen(names: &[String]) -> Result<Vec<Variant>> {
    if names.is_empty() {
        return Ok(Variant::ALL.to_vec());
    }
    let find = |name: &String| {
        let known = Variant::ALL.iter().find(|variant| variant.slug() == name).copied();
        known
            .with_context(|| format!("--variants: `{name}` is none of router, native, empty, demo"))
    };
    names.iter().map(find).collect()
}

/// Each variant with one and with two workers.
fn cases(variants: &[Variant]) -> Vec<Case> {
    let of =
        |concurrency| variants.iter().map(move |variant| Case { variant: *variant, concurrency });
    of(1).chain(of(2)).collect()
}

/// All rounds.
fn measure(gateways: &[Gateway], wrk: &Path, load: Load) -> Result<Vec<Series>> {
    paced::sharpen_timers();
    workspace::say("warm-up");
    for gateway in gateways {
        let warm_up = saturate(gateway, wrk, load.connections, WARM_UP_SECONDS);
        warm_up.with_context(|| format!("warming {} up", gateway.case().slug()))?;
    }
    let mut all: Vec<Series> = gateways
        .iter()
        .map(|gateway| Series { case: gateway.case(), samples: Vec::new(), resident_kib: 0 })
        .collect();
    for round in 0..load.rounds {
        workspace::say(&format!("round {} of {}", round.saturating_add(1), load.rounds));
        let mut order: Vec<usize> = (0..gateways.len()).collect();
        let shift = usize::try_from(round).unwrap_or(0) % gateways.len().max(1);
        order.rotate_left(shift);
        for index in order {
            if let (Some(gateway), Some(series)) = (gateways.get(index), all.get_mut(index)) {
                let sample = sample(gateway, wrk, load);
                let what = || format!("measuring {}", gateway.case().slug());
                series.samples.push(sample.with_context(what)?);
            }
        }
    }
    for (gateway, series) in gateways.iter().zip(&mut all) {
        series.resident_kib = process::resident_kib(gateway.pid());
    }
    Ok(all)
}

/// One case, once: saturated, then at the fixed load.
fn sample(gateway: &Gateway, wrk: &Path, load: Load) -> Result<Sample> {
    let (saturated, cpu) = saturate(gateway, wrk, load.connections, load.seconds)?;
    let (paced, paced_cpu) = metered(gateway, || {
        paced::offer(paced::Offer {
            to: gateway.address(),
            request: gateway.request().as_bytes(),
            connections: load.connections,
            rate: load.rate,
            lasting: Duration::from_secs(u64::from(load.seconds)),
        })
    })?;
    if let Some((count, status)) = paced.refused {
        bail!("{count} requests were not answered with 200, the first with {status}");
    }
    Ok(Sample {
        cpu,
        per_second: saturated.per_second,
        paced_cpu,
        latency: [500, 950, 990].map(|rank| micros(stats::percentile(&paced.latencies, rank))),
        lateness: micros(stats::percentile(&paced.lateness, 990)),
    })
}

/// wrk's result and Envoy's CPU time per request.
fn saturate(
    gateway: &Gateway,
    wrk: &Path,
    connections: u32,
    seconds: u32,
) -> Result<(wrk::Saturated, f64)> {
    metered(gateway, || {
        wrk::saturate(wrk, &gateway.url(), gateway.headers(), (connections, seconds))
    })
}

/// Runs a load; its result and the CPU microseconds that Envoy used per request it served.
fn metered<T>(gateway: &Gateway, load: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let before = gateway.served()?;
    let cpu_before = process::cpu_ns(gateway.pid())?;
    let result = load()?;
    let cpu = process::cpu_ns(gateway.pid())?.saturating_sub(cpu_before);
    let served = gateway.served()?.since(before);
    if served.other > 0 || served.good == 0 {
        bail!(
            "of the requests {} were answered with 2xx and {} with something else: \
             a benchmark of errors says nothing",
            served.good,
            served.other
        );
    }
    Ok((result, micros(cpu) / precise(served.good)))
}

/// Writes the table, the plot and the raw numbers, and prints the table.
fn write(ctx: &Workspace, all: &[Series], load: Load, circumstances: &Circumstances) -> Result<()> {
    let dir: PathBuf = ctx.root().join("target/bench");
    let raw = json!({
        "circumstances": circumstances.json(),
        "load": {
            "rounds": load.rounds, "seconds": load.seconds,
            "rate": load.rate, "connections": load.connections,
        },
        "series": all.iter().map(Series::json).collect::<Vec<_>>(),
    });
    let table = report::markdown(all, load, circumstances);
    workspace::write_whole(&dir.join("bench.md"), table.as_bytes())?;
    workspace::write_whole(&dir.join("bench.svg"), plot::svg(all, load).as_bytes())?;
    workspace::write_whole(&dir.join("bench.json"), format!("{raw:#}\n").as_bytes())?;
    println!("\n{table}");
    workspace::say("written to target/bench/: bench.md, bench.svg, bench.json");
    Ok(())
}

/// Nanoseconds as microseconds.
fn micros(nanos: u64) -> f64 {
    precise(nanos) / 1000.0
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "a count of requests or nanoseconds of a short run")]
const fn precise(count: u64) -> f64 {
    count as f64
}
