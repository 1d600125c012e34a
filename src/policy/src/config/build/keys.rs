//! The keys of a provider: a source that fits its algorithms.

use super::Site;
use super::secrets::Least;
use crate::config::section::Section;
use crate::model::{Algorithm, Keys, RemoteKeys, Secret, SecretSource};
use crate::time::Nanos;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use serde_json::Value;

/// What holds a key set.
const SETS: [&str; 3] = ["jwks_inline", "jwks_file", "jwks"];

impl Site<'_> {
    /// The keys, checked against the algorithms that will use them.
    pub(super) fn keys(&mut self, provider: &Section<'_>, algorithms: &[Algorithm]) -> Keys {
        let keys = provider.section("keys");
        let shared = keys.section_if_there("secret");
        let has_set = SETS.iter().any(|name| keys.value(name).is_some());
        for algorithm in algorithms {
            let wrong = match (algorithm.is_hmac(), shared.is_some(), has_set) {
                (true, false, true) => "needs a shared secret, but a key set is given",
                (false, true, false) => "needs a key set, but a shared secret is given",
                _ => continue,
            };
            let wrong = format!("{} {wrong}", algorithm.name());
            let allowed = "HS* with `keys.secret`; all others with `keys.jwks_inline`, \
                           `keys.jwks_file` or `keys.jwks`";
            self.mistake(&provider.at("algorithms"), wrong, allowed);
        }
        if let Some(set) = keys.value("jwks_inline").and_then(Value::as_object) {
            let filled = set.get("keys").and_then(Value::as_array).is_some_and(|k| !k.is_empty());
            if !filled {
                let wrong = "has no list `keys` with a key in it".to_string();
                self.mistake(&keys.at("jwks_inline"), wrong, "a JWK Set (RFC 7517 section 5)");
            }
            return Keys::Inline(set.clone());
        }
        if let Some(path) = keys.text("jwks_file") {
            self.needs_sidecar(&keys.at("jwks_file"), "the sidecar is what reads files");
            return Keys::File(path.to_string());
        }
        if let Some(remote) = keys.section_if_there("jwks") {
            return Keys::Remote(remote_keys(&remote));
        }
        Keys::Secret(match shared {
            Some(reference) => self.hmac_secret(&reference, algorithms),
            None => SecretSource::Known(Secret::new(Vec::new())),
        })
    }

    /// A secret at least as long as the longest hash that is keyed with it.
    fn hmac_secret(&mut self, reference: &Section<'_>, algorithms: &[Algorithm]) -> SecretSource {
        let longest = algorithms.iter().max_by_key(|algorithm| algorithm.secret_len_min());
        let (bytes, name) = longest.map_or((0, ""), |a| (a.secret_len_min(), a.name()));
        let purpose = format!("{name} (RFC 7518 section 3.2)");
        self.secret_source(reference, &Least { bytes, purpose: &purpose })
    }
}

fn remote_keys(section: &Section<'_>) -> RemoteKeys {
    let span = |name: &str| section.span(name).unwrap_or(Nanos::SECOND);
    RemoteKeys {
        cluster: section.string("cluster"),
        host: section.string("host"),
        path: section.string("path"),
        refresh: span("refresh"),
        max_stale: span("max_stale"),
        timeout: span("timeout"),
        cooldown: span("cooldown"),
    }
}
