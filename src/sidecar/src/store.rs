//! What must survive a restart of the sidecar: its identity, revocations, API keys, bans, overrides,
//! and the numbers of changes. Nothing here knows HTTP or the filter.
//!
//! A [`Store`] makes changes durable before it answers; what is looked at often is kept in memory by
//! `serve::replica`, which loads it once.

mod ban;
pub(crate) mod embedded;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

pub(crate) use ban::{AdminBan, Ban, BanKey, PenaltyBan, Source, Stands, halves};
use policy::model::Secret;
use policy::replica::overrides::{self, Override};
use policy::replica::revocations::{self, Kind, Name, Print};
use policy::replica::{Bucket, api_keys, bans, files};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What names a store, and its secrets; made once with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Random, so that two stores differ.
    pub(crate) store: u64,
    /// The keys of the fingerprints of revocations.
    pub(crate) keys: [u64; 2],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:016x})", self.store)
    }
}

/// One revocation. Times are seconds since 1970 below [`u32::MAX`], which is the year 2106.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    /// What is revoked.
    #[serde(with = "kind_text")]
    pub(crate) kind: Kind,
    /// The issuer that it is limited to; `None` means every one, and for [`Kind::Issuer`] that
    /// `value` is it.
    pub(crate) issuer: Option<String>,
    /// The `jti`, the subject or the issuer.
    pub(crate) value: String,
    /// Tokens issued before this are meant; `None` means all.
    pub(crate) issued_before: Option<u32>,
    /// When it leaves by itself; `None` means never.
    pub(crate) expires: Option<u32>,
    /// When it was made.
    pub(crate) created: u64,
    /// What its maker wrote beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// [`Kind`] as text.
mod kind_text {
    use policy::replica::revocations::Kind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(kind: &Kind, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(super::kind_name(*kind))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let text = String::deserialize(from)?;
        [Kind::Token, Kind::Subject, Kind::Issuer]
            .into_iter()
            .find(|kind| super::kind_name(*kind) == text)
            .ok_or_else(|| Error::custom("an unknown kind of revocation"))
    }
}

/// The claim that a kind is about.
pub(crate) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Token => "jti",
        Kind::Subject => "sub",
        Kind::Issuer => "iss",
    }
}

impl Revocation {
    /// Its fingerprint, by which it is known everywhere.
    pub(crate) fn print(&self, keys: [u64; 2]) -> Print {
        Name { kind: self.kind, issuer: self.issuer.as_deref(), id: &self.value }.print(keys)
    }

    /// What the filter is told of it.
    pub(crate) fn times(&self) -> Times {
        let until = self.expires.map(|expires| expires.saturating_add(LINGER).min(u32::MAX - 1));
        Times { before: self.issued_before.unwrap_or(u32::MAX), until: until.unwrap_or(u32::MAX) }
    }
}

/// Seconds that a revocation outlives `expires`: tokens pass for up to a minute after they have
/// expired (the most that `clock_skew` may be), and a revocation must not leave before them.
const LINGER: u32 = 120;

/// The times of a revocation as the filter has them; [`u32::MAX`] stands for all, and for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Tokens issued before this.
    pub(crate) before: u32,
    /// Until then.
    pub(crate) until: u32,
}

/// One API key: the hash of its secret and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiKey {
    /// SHA-256 of the secret.
    pub(crate) sha256: [u8; 32],
    /// The rest.
    pub(crate) about: About,
}

/// What is known of an API key beside its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// What the filter is told.
    pub(crate) entry: api_keys::Entry,
    /// When its secret was made, in seconds since 1970.
    pub(crate) created: u64,
    /// Whether another secret has taken its place and it only lasts until it expires.
    pub(crate) replaced: bool,
}

/// What an administrator put in the place of a limit's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overridden {
    /// The numbers.
    pub(crate) change: Override,
    /// When, in seconds since 1970.
    pub(crate) since: u64,
}

