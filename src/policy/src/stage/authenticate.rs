//! Authentication: from a credential to an [`Identity`], which only this stage can make.

use crate::event::{AuthMethod, AuthOutcome, Event};
use crate::facts::Facts;
use crate::model::{AuthMode, Authentication, Policy, Provider, TokenLocation};
use crate::path::{self, Path};
use crate::reason::Reason;
use crate::reply::Edits;
use crate::stage::Means;
use crate::stage::api_key::{self, Key};
use crate::stage::credential::{self, Carrier, Credential, Found};
use crate::store::Store;
use crate::time::Moment;
use crate::verify::{TokenError, Verified};
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use serde_json::{Map, Value};

/// Who a request is. Holding one proves that authentication was passed.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    who: Who<'a>,
    /// What showed who it is; `None` for an anonymous request.
    credential: Option<Credential<'a>>,
}

#[derive(Clone, Debug)]
enum Who<'a> {
    Anonymous(Ground),
    Token { provider: &'a Provider, subject: Option<String>, claims: Rc<Map<String, Value>> },
    Key(Key<'a>),
}

/// Why nobody in particular may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    /// The path is public.
    PublicPath,
    /// No credential came, and none is required.
    Optional,
}

impl Identity<'_> {
    /// The user's name: the subject, the provider's name for a token without one, or the id of an
    /// API key; `None` for an anonymous request.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.who {
            Who::Anonymous(_) => None,
            Who::Token { provider, subject, .. } => {
                Some(subject.as_deref().unwrap_or(&provider.name))
            }
            Who::Key(key) => Some(&key.id),
        }
    }

    /// The provider of the token, if one is the credential.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        match &self.who {
            Who::Token { provider, .. } => Some(&provider.name),
            Who::Anonymous(_) | Who::Key(_) => None,
        }
    }

    /// The id of the API key, if one is the credential.
    #[must_use]
    pub fn api_key(&self) -> Option<&str> {
        match &self.who {
            Who::Key(key) => Some(&key.id),
            Who::Anonymous(_) | Who::Token { .. } => None,
        }
    }

    /// The tier, when the API key has one, or when the provider names a claim for it and the token
    /// has it as a string.
    #[must_use]
    pub fn tier(&self) -> Option<&str> {
        match &self.who {
            Who::Anonymous(_) => None,
            Who::Token { provider, claims, .. } => {
                provider.tier_claim.as_ref().and_then(|claim| claims.get(claim))?.as_str()
            }
            Who::Key(key) => key.tier.as_deref(),
        }
    }

    /// A claim as text; `None` when it is missing or not a string, number or boolean.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<String> {
        match &self.who {
            Who::Token { claims, .. } => claims.get(name).and_then(plain),
            Who::Anonymous(_) | Who::Key(_) => None,
        }
    }

    /// Whether any permission that the identity holds is such a one.
    #[must_use]
    pub fn holds(&self, fits: impl Fn(&str) -> bool) -> bool {
        match &self.who {
            Who::Anonymous(_) => false,
            Who::Key(key) => key.permissions.iter().any(|grant| fits(grant)),
            Who::Token { provider, claims, .. } => {
                let claims = provider.permission_claims.iter().filter_map(|name| claims.get(name));
                claims.into_iter().any(|claim| match claim {
                    Value::String(words) => {
                        words.split(' ').filter(|word| !word.is_empty()).any(&fits)
                    }
                    Value::Array(list) => list.iter().filter_map(Value::as_str).any(&fits),
                    _ => false,
                })
            }
        }
    }

    /// What the request was authenticated by.
    #[must_use]
    pub const fn method(&self) -> AuthMethod {
        match &self.who {
            Who::Anonymous(_) => AuthMethod::None,
            Who::Token { .. } => AuthMethod::Jwt,
            Who::Key(_) => AuthMethod::ApiKey,
        }
    }

    /// Whether nobody was asked for because of the path.
    #[must_use]
    pub const fn is_on_public_path(&self) -> bool {
        matches!(self.who, Who::Anonymous(Ground::PublicPath))
    }

    /// The credential, when a cookie and nothing else brought it: then a browser sends it whoever
    /// asks it to.
    #[must_use]
    pub fn cookie(&self) -> Option<&[u8]> {
        let by_cookie = |credential: &Credential<'_>| credential.carrier == Carrier::Cookie;
        self.credential.filter(by_cookie).map(|credential| credential.bytes)
    }

    /// Whether any page may have sent the request: nobody is known, or by the query, where another
    /// page can put a credential of its own beside a cookie of somebody else.
    #[must_use]
    pub fn is_from_any_page(&self) -> bool {
        self.credential.is_none_or(|credential| credential.carrier == Carrier::Query)
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
/// The reason for which it must be refused, or that it must wait.
pub fn authenticate<'a>(
    policy: &'a Policy,
    facts: &Facts<'a>,
    means: &mut Means<'_>,
    edits: &mut Edits,
    now: Moment,
) -> Result<Identity<'a>, Interrupt> {
    let Some(settings) = &policy.authentication else { return Ok(anonymous(Ground::Optional)) };
    // Before anything else, and whatever follows: nobody outside may say who he is.
    strip_outside_identity(settings, facts, edits);
    let (method, outcome) = if is_public(settings, facts) {
        strip_api_key(settings, facts, edits);
        (AuthMethod::None, Ok(anonymous(Ground::PublicPath)))
    } else {
        identify(policy, settings, facts, means, edits, now)
    };
    let result = match &outcome {
        Ok(Identity { who: Who::Anonymous(_), .. }) => AuthOutcome::Anonymous,
        Ok(_) => AuthOutcome::Accepted,
        Err(Interrupt::Refuse(reason)) => AuthOutcome::Refused(*reason),
        // Nothing is decided yet: the request comes here again.
        Err(Interrupt::Wait) => return outcome,
    };
    means.events.on(Event::Authentication { method, outcome: result });
    outcome
}

