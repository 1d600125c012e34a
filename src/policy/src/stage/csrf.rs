//! CSRF: where a cookie is the credential, a browser sends it whoever asks it to; so a request that
//! changes something must show that a trusted page asked.
//!
//! Judged in this order, each only where the one before says nothing: `Sec-Fetch-Site`, `Origin`,
//! `Referer`, and last the signed double-submit [`token`].

mod origin;
pub mod token;

use crate::event::{CheckOutcome, Event};
use crate::facts::Facts;
use crate::headers::Occurrence;
use crate::model::{Csrf, CsrfToken, Mode};
use crate::reason::Reason;
use crate::stage::Means;
use crate::stage::authenticate::Identity;
use crate::stage::credential::{self, Found};
use crate::time::Moment;
use alloc::string::String;
use origin::Origin;

/// The cookie that speaks for its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session<'a> {
    /// There is none: some other page's request would bring nothing that counts.
    None,
    /// This is its value.
    Cookie(&'a [u8]),
    /// There are two; the upstream may take either.
    Ambiguous,
}

/// Finds the session: the identity's own cookie, or the upstream's where nothing else shows that the
/// sender is no other page.
#[must_use]
pub fn session<'a>(settings: &Csrf, identity: &'a Identity<'a>, facts: &Facts<'a>) -> Session<'a> {
    if let Some(cookie) = identity.cookie() {
        return Session::Cookie(cookie);
    }
    match &settings.cookie {
        Some(name) if identity.is_from_any_page() => match credential::cookie(&facts.headers, name)
        {
            Found::Nothing => Session::None,
            Found::One(cookie) => Session::Cookie(cookie.bytes),
            Found::Ambiguous => Session::Ambiguous,
        },
        _ => Session::None,
    }
}

/// Judges a request.
///
/// # Errors
/// [`Reason::CsrfRejected`], or [`Reason::KeysUnavailable`] while the token's secret has not been
/// handed over; never in shadow mode.
pub fn check(
    settings: &Csrf,
    session: Session<'_>,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Result<(), Reason> {
    if is_safe(facts) || session == Session::None {
        return Ok(());
    }
    let judgement = judge(settings, session, facts, means, now);
    let (outcome, result) = match (judgement, settings.mode) {
        (Ok(()), _) => (CheckOutcome::Allowed, judgement),
        (Err(_), Mode::Enforce) => (CheckOutcome::Denied, judgement),
        (Err(_), Mode::Shadow) => (CheckOutcome::ShadowDenied, Ok(())),
    };
    means.events.on(Event::Csrf(outcome));
    result
}

/// RFC 9110 section 9.2.1; whatever is not known to be safe is not. A WebSocket's handshake is a GET,
/// but what follows may be anything, and any page may open one with the browser's cookies.
fn is_safe(facts: &Facts<'_>) -> bool {
    let upgrade = facts.headers.has("upgrade");
    matches!(facts.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE") && !upgrade
}

fn judge(
    settings: &Csrf,
    session: Session<'_>,
    facts: &Facts<'_>,
    means: &Means<'_>,
    now: Moment,
) -> Result<(), Reason> {
    let rejected = Err(Reason::CsrfRejected);
    let pass = |trusted: bool| if trusted { Ok(()) } else { rejected };
    let is_trusted = |page: &Origin<'_>| {
        let mut trusted = settings.trusted_origins.iter();
        trusted.any(|one| Origin::read(one.as_bytes()).as_ref() == Some(page))
    };
    let is_own = |page: &Origin<'_>| own(facts).as_ref() == Some(page);
    let origin = facts.headers.only("origin");
    match facts.headers.only("sec-fetch-site") {
        Occurrence::Once(b"same-origin" | b"none") => return Ok(()),
        Occurrence::Once(b"same-site" | b"cross-site") => {
            let Occurrence::Once(page) = origin else { return rejected };
            return pass(Origin::read(page).is_some_and(|page| is_trusted(&page)));
        }
        Occurrence::Once(_) | Occurrence::Repeated => return rejected,
        Occurrence::Absent => {}
    }
    let page = match (origin, facts.headers.only("referer")) {
        (Occurrence::Once(page), _) => Origin::read(page),
        (Occurrence::Absent, Occurrence::Once(page)) => Origin::of_url(page),
        (Occurrence::Absent, Occurrence::Absent) => {
            let Some(token) = &settings.token else { return rejected };
            return by_token(token, session, facts, means, now);
        }
        (Occurrence::Repeated, _) | (_, Occurrence::Repeated) => return rejected,
    };
    pass(page.is_some_and(|page| is_own(&page) || is_trusted(&page)))
}

/// The origin that the request's own page would have: the scheme as Envoy tells it.
fn own<'a>(facts: &Facts<'a>) -> Option<Origin<'a>> {
    let Occurrence::Once(authority) = facts.headers.only(":authority") else { return None };
    let scheme: &[u8] = if facts.is_https() { b"https" } else { b"http" };
    Origin::new(scheme, authority)
}

fn by_token(
    settings: &CsrfToken,
    session: Session<'_>,
    facts: &Facts<'_>,
    means: &Means<'_>,
    now: Moment,
) -> Result<(), Reason> {
    let Session::Cookie(session) = session else { return Err(Reason::CsrfRejected) };
    let secret = secret(settings, means).ok_or(Reason::KeysUnavailable)?;
    let cookie = credential::cookie(&facts.headers, &settings.cookie);
    let (Found::One(cookie), Occurrence::Once(header)) =
        (cookie, facts.headers.only(&settings.header))
    else {
        return Err(Reason::CsrfRejected);
    };
    let key = token::Key { secret, session };
    token::check(cookie.bytes, header, key, means.digest, now.wall)
        .map_err(|token::Bad| Reason::CsrfRejected)
}

fn secret<'a>(settings: &'a CsrfToken, means: &'a Means<'_>) -> Option<&'a [u8]> {
    means.secrets.reveal(&settings.secret).filter(|secret| !secret.is_empty())
}

/// The `Set-Cookie` that gives a browser its token; `None` when it has a good one, needs none, or
/// none can be made. Its own scripts must read it, so it is not `HttpOnly`.
#[must_use]
pub fn issue(
    settings: &Csrf,
    session: Session<'_>,
    facts: &Facts<'_>,
    means: &mut Means<'_>,
    now: Moment,
) -> Option<String> {
    let Session::Cookie(session) = session else { return None };
    let wanted = settings.token.as_ref()?;
    let mut nonce = [0; token::NONCE_BYTES];
    {
        let key = token::Key { secret: secret(wanted, means)?, session };
        if let Found::One(held) = credential::cookie(&facts.headers, &wanted.cookie)
            && token::check(held.bytes, held.bytes, key, means.digest, now.wall).is_ok()
        {
            return None;
        }
    }
    (means.random)(&mut nonce);
    let key = token::Key { secret: secret(wanted, means)?, session };
    let token = token::make(nonce, key, means.digest, now.wall);
    let secure = if facts.is_https() { "; Secure" } else { "" };
    Some([&wanted.cookie, "=", &token, "; Path=/; SameSite=Strict", secure].concat())
}
