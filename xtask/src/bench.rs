//! `cargo xtask bench`: what the gateway costs, beside Envoy's native filters in the same run.
//!
//! A benchmark is not a test: it never fails on a number, only when what it would measure is not what
//! it says (an answer that is not a 200). How to read the result: `docs/benchmarks.md`.

mod gateway;
mod http;
mod limits;
mod machine;
mod mix;
mod paced;
mod plot;
mod process;
mod report;
mod sample;
mod stats;
mod tokens;
mod tools;
mod upstream;
mod variants;
mod wrk;

use crate::workspace::{self, Workspace};
use anyhow::{Context as _, Result, bail};
use gateway::{Gateway, Setting};
use machine::Circumstances;
use serde_json::Value;
use std::path::Path;
use upstream::Upstream;

/// Loads a fresh Envoy this long before its first round: connections, caches, V8's lazy start.
const WARM_UP_SECONDS: u32 = 1;

/// What can be chosen for a run.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only this suite; all by default.
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Rounds; every case is measured once in each. 7 for the mix and the limits and 5 for tokens by
    /// default.
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of each load of a case in a round. 3 for the mix and 1 for the others by default.
    #[arg(long)]
    seconds: Option<u32>,
    /// Requests per second of the fixed load of the mix, and of the flood of the limits.
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// Connections of every load.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Only these variants of the mix (router, native, empty, demo); all by default.
    #[arg(long, value_delimiter = ',')]
    variants: Vec<String>,
    /// Only tokens of these algorithms, as `alg` names them; all by default.
    #[arg(long, value_delimiter = ',')]
    algorithms: Vec<String>,
    /// Two rounds of one second and three algorithms: shows that the suites work, not what the
    /// gateway costs.
    #[arg(long)]
    quick: bool,
    /// This Envoy instead of the pinned one.
    #[arg(long)]
    envoy_version: Option<String>,
}

/// What is measured.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// A whole policy beside a chain of native filters.
    Mix,
    /// One token of each algorithm, cold and warm, beside `jwt_authn`.
    Tokens,
    /// One, three and six rate limits beside `local_ratelimit`, and a flood of refused requests.
    Limits,
}

/// The load of a suite.
#[derive(Clone, Copy, Debug)]
struct Load {
    rounds: u32,
    seconds: u32,
    rate: u32,
    connections: u32,
}

/// What the suites share.
struct Run<'a> {
    args: &'a Args,
    ctx: &'a Workspace,
    wrk: &'a Path,
    circumstances: &'a Circumstances,
}

/// Runs the suites.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> Result<()> {
    mix::chosen(&args.variants)?;
    tokens::chosen(args)?;
    let wrk = tools::find(tools::WRK, ctx)?;
    let envoy = gateway::artefacts(ctx, args.envoy_version.as_deref())?;
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
    let run = Run { args, ctx, wrk: &wrk, circumstances: &circumstances };
    let wanted = |suite| args.suite.is_none_or(|only| only == suite);
    if wanted(Suite::Mix) {
        mix::run(&run, &setting)?;
    }
    if wanted(Suite::Tokens) {
        tokens::run(&run, &setting)?;
    }
    if wanted(Suite::Limits) {
        limits::run(&run, &setting)?;
    }
    upstream.must_run()
}

impl Run<'_> {
    /// The load that the flags describe, with a suite's own rounds and seconds.
    fn load(&self, rounds: u32, seconds: u32) -> Result<Load> {
        let Args { rate, connections, quick, .. } = *self.args;
        let (rounds, seconds) = if quick { (2, 1) } else { (rounds, seconds) };
        let rounds = self.args.rounds.unwrap_or(rounds);
        let seconds = self.args.seconds.unwrap_or(seconds);
        if [rounds, seconds, rate, connections].contains(&0) {
            bail!("--rounds, --seconds, --rate and --connections must be at least 1");
        }
        Ok(Load { rounds, seconds, rate, connections })
    }

    /// Writes a suite's table, plot and raw numbers, and prints the table.
    fn write(&self, name: &str, table: &str, plot: &str, raw: &Value) -> Result<()> {
        let dir = self.ctx.root().join("target/bench");
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        workspace::write_whole(&file("md"), table.as_bytes())?;
        workspace::write_whole(&file("svg"), plot.as_bytes())?;
        workspace::write_whole(&file("json"), format!("{raw:#}\n").as_bytes())?;
        println!("\n{table}");
        workspace::say(&format!("written to target/bench/: {name}.md, {name}.svg, {name}.json"));
        Ok(())
    }
}

/// wrk's result and Envoy's CPU time per request.
fn saturate(
    gateway: &Gateway,
    wrk: &Path,
    connections: u32,
    seconds: u32,
) -> Result<(wrk::Saturated, f64)> {
    let what = wrk::What { url: &gateway.url(), headers: gateway.headers(), script: None };
    metered(gateway, || wrk::saturate(wrk, &what, (connections, seconds)))
}

/// Runs a load; its result and the CPU microseconds that Envoy used per request it served.
fn metered<T>(gateway: &Gateway, load: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let (result, cpu, served) = counted(gateway, load)?;
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

/// Runs a load; its result, the CPU nanoseconds that Envoy used, and what it answered.
fn counted<T>(
    gateway: &Gateway,
    load: impl FnOnce() -> Result<T>,
) -> Result<(T, u64, process::Served)> {
    let before = gateway.served()?;
    let cpu_before = process::cpu_ns(gateway.pid())?;
    let result = load()?;
    let cpu = process::cpu_ns(gateway.pid())?.saturating_sub(cpu_before);
    Ok((result, cpu, gateway.served()?.since(before)))
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
