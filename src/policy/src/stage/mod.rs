//! The stages: what each one needs to know, and what it proves. Their order is in `pipeline`.

use crate::event::Events;
use crate::stage::limit::Leases;
use crate::store::Store;
use crate::sync::BanMade;
use crate::verify::{Digest, Secrets, Verify};
use alloc::string::String;

pub mod api_key;
pub mod authenticate;
pub mod authorize;
pub mod ban;
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
    /// Where it goes who was limited or banned.
    pub reports: &'a mut dyn Reports,
    /// What this worker holds of limits' hot keys.
    pub leases: &'a mut Leases,
    /// The two random keys of this process's fingerprints, created once in shared state.
    pub seed: [u64; 2],
    /// The keys of the fingerprints in the sidecar's state; `None` while nobody is banned by it.
    pub state_keys: Option<[u64; 2]>,
    /// The load in thousandths ([`crate::kernel::load`]); 0 while nobody tells.
    pub load: u32,
    /// Whether one more request may be paused.
    pub pause: Pause,
}

/// Whether a request may be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It may.
    Room,
    /// As many are paused as may be: whoever would have to wait is refused.
    Full,
}

/// Where identities go that an administrator is to see. Unlike [`Events`] it is told names.
pub trait Reports {
    /// A limit refused a key. `tag` stands for limit and key; `key` writes it out as in the admin API,
    /// or gives nothing for one that is too long, and need not be called for one that is known by its
    /// tag.
    fn limited(&mut self, limit: &str, tag: u64, key: &dyn Fn() -> Option<String>);

    /// A penalty banned somebody.
    fn banned(&mut self, ban: BanMade);
}
