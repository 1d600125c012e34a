//! `authorization`: rules that can match, and permissions that somebody can have.

use super::Site;
use crate::config::section::Section;
use crate::model::{Access, Authentication, Authorization, Mode, Rule};
use crate::pattern::PathPattern;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

impl Site<'_> {
    pub(super) fn authorization(
        &mut self,
        whole: &Section<'_>,
        authentication: Option<&Authentication>,
    ) -> Authorization {
        let everything = PathPattern::parse("/**").ok();
        let covers = |earlier: &Rule, later: &Rule| {
            let path = earlier.path == later.path || Some(&earlier.path) == everything.as_ref();
            path && covers_methods(earlier, later)
        };
        let mut rules: Vec<Rule> = Vec::new();
        for section in whole.sections("rules") {
            let Some(rule) = rule(&section) else { continue };
            // Not every such pair is found: only paths that are the same, and `/**`.
            if let Some(index) = rules.iter().position(|earlier| covers(earlier, &rule)) {
                let sentence = format!(
                    "{} matches all of it before, so this rule never decides anything",
                    whole.at(&format!("rules[{index}]"))
                );
                self.warn(section.path(), &sentence);
            }
            self.wide_requirements(&section);
            rules.push(rule);
        }
        let authorization = Authorization {
            mode: mode(whole),
            default: match whole.text("default") {
                Some("deny") => Access::Deny,
                _ => Access::Allow,
            },
            rules,
        };
        self.authorization_decides(whole, &authorization, authentication);
        authorization
    }

    /// Warns of what is asked for more widely than is often meant.
    fn wide_requirements(&mut self, section: &Section<'_>) {
        for placed in section.texts("require") {
            if placed.text.split(':').any(|segment| segment == "*") {
                self.warn(
                    &placed.path,
                    "it takes a grant as wide as this; `require_any` takes any permission that it \
                     stands for",
                );
            }
        }
    }

    /// Warns of rules that decide nothing, or the same for everybody.
    fn authorization_decides(
        &mut self,
        section: &Section<'_>,
        authorization: &Authorization,
        authentication: Option<&Authentication>,
    ) {
        let rules = &authorization.rules;
        if rules.is_empty() && authorization.default == Access::Allow {
            self.warn(section.path(), "there are no rules and the default is allow: all pass");
        }
        if rules.is_empty() && authorization.default == Access::Deny {
            self.warn(
                section.path(),
                "there are no rules and the default is deny: only `public` paths pass",
            );
        }
        if !rules.iter().any(|rule| !rule.require.is_empty() || !rule.require_any.is_empty()) {
            return;
        }
        let Some(authentication) = authentication else {
            self.warn(
                &section.at("rules"),
                "without `authentication` everybody is anonymous, and nobody has a permission",
            );
            return;
        };
        let mut providers = authentication.providers.iter();
        let none = authentication.api_keys.is_none()
            && providers.all(|provider| provider.permission_claims.is_empty());
        if none {
            self.warn(
                &section.at("rules"),
                "no provider states `permission_claims` and no API keys are taken, so nobody has a \
                 permission",
            );
        }
    }
}

/// `mode`, enforce or shadow.
pub(super) fn mode(section: &Section<'_>) -> Mode {
    match section.text("mode") {
        Some("shadow") => Mode::Shadow,
        _ => Mode::Enforce,
    }
}

fn rule(section: &Section<'_>) -> Option<Rule> {
    Some(Rule {
        path: PathPattern::parse(section.text("path")?).ok()?,
        methods: section.strings("methods"),
        require: section.strings("require"),
        require_any: section.strings("require_any"),
    })
}

/// Whether the earlier rule is for every method that the later one is for.
fn covers_methods(earlier: &Rule, later: &Rule) -> bool {
    let known = |method: &String| earlier.methods.contains(method);
    earlier.methods.is_empty() || (!later.methods.is_empty() && later.methods.iter().all(known))
}
