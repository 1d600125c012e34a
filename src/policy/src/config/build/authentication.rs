//! `authentication`: providers that cannot be mistaken for each other, keys that fit algorithms.

use super::headers::{is_hop_by_hop, lower};
use super::{Found, Site, paths};
use crate::config::section::Section;
use crate::model::{
    Algorithm, AuthMode, Authentication, Keys, Provider, Secret, SecretSource, TokenCache,
    TokenLocation,
};
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::Value;

/// Shortest key for HS256: as long as the hash (RFC 7518 section 3.2).
const HS256_KEY_LEN_MIN: usize = 32;

/// Headers that no claim may replace: they steer routing, identity or tracing of the request itself.
const FORWARD_FORBIDDEN: [&str; 8] = [
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "x-request-id",
    "x-real-ip",
];
/// The same by how they begin: Envoy believes these.
const FORWARD_FORBIDDEN_PREFIXES: [&str; 2] = ["x-forwarded-", "x-envoy-"];

impl Site<'_> {
    pub(super) fn authentication(&mut self, section: &Section<'_>) -> Authentication {
        let jwt = section.section("jwt");
        let sections = jwt.sections("providers");
        self.unique_key(&sections, "name");
        self.unique_key(&sections, "issuer");
        let alone = sections.len() == 1;
        Authentication {
            mode: match section.text("mode") {
                Some("optional") => AuthMode::Optional,
                _ => AuthMode::Required,
            },
            public: paths(section, "public"),
            clock_skew: jwt.span("clock_skew").unwrap_or(Nanos::ZERO),
            cache: TokenCache { max_entries: 10_000, ttl: Nanos::from_secs(300) },
            api_keys: None,
            providers: sections.iter().map(|section| self.provider(section, alone)).collect(),
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
            locations: self.locations(section),
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

    /// The keys, checked against the algorithms that will use them.
    fn keys(&mut self, provider: &Section<'_>, algorithms: &[Algorithm]) -> Keys {
        let keys = provider.section("keys");
        let shared = keys.section_if_there("secret");
        let set = keys.value("jwks_inline").and_then(Value::as_object);
        for algorithm in algorithms {
            let is_hmac = *algorithm == Algorithm::Hs256;
            let wrong = match (is_hmac, shared.is_some(), set.is_some()) {
                (true, false, true) => "needs a shared secret, but a key set is given",
                (false, true, false) => "needs a key set, but a shared secret is given",
                _ => continue,
            };
            let wrong = format!("{} {wrong}", algorithm.name());
            let allowed = "HS256 with `keys.secret`; RS256 and ES256 with `keys.jwks_inline`";
            self.mistake(&provider.at("algorithms"), wrong, allowed);
        }
        if let Some(set) = set {
            let filled = set.get("keys").and_then(Value::as_array).is_some_and(|k| !k.is_empty());
            if !filled {
                let wrong = "has no list `keys` with a key in it".to_string();
                self.mistake(&keys.at("jwks_inline"), wrong, "a JWK Set (RFC 7517 section 5)");
            }
            return Keys::Inline(set.clone());
        }
        let secret = shared.map_or_else(|| Secret::new(Vec::new()), |s| self.hmac_secret(&s));
        Keys::Secret(SecretSource::Known(secret))
    }

    fn hmac_secret(&mut self, reference: &Section<'_>) -> Secret {
        let Found::Known(secret) = self.secret(reference) else { return Secret::new(Vec::new()) };
        let length = secret.reveal().len();
        if length < HS256_KEY_LEN_MIN {
            let wrong = format!("the secret has {length} bytes");
            let allowed = format!(
                "at least {HS256_KEY_LEN_MIN} bytes for HS256 (RFC 7518 section 3.2), \
                 such as the output of `openssl rand -hex 32`"
            );
            self.mistake(reference.path(), wrong, allowed);
        }
        secret
    }

    fn locations(&mut self, provider: &Section<'_>) -> Vec<TokenLocation> {
        let mut locations = Vec::new();
        for section in provider.sections("locations") {
            let scheme = section.text("scheme").map(ToString::to_string);
            let location =
                match (section.text("header"), section.text("cookie"), section.text("query")) {
                    (Some(name), _, _) => TokenLocation::Header { name: lower(name), scheme },
                    (_, Some(name), _) => TokenLocation::Cookie(name.to_string()),
                    (_, _, Some(name)) => TokenLocation::Query(name.to_string()),
                    _ => continue,
                };
            if section.has("scheme") && !section.has("header") {
                let wrong = "goes with a header only".to_string();
                self.mistake(&section.at("scheme"), wrong, "leave it out");
            }
            if locations.contains(&location) {
                let wrong = "says the same as an earlier location".to_string();
                self.mistake(section.path(), wrong, "each only once");
            }
            locations.push(location);
        }
        locations
    }

    fn forward_claims(&mut self, forward: &Section<'_>) -> Vec<(String, String)> {
        let mut claims: Vec<(String, String)> = Vec::new();
        for (claim, header) in forward.pairs("claims") {
            let name = lower(header.text);
            let forbidden = FORWARD_FORBIDDEN.contains(&name.as_str())
                || FORWARD_FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || is_hop_by_hop(&name);
            if forbidden {
                let wrong = format!("a claim must not replace the header {name}");
                self.mistake(&header.path, wrong, "a header of its own such as x-user-id");
            }
            if let Some((other, _)) = claims.iter().find(|(_, taken)| *taken == name) {
                let wrong = format!("the header {name} already carries the claim {other:?}");
                self.mistake(&header.path, wrong, "one header for each claim");
            }
            claims.push((claim.to_string(), name));
        }
        claims
    }
}

/// A `typ` as it is compared: RFC 7515 section 4.1.9 lets `application/` be left out.
fn media_type(text: &str) -> String {
    let text = lower(text);
    text.strip_prefix("application/").map(ToString::to_string).unwrap_or(text)
}
