//! The forms that strings in a policy have: how each is checked, and how each is described.

use crate::model::{Cidr, KeyPart};
use crate::pattern::{PathPattern, PatternError};
use crate::time::Nanos;
use alloc::format;
use alloc::string::{String, ToString};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name of an endpoint, a limit or a provider: they become metric labels and log fields.
pub(super) const NAME_LEN_MAX: usize = 64;
/// Longest other text: far above any real issuer or header value, far below what hurts.
pub(super) const TEXT_LEN_MAX: usize = 4096;
/// Longest fallback body: every worker keeps it in memory.
pub(super) const BODY_LEN_MAX: usize = 65_536;

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
            Self::Body | Self::Secret | Self::Cidr | Self::Path | Self::KeyPart => "does not fit",
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
            Self::Body | Self::Cidr | Self::Path | Self::KeyPart => true,
        }
    }

    /// Most bytes of a text in this form.
    pub(super) const fn len_max(self) -> usize {
        match self {
            Self::Name => NAME_LEN_MAX,
            Self::Body => BODY_LEN_MAX,
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
            Self::KeyPart => "one of service, endpoint, user, ip, tier, header:NAME, claim:NAME",
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
            Self::KeyPart => Some("^(service|endpoint|user|ip|tier|header:[^ ]+|claim:.+)$"),
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

/// Reads one part of a limit's key.
pub(super) fn parse_key_part(text: &str) -> Result<KeyPart, &'static str> {
    match text {
        "service" => return Ok(KeyPart::Service),
        "endpoint" => return Ok(KeyPart::Endpoint),
        "user" => return Ok(KeyPart::User),
        "ip" => return Ok(KeyPart::Ip),
        "tier" => return Ok(KeyPart::Tier),
        "api_key" => return Err("is not supported by this version"),
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

/// Reads a network. An address alone is a network of one; set bits beyond the prefix are a mistake,
/// because the author then thought of another network than the one that would be used.
pub(super) fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let not = || "is neither a network nor an address".to_string();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| not())?;
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let prefix = digits.parse::<u8>().unwrap_or(u8::MAX);
            if prefix > longest {
                return Err(format!("has a prefix longer than {longest}"));
            }
            prefix
        }
        Some(_) => return Err(not()),
    };
    let network = mask(address, prefix);
    if network != address {
        return Err(format!("has bits set beyond its prefix; it may mean {network}/{prefix}"));
    }
    Ok(unmapped(network, prefix))
}

/// The address with everything after the prefix cleared.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !host))
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
        }
    }
}

/// `::ffff:a.b.c.d` counts as v4, as it does for a request's address.
fn unmapped(network: IpAddr, prefix: u8) -> Cidr {
    /// Leading bits of every v4-mapped v6 address.
    const MAPPED_BITS: u8 = 96;
    if let IpAddr::V6(v6) = network
        && let (Some(v4), Some(prefix)) = (v6.to_ipv4_mapped(), prefix.checked_sub(MAPPED_BITS))
    {
        return Cidr { network: IpAddr::V4(v4), prefix };
    }
    Cidr { network, prefix }
}

/// Units of a duration, longest first, in nanoseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// The same as a regular expression.
pub(super) const SPAN_REGEX: &str = "^[0-9]+(ms|s|m|h|d)$";

/// Reads a duration; one too long for the clock saturates and is then out of every range.
pub(super) fn parse_span(text: &str) -> Option<Nanos> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if digits.is_empty() {
        return None;
    }
    let count = digits.parse::<u64>().unwrap_or(u64::MAX);
    Some(Nanos(*nanos).times(count))
}

/// Writes a duration in the longest unit that fits it exactly.
pub(super) fn show_span(span: Nanos) -> String {
    if span == Nanos::ZERO {
        return "0s".to_string();
    }
    let exact = UNITS.iter().find(|(_, nanos)| span.0.is_multiple_of(*nanos));
    exact.map_or_else(
        || format!("{}ns", span.0),
        |(unit, nanos)| format!("{}{unit}", span.0 / nanos),
    )
}

#[cfg(test)]
mod tests;
