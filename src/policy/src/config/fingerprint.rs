//! A fingerprint of a document: equal for equal documents, however they were written down.

use super::walk::whole;
use serde_json::Value;

/// FNV-1a with 64 bits: small, stable, and the same in wasm and natively. It tells
/// policies apart; it does not protect them.
struct Fnv(u64);

impl Fnv {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// A text with its length, so that two neighbours cannot be read as one.
    fn text(&mut self, tag: u8, text: &str) {
        self.bytes(&[tag]);
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.bytes(&u64::try_from(count).unwrap_or(u64::MAX).to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes(b"n"),
            Value::Bool(truth) => self.bytes(if *truth { b"t" } else { b"f" }),
            Value::Number(number) => match whole(number) {
                Some(n) => {
                    self.bytes(b"i");
                    self.bytes(&n.to_le_bytes());
                }
                None => {
                    self.bytes(b"d");
                    self.bytes(&number.as_f64().unwrap_or(f64::NAN).to_bits().to_le_bytes());
                }
            },
            Value::String(text) => self.text(b's', text),
            Value::Array(entries) => {
                self.bytes(b"[");
                self.count(entries.len());
                entries.iter().for_each(|entry| self.value(entry));
            }
            Value::Object(map) => {
                // Sorted here, because another crate may switch serde_json to insertion order.
                let mut keys: alloc::vec::Vec<_> = map.iter().collect();
                keys.sort_by_key(|(key, _)| *key);
                self.bytes(b"{");
                self.count(keys.len());
                for (key, entry) in keys {
                    self.text(b'k', key);
                    self.value(entry);
                }
            }
        }
    }
}

/// The fingerprint of a document. `5` and `5.0` are the same: Envoy hands all numbers over as floats.
pub(super) fn fingerprint(document: &Value) -> u64 {
    let mut fnv = Fnv(Fnv::OFFSET);
    fnv.value(document);
    fnv.0
}
