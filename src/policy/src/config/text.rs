//! The forms that strings in a policy have: how each is checked, and how each is described.

mod clock;
mod fraction;
mod network;

use crate::model::KeyPart;
use crate::pattern::{PathPattern, PatternError};
use alloc::format;
use alloc::string::{String, ToString};

pub(super) use clock::{SPAN_REGEX, parse_span, parse_time, show_span};
pub(super) use fraction::{
    FRACTION_REGEX, FractionError, fraction_of, parse_fraction, show_fraction,
};
pub(super) use network::{is_loopback_origin, parse_cidr};

/// Longest name of an endpoint, a limit or a provider: they become metric labels and log fields.
pub(super) const NAME_LEN_MAX: usize = 64;
/// Longest other text: far above any real issuer or header value, far below what hurts.
pub(super) const TEXT_LEN_MAX: usize = 4096;
/// Longest fallback body: every worker keeps it in memory.
pub(super) const BODY_LEN_MAX: usize = 65_536;
/// Longest permission: each is compared with those of the identity, segment by segment.
const PERMISSION_LEN_MAX: usize = 256;
/// SHA-256 of no bytes at all: what comes out when the secret did not reach the tool.
const SHA256_OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The form of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A name of the user's choice that ends up in labels and headers.
    Name,
    /// The name of an Envoy cluster.
    Service,
    /// Any text without control characters.
    Line,
    /// Any text at all, empty too.
    Body,
    /// The bytes of a secret.
    Secret,
    /// The name of an environment variable.
    Variable,
    /// A network prefix or an address.
    Cidr,
    /// A path pattern.
    Path,
    /// A header name.
    HeaderName,
    /// A token of RFC 9110 whose case counts: a cookie's name, a scheme.
    Token,
    /// A header value.
    HeaderValue,
    /// A header value, or nothing at all.
    HeaderValueOrEmpty,
    /// An upper-case method.
    Method,
    /// One part of a limit's key.
    KeyPart,
    /// A permission: segments between `:`, of which each may be `*`.
    Permission,
    /// A SHA-256 in hexadecimal digits.
    Sha256,
    /// A point in time.
    Time,
    /// The origin of a web page.
    Origin,
    /// The absolute path of a file.
    File,
    /// The path and query of a request that the gateway makes.
    Target,
    /// A host, perhaps with a port.
    Authority,
}

impl Format {
    /// Says what is wrong with a text, if anything.
    pub(super) fn fault(self, text: &str) -> Option<String> {
        let longest = self.len_max();
        if text.len() > longest {
            return Some(format!("has {} bytes, more than {longest}", text.len()));
        }
        match self {
            Self::Cidr => parse_cidr(text).err(),
            Self::Path => PathPattern::parse(text).err().map(|e| pattern_fault(e).to_string()),
            Self::KeyPart => parse_key_part(text).err().map(ToString::to_string),
            Self::Permission => permission_fault(text).map(ToString::to_string),
            Self::Sha256 => sha256_fault(text).map(ToString::to_string),
            Self::Origin => network::origin_fault(text),
            Self::File => file_fault(text).map(ToString::to_string),
            _ if self.fits(text) => None,
            _ if text.is_empty() => Some("is empty".to_string()),
            _ => Some(self.misfit().to_string()),
        }
    }

