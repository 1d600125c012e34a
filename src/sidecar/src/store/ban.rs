//! Bans as they are kept: what an administrator said, and what a penalty did, of one name.
//!
//! An administrator's word takes the place of the penalty's ban: it holds until the time that was
//! said and no longer, and when it is taken back the penalty's ban is lifted as well. So nothing is
//! in force that cannot be seen.

use policy::replica::bans::{Kind, Name, Print, Record, Verdict};
use serde::{Deserialize, Serialize};

/// For how long beyond its end it stays known that a penalty's ban was lifted, in milliseconds: the
/// filter's own record ends by a clock that does not follow when the wall clock is set forward. An
/// hour is more than a clock that is looked after is ever wrong by.
const LIFTED_MARGIN_MS: u64 = 3_600_000;

/// By what a ban is known: the fingerprint of kind and name, then that of the provider (big-endian; 0
/// for every provider).
pub(crate) type BanKey = [u8; 24];

/// Everything that is known of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ban {
    /// What the name is.
    #[serde(with = "kind_text")]
    pub(crate) kind: Kind,
    /// The provider of a user; `None` means that of every provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<String>,
    /// The address in its canonical text, the user, or the id of the API key.
    pub(crate) name: String,
    /// What an administrator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<AdminBan>,
    /// What a penalty did last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) penalty: Option<PenaltyBan>,
}

/// A ban that an administrator made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminBan {
    /// When, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// Until when, likewise; `None` until it is deleted.
    pub(crate) until_ms: Option<u64>,
    /// What its maker wrote beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// A ban that a penalty made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PenaltyBan {
    /// Its number in the filter.
    pub(crate) serial: u64,
    /// The limit whose penalty it is.
    pub(crate) limit: String,
    /// How many came before it and are not forgotten.
    pub(crate) level: u32,
    /// When it was made, in milliseconds since 1970.
    pub(crate) made_ms: u64,
    /// Until when, likewise.
    pub(crate) until_ms: u64,
    /// Whether it holds.
    pub(crate) stands: Stands,
}

impl PenaltyBan {
    /// From when on nobody needs to know that it was lifted.
    pub(crate) const fn lifted_until_ms(&self) -> u64 {
        self.until_ms.saturating_add(LIFTED_MARGIN_MS)
    }
}

/// Whether a penalty's ban holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stands {
    /// It does.
    Banned,
    /// An administrator has lifted it.
    Lifted,
}

/// Who made the ban that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// An administrator.
    Admin(&'a AdminBan),
    /// A penalty.
    Penalty(&'a PenaltyBan),
}

impl Source<'_> {
    /// Until when; `None` for a ban that has no end.
    pub(crate) const fn until_ms(&self) -> Option<u64> {
        match self {
            Self::Admin(ban) => ban.until_ms,
            Self::Penalty(ban) => Some(ban.until_ms),
        }
    }
}

impl Ban {
    /// Nothing known of a name.
    pub(crate) const fn nobody(kind: Kind, provider: Option<String>, name: String) -> Self {
        Self { kind, provider, name, admin: None, penalty: None }
    }

    /// By what it is known.
    pub(crate) fn key(&self, keys: [u64; 2]) -> BanKey {
        let provider = self.provider.as_deref();
        let name = Name { kind: self.kind, provider, name: &self.name };
        let mut key = [0; 24];
        let parts = name.print(keys).into_iter().chain(name.provider_print(keys).to_be_bytes());
        for (place, byte) in key.iter_mut().zip(parts) {
            *place = byte;
        }
        key
    }

    /// How the penalty's ban stands by all that was said: beside an administrator's word it is lifted.
    pub(crate) fn stands(&self) -> Option<Stands> {
        let penalty = self.penalty.as_ref()?;
        Some(if self.admin.is_some() { Stands::Lifted } else { penalty.stands })
    }

    /// The ban that is in force; `None` where none is.
    pub(crate) fn in_force(&self, now_ms: u64) -> Option<Source<'_>> {
        let source = match (&self.admin, &self.penalty) {
            (Some(admin), _) => Source::Admin(admin),
            (None, Some(ban)) if ban.stands == Stands::Banned => Source::Penalty(ban),
            _ => return None,
        };
        source.until_ms().is_none_or(|until| now_ms < until).then_some(source)
    }

    /// From when on nothing of it matters; `None` for never.
    pub(crate) fn over_ms(&self) -> Option<u64> {
        let admin = self.admin.as_ref().map_or(Some(0), |admin| admin.until_ms)?;
        let told = self.penalty.as_ref().zip(self.stands()).map(told);
        Some(admin.max(told.map_or(0, |(_, until)| until)))
    }

    /// What the filter is told of it.
    pub(crate) fn records(&self, key: &BanKey) -> impl Iterator<Item = Record> {
        let (print, provider) = halves(key);
        let record =
            move |serial, verdict, until_ms| Record { print, provider, serial, verdict, until_ms };
        let admin = self
            .admin
            .as_ref()
            .map(|admin| record(0, Verdict::Banned, admin.until_ms.unwrap_or(u64::MAX)));
        let penalty = self.penalty.as_ref().zip(self.stands()).map(|(ban, stands)| {
            let (verdict, until_ms) = told((ban, stands));
            record(ban.serial, verdict, until_ms)
        });
        admin.into_iter().chain(penalty)
    }
}

