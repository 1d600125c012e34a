//! `circuit_breakers`: what a service inherits, and numbers that let a breaker open and close.

use super::Site;
use crate::config::kind::Kind;
use crate::config::section::Section;
use crate::config::shape::BREAKER;
use crate::config::text::show_span;
use crate::config::walk::{join, walk};
use crate::model::{Breaker, Breakers, Fallback};
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Map, Value};

impl Site<'_> {
    /// Reads `default` from the walked document, and each service from what was written for it with
    /// the gaps filled from what was written for `default`: the walked one has no gaps any more.
    pub(super) fn breakers(&mut self, document: &Value, whole: &Section<'_>) -> Breakers {
        let Some(section) = whole.section_if_there("circuit_breakers") else {
            return Breakers::default();
        };
        let default = section.section_if_there("default").map(|section| self.breaker(&section));
        let written = document.get("circuit_breakers");
        let at = |key: &str| written.and_then(|w| w.get(key)).and_then(Value::as_object);
        let base = at("default").cloned().unwrap_or_default();
        let mut services = Vec::new();
        for (name, own) in at("services").into_iter().flatten() {
            let Some(own) = own.as_object() else { continue };
            let merged = merge(&base, own);
            // Every mistake in here has been reported where it was written.
            let walked = walk(&merged, &Kind::Object(&BREAKER), "", &mut Vec::new());
            let path = join(&section.at("services"), name);
            services.push((name.clone(), self.breaker(&Section::new(&walked, &path))));
        }
        Breakers { default, services }
    }

    fn breaker(&mut self, section: &Section<'_>) -> Breaker {
        let (timeout, max_timeout) = (section.span("timeout"), section.span("max_timeout"));
        if let (Some(timeout), Some(max)) = (timeout, max_timeout)
            && max < timeout
        {
            let (timeout, max) = (show_span(timeout), show_span(max));
            let wrong = format!("{max} is shorter than `timeout`, which is {timeout}");
            self.mistake(&section.at("max_timeout"), wrong, format!("at least {timeout}"));
        }
        let count = |name: &str| section.integer(name).unwrap_or(1);
        let span = |span: Option<Nanos>| span.unwrap_or(Nanos::SECOND);
        Breaker {
            failure_threshold: count("failure_threshold"),
            timeout: span(timeout),
            max_timeout: span(max_timeout),
            backoff: count("backoff"),
            half_open_calls: count("half_open_calls"),
            success_threshold: count("success_threshold"),
            failure_statuses: section.statuses("failure_statuses"),
            ignore_statuses: section.statuses("ignore_statuses"),
            fallback: section.section_if_there("fallback").map(|fallback| Fallback {
                status: fallback
                    .integer("status")
                    .and_then(|n| u16::try_from(n).ok())
                    .unwrap_or(503),
                body: fallback.string("body"),
                content_type: fallback.string("content_type"),
            }),
        }
    }
}

/// `own`, with what it leaves out taken from `base`.
fn merge(base: &Map<String, Value>, own: &Map<String, Value>) -> Value {
    let mut merged = base.clone();
    for (key, value) in own {
        merged.insert(key.to_string(), value.clone());
    }
    Value::Object(merged)
}
