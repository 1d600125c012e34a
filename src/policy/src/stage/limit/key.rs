//! What a limit tells clients apart by: where a key's record is, whose it is, and how it is written
//! out for people.
//!
//! A key comes from a request or from an administrator; both feed the same parts to the same
//! fingerprint, so that he finds what requests have left.

use crate::fingerprint::{self, Fingerprint};
use crate::model::{KeyPart, Limit, LimitAlgorithm};
use crate::stage::ban::Who;
use crate::stage::limit::Subject;
use crate::table::Place;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use core::net::IpAddr;

/// What a key part reads as when the request does not have it (contract, section 3, notes).
pub(super) const MISSING: &str = "-";
/// Longest text of a key. A header may be longer; such a key is not told at all, because what is left
/// of it when it is cut may be another one.
pub const KEY_TEXT_MAX: usize = 512;

/// A limit's table: its fingerprint, and what its records mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) print: u64,
    pub(super) shape: u32,
}

impl Table {
    /// The table of a limit. Its records mean something else, and begin anew, when the algorithm,
    /// the key or the length of a window changes; other numbers apply to the records that are there.
    pub(super) fn of(limit: &Limit, seed: [u64; 2]) -> Self {
        let mut print = Fingerprint::new([0, 0], "shape");
        print.part(limit.algorithm.name().as_bytes());
        if let LimitAlgorithm::SlidingWindow(window) = &limit.algorithm {
            print.part(&window.per.0.to_le_bytes());
        }
        for part in &limit.key {
            print.part(part.to_string().as_bytes());
        }
        Self {
            print: fingerprint::of(seed, "table of a limit", &limit.name),
            shape: half(print.finish()),
        }
    }

    pub(super) fn place(self, limit: &Limit, print: Fingerprint) -> Place {
        let Self { print: table, shape } = self;
        Place { table, sets: limit.table_sets, shape, tag: print.finish() }
    }
}

/// The low half of a fingerprint, never zero.
pub(super) fn half(print: u64) -> u32 {
    let [a, b, c, d, ..] = print.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// The value of a key part.
pub(super) enum Value<'a> {
    /// The request has none.
    Missing,
    /// Bytes of a request or of the policy.
    Bytes(Cow<'a, [u8]>),
    /// An address.
    Address(IpAddr),
    /// An identity.
    Identity(Who<'a>),
}

impl<'a> Value<'a> {
    fn text(value: Option<&'a str>) -> Self {
        value.map_or(Self::Missing, |text| Self::Bytes(Cow::Borrowed(text.as_bytes())))
    }

    /// What a request has for a part.
    fn of(part: &KeyPart, subject: &Subject<'a>) -> Self {
        let Subject { facts, identity, .. } = *subject;
        match part {
            KeyPart::Service => Self::text(facts.service),
            KeyPart::Endpoint => Self::text(Some(subject.endpoint)),
            KeyPart::User => identity.and_then(Who::of).map_or(Self::Missing, Self::Identity),
            KeyPart::ApiKey => Self::text(identity.and_then(|identity| identity.api_key())),
            KeyPart::Tier => Self::text(identity.and_then(|identity| identity.tier())),
            KeyPart::Claim(name) => {
                let claim = identity.and_then(|identity| identity.claim(name));
                claim.map_or(Self::Missing, |text| Self::Bytes(Cow::Owned(text.into_bytes())))
            }
            KeyPart::Header(name) => {
                let value = facts.headers.first(name);
                value.map_or(Self::Missing, |bytes| Self::Bytes(Cow::Borrowed(bytes)))
            }
            KeyPart::Ip => facts.client.map_or(Self::Missing, Self::address),
        }
    }

    /// A v4-mapped v6 address is the v4 address that it maps: one client, one key.
    pub(super) fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }

    /// Adds the value to a fingerprint. What kind of value it is can be told from its first part, so
    /// no two keys of one limit are the same parts.
    pub(super) fn feed(&self, print: &mut Fingerprint) {
        match self {
            Self::Missing => print.part(MISSING.as_bytes()),
            Self::Bytes(bytes) => print.part(bytes),
            Self::Address(IpAddr::V4(address)) => print.part(&address.octets()),
            Self::Address(IpAddr::V6(address)) => print.part(&address.octets()),
            Self::Identity(who) => who.feed(print),
        }
    }

    fn write(&self, name: &str, out: &mut String) {
        match self {
            Self::Missing => pair(name, MISSING.as_bytes(), out),
            Self::Bytes(bytes) => pair(name, bytes, out),
            Self::Address(address) => pair(name, address.to_string().as_bytes(), out),
            Self::Identity(who) => {
                let named = who.named();
                pair(name, named.name.as_bytes(), out);
                if let Some(provider) = named.provider {
                    pair(PROVIDER, provider.as_bytes(), out);
                }
            }
        }
    }
}

/// Stands beside `user` in a key's text, and narrows it to one provider's.
pub(super) const PROVIDER: &str = "provider";

/// Where a request's record of a limit is.
pub(super) fn place(limit: &Limit, table: Table, subject: &Subject<'_>, seed: [u64; 2]) -> Place {
    let mut print = Fingerprint::new(seed, "limit");
    for part in &limit.key {
        Value::of(part, subject).feed(&mut print);
    }
    table.place(limit, print)
}

/// Whose a request's record of a limit is: the identity's and the address's, where the key tells
/// them apart.
pub(super) fn whose(limit: &Limit, subject: &Subject<'_>, seed: [u64; 2]) -> [u32; 2] {
    let print = |who: Option<Who<'_>>| who.map_or(0, |who| half(who.print(seed)));
    let has = |wanted: &KeyPart| limit.key.contains(wanted);
    let address = has(&KeyPart::Ip).then(|| subject.facts.client.map(Who::Ip)).flatten();
    [print(told_apart(limit, subject)), print(address)]
}

/// The identity, where the key tells it apart from all others.
fn told_apart<'a>(limit: &Limit, subject: &Subject<'a>) -> Option<Who<'a>> {
    subject.identity.and_then(Who::of).filter(|who| tells_apart(limit, who))
}

