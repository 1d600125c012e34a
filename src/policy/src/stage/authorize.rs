//! Authorization: what an identity may do, by path and method.
//!
//! A path that servers may read differently is judged by all its readings, and the strictest
//! judgement counts. The method is the request's own: headers that ask a server to take it for
//! another one (`X-HTTP-Method-Override` and its kin) are not considered, so a service that honours
//! them must be told not to, or Envoy must remove them.

use crate::event::{AuthMethod, CheckOutcome, Event, Events};
use crate::facts::Facts;
use crate::model::{Access, Authorization, Mode, Rule};
use crate::path::{self, Path, Reading};
use crate::permission::{covers, meets};
use crate::reason::Reason;
use crate::stage::authenticate::Identity;

/// Why a request may not go on.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'p> {
    /// [`Reason::CredentialsMissing`] when nobody is known, whom a credential might help.
    pub reason: Reason,
    /// The rule that asks for more; `None` for the default and for a path that cannot be read.
    pub rule: Option<&'p Rule>,
}

/// Judges a request by permissions.
///
/// # Errors
/// What it is denied for; never in shadow mode.
pub fn authorize<'p>(
    settings: Option<&'p Authorization>,
    identity: &Identity<'_>,
    facts: &Facts<'_>,
    events: &mut dyn Events,
) -> Result<(), Denied<'p>> {
    let Some(settings) = settings else { return Ok(()) };
    let judgement = judge(settings, identity, facts);
    let (outcome, result) = match (&judgement, settings.mode) {
        (Ok(()), _) => (CheckOutcome::Allowed, judgement),
        (Err(_), Mode::Enforce) => (CheckOutcome::Denied, judgement),
        (Err(_), Mode::Shadow) => (CheckOutcome::ShadowDenied, Ok(())),
    };
    events.on(Event::Authorization(outcome));
    result
}

fn judge<'p>(
    settings: &'p Authorization,
    identity: &Identity<'_>,
    facts: &Facts<'_>,
) -> Result<(), Denied<'p>> {
    if settings.rules.is_empty() {
        return by_default(settings, identity);
    }
    let path = path::read(facts.path());
    if path == Path::Unreadable {
        return Err(Denied { reason: Reason::PermissionDenied, rule: None });
    }
    path.readings().try_for_each(|reading| match rule(&settings.rules, facts, reading) {
        None => by_default(settings, identity),
        Some(rule) if is_met(rule, identity) => Ok(()),
        Some(rule) => Err(Denied { reason: reason(identity), rule: Some(rule) }),
    })
}

/// What no rule speaks of. A public path is spoken of by being public.
fn by_default<'p>(settings: &Authorization, identity: &Identity<'_>) -> Result<(), Denied<'p>> {
    match settings.default {
        Access::Allow => Ok(()),
        Access::Deny if identity.is_on_public_path() => Ok(()),
        Access::Deny => Err(Denied { reason: reason(identity), rule: None }),
    }
}

fn reason(identity: &Identity<'_>) -> Reason {
    match identity.method() {
        AuthMethod::None => Reason::CredentialsMissing,
        AuthMethod::Jwt | AuthMethod::ApiKey => Reason::PermissionDenied,
    }
}

/// The first rule for a method and a path. A rule for GET is one for HEAD too, which servers answer
/// alike (RFC 9110 section 9.3.2); case does not count, because some servers fold it.
fn rule<'p>(rules: &'p [Rule], facts: &Facts<'_>, reading: Reading<'_>) -> Option<&'p Rule> {
    let method = facts.method();
    let is = |listed: &str| listed.as_bytes().eq_ignore_ascii_case(method);
    let is_head = is("HEAD");
    let fits = |listed: &str| is(listed) || (is_head && listed == "GET");
    rules.iter().find(|rule| {
        (rule.methods.is_empty() || rule.methods.iter().any(|listed| fits(listed)))
            && rule.path.fits(reading)
    })
}

fn is_met(rule: &Rule, identity: &Identity<'_>) -> bool {
    let all = rule.require.iter().all(|wanted| identity.holds(|grant| covers(grant, wanted)));
    let any = |wanted| identity.holds(|grant| meets(grant, wanted));
    all && (rule.require_any.is_empty() || rule.require_any.iter().any(|wanted| any(wanted)))
}
