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

    /// Sends a whole request and reads its whole reply; the status and the body's text.
    pub(super) fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
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
            if let Some((head, body)) = split(&self.buffer)? {
                let text = self.buffer.get(..head).unwrap_or_default();
                let status = status(text).ok_or_else(|| anyhow!("a reply without a status"))?;
                return Ok((status, self.buffer.get(body..).unwrap_or_default()));
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
    if status(head.as_bytes()) != Some(200) {
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

/// Where the head ends and the body begins, once the whole reply is there.
fn split(reply: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = reply.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(reply.get(..head).unwrap_or_default());
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or_else(|| anyhow!("a reply without content-length"))?;
    let body = head.saturating_add(4);
    Ok((reply.len() >= body.saturating_add(length)).then_some((head, body)))
}

/// The number of a status line.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{split, status};

    #[test]
    fn a_reply_is_whole_when_its_body_is() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert!(split(&head[..10]).unwrap().is_none());
        assert!(split(head).unwrap().is_none());
        let whole = [head.as_slice(), b"ok"].concat();
        assert_eq!(split(&whole).unwrap(), Some((head.len() - 4, head.len())));
        assert_eq!(status(head), Some(200));
    }

    #[test]
    fn a_reply_without_a_length_is_refused() {
        assert!(split(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
