//! Bans as the sidecar knows them: those that an administrator made, those that penalties made (so
//! that they outlive Envoy), and those that were lifted.
//!
//! A bucket is a list of records of 44 bytes. Names are fingerprints under the store's keys, as in
//! [`super::revocations`].

use super::{Bucket, Table};
use crate::fingerprint::Fingerprint;
use alloc::vec::Vec;

/// Most bans that a sidecar keeps: beyond this an administrator is told so, and a penalty's ban
/// lasts only as long as Envoy does.
pub const BANS_MAX: usize = 100_000;

/// What a ban is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An address.
    Ip,
    /// A user of a provider, or of any.
    User,
    /// An API key, by its id.
    ApiKey,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ip, Self::User, Self::ApiKey];

    /// The word in the admin API and in a limit's key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::User => "user",
            Self::ApiKey => "api_key",
        }
    }

    const fn domain(self) -> &'static str {
        match self {
            Self::Ip => "banned/ip",
            Self::User => "banned/user",
            Self::ApiKey => "banned/api_key",
        }
    }
}

/// Who is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// What the name is.
    pub kind: Kind,
    /// The provider of a user; `None` means that of every provider, and stands for addresses and
    /// API keys.
    pub provider: Option<&'a str>,
    /// The address in its canonical text (v4-mapped ones as v4), the user, or the id.
    pub name: &'a str,
}

/// A name as it stands in a record, without the provider.
pub type Print = [u8; 16];

impl Name<'_> {
    /// The fingerprint of kind and name under the store's keys; all providers' users of one name
    /// share it, and with it their bucket.
    #[must_use]
    pub fn print(&self, keys: [u64; 2]) -> Print {
        let half = |number: u8| {
            let mut print = Fingerprint::new(keys, self.kind.domain());
            print.part(&[number]);
            print.part(self.name.as_bytes());
            print.finish()
        };
        (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes()
    }

    /// The fingerprint of the provider; 0 for none.
    #[must_use]
    pub fn provider_print(&self, keys: [u64; 2]) -> u64 {
        let print = |provider| crate::fingerprint::of(keys, "banned/provider", provider);
        self.provider.map_or(0, print)
    }
}

/// The bucket of a fingerprint.
#[must_use]
pub const fn bucket(print: &Print) -> Bucket {
    let [a, b, c, d, ..] = *print;
    Bucket::of(Table::Bans, u32::from_be_bytes([a, b, c, d]))
}

/// What is known of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who it is.
    pub print: Print,
    /// The fingerprint of the provider; 0 for every one.
    pub provider: u64,
    /// The number of the penalty's ban that is meant; 0 for one that an administrator made.
    pub serial: u64,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Milliseconds since 1970 from which on the record says nothing; `u64::MAX` for never.
    pub until_ms: u64,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Banned.
    Banned,
    /// The ban of this serial was lifted.
    Lifted,
}

/// Bytes of a record: fingerprint, provider, serial, until, verdict, three to spare.
const SIZE: usize = 16 + 8 + 8 + 8 + 4;

/// The bytes of a bucket.
#[must_use]
pub fn encode(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::with_capacity(records.len() * SIZE);
    for record in records {
        out.extend_from_slice(&record.print);
        out.extend_from_slice(&record.provider.to_le_bytes());
        out.extend_from_slice(&record.serial.to_le_bytes());
        out.extend_from_slice(&record.until_ms.to_le_bytes());
        out.extend_from_slice(&[u8::from(record.verdict == Verdict::Banned), 0, 0, 0]);
    }
    out
}

/// The records of a bucket. A broken tail reads as nothing.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Record> + '_ {
    bytes.chunks_exact(SIZE).filter_map(|record| {
        let (print, rest) = record.split_first_chunk::<16>()?;
        let (provider, rest) = rest.split_first_chunk::<8>()?;
        let (serial, rest) = rest.split_first_chunk::<8>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        Some(Record {
            print: *print,
            provider: u64::from_le_bytes(*provider),
            serial: u64::from_le_bytes(*serial),
            until_ms: u64::from_le_bytes(*until),
            verdict: if rest.first() == Some(&1) { Verdict::Banned } else { Verdict::Lifted },
        })
    })
}

#[cfg(test)]
mod tests;
