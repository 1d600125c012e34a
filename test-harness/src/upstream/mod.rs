//! A scripted service: HTTP/1.1, HTTP/2 with prior knowledge, WebSocket, and gRPC-like answers.
//!
//! Tests run it in their own process as [`Upstream`]; the program `demo-service` runs the same for
//! people and for compose. [`script`] says what it can be told to do, [`mod@answer`] what it answers
//! when it is told nothing, and how it is told from outside.

pub mod answer;
pub mod script;

use crate::runtime::runtime;
use answer::answer;
use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use script::Script;
pub use script::{Fault, Rule, Seen};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A running service. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    address: SocketAddr,
    script: Arc<Script>,
    task: AbortHandle,
}

impl Upstream {
    /// Starts one on any free loopback port.
    ///
    /// # Errors
    /// There is none.
    pub fn start(name: &str) -> Result<Self> {
        Self::listen(name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts one at an address.
    ///
    /// # Errors
    /// The address is taken.
    pub fn listen(name: &str, address: SocketAddr) -> Result<Self> {
        let listener = runtime()?
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("{name} cannot listen at {address}"))?;
        let address = listener.local_addr()?;
        let script = Arc::new(Script::new(name));
        let task = runtime()?.spawn(accept(listener, Arc::clone(&script))).abort_handle();
        Ok(Self { name: name.to_owned(), address, script, task })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a rule after those that are there; the first that fits a request is followed.
    pub fn script(&self, rule: Rule) {
        self.script.add(rule);
    }

    /// Forgets all rules and lets go of every request that hangs.
    pub fn clear(&self) {
        self.script.clear();
    }

    /// Does only this from now on: the rule takes the place of all others, with no moment between.
    /// Requests that hang already go on hanging.
    pub fn only(&self, rule: Rule) {
        self.script.replace(rule);
    }

    /// The last requests that arrived (at most [`script::SEEN_MAX`]), oldest first; health checks
    /// are not among them.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen()
    }

    /// When it began to send its last answer; `None` before the first.
    #[must_use]
    pub fn answered(&self) -> Option<Instant> {
        self.script.answered()
    }

    /// How many requests arrived altogether.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.script.count()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connections live in the set, so that they end when the task is aborted.
async fn accept(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that failed before it began is the client's affair.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&script)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, script: Arc<Script>) {
    // Without this, small answers wait for the client's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(wire) = answer::Wire::of(&stream) else { return };
    let wire = Arc::new(wire);
    let service =
        service_fn(move |request| answer(Arc::clone(&script), Arc::clone(&wire), request));
    let builder = Builder::new(TokioExecutor::new());
    // An error here is a connection that broke, often because the script said so.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}
