//! `rate_limits`: numbers that make a limit which can admit something, and whom a penalty bans.

use super::{Site, paths};
use crate::config::kind::Kind;
use crate::config::numbers::{foreign_keys, misfits, spacing};
use crate::config::section::Section;
use crate::config::shape::{ADAPTIVE, QUEUE};
use crate::config::text::{parse_key_part, show_span};
use crate::config::walk::walk;
use crate::model::{
    Adaptive, Bucket, KeyPart, Leak, Limit, LimitAlgorithm, LimitMode, Match, Penalty, Unavailable,
    Window,
};
use crate::table::WAYS;
use crate::time::Nanos;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use serde_json::{Value, json};

/// How often a worker looks whose turn has come, so how finely requests can be spaced.
const TICK: Nanos = Nanos::from_millis(1);
/// How long Envoy lets a request wait for anything, unless `stream_idle_timeout` says otherwise.
const PATIENCE: Nanos = Nanos::from_secs(300);

impl Site<'_> {
    pub(super) fn limits(&mut self, whole: &Section<'_>) -> Vec<Limit> {
        let sections = whole.sections("rate_limits");
        self.unique_key(&sections, "name");
        sections.iter().map(|section| self.limit(section)).collect()
    }

    fn limit(&mut self, section: &Section<'_>) -> Limit {
        let key = self.key(section);
        let algorithm = self.algorithm(section);
        let cost = section.integer("cost").unwrap_or(1);
        self.numbers(section, &algorithm, cost);
        let mode = match section.text("mode") {
            Some("shadow") => LimitMode::Shadow,
            _ => LimitMode::Enforce,
        };
        let penalty =
            section.section_if_there("penalty").map(|own| self.penalty(&own, section, &key, mode));
        Limit {
            name: section.string("name"),
            matches: matches(&section.section("match")),
            table_sets: table_sets(section, &key),
            key,
            algorithm,
            cost,
            mode,
            on_unavailable: match section.text("on_unavailable") {
                Some("refuse") => Unavailable::Refuse,
                _ => Unavailable::Allow,
            },
            penalty,
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
            if part == KeyPart::ApiKey && !self.takes("api_keys") {
                self.warn(&placed.path, "no API keys are taken, so this is `-` for everybody");
            }
            if let KeyPart::Header(name) = &part {
                self.key_header(&placed.path, name);
            }
            key.push(part);
        }
        key
    }

    /// Refuses headers that tell nobody apart, or that nobody may read.
    fn key_header(&mut self, path: &str, name: &str) {
        if self.places.is_forwarded(name) {
            let wrong = format!("counts by what the client wrote into {name}, which is replaced");
            self.mistake(path, wrong, "user, or claim:NAME");
        }
        // Keys that are refused are shown to administrators and written down.
        if ["authorization", "cookie"].contains(&name) || self.places.is_credential_header(name) {
            let wrong = format!("would show what is in {name}, which is a secret");
            self.mistake(path, wrong, "user, or api_key");
        }
    }

    /// Whether credentials of that kind are taken.
    fn takes(&self, credentials: &str) -> bool {
        self.whole.section("authentication").has(credentials)
    }

    /// The algorithm with its numbers; those that were bad are replaced, and reported already.
    fn algorithm(&mut self, section: &Section<'_>) -> LimitAlgorithm {
        let requests = section.integer("requests").unwrap_or(1);
        let per = section.span("per").unwrap_or(Nanos::SECOND);
        let burst = section.integer("burst").unwrap_or(requests);
        let bucket = Bucket { requests, per, burst };
        let Some(name) = section.text("algorithm") else {
            return LimitAlgorithm::TokenBucket(bucket);
        };
        for foreign in foreign_keys(name).into_iter().filter(|foreign| section.has(foreign.key)) {
            self.mistake(&section.at(foreign.key), foreign.wrong, foreign.allowed);
        }
        match name {
            "sliding_window" => LimitAlgorithm::SlidingWindow(Window { requests, per }),
            "leaky_bucket" => {
                if !section.has("queue") {
                    let wrong = "is missing, and a leaky_bucket needs it".to_string();
                    self.mistake(&section.at("queue"), wrong, QUEUE.allowed());
                }
                let queue = section.integer("queue").unwrap_or(0);
                LimitAlgorithm::LeakyBucket(Leak { requests, per, queue })
            }
            "adaptive" => LimitAlgorithm::Adaptive(self.adaptive(section, bucket)),
            _ => LimitAlgorithm::TokenBucket(bucket),
        }
    }

    fn adaptive(&mut self, section: &Section<'_>, bucket: Bucket) -> Adaptive {
        if !self.whole.has("sidecar") {
            let sentence = "there is no section `sidecar` to tell the load, so this limit always \
                            has its full rate";
            self.warn(&section.at("algorithm"), sentence);
        }
        // Left out, it has the defaults of its keys.
        let defaults = walk(&json!({}), &Kind::Object(&ADAPTIVE), "", &mut Vec::new());
        let own = section.section_if_there("adaptive").unwrap_or(Section::new(&defaults, ""));
        Adaptive {
            bucket,
            threshold: own.integer("threshold").unwrap_or(1),
            floor: own.integer("floor").unwrap_or(1),
        }
    }

    /// Says what does not fit together, and what fits but may surprise.
    fn numbers(&mut self, section: &Section<'_>, algorithm: &LimitAlgorithm, cost: u32) {
        let known =
            |key: &str| section.value(key).is_some() || (key == "burst" && !section.has("burst"));
        if !["requests", "per"].into_iter().all(known) {
            return;
        }
        let misfits = misfits(algorithm, cost);
        for misfit in misfits.into_iter().filter(|misfit| misfit.keys.iter().copied().all(known)) {
            let key = misfit.keys.first().copied().unwrap_or_default();
            self.mistake(&section.at(key), misfit.wrong, misfit.allowed);
        }
        let LimitAlgorithm::LeakyBucket(leak) = algorithm else { return };
        if leak.queue > 0 && spacing(algorithm, cost) < TICK {
            let sentence = "these requests are less than a millisecond apart, and that is how often \
                            it is looked whose turn has come: those that waited go on in small groups";
            self.warn(&section.at("requests"), sentence);
        }
        let longest = spacing(algorithm, leak.queue);
        if longest > PATIENCE {
            let sentence = format!(
                "the last of the queue waits {}, and Envoy ends a request after {} unless \
                 `stream_idle_timeout` says otherwise",
                show_span(Nanos::from_secs(longest.as_secs())),
                show_span(PATIENCE)
            );
            self.warn(&section.at("queue"), &sentence);
        }
    }

    fn penalty(
        &mut self,
        own: &Section<'_>,
        limit: &Section<'_>,
        key: &[KeyPart],
        mode: LimitMode,
    ) -> Penalty {
        let (ban, max_ban) = (own.span("ban"), own.span("max_ban"));
        if let (Some(ban), Some(max)) = (ban, max_ban)
            && max < ban
        {
            let (ban, max) = (show_span(ban), show_span(max));
            let wrong = format!("{max} is shorter than `ban`, which is {ban}");
            self.mistake(&own.at("max_ban"), wrong, format!("at least {ban}"));
        }
        if mode == LimitMode::Shadow {
            self.warn(own.path(), "a limit in shadow mode refuses nobody, so nobody is banned");
        }
        let entries = limit.value("key").and_then(Value::as_array);
        if entries.is_some_and(|entries| entries.len() == key.len()) {
            self.culprit(own.path(), key);
        }
        let count = |name: &str| own.integer(name).unwrap_or(1);
        let span = |span: Option<Nanos>| span.unwrap_or(Nanos::SECOND);
        Penalty {
            violations: count("violations"),
            within: span(own.span("within")),
            ban: span(ban),
            escalate: count("escalate"),
            max_ban: span(max_ban),
        }
    }

    /// Says whom a penalty bans, where the key does not make that plain.
    fn culprit(&mut self, path: &str, key: &[KeyPart]) {
        let named = key.iter().any(|part| matches!(part, KeyPart::User | KeyPart::ApiKey));
        let claimed = key.iter().any(|part| matches!(part, KeyPart::Claim(_) | KeyPart::Tier));
        let addressed = key.contains(&KeyPart::Ip);
        let sentence = match (named, addressed) {
            (false, false) => {
                let wrong =
                    "nobody could be banned: the key tells neither who it is nor from where";
                let allowed = "only where `key` has user, api_key or ip";
                return self.mistake(path, wrong.to_string(), allowed);
            }
            (true, true) => {
                "the identity is banned wherever it comes from, and no address; requests without \
                 an identity are refused and get nobody banned"
            }
            (false, true) if claimed => {
                "the address is banned, for everybody behind it: a claim or a tier is nobody"
            }
            (true, false) if !self.whole.has("authentication") => {
                "there is no section `authentication`, so nobody is known and nobody is banned"
            }
            _ => return,
        };
        self.warn(path, sentence);
    }
}

/// Up, so that no fewer keys fit than were asked for; a power of two, so that a hash picks its set
/// with a mask. Without a key there is one record.
fn table_sets(section: &Section<'_>, key: &[KeyPart]) -> u32 {
    let max_keys = if key.is_empty() { 1 } else { section.integer("max_keys").unwrap_or(1) };
    max_keys.div_ceil(WAYS as u32).next_power_of_two()
}

fn matches(section: &Section<'_>) -> Match {
    Match {
        paths: paths(section, "paths"),
        methods: section.strings("methods"),
        services: section.strings("services"),
        tiers: section.strings("tiers"),
    }
}
