//! `security_headers`: the presets and what is changed in them. And which headers are off limits.

use super::Site;
use crate::config::section::Section;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Contract section 4, word for word.
const SEED: [(&str, &str); 7] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "1; mode=block"),
    ("strict-transport-security", "max-age=31536000"),
    ("content-security-policy", "default-src 'self'"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "geolocation=(), microphone=(), camera=()"),
];

/// OWASP REST Security Cheat Sheet, "Security Headers": the headers that every API response should
/// have, and `Referrer-Policy` of its second table. `Content-Type` is the upstream's own. The sheet
/// gives no value for HSTS; `includeSubDomains` is left out, because a gateway cannot know what its
/// sibling hosts can do.
const OWASP_API: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    ("content-security-policy", "frame-ancestors 'none'"),
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
];

/// Headers that belong to one connection (RFC 9110 section 7.6.1 and its older relatives).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Response headers that describe the body: a fixed value would be a lie.
const BODY_HEADERS: [&str; 3] = ["content-encoding", "content-length", "content-type"];

/// A header name as Envoy keeps it.
pub(super) fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Whether a lower-case header name belongs to the connection.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

impl Site<'_> {
    /// The headers of the preset in its order, then the further ones by name.
    pub(super) fn security_headers(&mut self, section: &Section<'_>) -> Vec<(String, String)> {
        let preset: &[(&str, &str)] = match section.text("preset") {
            Some("seed") => &SEED,
            Some("owasp-api") => &OWASP_API,
            _ => &[],
        };
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let mut headers: Vec<(String, String)> = preset.iter().map(owned).collect();
        let mut seen: Vec<String> = Vec::new();
        for (written, value) in section.pairs("override") {
            let name = lower(written);
            if seen.contains(&name) {
                let wrong = format!("the header {name} is given twice; case makes no difference");
                self.mistake(&value.path, wrong, "each only once");
            }
            if is_hop_by_hop(&name) || BODY_HEADERS.contains(&name.as_str()) {
                let wrong = format!("{name} belongs to the connection or to the body");
                self.mistake(&value.path, wrong, "any other header");
            }
            let place = headers.iter_mut().find(|(known, _)| *known == name);
            match (place, value.text.is_empty()) {
                (Some(place), false) => place.1 = value.text.to_string(),
                (Some(_), true) => headers.retain(|(known, _)| *known != name),
                (None, false) => headers.push((name.clone(), value.text.to_string())),
                // With a bad preset nobody can say what it would have set.
                (None, true) if section.text("preset").is_none() => {}
                (None, true) => {
                    let wrong = format!("the preset does not set {name}, so nothing is removed");
                    self.mistake(&value.path, wrong, "a value, or leave it out");
                }
            }
            seen.push(name);
        }
        headers
    }
}
