//! `up --watch`, with a checkout and a compiler of our own: saved sources lead to builds whose results
//! we choose. Everything else is real: `up`, Envoy, the filters and sidecars that it swaps.

use super::{ANY_PORTS, STOP_WITHIN, address, nothing_runs, parts, ready, says, write};
use crate::build::{DEMO_SERVICE, ENVOY, FILTER, SIDECAR};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use test_harness::load::Load;
use test_harness::process::Process;
use test_harness::{Request, wait};

/// Clients that send requests through all swaps.
const CLIENTS: usize = 4;
/// So many between two swaps, and how long they may take.
const SOME_REQUESTS: u64 = 100;
const SOON: Duration = Duration::from_secs(30);
/// With a sidecar in sync, and open to everybody.
const POLICY: &str = "version: 1\nname: watched\n\
                      sidecar: { cluster: gateway-sidecar, token: { env: GATEWAY_SYNC_TOKEN } }\n";
/// A section that says nothing (its kind, its length, its name): the module is another one that does
/// the same.
const EMPTY_SECTION: [u8; 4] = [0, 2, 1, b'x'];
/// Instead of cargo: "builds" by copying what we have put into `made`.
const CARGO: &str = "#!/bin/sh
set -e
[ ! -e made/endless ] || tail -f /dev/null
case \"$*\" in
*wasm32*) mkdir -p target/wasm/wasm32-wasip1/wasm
          cp made/gateway_filter.wasm target/wasm/wasm32-wasip1/wasm/filter.wasm ;;
*) mkdir -p target/release; cp made/gateway-sidecar made/demo-service target/release/ ;;
esac
";
/// Instead of rustc: says where the target's standard library lies.
const RUSTC: &str = "#!/bin/sh\necho made\n";

/// The case.
pub(super) fn test(ctx: &Workspace, dir: &Path) -> Result<()> {
    let checkout = Checkout::new(ctx, dir)?;
    let mut house = checkout.up(ctx, dir)?;
    let ready = ready(&mut house)?;
    let (gateway, sidecar) = (address(&ready, "gateway")?, address(&ready, "sidecar")?);
    let get = move || Request::new(gateway, "GET", "/api/samples/42");
    let load = Load::start(CLIENTS, get)?;
    load.more(SOME_REQUESTS, SOON)?;

    checkout.append(FILTER, &EMPTY_SECTION)?;
    checkout.save("src/filter/lib.rs")?;
    says(&mut house, "the filter is /")?;
    load.more(SOME_REQUESTS, SOON)?;
    checkout.append(SIDECAR, b"\n")?;
    checkout.save("src/sidecar/main.rs")?;
    says(&mut house, "the sidecar is the new one")?;
    alive(sidecar)?;
    println!("    --watch: a filter and a sidecar are swapped in");

    std::fs::write(checkout.made(SIDECAR), "#!/bin/sh\nexit 3\n").context("a bad sidecar")?;
    checkout.save("src/sidecar/main.rs")?;
    says(&mut house, "the sidecar is the one from before")?;
    alive(sidecar)?;
    std::fs::remove_file(checkout.made(FILTER)).context("a build that fails")?;
    checkout.save("src/filter/lib.rs")?;
    says(&mut house, "what runs is still the last good build")?;
    load.more(SOME_REQUESTS, SOON)?;
    println!("    --watch: what does not start or build leaves what ran before");

    write(&checkout.root, "made/endless", "")?;
    checkout.save("src/filter/lib.rs")?;
    let parts = wait::until("a build under way", SOON, || {
        let parts = parts(&house)?;
        Ok(parts.iter().any(|part| part.line.starts_with("tail ")).then_some(parts))
    })?;
    load.stop()?.only(&[200])?;
    house.terminate()?;
    let status = house.wait(STOP_WITHIN).with_context(|| house.tail())?;
    ensure!(status.success(), "after SIGTERM: {status}\n{}", house.tail());
    nothing_runs(&parts)?;
    println!("    --watch: a build under way ends with everything else");
    Ok(())
}

fn alive(sidecar: SocketAddr) -> Result<()> {
    Request::new(sidecar, "GET", "/livez").send()?.expect(200).map(|_| ())
}

/// A folder that looks like a checkout.
struct Checkout {
    root: PathBuf,
}

impl Checkout {
    fn new(ctx: &Workspace, dir: &Path) -> Result<Self> {
        let one = Self { root: dir.join("checkout") };
        for folder in ["src/policy", "src/filter", "src/sidecar", "made"] {
            std::fs::create_dir_all(one.root.join(folder)).context("making a checkout")?;
        }
        for name in [FILTER, SIDECAR, DEMO_SERVICE] {
            std::fs::copy(ctx.dist().join(name), one.made(name)).context("copying artefacts")?;
        }
        write(&one.root, "Cargo.toml", "")?;
        write(&one.root, "made/libstd-0.rlib", "")?;
        for (name, script) in [("cargo", CARGO), ("rustc", RUSTC)] {
            let file = write(&one.root, &format!("made/{name}"), script)?;
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))
                .with_context(|| format!("making {file} executable"))?;
        }
        Ok(one)
    }

    /// `up --watch` in it.
    fn up(&self, ctx: &Workspace, dir: &Path) -> Result<Process> {
        let policy = write(dir, "watched.yaml", POLICY)?;
        let this = std::env::current_exe().context("finding this program")?;
        let mut command = Command::new(this);
        command.current_dir(&self.root).arg("up").args(ANY_PORTS);
        command.args(["--watch", "--policy", &policy]);
        command.env("CARGO", self.made("cargo")).env("RUSTC", self.made("rustc"));
        command.env("ENVOY", ctx.dist().join(ENVOY)).env_remove("CARGO_TARGET_DIR");
        Process::start("up-watch", command, dir)
    }

    /// Where a part lies that the next build will make.
    fn made(&self, name: &str) -> PathBuf {
        self.root.join("made").join(name)
    }

    /// Lets the next build make another part.
    fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = self.made(name);
        let old = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        std::fs::write(&file, [&old, bytes].concat())
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Saves a source file.
    fn save(&self, name: &str) -> Result<()> {
        write(&self.root, name, "saved").map(|_| ())
    }
}
