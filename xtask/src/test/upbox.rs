//! `cargo xtask up` as a user meets it: a command in a terminal. Knows nothing of how it works.

mod busy;
mod issuer;
mod signals;
mod watch;

use super::{Args, Outcome};
use crate::children::{self, Child};
use crate::packages;
use crate::workspace::{Workspace, on_path, output, say};
use anyhow::{Context as _, Result, bail, ensure};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use test_harness::process::Process;
use test_harness::wait;

/// From the command to the ready line. The build before has been done.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// From Ctrl-C to the end, with a drain of 30 s in between at most.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// What a change brings about, on a busy machine: Envoy compiles another filter, for example.
const SAID_WITHIN: Duration = Duration::from_secs(60);
/// A refusal needs no drain.
const REFUSED_WITHIN: Duration = Duration::from_secs(120);
/// Nobody else's ports.
const ANY_PORTS: [&str; 6] = ["--port", "0", "--admin-port", "0", "--envoy-admin-port", "0"];

/// The step.
pub(super) fn test(_: &Args, ctx: &Workspace) -> Result<Outcome> {
    if on_path("curl").is_none() {
        packages::ensure(ctx, &["curl"], "trying what `up` prints")?;
    }
    let dir = tempfile::tempdir().context("making a folder")?;
    serves_and_stops(ctx, dir.path()).context("up, curl, Ctrl-C")?;
    busy::test(ctx, dir.path())
        .context("up under load, with a service and a policy of one's own")?;
    issuer::test(ctx, dir.path()).context("up with an identity provider of one's own")?;
    watch::test(ctx, dir.path()).context("up --watch")?;
    signals::while_it_starts(ctx, dir.path()).context("up, and Ctrl-C before it is ready")?;
    signals::twice(ctx, dir.path()).context("up, and Ctrl-C twice")?;
    envoys_end_is_told(ctx, dir.path()).context("up, and Envoy dies")?;
    a_used_port_is_named(ctx, dir.path()).context("up on a port in use")?;
    a_bad_policy_is_named(ctx, dir.path()).context("up with a bad policy")?;
    a_missing_variable_is_named(ctx, dir.path()).context("up without a variable")?;
    Ok(Outcome::Passed)
}

/// `cargo xtask up` with these arguments, its output in files of `dir`.
fn up(ctx: &Workspace, name: &str, dir: &Path, arguments: &[&str]) -> Result<Process> {
    let this = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(this);
    command.current_dir(ctx.root()).arg("up").args(arguments);
    Process::start(name, command, dir)
}

/// Every part answers, the printed lines do what they say, and Ctrl-C leaves nothing behind.
fn serves_and_stops(ctx: &Workspace, dir: &Path) -> Result<()> {
    let mut house = up(ctx, "up", dir, &ANY_PORTS)?;
    let ready = ready(&mut house)?;
    say(&ready);
    let addresses: Vec<String> = ["gateway", "sidecar", "envoy_admin"]
        .iter()
        .map(|name| field(&ready, name).map(|url| url.replace("http://", "")))
        .collect::<Result<_>>()?;
    let token_file = field(&ready, "admin_token_file")?;
    ensure!(Path::new(&token_file).is_file(), "{token_file} is not there");
    let envoy_admin = field(&ready, "envoy_admin")?;
    let lines = curl_lines_do_what_they_say(&house)?;
    let slow = in_flight(&lines, dir, &envoy_admin)?;
    let parts = parts(&house)?;
    output(Command::new("sh").args(["-c", "kill -INT \"$0\"", &house.pid().to_string()]))?;
    finishes(slow)?;
    let status = house.wait(STOP_WITHIN).with_context(|| house.tail())?;
    ensure!(status.success(), "after Ctrl-C: {status}\n{}", house.tail());
    nothing_runs(&parts)?;
    for address in &addresses {
        ensure!(TcpStream::connect(address).is_err(), "somebody still listens at {address}");
    }
    ensure!(!Path::new(&token_file).exists(), "{token_file} was left behind");
    Ok(())
}

