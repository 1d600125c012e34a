//! API keys: a secret that is known only by its hash, in the policy or in the sidecar's state.

use crate::model::{ApiKey, ApiKeys};
use crate::reason::Reason;
use crate::replica::{self, Seeded, State};
use crate::stage::credential::{Carrier, Credential, percent_decoded};
use crate::stage::ip;
use crate::store::{Store, StoreError};
use crate::time::{Moment, Nanos};
use crate::verify::{Digest, Same};
use alloc::borrow::Cow;
use alloc::string::String;
use core::net::IpAddr;

/// Longest key that is hashed. Ours have some fifty bytes; without a bound a client could have the
/// gateway hash as much as Envoy lets a header be.
pub const KEY_BYTES_MAX: usize = 512;
/// Leading bytes of a hash that choose the keys which are compared. Of ten thousand keys a guess
/// meets one in seven times, and how long that takes tells two bytes of a hash at most.
const GROUP_BYTES: usize = 2;

/// A key that is good here and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<'p> {
    /// What it is called.
    pub id: Cow<'p, str>,
    /// What its holder may do.
    pub permissions: Cow<'p, [String]>,
    /// The tier, if any.
    pub tier: Option<Cow<'p, str>>,
}

/// Judges a key: by the policy first, then by the sidecar's state where there is a sidecar.
///
/// # Errors
/// [`Reason::ApiKeyInvalid`], whatever is wrong with it; [`Reason::StateUnavailable`] when that
/// cannot be known.
pub fn check<'p>(
    keys: &'p ApiKeys,
    presented: Credential<'_>,
    client: Option<IpAddr>,
    digest: &dyn Digest,
    more: Option<&mut dyn Store>,
    now: Moment,
) -> Result<Key<'p>, Reason> {
    let secret = match presented.carrier {
        Carrier::Query => Cow::Owned(percent_decoded(presented.bytes)),
        _ => Cow::Borrowed(presented.bytes),
    };
    if secret.is_empty() || presented.bytes.len() > KEY_BYTES_MAX {
        return Err(Reason::ApiKeyInvalid);
    }
    let hash = digest.sha256(&secret);
    if let Some(key) = known(&keys.keys, &hash, digest) {
        let is_near = |address| key.cidrs.iter().any(|cidr| ip::contains(cidr, address));
        let near = key.cidrs.is_empty() || client.is_some_and(is_near);
        if !near || key.expires.is_some_and(|expires| expires <= now.wall) {
            return Err(Reason::ApiKeyInvalid);
        }
        return Ok(Key {
            id: Cow::Borrowed(&key.id),
            permissions: Cow::Borrowed(&key.permissions),
            tier: key.tier.as_deref().map(Cow::Borrowed),
        });
    }
    match more {
        None => Err(Reason::ApiKeyInvalid),
        Some(store) => made_at_run_time(&hash, client, digest, store, now),
    }
}

fn known<'p>(keys: &'p [ApiKey], hash: &[u8; 32], digest: &dyn Digest) -> Option<&'p ApiKey> {
    let group = |key: &&ApiKey| key.sha256.iter().zip(hash).take(GROUP_BYTES).all(|(a, b)| a == b);
    let mut found = None;
    // All of the group, so that the time does not tell which one it was.
    for key in keys.iter().filter(group) {
        if digest.same(&key.sha256, hash) == Same::Yes {
            found = Some(key);
        }
    }
    found
}

fn made_at_run_time<'p>(
    hash: &[u8; 32],
    client: Option<IpAddr>,
    digest: &dyn Digest,
    store: &mut dyn Store,
    now: Moment,
) -> Result<Key<'p>, Reason> {
    let unavailable = |_: StoreError| Reason::StateUnavailable;
    let Some(entry) = replica::api_keys::find(hash, digest, store).map_err(unavailable)? else {
        // A key that the sidecar has not told of yet is not a bad one.
        let state = store.read(replica::STATE_KEY).map_err(unavailable)?;
        let state = state.and_then(|value| State::from_bytes(&value.bytes));
        let seeded = state.is_some_and(|state| state.seeded == Seeded::Yes);
        return Err(if seeded { Reason::ApiKeyInvalid } else { Reason::StateUnavailable });
    };
    let is_near = |address| entry.cidrs.iter().any(|cidr| ip::is_within(cidr, address));
    let near = entry.cidrs.is_empty() || client.is_some_and(is_near);
    if !near || entry.expires.is_some_and(|expires| Nanos::from_secs(expires) <= now.wall) {
        return Err(Reason::ApiKeyInvalid);
    }
    Ok(Key {
        id: Cow::Owned(entry.id),
        permissions: Cow::Owned(entry.permissions),
        tier: entry.tier.map(Cow::Owned),
    })
}
