//! Reading what a sidecar answers, and telling it from what it does not.

use crate::host::{Buffer, Host, Map};
use policy::headers::{Headers, Occurrence};
use policy::replica::batch;
use policy::sync::{Answer, MARKER, PROTOCOL};

/// Largest answer to a poll that is read: far above [`policy::sync::COMMANDS_MAX`] commands with
/// long service names.
const POLL_BYTES_MAX: usize = 256 * 1024;

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Envoy would not send the call (no such cluster, no host in it).
    Unsendable,
    /// No answer, or one that the sidecar did not make.
    Unreachable,
    /// The sidecar answered with this status: 401 is a wrong token.
    Status(u16),
    /// The sidecar speaks this version.
    WrongProtocol(u32),
    /// The answer is too long or not what it should be.
    Unreadable,
    /// State that does not continue what is here.
    OutOfPlace,
}

impl Trouble {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Unsendable => "the cluster does not exist or has no host",
            Self::Unreachable => "no answer from a sidecar",
            Self::Status(_) => "the sidecar refused",
            Self::WrongProtocol(_) => "the sidecar speaks another protocol version",
            Self::Unreadable => "the answer cannot be read",
            Self::OutOfPlace => "the answer does not continue what is here",
        }
    }

    /// What goes with the text: the status, or the sidecar's version.
    pub(super) const fn detail(self) -> (&'static str, u32) {
        match self {
            Self::WrongProtocol(theirs) => ("protocol", theirs),
            Self::Status(status) => ("status", status as u32),
            _ => ("status", 0),
        }
    }
}

/// The answer to a poll that the host has for us now.
pub(super) fn poll<H: Host>(host: &H, size: usize) -> Result<Answer, Trouble> {
    let bytes = body(host, size, POLL_BYTES_MAX)?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| Trouble::Unreadable)?;
    match answer.protocol {
        PROTOCOL => Ok(answer),
        theirs => Err(Trouble::WrongProtocol(theirs)),
    }
}

/// The bytes of a batch that the host has for us now.
pub(super) fn batch<H: Host>(host: &H, size: usize) -> Result<Vec<u8>, Trouble> {
    body(host, size, batch::BYTES_MAX)
}

fn body<H: Host>(host: &H, size: usize, max: usize) -> Result<Vec<u8>, Trouble> {
    signed(host)?;
    if size > max {
        return Err(Trouble::Unreadable);
    }
    host.buffer(Buffer::CallResponseBody, size).map_err(|_| Trouble::Unreachable)
}

/// Whether the answer that the host has for us now is the sidecar's, in our version of the protocol,
/// and says yes. For a report that is all there is to know.
pub(crate) fn signed<H: Host>(host: &H) -> Result<(), Trouble> {
    let map = host.headers(Map::CallResponse).map_err(|_| Trouble::Unreachable)?;
    let headers = Headers::new(&map);
    let marker = match headers.only(MARKER) {
        Occurrence::Once(marker) => marker,
        Occurrence::Absent | Occurrence::Repeated => return Err(Trouble::Unreachable),
    };
    let number = |bytes: &[u8]| str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    match number(marker) {
        Some(PROTOCOL) => {}
        theirs => return Err(Trouble::WrongProtocol(theirs.unwrap_or(0))),
    }
    match headers.first(":status").and_then(number) {
        Some(200) => Ok(()),
        status => {
            let status = status.and_then(|status| u16::try_from(status).ok());
            Err(Trouble::Status(status.unwrap_or(0)))
        }
    }
}
