//! `cargo xtask soak`: fuzzing. libFuzzer tries, for as long as one likes, to break what reads the
//! bytes of strangers; the targets are in `fuzz/`. Short runs of all of them are part of the tests.

mod build;
mod run;
mod seeds;

use crate::workspace::{self, Workspace, seconds};
use anyhow::{Context as _, Result, bail};
use run::{Ended, Target};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The targets, as `fuzz/Cargo.toml` names them.
const TARGETS: [&str; 5] = ["token", "jwks", "cookie", "path", "batch"];
/// What the tests give each target beside its seeds: enough to find what is found at once.
const BRIEF: Duration = Duration::from_secs(20);

/// What can be chosen for a run.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only this target; all, one after the other, by default.
    #[arg(value_parser = TARGETS)]
    name: Option<String>,
    /// Minutes for each target.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Targets that run at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Runs the target on this file alone, for example on a finding.
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with_all = ["minutes", "jobs"])]
    input: Option<PathBuf>,
}

/// The command. A finding gives status 1.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> Result<ExitCode> {
    let meant = |name: &&str| args.name.as_ref().is_none_or(|only| only == name);
    let names: Vec<&'static str> = TARGETS.into_iter().filter(meant).collect();
    let targets = prepared(ctx, &names)?;
    if let (Some(file), [target]) = (&args.input, targets.as_slice()) {
        target.once(file)?;
        println!("    {}: nothing is wrong with {}", target.name, file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let span = Duration::from_secs(60 * u64::from(args.minutes));
    let ended = soaked(targets, span, usize::try_from(args.jobs).unwrap_or(1))?;
    println!("\n### Summary");
    for (name, end) in &ended {
        println!("{name:>8} {end}");
    }
    let found = ended.iter().any(|(_, end)| end.is_finding());
    Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The step of the tests: all seeds and a little fuzzing for every target.
pub(crate) fn brief(ctx: &Workspace) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let ended = soaked(prepared(ctx, &TARGETS)?, BRIEF, jobs)?;
    let found: Vec<&str> =
        ended.iter().filter(|(_, end)| end.is_finding()).map(|(name, _)| *name).collect();
    if !found.is_empty() {
        bail!("found something: {}", found.join(", "));
    }
    Ok(())
}

/// Builds the targets and lays out what they begin with.
fn prepared(ctx: &Workspace, names: &[&'static str]) -> Result<Vec<Target>> {
    let programs = workspace::timed("building the fuzz targets", || build::targets(ctx, names))?;
    let place = ctx.root().join("target/fuzz");
    let target = |(name, program): (&&'static str, PathBuf)| {
        let seeds = seeds::lay_out(ctx, name, &place)?;
        Target::new(name, program, seeds, &place, &ctx.root().join("fuzz/words"))
    };
    names.iter().zip(programs).map(target).collect()
}

/// Runs all targets, `jobs` at a time.
fn soaked(
    targets: Vec<Target>,
    span: Duration,
    jobs: usize,
) -> Result<Vec<(&'static str, Outcome)>> {
    let count = targets.len();
    let waiting = Mutex::new(targets.into_iter());
    let ended = Mutex::new(Vec::with_capacity(count));
    let next = || waiting.lock().ok()?.next();
    let work = || {
        while let Some(target) = next() {
            let began = Instant::now();
            let outcome = target.soak(span).map(|end| Outcome { end, took: began.elapsed() });
            if let (Ok(outcome), name) = (&outcome, target.name) {
                println!("    {name}: {outcome}");
            }
            if let Ok(mut ended) = ended.lock() {
                ended.push(outcome.map(|outcome| (target.name, outcome)));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            scope.spawn(work);
        }
    });
    let ended = ended.into_inner().ok().context("a thread of the run has died")?;
    ended.into_iter().collect()
}

/// How a target's run ended.
struct Outcome {
    end: Ended,
    took: Duration,
}

impl Outcome {
    const fn is_finding(&self) -> bool {
        matches!(self.end, Ended::Finding { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = seconds(self.took);
        match &self.end {
            Ended::Quiet { executions } => write!(f, "nothing found in {took}, {executions} runs"),
            Ended::Finding { file, again } => {
                write!(f, "FOUND after {took}: {file}\n         again with: {again}")
            }
        }
    }
}