const fn anonymous<'a>(ground: Ground) -> Identity<'a> {
    Identity { who: Who::Anonymous(ground), credential: None }
}

/// Whether no credential is needed. Only for a path that can be read in one way: an upstream that
/// decodes or resolves what Envoy was not told to normalise would see another path than we do.
fn is_public(settings: &Authentication, facts: &Facts<'_>) -> bool {
    let path = facts.path();
    if settings.public.is_empty() || !facts.is_path_canonical() {
        return false;
    }
    let fits = |reading| settings.public.iter().any(|pattern| pattern.fits(reading));
    match path::read(path) {
        Path::Unreadable => false,
        readable => readable.readings().all(fits),
    }
}

fn identify<'a>(
    policy: &'a Policy,
    settings: &'a Authentication,
    facts: &Facts<'a>,
    means: &mut Means<'_>,
    edits: &mut Edits,
    now: Moment,
) -> (AuthMethod, Result<Identity<'a>, Interrupt>) {
    let refuse = |reason| Err(Interrupt::Refuse(reason));
    let token = credential::find(token_locations(settings), facts);
    let key = credential::find(key_locations(settings), facts);
    match (token, key) {
        (Found::Nothing, Found::Nothing) => match settings.mode {
            AuthMode::Optional => (AuthMethod::None, Ok(anonymous(Ground::Optional))),
            AuthMode::Required => (AuthMethod::None, refuse(Reason::CredentialsMissing)),
        },
        (Found::One(token), Found::Nothing) => {
            (AuthMethod::Jwt, by_token(settings, token, facts, means, edits, now))
        }
        (Found::Nothing, Found::One(key)) => {
            (AuthMethod::ApiKey, by_key(policy, settings, key, facts, means, edits, now))
        }
        (Found::Nothing, Found::Ambiguous) => (AuthMethod::ApiKey, refuse(Reason::ApiKeyInvalid)),
        // Two tokens, or a token and a key: the upstream might use the one that was not checked.
        (Found::One(_) | Found::Ambiguous, _) => (AuthMethod::Jwt, refuse(Reason::TokenMalformed)),
    }
}

fn token_locations(settings: &Authentication) -> impl Iterator<Item = &TokenLocation> {
    settings.providers.iter().flat_map(|provider| &provider.locations)
}

fn key_locations(settings: &Authentication) -> impl Iterator<Item = &TokenLocation> {
    settings.api_keys.iter().flat_map(|keys| &keys.locations)
}