    /// What a text is that does not fit; what would fit stands behind it in the message.
    const fn misfit(self) -> &'static str {
        match self {
            Self::Name => "is not such a name",
            Self::Service => "cannot name a cluster here",
            Self::Variable => "cannot name a variable",
            Self::HeaderName => "cannot name a header",
            Self::HeaderValue | Self::HeaderValueOrEmpty => "cannot be a header's value",
            Self::Token => "is not a token",
            Self::Method => "is not an upper-case method",
            Self::Line => "has a control character",
            Self::Time => "is not such a point in time",
            Self::Target => "is not a path that can be requested",
            Self::Authority => "is not a host",
            _ => "does not fit",
        }
    }

    fn fits(self, text: &str) -> bool {
        let every = |test: fn(u8) -> bool| !text.is_empty() && text.bytes().all(test);
        match self {
            Self::Name => every(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)),
            Self::Service => every(|b| b.is_ascii_graphic() && !b";\"\\".contains(&b)),
            Self::Line => !text.is_empty() && !text.chars().any(char::is_control),
            Self::Secret => !text.is_empty(),
            Self::Variable => {
                let name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                every(name) && !text.starts_with(|c: char| c.is_ascii_digit())
            }
            Self::HeaderName | Self::Token => every(is_token_byte),
            Self::HeaderValue => is_header_value(text),
            Self::HeaderValueOrEmpty => text.is_empty() || is_header_value(text),
            Self::Method => every(|b| is_token_byte(b) && !b.is_ascii_lowercase()),
            Self::Time => parse_time(text).is_some(),
            Self::Target => text.starts_with('/') && every(|b| b.is_ascii_graphic() && b != b'#'),
            Self::Authority => network::is_authority(text),
            // These say more precisely what is wrong, in `fault`.
            Self::Cidr
            | Self::Path
            | Self::KeyPart
            | Self::Permission
            | Self::Sha256
            | Self::Origin
            | Self::File
            | Self::Body => true,
        }
    }

    /// Most bytes of a text in this form.
    pub(super) const fn len_max(self) -> usize {
        match self {
            Self::Name => NAME_LEN_MAX,
            Self::Body => BODY_LEN_MAX,
            Self::Permission => PERMISSION_LEN_MAX,
            _ => TEXT_LEN_MAX,
        }
    }

    /// What is allowed, for messages and the schema.
    pub(super) const fn allowed(self) -> &'static str {
        match self {
            Self::Name => "a name of 1 to 64 letters, digits, `_`, `.` or `-`",
            Self::Service => {
                "the name of an Envoy cluster (visible ASCII without `;`, `\"` and `\\`)"
            }
            Self::Line => "a text without control characters, not empty",
            Self::Body => "a text of at most 65536 bytes",
            Self::Secret => "a text, not empty",
            Self::Variable => "the name of an environment variable (letters, digits, `_`)",
            Self::Cidr => "a network such as 10.0.0.0/8 or 2001:db8::/32, or one address",
            Self::Path => {
                "a path such as /api/samples/{id}: literal segments, `{name}` or `*` for one \
                 segment, `**` at the end for the rest"
            }
            Self::HeaderName => "a header name (RFC 9110 token)",
            Self::Token => "a token (RFC 9110 section 5.6.2)",
            Self::HeaderValue => "a header value: visible ASCII, with blanks inside only",
            Self::HeaderValueOrEmpty => {
                "a header value (visible ASCII, with blanks inside only), or \"\""
            }
            Self::Method => "a method in upper case such as GET",
            Self::KeyPart => {
                "one of service, endpoint, user, api_key, ip, tier, header:NAME, claim:NAME"
            }
            Self::Permission => {
                "a permission such as samples:read or samples:*:read: segments of visible ASCII \
                 (without `\"` and `\\`) between `:`, `*` for a whole segment only"
            }
            Self::Sha256 => {
                "64 hexadecimal digits: the SHA-256 of the secret, as \
                 `printf %s \"$SECRET\" | sha256sum` prints it"
            }
            Self::Time => "a time such as 2027-01-01T00:00:00Z (RFC 3339), from 1970 on",
            Self::Origin => "an origin as browsers write it, such as https://app.example",
            Self::File => "the absolute path of a file, without empty and dot segments",
            Self::Target => "a path that begins with `/`, of visible ASCII without `#`",
            Self::Authority => "a host such as idp.example or idp.example:8443, no scheme, no path",
        }
    }

    /// The same as a regular expression (ECMA 262), where one can say it.
    pub(super) const fn regex(self) -> Option<&'static str> {
        match self {
            Self::Name => Some("^[A-Za-z0-9_.-]{1,64}$"),
            Self::Service => Some(r#"^[!#-:<-\[\]-~]+$"#),
            Self::Line => Some("^[^\\u0000-\\u001f\\u007f-\\u009f]+$"),
            Self::Secret => Some("^[\\s\\S]+$"),
            Self::Variable => Some("^[A-Za-z_][A-Za-z0-9_]*$"),
            Self::Cidr => Some("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"),
            Self::Path => Some("^/[^?#]*$"),
            Self::HeaderName | Self::Token => Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
            Self::HeaderValue => Some("^[!-~]([ -~]*[!-~])?$"),
            Self::HeaderValueOrEmpty => Some("^([!-~]([ -~]*[!-~])?)?$"),
            Self::Method => Some("^[A-Z0-9!#$%&'*+.^_`|~-]+$"),
            Self::KeyPart => {
                Some("^(service|endpoint|user|api_key|ip|tier|header:[^ ]+|claim:.+)$")
            }
            Self::Permission => Some(PERMISSION_REGEX),
            Self::Sha256 => Some("^[0-9A-Fa-f]{64}$"),
            Self::Time => Some(clock::TIME_REGEX),
            Self::Origin => Some("^https?://([a-z0-9._-]+|\\[[0-9a-f:.]+\\])(:[0-9]{1,5})?$"),
            Self::File => Some("^(/[^/\\u0000-\\u001f\\u007f-\\u009f]+)+$"),
            Self::Target => Some("^/[!\"$-~]*$"),
            Self::Authority => Some("^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$"),
            Self::Body => None,
        }
    }
}

