//! Turns a walked document into a `Policy`, and checks what holds between several keys.
//!
//! It goes through everything even when mistakes were found already, so that one run shows them
//! all; what was bad reads as absent and is not reported twice.

mod authentication;
mod breakers;
mod headers;
mod limits;

use super::section::{Placed, Section};
use super::text::{is_header_value, parse_cidr};
use super::{Environment, Mistake};
use crate::model::{Cidr, Endpoint, HttpsMode, IpLists, Policy, Secret, Sidecar};
use crate::pattern::PathPattern;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::Value;

/// The name that requests share which match no endpoint.
const ENDPOINT_OTHER: &str = "other";

/// Where the building happens: what it may look up, and what it has to say.
pub(super) struct Site<'a> {
    environment: Environment<'a>,
    mistakes: &'a mut Vec<Mistake>,
    warnings: Vec<String>,
}

/// A secret, as far as this process can know it.
enum Found {
    /// Its bytes.
    Known(Secret),
    /// It exists somewhere else, or was reported as a mistake.
    Unknown,
}

/// Builds the policy; it may be used only when no mistake was found.
pub(super) fn build(
    document: &Value,
    walked: &Value,
    environment: Environment<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Policy {
    let mut site = Site { environment, mistakes, warnings: Vec::new() };
    let whole = Section::new(walked, "");
    Policy {
        name: whole.string("name"),
        hash: super::fingerprint::fingerprint(document),
        https: https(&whole.section("https")),
        ip: ip(&whole.section("ip")),
        endpoints: site.endpoints(&whole),
        authentication: whole
            .section_if_there("authentication")
            .map(|section| site.authentication(&section)),
        revocation: None,
        authorization: None,
        csrf: None,
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
    let list = |name: &str| -> Vec<Cidr> {
        section.texts(name).iter().filter_map(|placed| parse_cidr(placed.text).ok()).collect()
    };
    IpLists { allow: list("allow"), deny: list("deny"), exempt: list("exempt") }
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
            Found::Unknown => Secret::new(Vec::new()),
        };
        Sidecar { cluster: section.string("cluster"), token }
    }

    /// Looks a secret up.
    fn secret(&mut self, reference: &Section<'_>) -> Found {
        if let Some(text) = reference.text("inline_secret") {
            self.warn(
                &reference.at("inline_secret"),
                "everybody who can read the policy can read this secret; {env: NAME} hides it",
            );
            return Found::Known(Secret::new(text.as_bytes().to_vec()));
        }
        let (Some(name), Environment::Given(lookup)) = (reference.text("env"), self.environment)
        else {
            return Found::Unknown;
        };
        let wrong = match lookup(name) {
            Some(value) if !value.is_empty() => {
                return Found::Known(Secret::new(value.into_bytes()));
            }
            Some(_) => format!("the variable {name} is empty"),
            None => format!("the variable {name} is not set"),
        };
        let allowed = "a variable that Envoy is started with and that `host_env_keys` names";
        self.mistake(&reference.at("env"), wrong, allowed);
        Found::Unknown
    }
}
