//! Keys that are not in the policy, as one worker has them: from a file that the sidecar handed over,
//! or from a remote set that some worker fetched.

use super::remote::Remote;
use crate::host::{Host, Level};
use crate::log;
use crate::metrics::Metrics;
use crate::signatures::HostSignatures;
use crate::store::SharedData;
use policy::kernel::key_set::Standing;
use policy::model::{Keys, Provider, SecretSource};
use policy::replica::files;
use policy::store::StoreError;
use policy::time::Nanos;
use policy::verify::Digest;
use token::{Sha, Verifier};

/// The keys of one provider.
#[derive(Debug)]
pub(super) struct Held<H> {
    host: H,
    /// The provider's place in the policy's list, and its name.
    pub(super) provider: usize,
    name: String,
    pub(super) source: Source<H>,
    /// The hash of what the verifier has.
    print: Option<[u8; 32]>,
    /// The hash of what the verifier would not have, so that this is said once.
    refused: Option<[u8; 32]>,
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum Source<H> {
    /// A file of this path.
    File(String),
    /// A remote set; the number of the one that was last read, and until when it serves.
    Remote { remote: Box<Remote<H>>, number: u64, until: Nanos },
}

/// Whether the verifier has other keys than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Changed,
    Same,
}

impl<H: Host> Held<H> {
    /// `None` for a provider whose keys are in the policy.
    pub(super) fn new(
        host: &H,
        metrics: &Metrics<H>,
        index: usize,
        provider: &Provider,
    ) -> Option<Self> {
        let source = match &provider.keys {
            Keys::File(path) | Keys::Secret(SecretSource::File(path)) => Source::File(path.clone()),
            Keys::Remote(_) => {
                let remote = Box::new(Remote::new(host, metrics, provider)?);
                Source::Remote { remote, number: 0, until: Nanos::ZERO }
            }
            Keys::Inline(_) | Keys::Secret(SecretSource::Known(_)) => return None,
        };
        let (host, name) = (host.clone(), provider.name.clone());
        Some(Self { host, provider: index, name, source, print: None, refused: None })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.print.is_none()
    }

    /// When the keys will be too old.
    pub(super) const fn until(&self) -> Nanos {
        match self.source {
            Source::Remote { until, .. } if self.print.is_some() => until,
            _ => Nanos(u64::MAX),
        }
    }

    /// Takes what the sidecar handed over.
    pub(super) fn read_file(
        &mut self,
        verifier: &mut Verifier<HostSignatures<H>>,
    ) -> Result<News, StoreError> {
        let Source::File(path) = &self.source else { return Ok(News::Same) };
        match files::read(path, &mut SharedData(self.host.clone()))? {
            Some(bytes) => Ok(self.load(&bytes, verifier)),
            // Keys that were good are kept: a file that is gone says nothing about them.
            None => Ok(News::Same),
        }
    }

    /// Takes what some worker fetched, or forgets what has become too old.
    pub(super) fn read_set(
        &mut self,
        verifier: &mut Verifier<HostSignatures<H>>,
        now: Nanos,
    ) -> Result<News, StoreError> {
        let Source::Remote { remote, number, until } = &mut self.source else {
            return Ok(News::Same);
        };
        let standing = match remote.record() {
            Ok(record) => match record.standing(remote.settings(), now) {
                Standing::Serves(until) if record.generation == *number => {
                    Ok(Serving::AsBefore(until))
                }
                Standing::Serves(until) => Ok(Serving::Anew(until)),
                Standing::Gone => Ok(Serving::Gone),
            },
            Err(_) if *until <= now => Ok(Serving::Gone),
            Err(error) => Err(error),
        };
        match standing? {
            Serving::Gone => {
                *number = 0;
                Ok(self.forget(verifier))
            }
            Serving::AsBefore(later) => {
                *until = later;
                Ok(News::Same)
            }
            Serving::Anew(later) => {
                let Some((newer, bytes)) = remote.set()? else { return Ok(News::Same) };
                (*number, *until) = (newer, later);
                Ok(self.load(&bytes, verifier))
            }
        }
    }

    fn load(&mut self, bytes: &[u8], verifier: &mut Verifier<HostSignatures<H>>) -> News {
        let print = Sha.sha256(bytes);
        if self.print == Some(print) || self.refused == Some(print) {
            return News::Same;
        }
        match verifier.load(self.provider, bytes) {
            Ok(_) => {
                (self.print, self.refused) = (Some(print), None);
                News::Changed
            }
            Err(error) => {
                self.refused = Some(print);
                let fields =
                    [("provider", self.name.as_str().into()), ("why", error.to_string().into())];
                log::line(&self.host, Level::Warn, "keys not taken", &fields);
                News::Same
            }
        }
    }

    fn forget(&mut self, verifier: &mut Verifier<HostSignatures<H>>) -> News {
        self.refused = None;
        if self.print.take().is_none() {
            return News::Same;
        }
        verifier.forget(self.provider);
        let fields = [("provider", self.name.as_str().into())];
        log::line(&self.host, Level::Error, "key set too old, no longer used", &fields);
        News::Changed
    }
}

/// How a remote set stands, compared with what this worker has.
enum Serving {
    Gone,
    AsBefore(Nanos),
    Anew(Nanos),
}
