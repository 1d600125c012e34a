//! Where credentials are looked for in a request, and which headers a request is given: no place may
//! serve two ends.

use super::Site;
use super::headers::{is_hop_by_hop, lower};
use crate::config::section::{Placed, Section};
use crate::model::TokenLocation;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Headers that nothing of ours may replace: they steer routing, identity or tracing of the request
/// itself.
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

/// What stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// A token of a provider.
    Token,
    /// An API key.
    ApiKey,
}

/// What is known of the places so far.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Where credentials are looked for, with where that is written.
    credentials: Vec<(String, Credential, TokenLocation)>,
    /// Headers that the upstream is given, with where that is written.
    forwarded: Vec<(String, String)>,
    /// Whether a location was bad: it may have been anything.
    unclear: bool,
}

impl Places {
    /// Where a cookie is said to be a credential, with its name.
    pub(super) fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.credentials.iter().filter_map(|(path, _, location)| match location {
            TokenLocation::Cookie(name) => Some((path.as_str(), name.as_str())),
            TokenLocation::Header { .. } | TokenLocation::Query(_) => None,
        })
    }

    /// Whether credentials are looked for in that lower-case header.
    pub(super) fn is_credential_header(&self, header: &str) -> bool {
        self.credentials.iter().any(|(_, _, location)| match location {
            TokenLocation::Header { name, .. } => name == header,
            TokenLocation::Cookie(_) | TokenLocation::Query(_) => false,
        })
    }

    /// Whether the upstream is given that lower-case header.
    pub(super) fn is_forwarded(&self, header: &str) -> bool {
        self.forwarded.iter().any(|(_, name)| name == header)
    }

    /// Whether nothing here was bad.
    pub(super) fn is_clear(&self) -> bool {
        !self.unclear
    }
}

/// Whether something that stands in one place would be found in the other too.
fn overlap(one: &TokenLocation, other: &TokenLocation) -> bool {
    use TokenLocation::Header;
    match (one, other) {
        (Header { name: a, scheme: None }, Header { name: b, .. })
        | (Header { name: a, .. }, Header { name: b, scheme: None }) => a == b,
        _ => same(one, other),
    }
}

/// Whether both are the same place.
fn same(one: &TokenLocation, other: &TokenLocation) -> bool {
    use TokenLocation::Header;
    match (one, other) {
        (Header { name: a, scheme: Some(x) }, Header { name: b, scheme: Some(y) }) => {
            a == b && x.eq_ignore_ascii_case(y)
        }
        _ => one == other,
    }
}

impl Site<'_> {
    /// The locations of a provider or of API keys.
    pub(super) fn locations(
        &mut self,
        owner: &Section<'_>,
        what: Credential,
    ) -> Vec<TokenLocation> {
        self.places.unclear |= owner.value("locations").is_none();
        let mut locations: Vec<TokenLocation> = Vec::new();
        for section in owner.sections("locations") {
            if section.has("scheme") && !section.has("header") {
                let wrong = "goes with a header only".to_string();
                self.mistake(&section.at("scheme"), wrong, "leave it out");
            }
            let Some(location) = location(&section) else {
                self.places.unclear = true;
                continue;
            };
            if locations.iter().any(|earlier| same(earlier, &location)) {
                let wrong = "says the same as an earlier location".to_string();
                self.mistake(section.path(), wrong, "each only once");
            }
            if matches!(location, TokenLocation::Query(_)) {
                self.warn(
                    &section.at("query"),
                    "addresses end up in logs and histories, and the credential with them; a \
                     header does not",
                );
            }
            self.places.credentials.push((section.path().to_string(), what, location.clone()));
            locations.push(location);
        }
        locations
    }

    /// The headers that carry claims to the upstream.
    pub(super) fn forward_claims(&mut self, forward: &Section<'_>) -> Vec<(String, String)> {
        let mut claims: Vec<(String, String)> = Vec::new();
        for (claim, header) in forward.pairs("claims") {
            let name = self.forward_header(&header, "a claim");
            if let Some((other, _)) = claims.iter().find(|(_, taken)| *taken == name) {
                let wrong = format!("the header {name} already carries the claim {other:?}");
                self.mistake(&header.path, wrong, "one header for each claim");
            }
            claims.push((claim.to_string(), name));
        }
        claims
    }

    /// A header that the upstream is given, in lower case.
    pub(super) fn forward_header(&mut self, header: &Placed<'_>, what: &str) -> String {
        let name = lower(header.text);
        let forbidden = FORWARD_FORBIDDEN.contains(&name.as_str())
            || FORWARD_FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || is_hop_by_hop(&name);
        if forbidden {
            let wrong = format!("{what} must not replace the header {name}");
            self.mistake(&header.path, wrong, "a header of its own such as x-user-id");
        }
        self.places.forwarded.push((header.path.clone(), name.clone()));
        name
    }

    /// Checks the places of all providers and of API keys against each other.
    pub(super) fn places_fit(&mut self) {
        let places = core::mem::take(&mut self.places);
        let (tokens, keys): (Vec<_>, Vec<_>) =
            places.credentials.iter().partition(|(_, what, _)| *what == Credential::Token);
        for (path, _, key) in keys {
            let token = tokens.iter().find(|(_, _, token)| overlap(token, key));
            if let Some((other, _, _)) = token {
                let wrong = format!("tokens are looked for in the same place, by {other}");
                self.mistake(path, wrong, "a place of its own, or another scheme");
            }
        }
        for (path, header) in &places.forwarded {
            if places.is_credential_header(header) && header != "authorization" {
                let wrong = format!(
                    "credentials are looked for in the header {header}, and what is sent in \
                     headers like this is removed first"
                );
                self.mistake(path, wrong, "a header of its own such as x-user-id");
            }
        }
        self.places = places;
    }
}

fn location(section: &Section<'_>) -> Option<TokenLocation> {
    let scheme = section.text("scheme").map(ToString::to_string);
    match (section.text("header"), section.text("cookie"), section.text("query")) {
        (Some(name), _, _) => Some(TokenLocation::Header { name: lower(name), scheme }),
        (_, Some(name), _) => Some(TokenLocation::Cookie(name.to_string())),
        (_, _, Some(name)) => Some(TokenLocation::Query(name.to_string())),
        _ => None,
    }
}
