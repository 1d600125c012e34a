//! `cargo xtask compose`: the docker-compose integration run. Finds or starts a container engine,
//! has the images built (or makes stand-ins), brings docker-compose.yml up, runs the cases, and
//! takes everything down again, whatever happened. What is tested is in `compose/cases.rs`.

mod cases;
mod engine;
mod images;
mod interrupt;
mod project;

use crate::workspace::{Workspace, say, seconds, timed};
use anyhow::{Result, bail};
use engine::{Engine, Found};
use images::{Images, Prepared};
use interrupt::Interrupt;
use project::Project;
use std::time::Instant;

/// What can be chosen for a run.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Args {
    /// Where no container engine answers, install and start one (Debian or Ubuntu, as root). With
    /// `CI=true` (or 1) in the environment this is done without asking, and a run that then cannot
    /// take place is a failure.
    #[arg(long)]
    pub(crate) install: bool,
    /// Take the artefacts in `target/dist` as they are, instead of building them for stand-ins.
    #[arg(long)]
    pub(crate) no_build: bool,
}

/// How a run ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every integration case passed.
    Passed,
    /// Nobody asked for a run that must take place, and there is no container engine or no image;
    /// says why.
    Skipped(String),
}

/// The command: a run that cannot take place is an error here.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> Result<()> {
    match integration(args, ctx)? {
        Outcome::Passed => Ok(()),
        Outcome::Skipped(reason) => bail!("{reason}"),
    }
}

/// The step of `cargo xtask test`.
pub(crate) fn integration(args: &Args, ctx: &Workspace) -> Result<Outcome> {
    let interrupt = Interrupt::watch()?;
    let result = whole_run(args, ctx, &interrupt);
    // A command that Ctrl-C ended has failed; that is not what the user needs to read.
    interrupt.check().and(result)
}

/// From the search for an engine until everything is taken down again.
fn whole_run(args: &Args, ctx: &Workspace, interrupt: &Interrupt) -> Result<Outcome> {
    let start = Instant::now();
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let asked_for = args.install || in_ci;
    let engine = match Engine::find(ctx, asked_for)? {
        Found::Engine(engine) => engine,
        Found::None(reason) => return skipped(reason, asked_for),
    };
    say(&format!("docker-compose run: {}", engine.shown()));
    let name = format!("tracseq-gateway-run-{}", std::process::id());
    let images = match Images::prepare(ctx, &engine, &name, !args.no_build)? {
        Prepared::Images(images) => images,
        Prepared::Impossible(reason) => return skipped(reason, asked_for),
    };
    interrupt.check()?;
    let mut project = Project::new(ctx, &engine, interrupt, &name)?;
    cases::prepare(&project)?;
    let result = timed("docker-compose up, until every part is healthy", || project.up())
        .and_then(|()| cases::all(&project));
    if result.is_err() && interrupt.check().is_ok() {
        project.explain();
    }
    let down = timed("docker-compose down", || project.down());
    drop((project, images));
    result.and(down)?;
    say(&format!("docker-compose run passed in {}", seconds(start.elapsed())));
    Ok(Outcome::Passed)
}

/// A run that cannot take place: nothing to complain of, unless it was asked for. CI that skipped it
/// would say that docker-compose works when nobody looked.
fn skipped(reason: String, asked_for: bool) -> Result<Outcome> {
    if asked_for {
        bail!("the docker-compose run was asked for and cannot take place: {reason}");
    }
    Ok(Outcome::Skipped(reason))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, skipped};

    #[test]
    fn a_run_that_was_asked_for_is_never_skipped() {
        let skip = skipped("no engine".to_owned(), false).unwrap();
        assert_eq!(skip, Outcome::Skipped("no engine".to_owned()));
        let error = skipped("no engine".to_owned(), true).unwrap_err().to_string();
        assert!(error.ends_with("cannot take place: no engine"), "{error}");
    }
}
