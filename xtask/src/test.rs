//! `cargo xtask test`: THE TESTS, the same for a person and for CI. Every step runs whatever became
//! of the others, so that one run shows everything that is wrong.

mod limit;
mod steps;
mod upbox;

use crate::workspace::{Workspace, seconds};
use anyhow::{Context as _, Result};
use limit::Limit;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What can be chosen for a run.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    /// Leaves out what is slow: everything that runs on Envoy, and docker-compose.
    #[arg(long)]
    quick: bool,
    /// Writes src/filter/imports.txt anew instead of comparing with it.
    #[arg(long)]
    bless: bool,
}

/// How a step ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// What it tests holds.
    Passed,
    /// It could not run; why.
    Skipped(String),
}

/// A step: its heading, what it needs, the minutes that it may take, and how it runs.
struct Step {
    name: &'static str,
    layer: Layer,
    minutes: u64,
    body: fn(&Args, &Workspace) -> Result<Outcome>,
}

/// Which steps there is no use in running without which others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Needs the sources alone.
    Sources,
    /// Makes the artefacts.
    Build,
    /// Looks at the artefacts.
    Artefacts,
    /// Runs the artefacts, which takes minutes.
    Slow,
}

/// A step that is over.
struct Ended {
    name: &'static str,
    result: Result<Outcome>,
    took: Duration,
}

/// The command. A failed step is said where it failed and in the summary; the status is 1 then.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> ExitCode {
    let start = Instant::now();
    let mut ended: Vec<Ended> = Vec::new();
    let all = steps::all();
    let count = all.len();
    for (index, step) in all.into_iter().enumerate() {
        println!("\n### {}/{count} {}", index + 1, step.name);
        let began = Instant::now();
        let no_artefacts = ended.iter().any(|e| e.name == steps::BUILD && e.result.is_err());
        let result = match step.layer {
            Layer::Slow if args.quick => Ok(Outcome::Skipped("--quick".to_owned())),
            Layer::Slow | Layer::Artefacts if no_artefacts => {
                Ok(Outcome::Skipped("there is nothing to run: the build failed".to_owned()))
            }
            _ => limited(&step, args, ctx),
        };
        let took = began.elapsed();
        match &result {
            Ok(Outcome::Passed) => println!("    passed in {}", seconds(took)),
            Ok(Outcome::Skipped(reason)) => println!("    skipped: {reason}"),
            Err(error) => println!("    FAILED in {}: {error:#}", seconds(took)),
        }
        ended.push(Ended { name: step.name, result, took });
    }
    summary(&ended, start.elapsed())
}

/// Runs a step. A failure at its time limit says that this is what it was.
fn limited(step: &Step, args: &Args, ctx: &Workspace) -> Result<Outcome> {
    let limit = Duration::from_secs(60 * step.minutes);
    let began = Instant::now();
    let watched = Limit::watch(step.name, limit);
    let result = (step.body)(args, ctx);
    drop(watched);
    if began.elapsed() < limit {
        return result;
    }
    result.with_context(|| format!("it had taken longer than its limit of {}", seconds(limit)))
}

/// Prints what became of every step; the last lines are for machines.
fn summary(ended: &[Ended], took: Duration) -> ExitCode {
    println!("\n### Summary, after {}", seconds(took));
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for Ended { name, result, took } in ended {
        let (word, remark) = match result {
            Ok(Outcome::Passed) => {
                passed += 1;
                ("passed", String::new())
            }
            Ok(Outcome::Skipped(reason)) => {
                skipped += 1;
                ("skipped", format!(" ({reason})"))
            }
            Err(_) => {
                failed += 1;
                ("FAILED", String::new())
            }
        };
        println!("{word:>8} {:>7} {name}{remark}", seconds(*took));
    }
    println!("{passed} passed, {failed} failed");
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
