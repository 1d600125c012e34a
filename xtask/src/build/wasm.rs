//! Finds a toolchain that can build for `wasm32-wasip1`, installs one where that is possible, and
//! builds and lints the filter with it.

use crate::packages;
use crate::workspace::{Workspace, on_path, output, run, run_limited, say, write_whole};
use anyhow::{Context as _, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What Envoy's wasm host runs.
const TARGET: &str = "wasm32-wasip1";
/// Debian's packages that build for it. Their compiler and library sources have one version.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc"];
/// Debian's linter for the same compiler.
const DEBIAN_CLIPPY: &str = "rust-web-clippy";
/// Where Debian's C library for the target lies.
const DEBIAN_LIBC: &str = "/usr/lib/wasm32-wasi";
/// Debian's tools. Not looked up on PATH: rustup's come first there.
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// A download of 30 MB on a slow line; without a network rustup would retry for longer than this.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// A toolchain that can build the filter.
pub(crate) enum Toolchain {
    /// Rustup's, with the target installed.
    Rustup,
    /// Debian's compiler, which builds the standard library from source; linked by rustup's `rust-lld`.
    Debian {
        /// The linker.
        linker: PathBuf,
    },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "rustup's toolchain",
            Self::Debian { .. } => "Debian's rustc-web; the standard library is built once",
        })
    }
}

/// The first toolchain that works, in the order that costs the user least.
pub(crate) fn resolve(ctx: &Workspace) -> Result<Toolchain> {
    if rustup_has_target(ctx) {
        return Ok(Toolchain::Rustup);
    }
    // Asking again costs minutes where there is no network, so a refusal is remembered.
    let refused = ctx.root().join("target/wasm/rustup-could-not-add-the-target");
    if !(refused.exists() && debian(ctx).is_some()) {
        match add_by_rustup(ctx) {
            Ok(()) if rustup_has_target(ctx) => return Ok(Toolchain::Rustup),
            Ok(()) => println!("    rustup added {TARGET} to another toolchain"),
            Err(error) => println!("    {error:#}"),
        }
        write_whole(&refused, b"")?;
    }
    let by_packages = packages::ensure(ctx, &DEBIAN_PACKAGES, "building for wasm32-wasip1");
    if let (Ok(()), Some(toolchain)) = (&by_packages, debian(ctx)) {
        return Ok(toolchain);
    }
    let detail = by_packages.err().map_or_else(String::new, |error| format!("\n  ({error:#})"));
    bail!(
        "no compiler for {TARGET}. Run one of these and try again:\n  \
         rustup target add {TARGET}\n  \
         sudo apt-get install -y {}   (Debian or Ubuntu){detail}",
        DEBIAN_PACKAGES.join(" ")
    )
}

/// Whether the toolchain that runs us has the target's standard library.
fn rustup_has_target(ctx: &Workspace) -> bool {
    let mut rustc = ctx.command(rustc());
    output(rustc.args(["--print", "target-libdir", "--target", TARGET]))
        .is_ok_and(|dir| holds_std(Path::new(dir.trim())))
}

/// Whether a compiled standard library lies in this folder.
fn holds_std(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The rustc beside the cargo that runs us.
fn rustc() -> PathBuf {
    std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from)
}

/// `rustup target add`, with a limit on its time.
fn add_by_rustup(ctx: &Workspace) -> Result<()> {
    if on_path("rustup").is_none() {
        bail!("rustup is not on PATH");
    }
    say(&format!("rustup target add {TARGET}"));
    run_limited(ctx.command("rustup").args(["target", "add", TARGET]), RUSTUP_LIMIT)
}

/// Debian's toolchain, if all of it is here.
fn debian(ctx: &Workspace) -> Option<Toolchain> {
    let complete = [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_LIBC].iter().all(|p| Path::new(p).exists());
    let mut rustc = Command::new(DEBIAN_RUSTC);
    let sysroot =
        complete.then(|| output(plain(&mut rustc).args(["--print", "sysroot"])).ok())??;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/std/Cargo.toml");
    if !sources.is_file() {
        return None;
    }
    Some(Toolchain::Debian { linker: linker(ctx)? })
}

/// `rust-lld` inside rustup's toolchain: Debian's compiler brings none.
fn linker(ctx: &Workspace) -> Option<PathBuf> {
    let sysroot = output(ctx.command(rustc()).args(["--print", "sysroot"])).ok()?;
    let hosts = std::fs::read_dir(Path::new(sysroot.trim()).join("lib/rustlib")).ok()?;
    hosts.flatten().map(|host| host.path().join("bin/rust-lld")).find(|file| file.is_file())
}

/// Takes away what the surrounding rustup cargo has set: it would steer the other toolchain.
fn plain(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = text.starts_with("CARGO") || text.starts_with("RUST");
        if (foreign && text != "CARGO_HOME" && text != "RUSTUP_HOME") || text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    command
}

impl Toolchain {
    /// Builds the filter and says where the module lies. The output folder is never wiped by us, so
    /// the standard library is built once.
    pub(crate) fn build(&self, ctx: &Workspace) -> Result<PathBuf> {
        let dir = ctx.root().join("target/wasm");
        let mut cargo = self.cargo(ctx, "build")?;
        cargo.args(["--profile", "wasm", "--target-dir"]).arg(&dir);
        run(&mut cargo)?;
        Ok(dir.join(TARGET).join("wasm/filter.wasm"))
    }

    /// Lints the filter as the target sees it.
    pub(crate) fn clippy(&self, ctx: &Workspace) -> Result<()> {
        if let Self::Debian { .. } = self {
            packages::ensure(ctx, &[DEBIAN_CLIPPY], "linting for wasm32-wasip1")?;
        }
        let mut cargo = self.cargo(ctx, "clippy")?;
        cargo.arg("--target-dir").arg(ctx.root().join("target/wasm"));
        run(cargo.args(["--", "-D", "warnings"]))
    }

    /// `cargo <verb> -p filter` of this toolchain.
    fn cargo(&self, ctx: &Workspace, verb: &str) -> Result<Command> {
        let common = [verb, "-p", "filter", "--target", TARGET];
        let Self::Debian { linker } = self else {
            let mut cargo = ctx.cargo();
            cargo.args(common);
            return Ok(cargo);
        };
        let mut cargo = ctx.command(DEBIAN_CARGO);
        plain(&mut cargo).args(common).arg("-Zbuild-std=std,panic_abort");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
        cargo
            .env("PATH", std::env::join_paths(dirs).context("PATH cannot be extended")?)
            .env("RUSTC", DEBIAN_RUSTC)
            // The flag that builds the standard library is not stable yet.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker)
            .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", format!("-L native={DEBIAN_LIBC}"));
        Ok(cargo)
    }
}
