//! Public-key signatures, checked by Envoy's `verify_signature` (its BoringSSL is some forty times
//! faster than anything compiled to wasm).

use crate::host::Host;
use crate::protobuf::{Content, fields, message};
use policy::verify::{Checked, Hash, Signatures};

/// The function's name.
const FUNCTION: &str = "verify_signature";
/// The field of the answer that says yes or no.
const RESULT: u64 = 1;

/// The host as a [`Signatures`].
#[derive(Clone, Debug)]
pub(crate) struct HostSignatures<H>(pub(crate) H);

impl<H: Host> Signatures for HostSignatures<H> {
    fn check(&mut self, hash: Hash, spki: &[u8], signature: &[u8], text: &[u8]) -> Checked {
        let hash = match hash {
            Hash::Sha256 => "sha256",
            Hash::Sha384 => "sha384",
            Hash::Sha512 => "sha512",
        };
        // hash_function = 1, public_key = 2, signature = 3, text = 4
        let argument = message(&[hash.as_bytes(), spki, signature, text]);
        match self.0.foreign(FUNCTION, &argument) {
            Ok(answer) if accepted(&answer) => Checked::Genuine,
            Ok(_) => Checked::Forged,
            Err(_) => Checked::Unsupported,
        }
    }
}

/// Whether an answer says yes. One that cannot be read says no.
fn accepted(answer: &[u8]) -> bool {
    let fields = fields(answer).unwrap_or_default();
    // The last occurrence of a field counts, as everywhere in protobuf.
    let result = fields.iter().rev().find(|(number, _)| *number == RESULT);
    matches!(result, Some((_, Content::Number(number))) if *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_readable_yes_is_a_yes() {
        assert!(accepted(&[8, 1]));
        assert!(accepted(&[8, 1, 18, 2, b'n', b'o']));
        for no in [&[][..], &[8], &[8, 0], &[8, 1, 8, 0], &[8, 1, 18, 9], &[8, 1, 3], &[0xff; 12]] {
            assert!(!accepted(no), "{no:?}");
        }
    }
}
