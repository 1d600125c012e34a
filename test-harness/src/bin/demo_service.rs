//! The program `demo-service`: a service to stand behind the gateway, for `cargo xtask up` and for
//! docker-compose. `demo-service --listen 0.0.0.0:8000 --name storage`. What it answers, and how it
//! is told to fail, is written in `test-harness/src/upstream/answer.rs`.

use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use test_harness::Upstream;
use test_harness::runtime::runtime;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: demo-service --listen ADDRESS:PORT --name NAME";

fn main() -> Result<()> {
    let (listen, name) = arguments()?;
    let service = Upstream::listen(&name, listen)?;
    println!("{name} listens at http://{}", service.address());
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn arguments() -> Result<(SocketAddr, String)> {
    let mut listen = None;
    let mut name = None;
    let mut rest = std::env::args().skip(1);
    while let Some(option) = rest.next() {
        let value = rest.next();
        match (option.as_str(), value) {
            ("--listen", Some(value)) => {
                let address =
                    value.parse().with_context(|| format!("--listen {value}\n{USAGE}"))?;
                listen = Some(address);
            }
            ("--name", Some(value)) => name = Some(value),
            (other, _) => bail!("{other}: unknown, or without a value\n{USAGE}"),
        }
    }
    listen.zip(name).context(USAGE)
}