/// A byte of an RFC 9110 token.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a text can be sent as a header value: no line ends, nothing outside ASCII.
pub(super) fn is_header_value(text: &str) -> bool {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    visible && !text.is_empty() && text.trim() == text
}

fn pattern_fault(error: PatternError) -> &'static str {
    match error {
        PatternError::NoLeadingSlash => "does not begin with `/`",
        PatternError::RestNotLast => "has `**` before its end",
        PatternError::MixedSegment => {
            "has a segment that mixes text with `*` or braces, or an empty or open `{name}`"
        }
        PatternError::NotNormal => "has a query, a fragment, an empty or a dot segment",
    }
}

/// A permission as a regular expression.
const PERMISSION_REGEX: &str = r#"^([*]|[!#-)+-9;-\[\]-~]+)(:([*]|[!#-)+-9;-\[\]-~]+))*$"#;

/// Says what is wrong with a permission. Its bytes are those of an OAuth scope (RFC 6749 section
/// 3.3), so that it can be told in `WWW-Authenticate` whenever it is missing.
fn permission_fault(text: &str) -> Option<&'static str> {
    let scope = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if text.is_empty() {
        return Some("is empty");
    }
    if !text.bytes().all(scope) {
        return Some("has a blank or another byte that no permission has");
    }
    if text.split(':').any(str::is_empty) {
        return Some("has an empty segment");
    }
    let mixed = text.split(':').any(|segment| segment.contains('*') && segment != "*");
    mixed.then_some("mixes text with `*` in one segment")
}

fn sha256_fault(text: &str) -> Option<&'static str> {
    match parse_sha256(text) {
        None => Some("is not a SHA-256"),
        Some(SHA256_OF_NOTHING) => Some("is the hash of no bytes at all"),
        Some(_) => None,
    }
}

/// Reads 64 hexadecimal digits.
pub(super) fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !odd.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(digest)
}

fn file_fault(text: &str) -> Option<&'static str> {
    let Some(path) = text.strip_prefix('/') else {
        return Some("does not begin with `/`");
    };
    if text.contains(char::is_control) {
        return Some("has a control character");
    }
    let odd = path.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    odd.then_some("has an empty or a dot segment")
}

/// Reads one part of a limit's key.
pub(super) fn parse_key_part(text: &str) -> Result<KeyPart, &'static str> {
    match text {
        "service" => return Ok(KeyPart::Service),
        "endpoint" => return Ok(KeyPart::Endpoint),
        "user" => return Ok(KeyPart::User),
        "api_key" => return Ok(KeyPart::ApiKey),
        "ip" => return Ok(KeyPart::Ip),
        "tier" => return Ok(KeyPart::Tier),
        _ => {}
    }
    if let Some(name) = text.strip_prefix("header:") {
        let fits = Format::HeaderName.fits(name);
        return if fits {
            Ok(KeyPart::Header(name.to_ascii_lowercase()))
        } else {
            Err("does not name a header after `header:`")
        };
    }
    match text.strip_prefix("claim:") {
        Some(name) if Format::Line.fits(name) => Ok(KeyPart::Claim(name.to_string())),
        Some(_) => Err("does not name a claim after `claim:`"),
        None => Err("is not a key part"),
    }
}

#[cfg(test)]
mod tests;
