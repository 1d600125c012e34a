//! `csrf`: where it applies, and that its token can neither be guessed nor be mistaken.

use super::Site;
use super::authorization::mode;
use super::headers::{is_hop_by_hop, lower};
use super::secrets::Least;
use crate::config::section::Section;
use crate::config::text::is_loopback_origin;
use crate::model::{Csrf, CsrfToken};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Shortest secret: as long as the hash that is keyed with it.
const SECRET_LEN_MIN: usize = 32;

/// Headers that pages of every site can send without asking the server first (Fetch standard,
/// "CORS-safelisted request-header").
const HEADERS_OF_ALL_PAGES: [&str; 5] =
    ["accept", "accept-language", "content-language", "content-type", "range"];
/// Headers that no script can set, or that mean something else.
const HEADERS_TAKEN: [&str; 8] =
    ["authorization", "content-length", "cookie", "date", "host", "origin", "referer", "via"];
/// The same by how they begin: browsers keep these for themselves.
const HEADERS_TAKEN_PREFIXES: [&str; 2] = ["sec-", "proxy-"];

impl Site<'_> {
    /// The section; `None` when it is off.
    pub(super) fn csrf(&mut self, whole: &Section<'_>) -> Option<Csrf> {
        let Some(section) = whole.section_if_there("csrf") else {
            if !whole.has("csrf") {
                self.unprotected_cookies();
            }
            return None;
        };
        let trusted_origins = self.trusted_origins(&section);
        let cookie = section.text("cookie").map(ToString::to_string);
        let reference = section.section_if_there("token");
        let token = reference.map(|token| self.csrf_token(&token, cookie.as_deref()));
        if section.text("mode") == Some("off") {
            self.unprotected_cookies();
            return None;
        }
        let authentication = whole.section("authentication");
        let jwt = authentication.section("jwt");
        let clear = self.places.is_clear()
            && !whole.is_bad("authentication")
            && !authentication.is_bad("jwt")
            && !authentication.is_bad("api_keys")
            && !jwt.is_bad("providers");
        if clear && !section.has("cookie") && self.places.cookies().next().is_none() {
            let wrong = "no cookie is a credential here, so it can never apply".to_string();
            let allowed = "`cookie` with the name of the upstream's session cookie, a cookie among \
                           the `locations` of tokens, or no `csrf`";
            self.mistake(section.path(), wrong, allowed);
        }
        if !section.has("token") {
            self.warn(
                section.path(),
                "requests of browsers that send neither Sec-Fetch-Site nor Origin nor Referer are \
                 refused; a `token` lets them pass",
            );
        }
        Some(Csrf { mode: mode(&section), trusted_origins, cookie, token })
    }

    fn trusted_origins(&mut self, section: &Section<'_>) -> Vec<String> {
        let origins = section.texts("trusted_origins");
        self.unique(&origins);
        for origin in origins.iter().filter(|origin| origin.text.starts_with("http://")) {
            if !is_loopback_origin(origin.text) {
                self.warn(
                    &origin.path,
                    "whoever sits on the way can change pages in clear text, and so be trusted",
                );
            }
        }
        section.strings("trusted_origins")
    }

    fn csrf_token(&mut self, section: &Section<'_>, session: Option<&str>) -> CsrfToken {
        let least = Least { bytes: SECRET_LEN_MIN, purpose: "HMAC-SHA-256" };
        let secret = self.secret_source(&section.section("secret"), &least);
        let cookie = section.string("cookie");
        let is_session = self.places.cookies().any(|(_, name)| name == cookie);
        if is_session || session == Some(&cookie) {
            let wrong = format!("the cookie {cookie:?} holds the session");
            self.mistake(&section.at("cookie"), wrong, "a cookie of its own such as csrf-token");
        }
        let header = lower(&section.string("header"));
        if let Some(wrong) = self.header_fault(&header) {
            let wrong = format!("the header {header} {wrong}");
            self.mistake(&section.at("header"), wrong, "a header of its own such as x-csrf-token");
        }
        CsrfToken { secret, cookie, header }
    }

    /// Why a header cannot show that a page of one's own has sent it.
    fn header_fault(&self, header: &str) -> Option<&'static str> {
        if HEADERS_OF_ALL_PAGES.contains(&header) {
            return Some("can be sent by pages of every site");
        }
        let taken = HEADERS_TAKEN.contains(&header)
            || HEADERS_TAKEN_PREFIXES.iter().any(|prefix| header.starts_with(prefix))
            || is_hop_by_hop(header)
            || self.places.is_credential_header(header)
            || self.places.is_forwarded(header);
        taken.then_some("serves another purpose")
    }

    /// Without `csrf`, warns of cookies that are credentials: browsers send them along whoever
    /// made the page.
    fn unprotected_cookies(&mut self) {
        let paths: Vec<String> = self.places.cookies().map(|(path, _)| path.to_string()).collect();
        for path in paths {
            self.warn(&path, "pages of other sites can make browsers send it; `csrf` stops them");
        }
    }
}