/// One thing to change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Makes a revocation, or puts it in the place of the one with this fingerprint.
    PutRevocation(Print, Revocation),
    /// Removes one; nothing happens when there is none.
    DropRevocation(Print),
    /// Makes an API key, or puts it in the place of the one with this hash.
    PutKey(ApiKey),
    /// Removes the one of this hash; nothing happens when there is none.
    DropKey([u8; 32]),
    /// Makes a ban, or puts it in the place of what this key has.
    PutBan(BanKey, Ban),
    /// Forgets all that is known of this key; nothing happens when that is nothing.
    DropBan(BanKey),
    /// Overrides the limit of this name, whatever was there.
    PutOverride(String, Overridden),
    /// Removes that; nothing happens when there is none.
    DropOverride(String),
    /// A file was read anew (`None`: it is no longer wanted). Stores keep only that its bucket
    /// changed: secrets belong in their files.
    File(String, Option<Secret>),
}

impl Change {
    /// Where the filter has what changes.
    pub(crate) fn bucket(&self) -> Bucket {
        match self {
            Self::PutRevocation(print, _) | Self::DropRevocation(print) => {
                revocations::bucket(print)
            }
            Self::PutKey(ApiKey { sha256, .. }) | Self::DropKey(sha256) => api_keys::bucket(sha256),
            Self::PutBan(key, _) | Self::DropBan(key) => bans::bucket(&halves(key).0),
            Self::PutOverride(limit, _) | Self::DropOverride(limit) => overrides::bucket(limit),
            Self::File(path, _) => files::bucket(path),
        }
    }
}

/// Everything that is kept in memory.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The number of the last change.
    pub(crate) number: u64,
    /// Revocations, rising.
    pub(crate) revocations: Vec<(Print, Times)>,
    /// API keys, rising by hash.
    pub(crate) keys: Vec<ApiKey>,
    /// Bans, rising by key.
    pub(crate) bans: Vec<(BanKey, Ban)>,
    /// Overrides, rising by the limit's name.
    pub(crate) overrides: Vec<(String, Overridden)>,
    /// Every bucket that ever changed, with the number of its last change. No two share a number.
    pub(crate) buckets: Vec<(Bucket, u64)>,
}

/// Why a store did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// Another process has it open.
    Locked,
    /// It is not, or no longer, what a sidecar wrote.
    Corrupt(String),
    /// A newer sidecar wrote it.
    Newer(u64),
    /// The disk, or what lies before it, failed.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str(
                "is in use by another process; each sidecar needs a directory of its own",
            ),
            Self::Corrupt(why) => write!(
                f,
                "cannot be read as a store: {why}; put a copy of it from a backup there, or move \
                 it away to begin with nothing"
            ),
            Self::Newer(format) => write!(
                f,
                "was written by a newer sidecar (format {format}, known here: {}); install that \
                 one",
                embedded::FORMAT
            ),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// A place that survives. Calls block; every one may be made from any thread. After a failure a
/// store tries again with the next call.
pub(crate) trait Store: Send + Sync {
    /// What names it.
    fn identity(&self) -> Identity;

    /// Everything that is kept in memory.
    ///
    /// # Errors
    /// A [`StoreError`].
    fn load(&self) -> Result<Contents, StoreError>;

    /// Makes all changes durable, in order, or none of them. Each of `touched` in turn gets the next
    /// number; the last number is returned. With nothing touched no number is used up.
    ///
    /// # Errors
    /// A [`StoreError`]; whether the changes were made is then known after the next [`Self::load`].
    fn commit(&self, changes: &[Change], touched: &[Bucket]) -> Result<u64, StoreError>;

    /// One revocation.
    ///
    /// # Errors
    /// A [`StoreError`].
    fn revocation(&self, print: &Print) -> Result<Option<Revocation>, StoreError>;

    /// At most `limit` revocations that follow `after`, rising by fingerprint.
    ///
    /// # Errors
    /// A [`StoreError`].
    fn revocations(
        &self,
        after: Option<&Print>,
        limit: usize,
    ) -> Result<Vec<(Print, Revocation)>, StoreError>;
}