/// Waits for the ready line.
fn ready(house: &mut Process) -> Result<String> {
    wait::until("the ready line", READY_WITHIN, || {
        house.must_run()?;
        Ok(house.stdout()?.lines().find(|l| l.starts_with("ready ")).map(str::to_owned))
    })
    .with_context(|| house.tail())
}

/// Everything that `up` runs: Envoy, the sidecar, and the sidecar's command that renders a policy.
fn parts(house: &Process) -> Result<Vec<Child>> {
    let parts = children::below(house.pid());
    for expected in ["envoy.json", " serve ", " render "] {
        let there = parts.iter().any(|part| part.line.contains(expected));
        ensure!(there, "no `{expected}` among what `up` runs: {parts:#?}");
    }
    Ok(parts)
}

/// None of these is left.
fn nothing_runs(parts: &[Child]) -> Result<()> {
    let left: Vec<&Child> = parts.iter().filter(|part| part.runs()).collect();
    ensure!(left.is_empty(), "left running: {left:#?}");
    Ok(())
}

/// Where a part listens, as the ready line says.
fn address(line: &str, name: &str) -> Result<SocketAddr> {
    let url = field(line, name)?;
    url.trim_start_matches("http://").parse().with_context(|| format!("{name} is at {url}"))
}

/// Waits until `up` has printed this, to either output.
fn says(house: &mut Process, text: &str) -> Result<()> {
    wait::until_true(&format!("`{text}`"), SAID_WITHIN, || {
        house.must_run()?;
        Ok(house.stdout()?.contains(text) || house.stderr()?.contains(text))
    })
    .with_context(|| house.tail())
}

/// The value of `name=value` in the ready line.
fn field(line: &str, name: &str) -> Result<String> {
    line.split(' ')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
        .with_context(|| format!("no {name} in: {line}"))
}

/// Runs the five lines in a shell, as somebody who copies them does.
fn curl_lines_do_what_they_say(house: &Process) -> Result<Vec<String>> {
    // The lines are printed after the ready line.
    let printed = wait::until("the curl lines", READY_WITHIN, || {
        let text = house.stdout()?;
        Ok(text.contains("Ctrl-C stops everything").then_some(text))
    })?;
    let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("curl ")).collect();
    let expected: [&[&str]; 5] = [
        &["200", "\"samples\""],
        &["401", "credentials-missing"],
        &["403", "ip-denied"],
        &["200", "429"],
        &["503", "breaker-open"],
    ];
    ensure!(lines.len() == expected.len(), "{} curl lines:\n{printed}", lines.len());
    for (line, expected) in lines.iter().zip(expected) {
        let answer = output(Command::new("sh").args(["-c", line]))?;
        for part in expected {
            ensure!(answer.contains(part), "{line}\nwas to show {part}, but showed\n{answer}");
        }
        println!("    a printed line shows {}", expected.join(" and "));
    }
    Ok(lines.into_iter().map(str::to_owned).collect())
}

/// Starts the line that is allowed, with an answer that takes a while, and waits until Envoy has it.
fn in_flight(lines: &[String], dir: &Path, envoy_admin: &str) -> Result<Process> {
    let allowed = lines.first().context("no line is printed")?;
    let slow = allowed.replace("/api/samples/42", "/api/samples/delay/2000");
    ensure!(slow != *allowed, "the line is another one: {allowed}");
    slow_curl(&slow, dir, envoy_admin)
}

/// Runs this line, and waits until Envoy has its request.
fn slow_curl(line: &str, dir: &Path, envoy_admin: &str) -> Result<Process> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let curl = Process::start("slow-curl", command, dir)?;
    let stats = format!("{envoy_admin}/stats?filter=downstream_rq_active");
    wait::until_true("the slow request to reach Envoy", READY_WITHIN, || {
        let text = output(Command::new("curl").args(["-sS", &stats]))?;
        Ok(text.lines().any(|line| {
            line.strip_prefix("http.gateway.downstream_rq_active: ").is_some_and(|n| n != "0")
        }))
    })?;
    Ok(curl)
}