fn by_token<'a>(
    settings: &'a Authentication,
    token: Credential<'a>,
    facts: &Facts<'a>,
    means: &mut Means<'_>,
    edits: &mut Edits,
    now: Moment,
) -> Result<Identity<'a>, Interrupt> {
    let verified = means.verify.verify(token.bytes, now).map_err(interrupt)?;
    let untrusted = Interrupt::Refuse(Reason::TokenUntrusted);
    let provider = settings.providers.get(verified.provider).ok_or(untrusted)?;
    // A token counts only in a place that its own provider names.
    let stands = |location| matches!(credential::at(location, facts), Found::One(_));
    if !provider.locations.iter().any(stands) {
        return Err(untrusted);
    }
    if !provider.forward_token {
        // Wherever it stands: another provider may name a place too.
        credential::strip(token_locations(settings), facts, edits);
    }
    forward(provider, &verified, edits);
    let Verified { subject, claims, .. } = verified;
    Ok(Identity { who: Who::Token { provider, subject, claims }, credential: Some(token) })
}

fn by_key<'a>(
    policy: &'a Policy,
    settings: &'a Authentication,
    presented: Credential<'a>,
    facts: &Facts<'a>,
    means: &mut Means<'_>,
    edits: &mut Edits,
    now: Moment,
) -> Result<Identity<'a>, Interrupt> {
    let invalid = Interrupt::Refuse(Reason::ApiKeyInvalid);
    let keys = settings.api_keys.as_ref().ok_or(invalid)?;
    let more: Option<&mut dyn Store> = match &policy.sidecar {
        Some(_) => Some(&mut *means.store),
        None => None,
    };
    let key = api_key::check(keys, presented, facts.client, means.digest, more, now)
        .map_err(Interrupt::Refuse)?;
    strip_api_key(settings, facts, edits);
    if let Some(header) = &keys.forward_id {
        set(header, &key.id, edits);
    }
    Ok(Identity { who: Who::Key(key), credential: Some(presented) })
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

/// Removes what the client wrote into the headers that tell the upstream who it is, in every
/// spelling that a server may take for the same: CGI and its heirs turn `x-user-id` and `x_user_id`
/// into one variable.
fn strip_outside_identity(settings: &Authentication, facts: &Facts<'_>, edits: &mut Edits) {
    let claims = settings.providers.iter().flat_map(|provider| &provider.forward_claims);
    let id = settings.api_keys.iter().filter_map(|keys| keys.forward_id.as_ref());
    let mut names = claims.map(|(_, header)| header).chain(id).peekable();
    if names.peek().is_none() {
        return;
    }
    for name in names {
        for (found, _) in facts.headers.iter() {
            if is_same_variable(found, name.as_bytes())
                && let Ok(found) = core::str::from_utf8(found)
            {
                edits.remove(found);
            }
        }
    }
}

fn is_same_variable(one: &[u8], other: &[u8]) -> bool {
    let same = |(one, other): (&u8, &u8)| {
        one.eq_ignore_ascii_case(other)
            || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// Takes API keys out of the request: always out of the query, which ends up in logs.
fn strip_api_key(settings: &Authentication, facts: &Facts<'_>, edits: &mut Edits) {
    let Some(keys) = &settings.api_keys else { return };
    let goes =
        |place: &&TokenLocation| !keys.forward_key || matches!(place, TokenLocation::Query(_));
    credential::strip(keys.locations.iter().filter(goes), facts, edits);
}

fn forward(provider: &Provider, verified: &Verified, edits: &mut Edits) {
    for (claim, header) in &provider.forward_claims {
        if let Some(text) = verified.claims.get(claim).and_then(plain) {
            set(header, &text, edits);
        }
    }
}

/// A claim is the issuer's text, a header is the wire: what cannot stand there stays out, and so does
/// what would read as another name there, because blanks around a value are cut off.
fn set(header: &str, text: &str, edits: &mut Edits) {
    let whole = text.trim_matches([' ', '\t']) == text;
    if whole && text.bytes().all(|byte| byte >= 0x20 && byte != 0x7f) {
        edits.set.push((String::from(header), text.as_bytes().to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_read_as_another_one_on_the_wire_is_not_forwarded() {
        let mut edits = Edits::default();
        for text in ["ada ", " ada", "ada\t", "a\nb", "a\0", "\u{7f}"] {
            set("x-user", text, &mut edits);
            assert!(edits.set.is_empty(), "{text:?}");
        }
        set("x-user", "ada lovelace", &mut edits);
        assert_eq!(edits.set, [(String::from("x-user"), b"ada lovelace".to_vec())]);
    }
}
