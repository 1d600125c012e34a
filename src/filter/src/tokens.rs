//! Verifying tokens, with everything that is around it: the memory of those that were verified, keys
//! that come from elsewhere, and the look for revocations.
//!
//! A token that is remembered while nothing has changed costs one read of a gauge. Whatever a
//! verdict depended on is looked at again when the gauge has moved.

mod keys;
mod memory;
mod remote;
#[cfg(test)]
mod tests;

use crate::host::Host;
use crate::metrics::{Fetched, Metrics, Recall};
use crate::replica::{Seen, View};
use crate::signatures::HostSignatures;
use crate::store::SharedData;
use keys::{Held, News, Source};
use memory::{Memory, Position};
use policy::config::Mistake;
use policy::kernel::key_set::{Due, Why};
use policy::model::{Authentication, Policy, Revocation, Unseeded};
use policy::replica::Seeded;
use policy::replica::revocations::{self, Token, Verdict};
use policy::time::{Moment, Nanos};
use policy::verify::{TokenError, Verified, Verify};
use remote::{Asked, Flight};
use std::rc::Rc;
use token::Verifier;

/// Most calls of this VM whose answers are waited for. Providers have one each; more means that
/// answers were lost, and then the oldest will not come.
const FLIGHTS_MAX: usize = 64;

/// The verifier of one plugin.
pub(crate) struct Tokens<H: Host> {
    host: H,
    metrics: Metrics<H>,
    view: Rc<View<H>>,
    verifier: Verifier<HostSignatures<H>>,
    memory: Memory,
    revocation: Option<Revocation>,
    /// Keys that are not in the policy.
    held: Vec<Held<H>>,
    /// What was there when everything was last looked at; `None` to look again.
    seen: Option<Seen>,
    /// When the first of the remote sets will be too old.
    gone_at: Nanos,
    /// Calls of this VM: the provider and the flight.
    flights: Vec<(usize, Flight)>,
    patience: Patience,
    /// The provider whose keys the last token waits for.
    awaits: Option<usize>,
}

/// Whether a token may wait for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It may.
    Some,
    /// It is judged by the keys that are there.
    None,
}

/// Whether an answer was for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    Yes,
    No,
}

impl<H: Host> Tokens<H> {
    pub(crate) fn new(
        policy: &Policy,
        section: &Authentication,
        (host, metrics, view): (&H, &Metrics<H>, &Rc<View<H>>),
    ) -> Result<Self, Vec<Mistake>> {
        let verifier = Verifier::new(section, HostSignatures(host.clone()))?;
        let providers = section.providers.iter().enumerate();
        let held =
            providers.filter_map(|(index, provider)| Held::new(host, metrics, index, provider));
        Ok(Self {
            host: host.clone(),
            metrics: metrics.clone(),
            view: Rc::clone(view),
            verifier,
            memory: Memory::new(section.cache),
            revocation: policy.revocation,
            held: held.collect(),
            seen: None,
            gone_at: Nanos(u64::MAX),
            flights: Vec::new(),
            patience: Patience::None,
            awaits: None,
        })
    }

