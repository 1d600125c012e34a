//! One remote key set: what all workers share of it, and fetching it.
//!
//! Two values in shared data: the small record that says when to fetch and who does
//! ([`policy::kernel::key_set`]), and the set itself with the number of the flight that brought it.
//! The set is written first and only over an older one.

use crate::host::{Buffer, Call, Host, Level, Map};
use crate::log;
use crate::metrics::{Fetched, Metrics};
use crate::store::SharedData;
use policy::fingerprint::Fingerprint;
use policy::headers::{Headers, serialize};
use policy::kernel::key_set::{Answer, Due, KeySet, NUMBER_MAX, Why};
use policy::model::{Keys, Provider, RemoteKeys};
use policy::store::{Change, Store, StoreError, update};
use policy::time::Nanos;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = token::SET_BYTES_MAX;
/// The format of a stored set; another one reads as absent.
const VERSION: u8 = 1;
/// Version and number.
const HEAD: usize = 1 + 8;

/// A provider whose keys are behind a cluster.
#[derive(Clone, Debug)]
pub(super) struct Remote<H> {
    host: H,
    metrics: Metrics<H>,
    provider: Provider,
    settings: RemoteKeys,
    /// Where the record is; the set is there too, under a longer name.
    key: Vec<u8>,
}

/// What asking for a fetch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This VM has begun one: the answer will come under this token, for this flight.
    Begun(Flight),
    /// Somebody had begun one.
    UnderWay,
    /// It is not the time.
    NotNow,
}

/// A call of this VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) token: u32,
    number: u64,
}

/// Why a fetch brought nothing.
enum Trouble {
    /// Envoy would not send it.
    Unsendable,
    /// No answer, or one that broke off.
    NoAnswer,
    /// An answer with another status than 200; Envoy's own when nobody answers is 503 or 504.
    Status(u16),
    /// An answer that is no key set for this provider.
    Rejected(String),
    /// It could not be stored.
    Unstored,
}

impl<H: Host> Remote<H> {
    /// `None` for a provider whose keys are elsewhere.
    pub(super) fn new(host: &H, metrics: &Metrics<H>, provider: &Provider) -> Option<Self> {
        let Keys::Remote(settings) = &provider.keys else { return None };
        let mut print = Fingerprint::new([0, 0], "keys");
        for part in [&settings.cluster, &settings.host, &settings.path] {
            print.part(part.as_bytes());
        }
        // What is a usable set depends on the algorithms: who wants others has a set of his own.
        for algorithm in &provider.algorithms {
            print.part(algorithm.name().as_bytes());
        }
        Some(Self {
            host: host.clone(),
            metrics: metrics.clone(),
            provider: provider.clone(),
            settings: settings.clone(),
            key: format!("keys/1/{:016x}", print.finish()).into_bytes(),
        })
    }

    pub(super) const fn settings(&self) -> &RemoteKeys {
        &self.settings
    }

    pub(super) fn name(&self) -> &str {
        &self.provider.name
    }

    /// The record.
    pub(super) fn record(&self) -> Result<KeySet, StoreError> {
        let found = SharedData(self.host.clone()).read(&self.key)?;
        Ok(found.and_then(|value| KeySet::from_bytes(&value.bytes)).unwrap_or_default())
    }

    /// The set with its number; `None` when there is none.
    pub(super) fn set(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let found = SharedData(self.host.clone()).read(&self.set_key())?;
        let Some(mut bytes) = found.map(|value| value.bytes) else { return Ok(None) };
        let Some(number) = number_of(&bytes) else { return Ok(None) };
        bytes.drain(..HEAD);
        Ok(Some((number, bytes)))
    }

    /// Has the set fetched if it is time.
    pub(super) fn ask(&self, why: Why, now: Nanos) -> Asked {
        // Most asking changes nothing: a look without writing.
        match self.record().map(|record| record.due(&self.settings, why, now)) {
            Ok(Due::Now) => {}
            Ok(Due::UnderWay) => return Asked::UnderWay,
            Ok(Due::Later) | Err(_) => return Asked::NotNow,
        }
        let begun = self.change(|record| match record.due(&self.settings, why, now) {
            Due::Now => {
                let (next, number) = record.begin(&self.settings, why, now);
                Change::Write(next.to_bytes(), Ok(number))
            }
            other => Change::Keep(Err(other)),
        });
        match begun {
            Ok(Ok(number)) => match self.send() {
                Ok(token) => Asked::Begun(Flight { token, number }),
                Err(trouble) => {
                    self.failed(number, &trouble, now);
                    Asked::NotNow
                }
            },
            Ok(Err(Due::UnderWay)) => Asked::UnderWay,
            Ok(Err(_)) | Err(_) => Asked::NotNow,
        }
    }

