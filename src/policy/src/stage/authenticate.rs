//! Authentication: from a credential to an [`Identity`], which only this stage can make.

use crate::event::{AuthMethod, AuthOutcome, Event, Events};
use crate::facts::Facts;
use crate::model::{AuthMode, Authentication, Provider};
use crate::reason::Reason;
use crate::reply::Edits;
use crate::stage::credential::{self, Found};
use crate::time::Moment;
use crate::verify::{TokenError, Verified, Verify};
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use serde_json::{Map, Value};

/// Who a request is. Holding one proves that authentication was passed.
#[derive(Clone, Debug)]
pub struct Identity(Who);

#[derive(Clone, Debug)]
enum Who {
    Anonymous,
    User { name: String, tier: Option<String>, claims: Rc<Map<String, Value>> },
}

impl Identity {
    /// The user's name: the subject, or the provider's name for a token without one; `None` for an
    /// anonymous request.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.0 {
            Who::Anonymous => None,
            Who::User { name, .. } => Some(name),
        }
    }

    /// The tier, when the provider names a claim for it and the token has it as a string.
    #[must_use]
    pub fn tier(&self) -> Option<&str> {
        match &self.0 {
            Who::Anonymous => None,
            Who::User { tier, .. } => tier.as_deref(),
        }
    }

    /// A claim as text; `None` when it is missing or not a string, number or boolean.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<String> {
        match &self.0 {
            Who::Anonymous => None,
            Who::User { claims, .. } => claims.get(name).and_then(plain),
        }
    }
}

/// Strings, numbers and booleans as they read; nothing else has one obvious spelling.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Why there is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The request is refused.
    Refuse(Reason),
    /// Keys that may decide it are on their way.
    Wait,
}

/// Finds out who a request is.
///
/// # Errors
/// The reason for which it must be refused.
pub fn authenticate(
    settings: Option<&Authentication>,
    facts: &Facts<'_>,
    verify: &mut dyn Verify,
    events: &mut dyn Events,
    edits: &mut Edits,
    now: Moment,
) -> Result<Identity, Interrupt> {
    let Some(settings) = settings else { return Ok(Identity(Who::Anonymous)) };
    // Before anything else, and whatever follows: nobody outside may say who he is.
    strip_outside_identity(settings, facts, edits);
    let outcome = if is_public(settings, facts) {
        Ok(Identity(Who::Anonymous))
    } else {
        identify(settings, facts, verify, edits, now)
    };
    let (method, result) = match &outcome {
        Ok(Identity(Who::Anonymous)) => (AuthMethod::None, AuthOutcome::Anonymous),
        Ok(Identity(Who::User { .. })) => (AuthMethod::Jwt, AuthOutcome::Accepted),
        Err(Interrupt::Refuse(Reason::CredentialsMissing)) => {
            (AuthMethod::None, AuthOutcome::Refused(Reason::CredentialsMissing))
        }
        Err(Interrupt::Refuse(reason)) => (AuthMethod::Jwt, AuthOutcome::Refused(*reason)),
        // Nothing is decided yet: the request comes here again.
        Err(Interrupt::Wait) => return outcome,
    };
    events.on(Event::Authentication { method, outcome: result });
    outcome
}

/// Whether no credential is needed. Only for a path that can be read in one way: an upstream that
/// decodes or resolves what Envoy was not told to normalise would see another path than we do.
fn is_public(settings: &Authentication, facts: &Facts<'_>) -> bool {
    facts.is_path_canonical() && settings.public.iter().any(|path| path.matches(facts.path()))
}

fn identify(
    settings: &Authentication,
    facts: &Facts<'_>,
    verify: &mut dyn Verify,
    edits: &mut Edits,
    now: Moment,
) -> Result<Identity, Interrupt> {
    let refuse = |reason| Err(Interrupt::Refuse(reason));
    let token = match credential::find(settings, facts) {
        Found::Token(token) => token,
        Found::Ambiguous => return refuse(Reason::TokenMalformed),
        Found::Nothing if settings.mode == AuthMode::Optional => {
            return Ok(Identity(Who::Anonymous));
        }
        Found::Nothing => return refuse(Reason::CredentialsMissing),
    };
    let verified = verify.verify(token, now).map_err(interrupt)?;
    let untrusted = Interrupt::Refuse(Reason::TokenUntrusted);
    let provider = settings.providers.get(verified.provider).ok_or(untrusted)?;
    // A token counts only in a place that its own provider names.
    let stands = |location| credential::at(location, facts) == Found::Token(token);
    if !provider.locations.iter().any(stands) {
        return refuse(Reason::TokenUntrusted);
    }
    forward(provider, &verified, facts, edits);
    let tier = provider.tier_claim.as_ref().and_then(|claim| verified.claims.get(claim));
    Ok(Identity(Who::User {
        tier: tier.and_then(Value::as_str).map(String::from),
        name: verified.subject.unwrap_or_else(|| provider.name.clone()),
        claims: verified.claims,
    }))
}

/// Each verdict of the verifier is one refusal code, but the one that is none yet.
const fn interrupt(error: TokenError) -> Interrupt {
    Interrupt::Refuse(match error {
        TokenError::Malformed => Reason::TokenMalformed,
        TokenError::Expired => Reason::TokenExpired,
        TokenError::NotYetValid => Reason::TokenNotYetValid,
        TokenError::Untrusted | TokenError::UnknownKey { .. } => Reason::TokenUntrusted,
        TokenError::KeysUnavailable { .. } => Reason::KeysUnavailable,
        TokenError::Revoked => Reason::TokenRevoked,
        TokenError::Unseeded => Reason::StateUnavailable,
        TokenError::Pending => return Interrupt::Wait,
    })
}

fn strip_outside_identity(settings: &Authentication, facts: &Facts<'_>, edits: &mut Edits) {
    for (_, header) in settings.providers.iter().flat_map(|provider| &provider.forward_claims) {
        if facts.headers.has(header) && !edits.remove.contains(header) {
            edits.remove.push(header.clone());
        }
    }
}

fn forward(provider: &Provider, verified: &Verified, facts: &Facts<'_>, edits: &mut Edits) {
    if !provider.forward_token {
        credential::strip(&provider.locations, facts, edits);
    }
    for (claim, header) in &provider.forward_claims {
        let text = verified.claims.get(claim).and_then(plain);
        // A claim is the issuer's text, a header is the wire: what cannot stand there stays out.
        let legal = |text: &String| text.bytes().all(|byte| byte >= 0x20 && byte != 0x7f);
        if let Some(text) = text.filter(legal) {
            edits.set.push((header.clone(), text.into_bytes()));
        }
    }
}