/// A request that had begun when Ctrl-C came is answered.
fn finishes(mut curl: Process) -> Result<()> {
    let status = curl.wait(STOP_WITHIN)?;
    let answer = curl.stdout()?;
    ensure!(status.success() && answer.contains("200"), "in flight at Ctrl-C: {}", curl.tail());
    println!("    a request in flight at Ctrl-C is answered");
    Ok(())
}

/// When Envoy dies, `up` says so and ends.
fn envoys_end_is_told(ctx: &Workspace, dir: &Path) -> Result<()> {
    let mut house = up(ctx, "up-envoy", dir, &ANY_PORTS)?;
    let ready = ready(&mut house)?;
    let quit = format!("{}/quitquitquit", field(&ready, "envoy_admin")?);
    output(Command::new("curl").args(["-sS", "-X", "POST", &quit]))?;
    let status = house.wait(STOP_WITHIN).with_context(|| house.tail())?;
    let said = house.stderr()?;
    ensure!(!status.success() && said.contains("envoy ended"), "{status}\n{}", house.tail());
    // The folder with the logs is kept for the user; this one is ours.
    let place = Path::new(&field(&ready, "admin_token_file")?).parent().map(Path::to_path_buf);
    let place = place.context("the token's file has a folder")?;
    ensure!(said.contains(&place.display().to_string()), "where are the logs?\n{said}");
    std::fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    println!("    Envoy's end is told");
    Ok(())
}

fn a_used_port_is_named(ctx: &Workspace, dir: &Path) -> Result<()> {
    let holder = TcpListener::bind("127.0.0.1:0").context("taking a port")?;
    let port = holder.local_addr().context("taking a port")?.port().to_string();
    let arguments = ["--port", &port, "--admin-port", "0", "--envoy-admin-port", "0"];
    refused(up(ctx, "up-port", dir, &arguments)?, &[&port, "--port"])
}

fn a_bad_policy_is_named(ctx: &Workspace, dir: &Path) -> Result<()> {
    let policy = "version: 1\nhttps: { mode: sometimes }\nip: { deny: [\"999.1.1.1\"] }\n";
    let file = write(dir, "bad.yaml", policy)?;
    refused(with_policy(ctx, "up-policy", dir, &file)?, &["bad.yaml:2", "https", "bad.yaml:3"])
}

fn a_missing_variable_is_named(ctx: &Workspace, dir: &Path) -> Result<()> {
    let policy = "version: 1\nauthentication: { mode: required, jwt: { providers: [{ name: p, \
                  issuer: i, audiences: [a], algorithms: [HS256], \
                  keys: { secret: { env: A_VARIABLE_THAT_NOBODY_SETS } } }] } }\n";
    let file = write(dir, "variable.yaml", policy)?;
    refused(with_policy(ctx, "up-variable", dir, &file)?, &["A_VARIABLE_THAT_NOBODY_SETS"])
}

fn with_policy(ctx: &Workspace, name: &str, dir: &Path, file: &str) -> Result<Process> {
    up(ctx, name, dir, &[&ANY_PORTS[..], &["--policy", file]].concat())
}

fn write(dir: &Path, name: &str, text: &str) -> Result<String> {
    let file = dir.join(name);
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file.display().to_string())
}

/// It ends with an error that names all of this, and has never been ready.
fn refused(mut house: Process, names: &[&str]) -> Result<()> {
    let status = house.wait(REFUSED_WITHIN).with_context(|| house.tail())?;
    ensure!(!status.success(), "it should have failed\n{}", house.tail());
    let said = house.stderr()?;
    for name in names {
        ensure!(said.contains(name), "the error should name {name}:\n{said}");
    }
    if house.stdout()?.contains("\nready ") {
        bail!("it said ready\n{}", house.tail());
    }
    println!(
        "    refused: {}",
        said.lines().find(|line| line.starts_with("error")).unwrap_or_default()
    );
    Ok(())
}
