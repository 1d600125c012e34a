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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Name and version of everything that a lock file names.
    fn locked(file: &str) -> BTreeSet<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let value = |package: &str, key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim_matches(['"', ' ', '=']).to_owned()
        };
        let packages = text.split("[[package]]").skip(1);
        packages.map(|one| (value(one, "name"), value(one, "version"))).collect()
    }

    #[test]
    fn the_versions_that_are_fuzzed_are_those_that_are_built() {
        let (built, fuzzed) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
        let is_built = |name: &str| built.iter().any(|(other, _)| other == name);
        let differ = |one: &&(String, String)| is_built(&one.0) && !built.contains(one);
        let differing: Vec<_> = fuzzed.iter().filter(differ).collect();
        assert!(differing.is_empty(), "`cargo update --precise` in fuzz/ for {differing:?}");
    }
}
