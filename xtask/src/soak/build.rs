//! Builds the targets. What `cargo fuzz` does without a sanitizer: LLVM's own pass counts which code
//! ran, and the crate `libfuzzer-sys` brings the engine. Rust that is safe needs no sanitizer, and
//! without one the toolchain that builds everything else is enough, where `cargo fuzz` asks for
//! a nightly one.

use crate::packages;
use crate::workspace::{Workspace, on_path, output, run};
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// For the compiler: coverage as libFuzzer reads it, every check of a debug build, and code that is
/// optimised all the same.
const FLAGS: [&str; 9] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// The programs of these targets, in their order.
pub(super) fn targets(ctx: &Workspace, names: &[&str]) -> Result<Vec<PathBuf>> {
    if on_path("c++").is_none() {
        packages::ensure(ctx, &["g++"], "building libFuzzer")?;
    }
    let machine = machine(ctx)?;
    let folder = ctx.target().join("fuzz-build");
    let mut cargo = ctx.cargo();
    cargo.args(["build", "--manifest-path", "fuzz/Cargo.toml", "--release", "--quiet"]);
    // With a target named, the flags are for our code and not for build scripts.
    cargo.args(["--target", &machine]);
    for name in names {
        cargo.args(["--bin", name]);
    }
    cargo.env("CARGO_TARGET_DIR", &folder).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    run(cargo.env_remove("RUSTFLAGS"))?;
    let programs = folder.join(machine).join("release");
    Ok(names.iter().map(|name| programs.join(name)).collect())
}

/// What the compiler calls this machine.
fn machine(ctx: &Workspace) -> Result<String> {
    let said = output(ctx.command("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}
