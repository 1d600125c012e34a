//! `cargo xtask`: every command that this project is worked with. What each one does is in its own
//! file; nothing here but the list.

mod bench;
mod build;
mod children;
mod compose;
mod packages;
mod soak;
mod test;
mod tidy;
mod up;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use workspace::Workspace;

/// The commands of TracSeq Gateway.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// THE MAIN JOB: Envoy, sidecar and demo services, ready to try. Ctrl-C stops everything.
    Up(up::Args),
    /// Builds the filter, the sidecar and the demo service and finds Envoy: target/dist/.
    Build(build::Args),
    /// THE TESTS: format, lints, unit tests, end to end on real Envoy, docker-compose.
    Test(test::Args),
    /// The rules that neither the compiler nor clippy knows.
    Tidy,
    /// Performance beside Envoy's native filters; writes a table and a plot to target/bench/.
    Bench(bench::Args),
    /// Fuzzing: tries to break what reads the bytes of strangers, for as long as one likes.
    Soak(soak::Args),
    /// The docker-compose integration run.
    Compose(compose::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let ctx = Workspace::find()?;
    match cli.command {
        Command::Up(args) => up::run(&args, &ctx)?,
        Command::Build(args) => build::run(&args, &ctx).map(|_| ())?,
        Command::Test(args) => return Ok(test::run(&args, &ctx)),
        Command::Tidy => tidy::run(&ctx)?,
        Command::Bench(args) => bench::run(&args, &ctx)?,
        Command::Soak(args) => return soak::run(&args, &ctx),
        Command::Compose(args) => compose::run(&args, &ctx)?,
    }
    Ok(ExitCode::SUCCESS)
}
