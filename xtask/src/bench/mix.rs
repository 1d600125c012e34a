//! The suite `mix`: a whole policy beside a chain of Envoy's native filters that does its work.
//!
//! Every case is an Envoy of its own that runs all the time; rounds load one after the other, in an
//! order that rotates, so that what drifts on the machine meets all of them.

use super::gateway::{Gateway, Setting};
use super::sample::{Case, Sample, Series, Variant};
use super::{
    Load, Run, WARM_UP_SECONDS, metered, micros, paced, process, saturate, stats, variants,
};
use super::{plot, report};
use crate::workspace;
use anyhow::{Context as _, Result, bail};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Rounds unless others are asked for.
const ROUNDS: u32 = 7;
/// Seconds of each of the two loads of a case in a round, unless others are asked for.
const SECONDS: u32 = 3;

/// Measures and writes.
pub(super) fn run(run: &Run<'_>, setting: &Setting<'_>) -> Result<()> {
    let variants = chosen(&run.args.variants)?;
    let load = run.load(ROUNDS, SECONDS)?;
    let gateways = workspace::timed("starting an Envoy for every case", || {
        let start = |case: Case| start(case, setting).with_context(|| case.slug());
        cases(&variants).into_iter().map(start).collect::<Result<Vec<_>>>()
    })?;
    let all = measure(&gateways, run.wrk, load)?;
    write(run, &all, load)
}

/// A case and its Envoy.
struct Running {
    case: Case,
    gateway: Gateway,
}

/// Starts the Envoy of a case, and makes sure that it does its work.
fn start(case: Case, setting: &Setting<'_>) -> Result<Running> {
    let demo = setting.demo()?;
    let gateway = Gateway::start(variants::plan(case, &demo)?, setting)?;
    check(&gateway, case.variant)?;
    Ok(Running { case, gateway })
}

/// Whether the variant does what its name says: a benchmark of a filter that lets everything pass,
/// or nothing, would look fine.
fn check(gateway: &Gateway, variant: Variant) -> Result<()> {
    let works = matches!(variant, Variant::Native | Variant::Demo);
    let good = gateway.ask(gateway.request())?;
    let anonymous = gateway.ask(&gateway.request_with(&[]))?;
    let wanted = if works { 401 } else { 200 };
    if anonymous.status != wanted {
        bail!("without a token {wanted} was expected, not {}", anonymous.status);
    }
    for header in ["permissions-policy", "x-ratelimit-remaining"] {
        if good.has_header(header) != works {
            let has = if works { "has no" } else { "has a" };
            bail!("the answer {has} header `{header}`");
        }
    }
    Ok(())
}

/// The variants named on the command line.
pub(super) fn chosen(names: &[String]) -> Result<Vec<Variant>> {
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
fn measure(gateways: &[Running], wrk: &Path, load: Load) -> Result<Vec<Series>> {
    paced::sharpen_timers();
    workspace::say("warm-up");
    for Running { gateway, .. } in gateways {
        let warm_up = saturate(gateway, wrk, load.connections, WARM_UP_SECONDS);
        warm_up.with_context(|| format!("warming {} up", gateway.name()))?;
    }
    let mut all: Vec<Series> = gateways
        .iter()
        .map(|running| Series { case: running.case, samples: Vec::new(), resident_kib: 0 })
        .collect();
    for round in 0..load.rounds {
        workspace::say(&format!("round {} of {}", round.saturating_add(1), load.rounds));
        let mut order: Vec<usize> = (0..gateways.len()).collect();
        let shift = usize::try_from(round).unwrap_or(0) % gateways.len().max(1);
        order.rotate_left(shift);
        for index in order {
            if let (Some(running), Some(series)) = (gateways.get(index), all.get_mut(index)) {
                let sample = sample(&running.gateway, wrk, load);
                let what = || format!("measuring {}", running.case.slug());
                series.samples.push(sample.with_context(what)?);
            }
        }
    }
    for (running, series) in gateways.iter().zip(&mut all) {
        series.resident_kib = process::resident_kib(running.gateway.pid());
    }
    Ok(all)
}

/// One case, once: saturated, then at the fixed load.
fn sample(gateway: &Gateway, wrk: &Path, load: Load) -> Result<Sample> {
    let (saturated, cpu) = saturate(gateway, wrk, load.connections, load.seconds)?;
    let requests = [gateway.request().to_owned()];
    let (paced, paced_cpu) = metered(gateway, || {
        paced::offer(paced::Offer {
            to: gateway.address(),
            requests: &requests,
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

/// Writes the table, the plot and the raw numbers.
fn write(run: &Run<'_>, all: &[Series], load: Load) -> Result<()> {
    let raw = json!({
        "circumstances": run.circumstances.json(),
        "load": {
            "rounds": load.rounds, "seconds": load.seconds,
            "rate": load.rate, "connections": load.connections,
        },
        "series": all.iter().map(Series::json).collect::<Vec<_>>(),
    });
    let table = report::markdown(all, load, run.circumstances);
    run.write("mix", &table, &plot::svg(all, load), &raw)
}
