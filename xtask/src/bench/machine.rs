//! On what, with what and when a run was made: numbers without it cannot be compared.

use super::tools;
use crate::build;
use crate::workspace::{self, Workspace};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The circumstances of a run, as `name: value` lines.
pub(super) struct Circumstances(Vec<(&'static str, String)>);

impl Circumstances {
    /// Asks the machine and the tools; what does not answer is `unknown`.
    pub(super) fn gather(ctx: &Workspace, envoy: &Path, wrk: &Path, upstream: &str) -> Self {
        let commit = first_line(ctx.command("git").args(["rev-parse", "--short", "HEAD"]));
        Self(vec![
            ("date", first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
            ("processor", processor()),
            ("memory", memory()),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("load before the run", load()),
            ("Envoy", envoy_version(envoy)),
            ("load generator", wrk_version(wrk)),
            ("upstream", upstream.to_owned()),
            ("commit", commit),
            ("filter", module(&ctx.dist().join(build::FILTER))),
        ])
    }

    /// The lines of the report.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(name, value)| format!("- {name}: {value}"))
    }

    /// The same for other programs.
    pub(super) fn json(&self) -> Value {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn first_line(command: &mut Command) -> String {
    let text = workspace::output(command).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let named = info.lines().find_map(|line| line.strip_prefix("model name"));
    let name = named.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{name}, {count} CPUs usable")
}

fn memory() -> String {
    let info = read("/proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or("unknown".to_owned(), |kib| format!("{} MiB", kib / 1024))
}

fn load() -> String {
    let averages = read("/proc/loadavg");
    averages.split(' ').next().unwrap_or("unknown").to_owned()
}

/// `…  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn envoy_version(envoy: &Path) -> String {
    let text = workspace::output(Command::new(envoy).arg("--version")).unwrap_or_default();
    let version = text.split("version:").nth(1).and_then(|rest| rest.split('/').nth(1));
    version.unwrap_or("unknown").to_owned()
}

/// wrk prints its version with the usage text and exits with 1.
fn wrk_version(wrk: &Path) -> String {
    let output = tools::command(wrk).arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    format!("{}; fixed rate by xtask itself", words.join(" "))
}

/// Size and a fingerprint of the wasm module.
fn module(path: &Path) -> String {
    let Ok(meta) = fs::metadata(path) else {
        return "not built".to_owned();
    };
    let sum = first_line(Command::new("sha256sum").arg(path));
    format!("{} bytes, sha256 {}", meta.len(), sum.get(..16).unwrap_or("unknown"))
}
