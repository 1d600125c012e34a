//! The little HTTP/1.1 that the benchmark speaks itself: one request, one reply, on a connection
//! that stays open. Replies must state a `content-length`; everything measured here does.

use anyhow::{Result, anyhow, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply that takes longer than this is a hang, not a latency.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest reply that is read: Envoy's filtered statistics stay far below.
const REPLY_MAX: usize = 1 << 20;

/// The head of a reply.
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    head: String,
}

impl Answer {
    /// Whether the reply has a header of that name.
    pub(super) fn has_header(&self, name: &str) -> bool {
        value(&self.head, name).is_some()
    }
}

/// One keep-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, with small writes sent at once.
    pub(super) fn open(to: SocketAddr) -> Result<Self> {
        let failed = |e| anyhow!("cannot connect to {to}: {e}");
        let stream = TcpStream::connect(to).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a whole request and reads its whole reply.
    pub(super) fn call(&mut self, request: &[u8]) -> Result<Answer> {
        let failed = |e: std::io::Error| anyhow!("reading a reply: {e}");
        self.stream.write_all(request).map_err(failed)?;
        self.buffer.clear();
        let mut chunk = [0_u8; 4096];
        loop {
            let read = self.stream.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                bail!("the connection was closed before the reply ended");
            }
            self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
            if let Some(head) = head(&self.buffer)? {
                let status = status(&head).ok_or_else(|| anyhow!("a reply without a status"))?;
                return Ok(Answer { status, head });
            }
            if self.buffer.len() > REPLY_MAX {
                bail!("a reply of more than {REPLY_MAX} bytes");
            }
        }
    }
}

/// One GET on a connection of its own; the body of a 200.
pub(super) fn get(from: SocketAddr, path: &str) -> Result<String> {
    let request = request(from, path, &[]);
    let failed = |e| anyhow!("GET http://{from}{path}: {e}");
    let mut stream = TcpStream::connect(from).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let closing = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(closing.as_bytes()).map_err(failed)?;
    let mut reply = Vec::new();
    let limit = u64::try_from(REPLY_MAX).unwrap_or(u64::MAX);
    stream.take(limit).read_to_end(&mut reply).map_err(failed)?;
    let text = String::from_utf8_lossy(&reply);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if status(head) != Some(200) {
        let first = head.lines().next().unwrap_or("nothing");
        bail!("GET http://{from}{path} was answered `{first}`");
    }
    Ok(body.to_owned())
}

/// The bytes of a GET request.
pub(super) fn request(host: SocketAddr, path: &str, headers: &[(String, String)]) -> String {
    let extra: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{extra}\r\n")
}

/// The head, once the whole reply is there.
fn head(reply: &[u8]) -> Result<Option<String>> {
    let Some(end) = reply.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(reply.get(..end).unwrap_or_default()).into_owned();
    let length = value(&head, "content-length").and_then(|value| value.parse::<usize>().ok());
    let length = length.ok_or_else(|| anyhow!("a reply without content-length"))?;
    let whole = end.saturating_add(4).saturating_add(length);
    Ok((reply.len() >= whole).then_some(head))
}

/// The value of the first header of that name.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
}

/// The number of a status line.
fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{head, status, value};

    #[test]
    fn a_reply_is_whole_when_its_body_is() {
        let start = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert!(head(&start[..10]).unwrap().is_none());
        assert!(head(start).unwrap().is_none());
        let whole = head(&[start.as_slice(), b"ok"].concat()).unwrap().unwrap();
        assert_eq!(status(&whole), Some(200));
        assert_eq!(value(&whole, "content-length"), Some("2"));
        assert_eq!(value(&whole, "date"), None);
    }

    #[test]
    fn a_reply_without_a_length_is_refused() {
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
