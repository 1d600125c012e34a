//! Revoked tokens: by `jti`, by subject and issue time, by issuer and issue time.
//!
//! A bucket is a list of records of 24 bytes. Names are fingerprints of 128 bits under keys that
//! only the sidecar's store and this Envoy know, so that nobody can make a name that collides, and
//! by accident none does: no good token is denied.

use super::{Bucket, Table};
use crate::fingerprint::Fingerprint;
use crate::store::{Store, StoreError};
use alloc::vec::Vec;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The token of that `jti`.
    Token,
    /// All tokens of that subject issued before a time.
    Subject,
    /// All tokens of that issuer issued before a time.
    Issuer,
}

impl Kind {
    const fn domain(self) -> &'static str {
        match self {
            Self::Token => "revoked/jti",
            Self::Subject => "revoked/sub",
            Self::Issuer => "revoked/iss",
        }
    }
}

/// Who or what a revocation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// What is revoked.
    pub kind: Kind,
    /// The `iss` that it is limited to; `None` takes tokens of every issuer. For
    /// [`Kind::Issuer`] it is `None`, the issuer is the id.
    pub issuer: Option<&'a str>,
    /// The `jti`, the subject or the issuer.
    pub id: &'a str,
}

/// A name as it stands in a record.
pub type Print = [u8; 16];

impl Name<'_> {
    /// The fingerprint under the store's keys.
    #[must_use]
    pub fn print(&self, keys: [u64; 2]) -> Print {
        let half = |number: u8| {
            let mut print = Fingerprint::new(keys, self.kind.domain());
            print.part(&[number]);
            print.part(&[u8::from(self.issuer.is_some())]);
            print.part(self.issuer.unwrap_or_default().as_bytes());
            print.part(self.id.as_bytes());
            print.finish()
        };
        (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes()
    }
}

/// The bucket of a fingerprint.
#[must_use]
pub const fn bucket(print: &Print) -> Bucket {
    let [a, b, c, d, ..] = *print;
    Bucket::of(Table::Revocations, u32::from_be_bytes([a, b, c, d]))
}

/// One revocation. Times are whole seconds since 1970; `u32::MAX` stands for never and for whatever
/// lies beyond the year 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whom it names.
    pub print: Print,
    /// Tokens issued before this are revoked; `u32::MAX` for all.
    pub before: u32,
    /// From here on it has no effect: the tokens that it means have expired.
    pub until: u32,
}

/// Bytes of a record.
const SIZE: usize = 16 + 4 + 4;

/// The bytes of a bucket.
#[must_use]
pub fn encode(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::with_capacity(records.len() * SIZE);
    for record in records {
        out.extend_from_slice(&record.print);
        out.extend_from_slice(&record.before.to_le_bytes());
        out.extend_from_slice(&record.until.to_le_bytes());
    }
    out
}

/// The records of a bucket. A broken tail reads as nothing.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Record> + '_ {
    bytes.chunks_exact(SIZE).filter_map(|record| {
        let (print, times) = record.split_at_checked(16)?;
        let (before, until) = times.split_at_checked(4)?;
        Some(Record {
            print: print.try_into().ok()?,
            before: u32::from_le_bytes(before.try_into().ok()?),
            until: u32::from_le_bytes(until.try_into().ok()?),
        })
    })
}

/// What is looked up of a token whose signature holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Token<'a> {
    /// `jti`.
    pub id: Option<&'a str>,
    /// The subject claim.
    pub subject: Option<&'a str>,
    /// `iss`.
    pub issuer: Option<&'a str>,
    /// `iat` in whole seconds, rounded down; `None` when the token does not say, and then it counts
    /// as issued before everything.
    pub issued: Option<u64>,
}

/// Whether a token still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing names it.
    Good,
    /// It was revoked.
    Revoked,
}

/// Looks a token up: at most five reads, and none for a name that the token does not have.
///
/// # Errors
/// When shared data cannot be had.
pub fn look(
    token: &Token<'_>,
    keys: [u64; 2],
    store: &mut dyn Store,
    now_secs: u64,
) -> Result<Verdict, StoreError> {
    let Token { id, subject, issuer, issued } = *token;
    let name = |kind, issuer, id: Option<_>| id.map(|id| Name { kind, issuer, id });
    let everywhere = [
        name(Kind::Token, None, id),
        name(Kind::Subject, None, subject),
        name(Kind::Issuer, None, issuer),
    ];
    let here =
        issuer.map(|_| [name(Kind::Token, issuer, id), name(Kind::Subject, issuer, subject)]);
    for name in everywhere.into_iter().chain(here.into_iter().flatten()).flatten() {
        let print = name.print(keys);
        let bytes = bucket(&print).read(store)?;
        let hit = decode(&bytes).any(|record| {
            let meant = record.before == u32::MAX
                || issued.is_none_or(|issued| issued < u64::from(record.before));
            let lasting = record.until == u32::MAX || now_secs < u64::from(record.until);
            record.print == print && meant && lasting
        });
        if hit {
            return Ok(Verdict::Revoked);
        }
    }
    Ok(Verdict::Good)
}

#[cfg(test)]
mod tests;
