//! `rate_limits`: numbers that make a bucket which can admit something.

use super::{Site, paths};
use crate::config::section::Section;
use crate::config::text::{parse_key_part, show_span};
use crate::model::{Bucket, KeyPart, Limit, LimitMode, Match, Unavailable};
use crate::time::Nanos;
use alloc::format;
use alloc::vec::Vec;

/// Records of one set of a limit's table.
const RECORDS_PER_SET: u32 = 8;

/// Longest time to fill an empty bucket. Its stamp must fit into 64-bit nanoseconds (584 years) at
/// all times, and nobody waits that long.
const FILL_MAX: Nanos = Nanos::from_secs(86_400 * 3_650);

impl Site<'_> {
    pub(super) fn limits(&mut self, whole: &Section<'_>) -> Vec<Limit> {
        let sections = whole.sections("rate_limits");
        self.unique_key(&sections, "name");
        sections.iter().map(|section| self.limit(section)).collect()
    }

    fn limit(&mut self, section: &Section<'_>) -> Limit {
        let key = self.key(section);
        let requests = section.integer("requests");
        // A bad burst must not read as an absent one.
        let burst = if section.has("burst") { section.integer("burst") } else { requests };
        let (per, cost) = (section.span("per"), section.integer("cost"));
        if let (Some(burst), Some(cost)) = (burst, cost)
            && cost > burst
        {
            let wrong = format!("{cost} is more than the bucket ever holds, which is {burst}");
            self.mistake(&section.at("cost"), wrong, format!("at most {burst}, or a larger burst"));
        }
        if let (Some(requests), Some(per), Some(burst)) = (requests, per, burst) {
            let fill = u128::from(per.0) * u128::from(burst) / u128::from(requests.max(1));
            if fill > u128::from(FILL_MAX.0) {
                let wrong = format!("a bucket of {burst} takes more than ten years to fill");
                let allowed = format!("at most {} to fill it", show_span(FILL_MAX));
                self.mistake(&section.at("burst"), wrong, allowed);
            }
        }
        let max_keys = if key.is_empty() { 1 } else { section.integer("max_keys").unwrap_or(1) };
        Limit {
            name: section.string("name"),
            matches: matches(&section.section("match")),
            key,
            bucket: Bucket {
                requests: requests.unwrap_or(1),
                per: per.unwrap_or(Nanos::SECOND),
                burst: burst.unwrap_or(1),
            },
            cost: cost.unwrap_or(1),
            mode: match section.text("mode") {
                Some("shadow") => LimitMode::Shadow,
                _ => LimitMode::Enforce,
            },
            on_unavailable: match section.text("on_unavailable") {
                Some("refuse") => Unavailable::Refuse,
                _ => Unavailable::Allow,
            },
            // Up, so that no fewer keys fit than were asked for; a power of two, so that a hash
            // picks its set with a mask.
            table_sets: max_keys.div_ceil(RECORDS_PER_SET).next_power_of_two(),
        }
    }

    fn key(&mut self, section: &Section<'_>) -> Vec<KeyPart> {
        let mut key = Vec::new();
        for placed in section.texts("key") {
            let Ok(part) = parse_key_part(placed.text) else { continue };
            if key.contains(&part) {
                let wrong = format!("{:?} is already part of the key", placed.text);
                self.mistake(&placed.path, wrong, "each only once");
            }
            if part == KeyPart::ApiKey && !self.whole.section("authentication").has("api_keys") {
                self.warn(&placed.path, "no API keys are taken, so this is `-` for everybody");
            }
            key.push(part);
        }
        key
    }
}

fn matches(section: &Section<'_>) -> Match {
    Match {
        paths: paths(section, "paths"),
        methods: section.strings("methods"),
        services: section.strings("services"),
        tiers: section.strings("tiers"),
    }
}
