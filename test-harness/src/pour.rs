//! As many requests as a gateway takes: raw connections, several requests on their way on each
//! (pipelining), and when each was sent and answered.

use anyhow::{Context, Result, anyhow, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A connection on which nothing comes for so long has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Longest head of an answer; the gateway's have some hundred bytes.
const HEAD_MAX: usize = 64 << 10;

/// One request and its answer. The gateway decided on it between the two instants.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Before its first byte was sent.
    pub sent: Instant,
    /// After the last byte of its answer was read.
    pub done: Instant,
    /// The status of the answer.
    pub status: u16,
    /// Which connection it was on, from 0.
    pub connection: usize,
}

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct Pour {
    /// The gateway.
    pub to: SocketAddr,
    /// How many connections, a thread each.
    pub connections: usize,
    /// How many requests are sent at once on a connection before their answers are read.
    pub depth: usize,
}

impl Pour {
    /// Sends requests as fast as their answers come. `request` writes the `number`th one of all, from
    /// 0, or ends its connection by saying [`Next::End`].
    ///
    /// # Errors
    /// A connection breaks, or an answer is none of HTTP/1.1 with a length.
    pub fn run(self, request: impl Fn(u64, &mut Vec<u8>) -> Next + Sync) -> Result<Vec<Exchange>> {
        let numbers = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (request, numbers) = (&request, &numbers);
            let connection = |index| scope.spawn(move || self.on_one(index, request, numbers));
            let threads: Vec<_> = (0..self.connections).map(connection).collect();
            let mut all = Vec::new();
            for thread in threads {
                let done = thread.join().map_err(|_| anyhow!("a thread failed"))??;
                all.extend(done);
            }
            Ok(all)
        })
    }

    fn on_one(
        self,
        connection: usize,
        request: &impl Fn(u64, &mut Vec<u8>) -> Next,
        numbers: &AtomicU64,
    ) -> Result<Vec<Exchange>> {
        let stream = TcpStream::connect(self.to).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut answers = Answers { stream: &stream, bytes: Vec::new(), at: 0 };
        let (mut done, mut batch) = (Vec::new(), Vec::new());
        loop {
            batch.clear();
            let mut on_their_way = 0;
            while on_their_way < self.depth {
                let whole = batch.len();
                match request(numbers.fetch_add(1, Ordering::Relaxed), &mut batch) {
                    Next::Send => on_their_way += 1,
                    Next::End => {
                        batch.truncate(whole);
                        break;
                    }
                }
            }
            let sent = Instant::now();
            (&stream).write_all(&batch)?;
            for _ in 0..on_their_way {
                let status = answers.next()?;
                done.push(Exchange { sent, done: Instant::now(), status, connection });
            }
            if on_their_way < self.depth {
                return Ok(done);
            }
        }
    }
}

/// What a caller of [`Pour::run`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It wrote a request.
    Send,
    /// There is none any more; what it may have written is not sent.
    End,
}

/// The answers on a connection, one after the other.
struct Answers<'a> {
    stream: &'a TcpStream,
    bytes: Vec<u8>,
    /// Before this all has been looked at.
    at: usize,
}

impl Answers<'_> {
    /// Reads the next answer to its end; gives its status.
    fn next(&mut self) -> Result<u16> {
        let head = loop {
            if let Some(end) = self.rest().windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if self.rest().len() > HEAD_MAX {
                bail!("a head of more than {HEAD_MAX} bytes");
            }
            self.more()?;
        };
        let text = String::from_utf8_lossy(self.rest().get(..head).unwrap_or_default());
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3)?.parse().ok());
        let status = status.with_context(|| format!("no answer of HTTP/1.1: {text:?}"))?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let is = name.eq_ignore_ascii_case("content-length");
            is.then(|| value.trim().parse::<usize>().ok()).flatten()
        };
        let length = text.lines().find_map(header);
        let length = length.with_context(|| format!("an answer without a length: {text:?}"))?;
        while self.rest().len() < head + length {
            self.more()?;
        }
        self.at += head + length;
        Ok(status)
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn more(&mut self) -> Result<()> {
        self.bytes.drain(..self.at);
        self.at = 0;
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the connection was closed in the middle"),
            Ok(n) => self.bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("waiting for an answer"),
        }
        Ok(())
    }
}

/// A GET, for [`Pour::run`].
pub fn get(path: &str, headers: &[(&str, &str)], out: &mut Vec<u8>) {
    for part in ["GET ", path, " HTTP/1.1\r\nhost: gateway\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Rule, Upstream};

    #[test]
    fn every_request_is_answered_once_and_in_its_time() {
        let service = Upstream::start("auth").unwrap();
        service.script(Rule::status(404).path("/none"));
        let pour = Pour { to: service.address(), connections: 3, depth: 4 };
        let begin = Instant::now();
        let all = pour.run(|number, out| {
            let path = if number % 2 == 0 { "/none" } else { "/some" };
            get(path, &[("x-number", "1")], out);
            if number < 100 { Next::Send } else { Next::End }
        });
        let all = all.unwrap();
        assert_eq!(all.len(), 100);
        assert_eq!(all.iter().filter(|e| e.status == 404).count(), 50);
        assert!(all.iter().all(|e| begin <= e.sent && e.sent < e.done && e.connection < 3));
    }
}
