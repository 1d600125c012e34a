//! `authentication`: providers that cannot be mistaken for each other.

use super::headers::lower;
use super::places::Credential;
use super::{Site, paths};
use crate::config::section::Section;
use crate::model::{Algorithm, AuthMode, Authentication, Provider, TokenCache};
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::Value;

impl Site<'_> {
    pub(super) fn authentication(&mut self, section: &Section<'_>) -> Authentication {
        let jwt = section.section("jwt");
        let sections = jwt.sections("providers");
        self.unique_key(&sections, "name");
        self.unique_key(&sections, "issuer");
        let alone = sections.len() == 1;
        let cache = jwt.section("cache");
        let providers = sections.iter().map(|section| self.provider(section, alone)).collect();
        let api_keys = section.section_if_there("api_keys").map(|section| self.api_keys(&section));
        self.places_fit();
        Authentication {
            mode: match section.text("mode") {
                Some("optional") => AuthMode::Optional,
                _ => AuthMode::Required,
            },
            public: paths(section, "public"),
            clock_skew: jwt.span("clock_skew").unwrap_or(Nanos::ZERO),
            cache: TokenCache {
                max_entries: cache.integer("max_entries").unwrap_or(0),
                ttl: cache.span("ttl").unwrap_or(Nanos::SECOND),
            },
            providers,
            api_keys,
        }
    }

    fn provider(&mut self, section: &Section<'_>, alone: bool) -> Provider {
        self.issuer_and_audiences(section, alone);
        let named: Vec<_> = section.texts("algorithms");
        self.unique(&named);
        let find = |text: &str| Algorithm::ALL.into_iter().find(|known| known.name() == text);
        let algorithms: Vec<Algorithm> = named.iter().filter_map(|n| find(n.text)).collect();
        let forward = section.section("forward");
        Provider {
            name: section.string("name"),
            issuer: section.text("issuer").map(ToString::to_string),
            audiences: section.strings("audiences"),
            keys: self.keys(section, &algorithms),
            algorithms,
            locations: self.locations(section, Credential::Token),
            subject_claim: section.string("subject_claim"),
            require_subject: section.truth("require_subject").unwrap_or(false),
            tier_claim: section.text("tier_claim").map(ToString::to_string),
            permission_claims: section.strings("permission_claims"),
            require_expiry: section.truth("require_expiry").unwrap_or(true),
            max_lifetime: section.span("max_lifetime"),
            typ: section.text("typ").map(media_type),
            forward_token: forward.truth("token").unwrap_or(false),
            forward_claims: self.forward_claims(&forward),
        }
    }

    fn issuer_and_audiences(&mut self, section: &Section<'_>, alone: bool) {
        let empty = section.value("audiences").and_then(Value::as_array).is_some_and(Vec::is_empty);
        let missing = [
            ("issuer", !section.has("issuer"), "tokens of any issuer are accepted"),
            (
                "audiences",
                empty || !section.has("audiences"),
                "tokens made for any audience are accepted",
            ),
        ];
        for (key, _, sentence) in missing.into_iter().filter(|(_, missing, _)| *missing) {
            let at = section.at(key);
            if alone {
                self.warn(&at, &format!("none is stated, so {sentence} that the keys verify"));
            } else {
                let wrong = "is missing, and there are several providers".to_string();
                self.mistake(
                    &at,
                    wrong,
                    "stated with each provider, so that none answers for another",
                );
            }
        }
    }
}

/// A `typ` as it is compared: RFC 7515 section 4.1.9 lets `application/` be left out.
fn media_type(text: &str) -> String {
    let text = lower(text);
    text.strip_prefix("application/").map(ToString::to_string).unwrap_or(text)
}
