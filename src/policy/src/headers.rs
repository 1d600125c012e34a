//! The request's header map, read in place: bytes only, nothing copied, nothing trusted.
//!
//! proxy-wasm hands a map over as one buffer: a count, then a length pair per entry, then the
//! entries, each NUL-terminated (proxy-wasm ABI 0.2.1, "Serialization", little-endian). The buffer
//! comes from the network by way of the host, so every length is checked and a lie ends the walk.

/// Most entries that are looked at; Envoy's own limit is 100 unless raised.
pub const HEADERS_MAX: usize = 1024;

/// A read-only view of a serialized header map. A broken buffer reads as fewer headers.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// Wraps a buffer as the host serialized it.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let count = read_u32(bytes, 0).unwrap_or(0).min(HEADERS_MAX);
        Self { bytes, count }
    }

    /// All entries in order; names are lower case as Envoy keeps them.
    #[must_use]
    pub fn iter(&self) -> Entries<'a> {
        let body = self.count.saturating_mul(8).saturating_add(4);
        Entries { bytes: self.bytes, index: 0, count: self.count, at: body }
    }

    /// The value of the first header of that name. Use [`Headers::only`] where a second one would
    /// be an attack.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of a header that must not occur twice.
    #[must_use]
    pub fn only(&self, name: &str) -> Occurrence<'a> {
        let mut found = self.iter().filter(|(key, _)| *key == name.as_bytes());
        match (found.next(), found.next()) {
            (None, _) => Occurrence::Absent,
            (Some((_, value)), None) => Occurrence::Once(value),
            (Some(_), Some(_)) => Occurrence::Repeated,
        }
    }

    /// Whether a header of that name is there at all.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// How often a header occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence<'a> {
    /// Not at all.
    Absent,
    /// Exactly once, with this value.
    Once(&'a [u8]),
    /// More than once; which one counts cannot be known.
    Repeated,
}

/// The walk over a header map.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    index: usize,
    count: usize,
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return None;
        }
        let entry = self.entry();
        // A length that lies makes every later offset a guess: stop instead of guessing.
        self.index = if entry.is_some() { self.index + 1 } else { self.count };
        entry
    }
}

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let sizes = self.index.checked_mul(8)?.checked_add(4)?;
        let key_len = read_u32(self.bytes, sizes)?;
        let value_len = read_u32(self.bytes, sizes.checked_add(4)?)?;
        let key_end = self.at.checked_add(key_len)?;
        let value_start = key_end.checked_add(1)?;
        let value_end = value_start.checked_add(value_len)?;
        let key = self.bytes.get(self.at..key_end)?;
        let value = self.bytes.get(value_start..value_end)?;
        self.at = value_end.checked_add(1)?;
        Some((key, value))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

/// Serializes entries as the host does; for tests and for calls that send headers.
#[must_use]
pub fn serialize(entries: &[(&[u8], &[u8])]) -> alloc::vec::Vec<u8> {
    let size = entries.iter().map(|(key, value)| key.len() + value.len() + 10).sum::<usize>() + 4;
    let mut out = alloc::vec::Vec::with_capacity(size);
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&length(entries.len()));
    for (key, value) in entries {
        out.extend_from_slice(&length(key.len()));
        out.extend_from_slice(&length(value.len()));
    }
    for (key, value) in entries {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn what_was_serialized_is_read_back() {
        let bytes = serialize(&[(b":path", b"/a"), (b"x", b""), (b"x", b"\xff\x00")]);
        let headers = Headers::new(&bytes);
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [(&b":path"[..], &b"/a"[..]), (b"x", b""), (b"x", b"\xff\x00")]);
        assert_eq!(headers.only(":path"), Occurrence::Once(b"/a"));
        assert_eq!(headers.only("x"), Occurrence::Repeated);
        assert_eq!(headers.only("y"), Occurrence::Absent);
    }

    #[test]
    fn a_lying_buffer_reads_as_fewer_headers() {
        let good = serialize(&[(b"a", b"1"), (b"b", b"2")]);
        for cut in 0..good.len() {
            let whole = good.get(..cut).unwrap_or_default();
            // What is read is a beginning of what was there, never something else.
            let read: Vec<_> = Headers::new(whole).iter().collect();
            assert!([(&b"a"[..], &b"1"[..]), (b"b", b"2")].starts_with(&read), "{read:?}");
        }
        let mut huge = good.clone();
        huge.splice(0..4, u32::MAX.to_le_bytes());
        assert!(Headers::new(&huge).iter().count() < HEADERS_MAX);
        let mut long_key = good;
        long_key.splice(4..8, u32::MAX.to_le_bytes());
        assert_eq!(Headers::new(&long_key).iter().count(), 0);
    }
}