/// Whether a limit's key tells somebody apart from all others: `api_key` does not tell users apart.
fn tells_apart(limit: &Limit, who: &Who<'_>) -> bool {
    limit.key.iter().any(|part| match part {
        KeyPart::User => !matches!(who, Who::Ip(_)),
        KeyPart::ApiKey => matches!(who, Who::ApiKey(_)),
        KeyPart::Ip => matches!(who, Who::Ip(_)),
        _ => false,
    })
}

/// Whether a penalty of this limit may ban somebody: an identity where the key tells identities apart,
/// and then never an address, which others may share.
pub(crate) fn may_ban(limit: &Limit, who: &Who<'_>) -> bool {
    tells_apart(limit, who) && (!matches!(who, Who::Ip(_)) || !has_name(limit))
}

/// Whom a penalty of this limit bans; an anonymous request is nobody to a key that has names.
pub(super) fn culprit<'a>(limit: &Limit, subject: &Subject<'a>) -> Option<Who<'a>> {
    let who = if has_name(limit) {
        subject.identity.and_then(Who::of)
    } else {
        subject.facts.client.map(Who::Ip)
    };
    who.filter(|who| may_ban(limit, who))
}

fn has_name(limit: &Limit) -> bool {
    limit.key.iter().any(|part| matches!(part, KeyPart::User | KeyPart::ApiKey))
}

/// A key as the admin API writes it: `part=value,...`, both percent-encoded. Empty for a limit without
/// a key; `None` for one that is longer than [`KEY_TEXT_MAX`] bytes.
#[must_use]
pub fn key_text(limit: &Limit, subject: &Subject<'_>) -> Option<String> {
    let mut text = String::new();
    for part in &limit.key {
        Value::of(part, subject).write(&part.to_string(), &mut text);
    }
    Some(text).filter(|text| text.len() <= KEY_TEXT_MAX)
}

fn pair(name: &str, value: &[u8], out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    encode(name.as_bytes(), out);
    out.push('=');
    encode(value, out);
}

/// Percent-encodes all but what RFC 3986 calls unreserved, and the colon of `header:name`.
fn encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(*byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}
