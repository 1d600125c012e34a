//! The steps of `cargo xtask test`, in their order: what says most in the least time comes first.

use super::Layer::{Artefacts, Build, Slow, Sources};
use super::{Args, Outcome, Step, upbox};
use crate::build::{self, envoy, module, wasm};
use crate::workspace::{Workspace, on_path, output, run};
use crate::{compose, soak, tidy};
use anyhow::{Context as _, Result, bail};
use std::path::Path;

/// The name of the step without which nothing can be run.
pub(super) const BUILD: &str = "build";
/// The tests that also run on the oldest Envoy.
const SMOKE: &str = "smoke";
/// A module beyond this takes Envoy noticeably longer to start; what adds to it shall say why.
const MODULE_BYTES_MAX: usize = 2 << 20;

/// Every step. The limits are several times what a step takes on two cores with nothing built, and
/// together with any one of them everything else still fits into CI's 45 minutes.
pub(super) fn all() -> Vec<Step> {
    let step = |name, layer, minutes, body| Step { name, layer, minutes, body };
    vec![
        step("format", Sources, 1, format),
        step("lints, native", Sources, 10, clippy),
        step("lints, wasm", Sources, 15, clippy_wasm),
        step("tidy", Sources, 1, tidy_up),
        step("documentation", Sources, 6, doc),
        step("licences and advisories", Sources, 5, deny),
        step("unit and property tests", Sources, 15, unit),
        step("fuzzing, briefly", Sources, 12, fuzz),
        step(BUILD, Build, 20, artefacts),
        step("the filter's imports, exports and size", Artefacts, 1, interface),
        step("end to end on Envoy 1.40", Slow, 24, end_to_end),
        step("end to end on Envoy 1.36, the smaller pass", Slow, 10, oldest),
        step("cargo xtask up, from outside", Slow, 10, upbox::test),
        step("docker-compose", Slow, 15, compose_run),
    ]
}

fn format(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    run(ctx.cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml"];
    run(ctx.cargo().args(fuzz).arg("--check")).context("run `cd fuzz && cargo fmt`")?;
    Ok(Outcome::Passed)
}

fn clippy(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let options = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    run(ctx.cargo().args(options))?;
    Ok(Outcome::Passed)
}

fn clippy_wasm(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    wasm::resolve(ctx)?.clippy(ctx)?;
    Ok(Outcome::Passed)
}

fn tidy_up(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    tidy::run(ctx)?;
    Ok(Outcome::Passed)
}

fn doc(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let mut cargo = ctx.cargo();
    cargo.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    run(cargo.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Passed)
}

fn deny(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    if on_path("cargo-deny").is_none() {
        // Known and accepted: building it would take longer than everything else.
        let why = "accepted: cargo-deny is not installed; `cargo install cargo-deny` brings it";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    run(ctx.cargo().args(["deny", "--log-level", "warn", "check"]))?;
    Ok(Outcome::Passed)
}

/// All selections of tests are of the whole workspace: another choice of packages would be another
/// choice of features, and everything would be compiled again.
fn unit(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let mut cargo = ctx.cargo();
    cargo.args(["test", "--workspace", "--lib", "--bins"]);
    for folder in folders(&ctx.root().join("src"))? {
        for name in integration_tests(&folder.join("tests"))? {
            cargo.args(["--test", &name]);
        }
    }
    run(&mut cargo)?;
    run(ctx.cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    Ok(Outcome::Passed)
}

/// The lints of the fuzz targets, which are a workspace of their own, then all seeds and a little
/// fuzzing. `cargo xtask soak` goes on from there.
fn fuzz(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let mut cargo = ctx.cargo();
    cargo.args(["clippy", "--manifest-path", "fuzz/Cargo.toml", "--lib", "--bins", "--quiet"]);
    run(cargo.env("CARGO_TARGET_DIR", ctx.target()).args(["--", "-D", "warnings"]))?;
    soak::brief(ctx)?;
    Ok(Outcome::Passed)
}

fn artefacts(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let args = build::Args { envoy_version: Some(envoy::VERSION.to_owned()) };
    build::run(&args, ctx)?;
    Ok(Outcome::Passed)
}

fn interface(args: &Args, ctx: &Workspace) -> Result<Outcome> {
    let bytes = std::fs::read(ctx.dist().join(build::FILTER)).context("reading the filter")?;
    module::compare(ctx, &bytes, args.bless)?;
    let size = bytes.len();
    println!("    {size} bytes of at most {MODULE_BYTES_MAX}");
    if size > MODULE_BYTES_MAX {
        bail!("the filter has {size} bytes; find what grew, or raise the bound with a reason");
    }
    Ok(Outcome::Passed)
}

fn end_to_end(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let names = integration_tests(&ctx.root().join("test-harness/tests"))?;
    harness_tests(ctx, &names, &ctx.dist().join(build::ENVOY))
}

fn oldest(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    let envoy = envoy::find(ctx, Some(envoy::OLDEST))?;
    harness_tests(ctx, &[SMOKE.to_owned()], &envoy)
}

/// Runs tests of the harness on this Envoy.
fn harness_tests(ctx: &Workspace, names: &[String], envoy: &Path) -> Result<Outcome> {
    let version = output(ctx.command(envoy).arg("--version"))?;
    println!("    {}", version.trim());
    let mut cargo = ctx.cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    for name in names {
        cargo.args(["--test", name]);
    }
    run(cargo.env("GATEWAY_DIST", ctx.dist()).env("GATEWAY_ENVOY", envoy))?;
    Ok(Outcome::Passed)
}

fn compose_run(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    Ok(match compose::integration(&compose::Args::default(), ctx)? {
        compose::Outcome::Passed => Outcome::Passed,
        compose::Outcome::Skipped(reason) => Outcome::Skipped(reason),
    })
}

/// The names of the integration tests in a folder, as cargo finds them: files, and folders with a
/// `main.rs`. None where there is no folder.
fn integration_tests(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry.context("reading the tests")?.path();
        let in_folder = path.join("main.rs").is_file();
        let is_file = path.extension().is_some_and(|ext| ext == "rs");
        if let (true, Some(stem)) = (in_folder || is_file, path.file_stem()) {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The folders in a folder.
fn folders(place: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(place).with_context(|| format!("{}", place.display()))?;
    let mut found: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_files_and_folders_with_a_main() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["e2e", "data"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in ["smoke.rs", "e2e/main.rs", "e2e/limits.rs", "data/policy.yaml", "notes.md"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(integration_tests(dir.path()).unwrap(), ["e2e", "smoke"]);
        assert!(integration_tests(&dir.path().join("none")).unwrap().is_empty());
    }
}
