//! `authentication.api_keys`: keys that cannot be mistaken for each other.

use super::places::Credential;
use super::{Site, cidrs};
use crate::config::section::{Placed, Section};
use crate::config::text::{parse_sha256, parse_time};
use crate::model::{ApiKey, ApiKeys};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::Value;

impl Site<'_> {
    pub(super) fn api_keys(&mut self, section: &Section<'_>) -> ApiKeys {
        let locations = self.locations(section, Credential::ApiKey);
        let sections = section.sections("keys");
        let none = section.value("keys").and_then(Value::as_array).is_some_and(Vec::is_empty);
        if none && !self.whole.has("sidecar") {
            let wrong = "no key is listed, and without a section `sidecar` none can be made";
            self.mistake(section.path(), wrong.to_string(), "a key in `keys`, or a `sidecar`");
        }
        self.unique_ids(&sections);
        self.unique_hashes(&sections);
        let forward = section.section("forward");
        let forward_id = forward.text("id").map(|text| {
            let header = Placed { path: forward.at("id"), text };
            self.shared_header(&header);
            self.forward_header(&header, "the id")
        });
        ApiKeys {
            locations,
            keys: sections.iter().filter_map(api_key).collect(),
            forward_key: forward.truth("key").unwrap_or(false),
            forward_id,
        }
    }

    /// One id for several keys is how one replaces the other: all but one must come to an end.
    fn unique_ids(&mut self, sections: &[Section<'_>]) {
        let mut lasting: BTreeMap<&str, String> = BTreeMap::new();
        for section in sections.iter().filter(|section| !section.has("expires")) {
            let Some(id) = section.text("id") else { continue };
            let at = section.at("id");
            if let Some(earlier) = lasting.get(id) {
                let wrong = format!("{id:?} is already taken by {earlier}, and neither expires");
                let allowed = "an id of its own, or `expires` for all keys of an id but one";
                self.mistake(&at, wrong, allowed);
            } else {
                lasting.insert(id, at);
            }
        }
    }

    fn unique_hashes(&mut self, sections: &[Section<'_>]) {
        let mut seen: BTreeMap<[u8; 32], String> = BTreeMap::new();
        for section in sections {
            let Some(hash) = section.text("sha256").and_then(parse_sha256) else { continue };
            let at = section.at("sha256");
            if let Some(earlier) = seen.get(&hash) {
                let wrong = format!("is the same hash as {earlier}");
                self.mistake(&at, wrong, "a secret of its own for each key");
            } else {
                seen.insert(hash, at);
            }
        }
    }

    /// A header that tells users by a claim and keys by their id tells nobody which of both it is.
    fn shared_header(&mut self, header: &Placed<'_>) {
        if self.places.is_forwarded(&super::headers::lower(header.text)) {
            self.warn(
                &header.path,
                "the header carries a claim too, so the upstream cannot tell a key from a user of \
                 the same name",
            );
        }
    }
}

fn api_key(section: &Section<'_>) -> Option<ApiKey> {
    Some(ApiKey {
        id: section.string("id"),
        sha256: section.text("sha256").and_then(parse_sha256)?,
        permissions: section.strings("permissions"),
        tier: section.text("tier").map(ToString::to_string),
        expires: section.text("expires").and_then(parse_time),
        cidrs: cidrs(section, "cidrs"),
    })
}