    /// For the tokens from here on.
    pub(crate) fn be(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// The provider whose keys the last token waits for, and how long a fetch may take.
    pub(crate) fn awaited(&mut self) -> Option<(usize, Nanos)> {
        let provider = self.awaits.take()?;
        self.remote(provider).map(|(remote, _)| (provider, remote.settings().timeout))
    }

    /// Whether nothing is under way any more that a token of this provider could wait for, or
    /// something has come.
    pub(crate) fn is_settled(&self, provider: usize, now: Nanos) -> bool {
        let Some((remote, number)) = self.remote(provider) else { return true };
        match remote.record() {
            Ok(record) => {
                let under_way = record.due(remote.settings(), Why::Schedule, now) == Due::UnderWay;
                !under_way || record.generation != number
            }
            Err(_) => true,
        }
    }

    /// Has those key sets fetched that will soon expire, or that nobody has yet.
    pub(crate) fn refresh(&mut self, now: Nanos) {
        for held in &self.held {
            let Source::Remote { remote, .. } = &held.source else { continue };
            if let Asked::Begun(flight) = remote.ask(Why::Schedule, now) {
                note(&mut self.flights, held.provider, flight);
            }
        }
    }

    /// Takes the answer to a call, if it was made here.
    pub(crate) fn on_answer(&mut self, token: u32, body: usize, now: Moment) -> Ours {
        let found = self.flights.iter().position(|(_, flight)| flight.token == token);
        let Some((provider, flight)) = found.map(|at| self.flights.swap_remove(at)) else {
            return Ours::No;
        };
        if let Some((remote, _)) = self.remote(provider)
            && remote.take(flight, body, now.monotonic) == Fetched::Ok
        {
            self.view.changed();
            self.keep_up(now);
        }
        Ours::Yes
    }

    /// Lets others fetch what this VM was fetching.
    pub(crate) fn retire(&mut self) {
        for (provider, flight) in std::mem::take(&mut self.flights) {
            if let Some((remote, _)) = self.remote(provider) {
                remote.abandon(flight);
            }
        }
    }

    /// Looks whether anything has changed that verdicts depend on, and takes it over.
    pub(crate) fn keep_up(&mut self, now: Moment) -> Seen {
        if self.held.is_empty() && self.revocation.is_none() {
            return Seen { generation: 0, state: None };
        }
        let seen = self.view.look();
        if self.seen == Some(seen) && now.monotonic < self.gone_at {
            return seen;
        }
        let handed_over = self.seen.map(|before| before.state) != Some(seen.state);
        let (mut news, mut whole) = (News::Same, true);
        for held in &mut self.held {
            let read = match held.source {
                Source::File(_) if handed_over => held.read_file(&mut self.verifier),
                Source::File(_) => Ok(News::Same),
                Source::Remote { .. } => held.read_set(&mut self.verifier, now.monotonic),
            };
            match read {
                Ok(News::Changed) => news = News::Changed,
                Ok(News::Same) => {}
                Err(_) => whole = false,
            }
        }
        if news == News::Changed {
            self.memory.clear();
        }
        self.gone_at = self.held.iter().map(Held::until).min().unwrap_or(Nanos(u64::MAX));
        // What could not be read is read again by the next token.
        self.seen = Some(seen).filter(|_| whole);
        seen
    }

    /// Judges a token by newer keys than this worker has, if there are any, or has them fetched.
    fn by_newer_keys(
        &mut self,
        token: &[u8],
        (provider, why): (usize, Why),
        now: Moment,
    ) -> Result<Verified, TokenError> {
        let verdict = match why {
            Why::Missing => TokenError::KeysUnavailable { provider },
            Why::UnknownKey | Why::Schedule => TokenError::UnknownKey { provider },
        };
        // Twice, because another worker's fetch may end between the look and the question.
        for _ in 0..2 {
            let Some(held) = self.held.iter_mut().find(|held| held.provider == provider) else {
                return Err(verdict);
            };
            let before = held.until();
            if held.read_set(&mut self.verifier, now.monotonic) == Ok(News::Changed) {
                self.gone_at = self.gone_at.min(before).min(held.until());
                self.memory.clear();
                match self.verifier.verify(token, now) {
                    Err(TokenError::UnknownKey { .. } | TokenError::KeysUnavailable { .. }) => {}
                    verdict => return verdict,
                }
            }
            let Source::Remote { remote, .. } = &held.source else { return Err(verdict) };
            if why == Why::Missing && !held.is_empty() {
                return Err(verdict);
            }
            match remote.ask(why, now.monotonic) {
                Asked::Begun(flight) => note(&mut self.flights, provider, flight),
                Asked::UnderWay => {}
                Asked::NotNow => continue,
            }
            if self.patience == Patience::None {
                return Err(verdict);
            }
            self.awaits = Some(provider);
            return Err(TokenError::Pending);
        }
        Err(verdict)
    }

    /// Looks whether a token was revoked. Gives the state in which it was not, for the memory.
    fn look_up(
        &self,
        verified: &Verified,
        seen: Seen,
        now: Moment,
    ) -> Result<Option<Position>, TokenError> {
        let Some(revocation) = self.revocation else { return Ok(None) };
        let verdict = seen.state.map(|state| {
            let mut store = SharedData(self.host.clone());
            let mut look = |token: &Token<'_>| {
                revocations::look(token, state.keys, &mut store, now.wall.as_secs())
            };
            let token = named(verified);
            // A provider may call users by another claim than the one that is always called so.
            let sub = verified.claims.get("sub").and_then(|sub| sub.as_str());
            match look(&token)? {
                Verdict::Good if sub != token.subject => {
                    look(&Token { subject: sub, id: None, ..token })
                }
                verdict => Ok(verdict),
            }
        });
        match (verdict, position(seen), revocation.on_unseeded) {
            (Some(Ok(Verdict::Revoked)), _, _) => Err(TokenError::Revoked),
            (Some(Ok(Verdict::Good)), Some(position), _) => Ok(Some(position)),
            (_, _, Unseeded::Allow) => Ok(None),
            (_, _, Unseeded::Refuse) => Err(TokenError::Unseeded),
        }
    }