    /// Takes the answer to a call: a good set is stored for all workers, anything else leaves what
    /// was there.
    pub(super) fn take(&self, flight: Flight, body: usize, now: Nanos) -> Fetched {
        let answer = self.read(body).and_then(|bytes| {
            let loaded = token::check_set(&self.provider, &bytes)
                .map_err(|error| Trouble::Rejected(error.to_string()))?;
            let answer = self.store(flight.number, &bytes, now).map_err(|_| Trouble::Unstored)?;
            Ok((loaded, answer))
        });
        match answer {
            Ok((loaded, answer)) => {
                self.metrics.fetched(self.name(), Fetched::Ok);
                let left_out: Vec<_> =
                    loaded.left_out.iter().map(|m| format!("{}: {}", m.path, m.wrong)).collect();
                if answer == Answer::Taken && !left_out.is_empty() {
                    let fields = [
                        ("provider", self.name().into()),
                        ("used", loaded.used.into()),
                        ("left_out", left_out.into()),
                    ];
                    log::line(&self.host, Level::Warn, "keys left out of a key set", &fields);
                }
                Fetched::Ok
            }
            Err(trouble) => self.failed(flight.number, &trouble, now),
        }
    }

    /// Lets somebody else fetch: the answer will not be heard here.
    pub(super) fn abandon(&self, flight: Flight) {
        // A lease that cannot be given back runs out.
        let _kept =
            self.change(|record| Change::Write(record.abandon(flight.number).to_bytes(), ()));
    }

    fn send(&self) -> Result<u32, Trouble> {
        let headers = serialize(&[
            (b":method", b"GET"),
            (b":path", self.settings.path.as_bytes()),
            (b":authority", self.settings.host.as_bytes()),
            (b"accept", b"application/json"),
        ]);
        let RemoteKeys { cluster, timeout, .. } = &self.settings;
        let call = Call { cluster, headers: &headers, body: &[], timeout: *timeout };
        self.host.call(&call).map_err(|_| Trouble::Unsendable)
    }

    /// The body of a 200 that the host has for us now.
    fn read(&self, body: usize) -> Result<Vec<u8>, Trouble> {
        let map = self.host.headers(Map::CallResponse).map_err(|_| Trouble::NoAnswer)?;
        let status = Headers::new(&map).first(":status").and_then(|status| {
            str::from_utf8(status).ok().and_then(|status| status.parse::<u16>().ok())
        });
        match status {
            Some(200) => {}
            Some(status) => return Err(Trouble::Status(status)),
            None => return Err(Trouble::NoAnswer),
        }
        if body > ANSWER_BYTES_MAX {
            let most = ANSWER_BYTES_MAX;
            return Err(Trouble::Rejected(format!("{body} bytes are too many; at most {most}")));
        }
        let bytes = self.host.buffer(Buffer::CallResponseBody, body);
        bytes.map_err(|_| Trouble::NoAnswer)
    }

    fn store(&self, number: u64, bytes: &[u8], now: Nanos) -> Result<Answer, StoreError> {
        let mut value = Vec::with_capacity(HEAD + bytes.len());
        value.push(VERSION);
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(bytes);
        let set = &mut SharedData(self.host.clone());
        let stored = update(set, &self.set_key(), |present| match present.and_then(number_of) {
            Some(newer) if newer >= number => Change::Keep(newer),
            _ => Change::Write(value.clone(), number),
        })?;
        self.change(|record| {
            let (next, answer) = if stored == number {
                record.succeed(number, now)
            } else {
                (record.outdone(number, stored), Answer::Outdated)
            };
            Change::Write(next.to_bytes(), answer)
        })
    }

    /// Notes and tells that a flight brought nothing.
    fn failed(&self, number: u64, trouble: &Trouble, now: Nanos) -> Fetched {
        // A failure that cannot be noted is noted when the lease runs out.
        let _unnoted = self.change(|record| Change::Write(record.fail(number, now).to_bytes(), ()));
        let (outcome, why, status) = match trouble {
            Trouble::Unsendable => {
                (Fetched::Failed, "the cluster does not exist or has no host", 0)
            }
            Trouble::NoAnswer => (Fetched::Failed, "no whole answer came", 0),
            Trouble::Status(status) => (Fetched::Failed, "the status is not 200", *status),
            Trouble::Rejected(why) => (Fetched::Rejected, why.as_str(), 200),
            Trouble::Unstored => (Fetched::Failed, "shared data cannot be had", 200),
        };
        self.metrics.fetched(self.name(), outcome);
        let fields = [
            ("provider", self.name().into()),
            ("cluster", self.settings.cluster.as_str().into()),
            ("why", why.into()),
            ("status", status.into()),
        ];
        log::line(&self.host, Level::Warn, "key set not fetched", &fields);
        outcome
    }

    fn change<T>(&self, mut how: impl FnMut(KeySet) -> Change<T>) -> Result<T, StoreError> {
        update(&mut SharedData(self.host.clone()), &self.key, |present| {
            how(present.and_then(KeySet::from_bytes).unwrap_or_default())
        })
    }

    fn set_key(&self) -> Vec<u8> {
        [self.key.as_slice(), b"/set"].concat()
    }
}

/// The number of a stored set.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let (version, rest) = bytes.split_first()?;
    let number = rest.get(..HEAD - 1)?;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    (*version == VERSION && number <= NUMBER_MAX).then_some(number)
}