/// What is said of a penalty's ban, and until when.
const fn told((ban, stands): (&PenaltyBan, Stands)) -> (Verdict, u64) {
    match stands {
        Stands::Banned => (Verdict::Banned, ban.until_ms),
        Stands::Lifted => (Verdict::Lifted, ban.lifted_until_ms()),
    }
}

/// The fingerprints of a key.
pub(crate) fn halves(key: &BanKey) -> (Print, u64) {
    let (mut print, mut provider) = ([0; 16], [0; 8]);
    let places = print.iter_mut().chain(&mut provider);
    for (place, byte) in places.zip(key) {
        *place = *byte;
    }
    (print, u64::from_be_bytes(provider))
}

/// [`Kind`] as text.
mod kind_text {
    use policy::replica::bans::Kind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(kind: &Kind, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let text = String::deserialize(from)?;
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| Error::custom("an unknown kind of ban"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(admin: Option<Option<u64>>, penalty: Option<(u64, Stands)>) -> Ban {
        let admin = admin.map(|until_ms| AdminBan { since_ms: 1, until_ms, note: None });
        let penalty = penalty.map(|(until_ms, stands)| PenaltyBan {
            serial: 7,
            limit: "l".into(),
            level: 0,
            made_ms: 1,
            until_ms,
            stands,
        });
        Ban { admin, penalty, ..Ban::nobody(Kind::User, Some("idp".into()), "u".into()) }
    }

    /// What a ban is at 50: until when it holds, when it can go, and what the filter is told.
    #[track_caller]
    fn check(ban: &Ban, until: Option<Option<u64>>, over: Option<u64>, told: &[(u64, Verdict)]) {
        assert_eq!(ban.in_force(50).map(|source| source.until_ms()), until);
        assert_eq!(ban.over_ms(), over);
        let key = ban.key([1, 2]);
        let records: Vec<Record> = ban.records(&key).collect();
        let said: Vec<_> = records.iter().map(|record| (record.serial, record.verdict)).collect();
        assert_eq!(said, told);
        let name = Name { kind: Kind::User, provider: Some("idp"), name: "u" };
        for record in records {
            assert_eq!(record.print, name.print([1, 2]));
            assert_eq!(record.provider, name.provider_print([1, 2]));
        }
    }

    #[test]
    fn an_administrators_word_takes_the_place_of_the_penaltys() {
        let (banned, lifted) = (Verdict::Banned, Verdict::Lifted);
        let later = 90 + LIFTED_MARGIN_MS;
        check(&ban(None, None), None, Some(0), &[]);
        check(&ban(Some(None), None), Some(None), None, &[(0, banned)]);
        check(&ban(Some(Some(60)), None), Some(Some(60)), Some(60), &[(0, banned)]);
        check(&ban(Some(Some(50)), None), None, Some(50), &[(0, banned)]);
        let penalty = Some((90, Stands::Banned));
        check(&ban(None, penalty), Some(Some(90)), Some(90), &[(7, banned)]);
        check(
            &ban(Some(Some(60)), penalty),
            Some(Some(60)),
            Some(later),
            &[(0, banned), (7, lifted)],
        );
        // It was meant to end before the penalty's, and does.
        check(&ban(Some(Some(40)), penalty), None, Some(later), &[(0, banned), (7, lifted)]);
        check(&ban(None, Some((90, Stands::Lifted))), None, Some(later), &[(7, lifted)]);
    }

    #[test]
    fn what_was_lifted_stays_so_beyond_its_end() {
        let admin = Some(Some(60));
        for (ban, over) in [
            (ban(None, Some((90, Stands::Lifted))), 90 + LIFTED_MARGIN_MS),
            (ban(admin, Some((90, Stands::Banned))), 90 + LIFTED_MARGIN_MS),
            (ban(None, Some((90, Stands::Banned))), 90),
            (ban(admin, None), 60),
        ] {
            assert_eq!(ban.over_ms(), Some(over));
            // The filter goes by what it is told, and no longer.
            let until = ban.records(&ban.key([1, 2])).map(|record| record.until_ms).max();
            assert_eq!(until, Some(over));
        }
    }

    #[test]
    fn a_key_has_its_provider_behind_the_name() {
        let with = ban(None, None).key([1, 2]);
        let without = Ban { provider: None, ..ban(None, None) }.key([1, 2]);
        assert_eq!(with[..16], without[..16]);
        assert_eq!(without[16..], [0; 8]);
        assert_ne!(with[16..], [0; 8]);
    }
}