    fn remote(&self, provider: usize) -> Option<(&remote::Remote<H>, u64)> {
        self.held.iter().find_map(|held| match &held.source {
            Source::Remote { remote, number, .. } if held.provider == provider => {
                Some((&**remote, *number))
            }
            _ => None,
        })
    }
}

impl<H: Host> Verify for Tokens<H> {
    fn verify(&mut self, token: &[u8], now: Moment) -> Result<Verified, TokenError> {
        self.awaits = None;
        let seen = self.keep_up(now);
        if let Some((verified, checked)) = self.memory.recall(token, now) {
            self.metrics.recall(Recall::Hit);
            if self.revocation.is_none() || (checked.is_some() && checked == position(seen)) {
                return Ok(verified);
            }
            let looked = self.look_up(&verified, seen, now);
            match looked {
                Ok(checked) => self.memory.note(token, checked),
                Err(TokenError::Revoked) => self.memory.drop(token),
                Err(_) => {}
            }
            return looked.map(|_| verified);
        }
        self.metrics.recall(Recall::Miss);
        let verified = match self.verifier.verify(token, now) {
            Err(TokenError::UnknownKey { provider }) => {
                self.by_newer_keys(token, (provider, Why::UnknownKey), now)?
            }
            Err(TokenError::KeysUnavailable { provider }) => {
                self.by_newer_keys(token, (provider, Why::Missing), now)?
            }
            verdict => verdict?,
        };
        let checked = self.look_up(&verified, seen, now)?;
        self.memory.keep(token, &verified, checked, now);
        Ok(verified)
    }
}

fn note(flights: &mut Vec<(usize, Flight)>, provider: usize, flight: Flight) {
    if flights.len() >= FLIGHTS_MAX {
        flights.remove(0);
    }
    flights.push((provider, flight));
}

/// How far the state is, when it is whole. The gauge is in it: a copy that was spoiled and mended
/// comes back to the same number.
fn position(seen: Seen) -> Option<Position> {
    let state = seen.state.filter(|state| state.seeded == Seeded::Yes)?;
    Some((seen.generation, state.number))
}

/// A token by what it can be revoked by.
fn named(verified: &Verified) -> Token<'_> {
    let text = |claim: &str| verified.claims.get(claim).and_then(|value| value.as_str());
    let issued = verified.claims.get("iat").and_then(|iat| {
        let fraction = || iat.as_f64().filter(|seconds| *seconds >= 0.0);
        // A conversion from f64 rounds down and saturates.
        iat.as_u64().or_else(|| fraction().map(|seconds| seconds as u64))
    });
    Token { id: text("jti"), subject: verified.subject.as_deref(), issuer: text("iss"), issued }
}
