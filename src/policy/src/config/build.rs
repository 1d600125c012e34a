//! Turns a walked document into a `Policy`, and checks what holds between several keys.
//!
//! It goes through everything even when mistakes were found already, so that one run shows them
//! all; what was bad reads as absent and is not reported twice.

mod api_keys;
mod authentication;
mod authorization;
mod breakers;
mod csrf;
mod headers;
mod keys;
mod limits;
mod places;
mod secrets;

use super::section::{Placed, Section};
use super::text::{is_header_value, parse_cidr};
use super::{Environment, Mistake};
use crate::model::{
    Cidr, Endpoint, HttpsMode, IpLists, Policy, Revocation, Secret, Sidecar, Unseeded,
};
use crate::pattern::PathPattern;
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use places::Places;
use secrets::Found;
use serde_json::Value;

/// The name that requests share which match no endpoint.
const ENDPOINT_OTHER: &str = "other";

/// Where the building happens: what it may look up, and what it has to say.
pub(super) struct Site<'a> {
    environment: Environment<'a>,
    mistakes: &'a mut Vec<Mistake>,
    warnings: Vec<String>,
    /// The whole document: a key in one section may need another section.
    whole: Section<'a>,
    /// Where credentials are looked for, and what requests are given.
    places: Places,
}

/// Builds the policy; it may be used only when no mistake was found.
pub(super) fn build(
    document: &Value,
    walked: &Value,
    environment: Environment<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Policy {
    let whole = Section::new(walked, "");
    let mut site = Site {
        environment,
        mistakes,
        warnings: Vec::new(),
        whole: whole.clone(),
        places: Places::default(),
    };
    let authentication =
        whole.section_if_there("authentication").map(|section| site.authentication(&section));
    Policy {
        name: whole.string("name"),
        hash: super::fingerprint::fingerprint(document),
        https: https(&whole.section("https")),
        ip: ip(&whole.section("ip")),
        endpoints: site.endpoints(&whole),
        revocation: whole.section_if_there("revocation").map(|section| site.revocation(&section)),
        authorization: whole
            .section_if_there("authorization")
            .map(|section| site.authorization(&section, authentication.as_ref())),
        csrf: site.csrf(&whole),
        authentication,
        security_headers: site.security_headers(&whole.section("security_headers")),
        rate_limits: site.limits(&whole),
        circuit_breakers: site.breakers(document, &whole),
        sidecar: whole.section_if_there("sidecar").map(|section| site.sidecar(&section)),
        variables: super::variables(document),
        warnings: site.warnings,
    }
}

fn https(section: &Section<'_>) -> HttpsMode {
    match section.text("mode") {
        Some("redirect") => HttpsMode::Redirect,
        Some("refuse") => HttpsMode::Refuse,
        _ => HttpsMode::Off,
    }
}

fn ip(section: &Section<'_>) -> IpLists {
    let list = |name: &str| cidrs(section, name);
    IpLists { allow: list("allow"), deny: list("deny"), exempt: list("exempt") }
}

/// The networks of a list.
fn cidrs(section: &Section<'_>, name: &str) -> Vec<Cidr> {
    section.texts(name).iter().filter_map(|placed| parse_cidr(placed.text).ok()).collect()
}

/// The path patterns of a list.
fn paths(section: &Section<'_>, name: &str) -> Vec<PathPattern> {
    let texts = section.texts(name);
    texts.iter().filter_map(|placed| PathPattern::parse(placed.text).ok()).collect()
}

impl Site<'_> {
    fn mistake(&mut self, path: &str, wrong: String, allowed: impl ToString) {
        self.mistakes.push(Mistake::new(path, wrong, allowed.to_string()));
    }

    fn warn(&mut self, path: &str, sentence: &str) {
        self.warnings.push(format!("{path}: {sentence}"));
    }

    /// Reports every text that an earlier one says already.
    fn unique(&mut self, placed: &[Placed<'_>]) {
        for (index, this) in placed.iter().enumerate() {
            let earlier = placed.iter().take(index).find(|other| other.text == this.text);
            if let Some(earlier) = earlier {
                let wrong = format!("{:?} is already taken by {}", this.text, earlier.path);
                self.mistake(&this.path, wrong, "each only once");
            }
        }
    }

    /// The same for one key of each section.
    fn unique_key(&mut self, sections: &[Section<'_>], key: &str) {
        let placed = |section: &Section<'_>| Some((section.at(key), section.string(key)));
        let named: Vec<(String, String)> = sections.iter().filter_map(placed).collect();
        let named = named.iter().filter(|(_, text)| !text.is_empty());
        let all: Vec<Placed<'_>> =
            named.map(|(path, text)| Placed { path: path.clone(), text }).collect();
        self.unique(&all);
    }

    fn endpoints(&mut self, whole: &Section<'_>) -> Vec<Endpoint> {
        let sections = whole.sections("endpoints");
        self.unique_key(&sections, "name");
        let mut endpoints = Vec::new();
        for section in &sections {
            if section.text("name") == Some(ENDPOINT_OTHER) {
                let wrong = format!("{ENDPOINT_OTHER:?} is reserved for requests that match none");
                self.mistake(&section.at("name"), wrong, "any other name");
            }
            let Some(path) = section.text("path").and_then(|text| PathPattern::parse(text).ok())
            else {
                continue;
            };
            let methods = section.strings("methods");
            endpoints.push(Endpoint { name: section.string("name"), path, methods });
        }
        endpoints
    }

    fn revocation(&mut self, section: &Section<'_>) -> Revocation {
        self.needs_sidecar(section.path(), "revocations are kept at the sidecar");
        if !self.whole.section("authentication").has("jwt") {
            self.warn(section.path(), "only tokens are revoked by it, and none are taken");
        }
        Revocation {
            on_unseeded: match section.text("on_unseeded") {
                Some("allow") => Unseeded::Allow,
                _ => Unseeded::Refuse,
            },
            seed_deadline: section.span("seed_deadline").unwrap_or(Nanos::SECOND),
            max: section.integer("max").unwrap_or(1),
        }
    }

    /// Reports what does not work without a sidecar, where there is none.
    fn needs_sidecar(&mut self, path: &str, why: &str) {
        if !self.whole.has("sidecar") {
            let wrong = format!("{why}, and there is no section `sidecar`");
            self.mistake(path, wrong, "together with a section `sidecar`");
        }
    }

    fn sidecar(&mut self, section: &Section<'_>) -> Sidecar {
        let reference = section.section("token");
        let token = match self.secret(&reference) {
            Found::Known(secret) => {
                let legal = core::str::from_utf8(secret.reveal()).is_ok_and(is_header_value);
                if !legal {
                    let wrong = "the token cannot be sent in a header".to_string();
                    self.mistake(reference.path(), wrong, "visible ASCII without blanks around it");
                }
                secret
            }
            // A file is refused by the shape.
            Found::File(_) | Found::Unknown => Secret::new(Vec::new()),
        };
        Sidecar { cluster: section.string("cluster"), token }
    }
}
