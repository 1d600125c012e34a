//! The stages: what each one needs to know, and what it proves. Their order is in `pipeline`.

use crate::event::Events;
use crate::store::Store;
use crate::verify::{Digest, Secrets, Verify};

pub mod api_key;
pub mod authenticate;
pub mod authorize;
pub mod breaker;
pub mod credential;
pub mod csrf;
pub mod https;
pub mod ip;
pub mod limit;

/// What the stages may use beside the facts.
pub struct Means<'a> {
    /// Shared state.
    pub store: &'a mut dyn Store,
    /// Token verification.
    pub verify: &'a mut dyn Verify,
    /// Hashes of secrets.
    pub digest: &'a dyn Digest,
    /// Secrets from files.
    pub secrets: &'a dyn Secrets,
    /// Fills bytes at random. Called for few requests, so a call to the host is fine.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// Where events go.
    pub events: &'a mut dyn Events,
    /// The two random keys of this process's fingerprints, created once in shared state.
    pub seed: [u64; 2],
}
