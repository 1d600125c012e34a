//! Public-key signatures, checked by Envoy's `verify_signature` (its BoringSSL is some forty times
//! faster than anything compiled to wasm).

use crate::host::Host;
use policy::verify::{Checked, Hash, Signatures};

/// The function's name.
const FUNCTION: &str = "verify_signature";

/// Protobuf wire type of a varint.
const VARINT: u64 = 0;
/// Protobuf wire type of a 64-bit number.
const FIXED64: u64 = 1;
/// Protobuf wire type of bytes and strings.
const BYTES: u64 = 2;
/// Protobuf wire type of a 32-bit number.
const FIXED32: u64 = 5;

/// The host as a [`Signatures`].
#[derive(Clone, Debug)]
pub(crate) struct HostSignatures<H>(pub(crate) H);

impl<H: Host> Signatures for HostSignatures<H> {
    fn check(&mut self, hash: Hash, spki: &[u8], signature: &[u8], text: &[u8]) -> Checked {
        let argument = encode(hash, spki, signature, text);
        match self.0.foreign(FUNCTION, &argument) {
            Ok(answer) if accepted(&answer) => Checked::Genuine,
            Ok(_) => Checked::Forged,
            Err(_) => Checked::Unsupported,
        }
    }
}

/// `VerifySignatureArguments { hash_function = 1, public_key = 2, signature = 3, text = 4 }`.
fn encode(hash: Hash, spki: &[u8], signature: &[u8], text: &[u8]) -> Vec<u8> {
    let hash = match hash {
        Hash::Sha256 => "sha256",
        Hash::Sha384 => "sha384",
        Hash::Sha512 => "sha512",
    };
    let fields = [hash.as_bytes(), spki, signature, text];
    let mut out = Vec::with_capacity(fields.iter().map(|f| f.len() + 6).sum());
    for (number, field) in (1_u64..).zip(fields) {
        varint(&mut out, number << 3 | BYTES);
        varint(&mut out, field.len() as u64);
        out.extend_from_slice(field);
    }
    out
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Whether `VerifySignatureResult { result = 1, error = 2 }` says yes. Anything that cannot be read
/// says no.
fn accepted(mut bytes: &[u8]) -> bool {
    let mut result = false;
    while !bytes.is_empty() {
        let Some((number, rest)) = field(bytes) else { return false };
        if let Some(value) = number {
            result = value != 0;
        }
        bytes = rest;
    }
    result
}

/// Reads one field: field 1's number if it was that, and what follows.
fn field(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (tag, rest) = read_varint(bytes)?;
    match (tag >> 3, tag & 7) {
        (1, VARINT) => read_varint(rest).map(|(value, rest)| (Some(value), rest)),
        (_, VARINT) => read_varint(rest).map(|(_, rest)| (None, rest)),
        (_, FIXED64) => rest.get(8..).map(|rest| (None, rest)),
        (_, FIXED32) => rest.get(4..).map(|rest| (None, rest)),
        (_, BYTES) => {
            let (size, rest) = read_varint(rest)?;
            rest.get(usize::try_from(size).ok()?..).map(|rest| (None, rest))
        }
        _ => None,
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let shift = u32::try_from(index).ok()?.checked_mul(7)?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_is_protobuf() {
        let text = [7_u8; 200];
        let bytes = encode(Hash::Sha256, b"key", b"", &text);
        let mut expected = vec![10, 6];
        expected.extend_from_slice(b"sha256");
        expected.extend_from_slice(b"\x12\x03key\x1a\x00\x22\xc8\x01");
        expected.extend_from_slice(&text);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn only_a_readable_yes_is_a_yes() {
        assert!(accepted(&[8, 1]));
        assert!(accepted(&[8, 1, 18, 2, b'n', b'o']));
        for no in [&[][..], &[8], &[8, 0], &[8, 1, 8, 0], &[8, 1, 18, 9], &[8, 1, 3], &[0xff; 12]] {
            assert!(!accepted(no), "{no:?}");
        }
    }
}
