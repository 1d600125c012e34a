//! A client that sends any bytes, for what no HTTP library would send.

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for anything to come back.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// An answer that is looked at is small; the rest is not read.
const ANSWER_MAX: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        Self::ready(TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?)
    }

    /// Connects from an address of our own, such as any of 127.0.0.0/8.
    ///
    /// # Errors
    /// The address is not ours, or nobody listens.
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&to.into())?;
        Self::ready(socket.into())
    }

    fn ready(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { stream })
    }

    /// Sends bytes. The other side may have closed already, having answered early: that is seen
    /// when the answer is read.
    ///
    /// # Errors
    /// The bytes cannot be sent for another reason.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<&mut Self> {
        match self.stream.write_all(bytes.as_ref()) {
            Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Err(e.into())
            }
            _ => Ok(self),
        }
    }

    /// Says that nothing more will be sent; answers can still be read.
    ///
    /// # Errors
    /// The system refuses for another reason than that the other side has closed already.
    pub fn finish(&mut self) -> Result<()> {
        match self.stream.shutdown(Shutdown::Write) {
            Err(e) if e.kind() != ErrorKind::NotConnected => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Reads one head, and what is there of the body. Nothing at all is an empty answer.
    ///
    /// # Errors
    /// Nothing came and the connection stayed open.
    pub fn answer(&mut self) -> Result<Answer> {
        self.read_until(|bytes| head_end(bytes).is_some())
    }

    /// Reads until the other side closes.
    ///
    /// # Errors
    /// It does not.
    pub fn rest(&mut self) -> Result<Answer> {
        self.read_until(|_| false)
    }

    fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Result<Answer> {
        let end = Instant::now() + ANSWER_WITHIN;
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 * 1024];
        while !enough(&bytes) && bytes.len() < ANSWER_MAX {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
                Err(e) => return Err(e).context("no answer, and the connection stays open"),
            }
        }
        Ok(Answer { bytes })
    }
}

/// What came back, as bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The status of an HTTP/1 answer; 0 when the connection was closed without one.
    #[must_use]
    pub fn status(&self) -> u16 {
        let text = self.text();
        let mut words = text.split(' ');
        let http = words.next().is_some_and(|w| w.starts_with("HTTP/1."));
        words.next().filter(|_| http).and_then(|s| s.parse().ok()).unwrap_or_default()
    }

    /// All of it as text, lossy.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n")
}
