//! A steady stream of requests in the background, for tests that say "and no request fails".

use crate::client::{Request, pool};
use crate::runtime::runtime;
use crate::wait;
use anyhow::{Result, anyhow};
use http_body_util::BodyExt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Pause of a connection between an answer and the next request: the processors also belong to what
/// is being tested.
const PAUSE: Duration = Duration::from_millis(2);
/// Errors that are kept in words; the others are counted.
const ERRORS_KEPT: usize = 10;
/// A request that takes longer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Stopping waits for the requests that are under way.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// What came of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that never began: nobody listened any more.
    pub refused: u64,
    /// Requests that began and got no whole answer.
    pub failed: u64,
    /// The first of their errors.
    pub errors: Vec<String>,
    /// The longest time from the sending of a request to the end of its answer.
    pub longest: Duration,
}

impl Tally {
    /// All requests that began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.failed
    }

    /// Answers with this status.
    #[must_use]
    pub fn of(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    /// Goes on when every request got one of these statuses, and there were some.
    ///
    /// # Errors
    /// Shows the tally.
    pub fn only(self, statuses: &[u16]) -> Result<Self> {
        if self.refused == 0 {
            return self.only_until_closed(statuses);
        }
        Err(anyhow!("expected only {statuses:?} and nobody turned away, got {self:#?}"))
    }

    /// As [`Self::only`] where the gateway goes away for good: only requests that began count, and
    /// it does not matter how many found nobody.
    ///
    /// # Errors
    /// Shows the tally.
    pub fn only_until_closed(self, statuses: &[u16]) -> Result<Self> {
        let fit = self.statuses.keys().all(|s| statuses.contains(s));
        let good = fit && self.failed == 0 && self.total() > 0;
        if good { Ok(self) } else { Err(anyhow!("expected only {statuses:?}, got {self:#?}")) }
    }
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tally: Arc<Mutex<Tally>>,
    connections: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `connections` clients, each with a connection that it keeps (and replaces when the
    /// other side closes it), each sending what `make` makes, one after the other.
    ///
    /// # Errors
    /// There is no runtime.
    pub fn start(
        connections: usize,
        make: impl Fn() -> Request + Send + Sync + 'static,
    ) -> Result<Self> {
        let make = Arc::new(make);
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            tally: Arc::default(),
            connections: Vec::new(),
        };
        for _ in 0..connections {
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            let (tally, make) = (Arc::clone(&load.tally), Arc::clone(&make));
            load.connections.push(runtime()?.spawn(async move {
                let client = pool(false);
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let result = one(&client, make()).await;
                    if record(&tally, result, start.elapsed()) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ = tokio::time::timeout(PAUSE, std::future::pending::<()>()).await;
                }
            }));
        }
        Ok(load)
    }

    /// How many requests began and are over.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests began and are over.
    ///
    /// # Errors
    /// They are not in time.
    pub fn more(&self, requests: u64, deadline: Duration) -> Result<()> {
        let goal = self.count() + requests;
        wait::until_true("requests of the load", deadline, || Ok(self.count() >= goal))
    }

    /// What came of the requests so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops after the requests that are under way.
    ///
    /// # Errors
    /// They do not end.
    pub fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        wait::until_true("the load to end", STOP_WITHIN, || {
            Ok(self.connections.iter().all(JoinHandle::is_finished))
        })?;
        Ok(self.tally())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

type Client = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    http_body_util::Full<bytes::Bytes>,
>;

async fn one(client: &Client, request: Request) -> Result<u16> {
    let request = request.into_http()?;
    let exchange = async {
        let answer = client.request(request).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        Ok::<u16, anyhow::Error>(status)
    };
    tokio::time::timeout(ANSWER_WITHIN, exchange).await?
}

/// Notes what came of a request; whether it began at all.
fn record(tally: &Mutex<Tally>, result: Result<u16>, took: Duration) -> bool {
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(status) => {
            *tally.statuses.entry(status).or_default() += 1;
            tally.longest = tally.longest.max(took);
        }
        Err(error) if never_began(&error) => {
            tally.refused += 1;
            return false;
        }
        Err(error) => {
            tally.failed += 1;
            if tally.errors.len() < ERRORS_KEPT {
                tally.errors.push(format!("{error:#}"));
            }
        }
    }
    true
}

/// Whether not even a connection could be had.
fn never_began(error: &anyhow::Error) -> bool {
    let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
    client.is_some_and(hyper_util::client::legacy::Error::is_connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_is_no_progress_and_no_success() {
        // A port that is taken and not listened at.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let nobody = socket.local_addr().unwrap().as_socket().unwrap();
        let load = Load::start(1, move || Request::new(nobody, "GET", "/")).unwrap();
        let turned_away = || Ok(load.tally().refused > 2);
        wait::until_true("attempts", STOP_WITHIN, turned_away).unwrap();
        assert_eq!(load.count(), 0);
        let tally = load.stop().unwrap();
        tally.clone().only(&[200]).unwrap_err();
        let began = Tally { statuses: [(200, 1)].into(), ..tally };
        began.clone().only(&[200]).unwrap_err();
        began.only_until_closed(&[200]).unwrap();
    }
}
