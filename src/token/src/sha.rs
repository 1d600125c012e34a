//! Hashes for the core, which has no cryptography of its own.

use crate::ct_equal;
use policy::verify::{Digest, Same};

/// SHA-256 and HMAC-SHA-256, the same code that tokens are checked with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha;

impl Digest for Sha {
    fn sha256(&self, bytes: &[u8]) -> [u8; 32] {
        hmac_sha256::Hash::hash(bytes)
    }

    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> [u8; 32] {
        hmac_sha256::HMAC::mac(message, key)
    }

    fn same(&self, one: &[u8], other: &[u8]) -> Same {
        if ct_equal(one, other) { Same::Yes } else { Same::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sha256_gives_the_values_of_fips_180() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&Sha.sha256(b"abc")), of_abc);
        assert_eq!(hex(&Sha.sha256(b"")), of_nothing);
    }

    #[test]
    fn hmac_gives_the_values_of_rfc_4231() {
        let mac = |key: &[u8], message: &[u8]| hex(&Sha.hmac_sha256(key, message));
        let two = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(mac(b"Jefe", b"what do ya want for nothing?"), two);
        let six = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(mac(&[0xaa; 131], message), six);
    }

    #[test]
    fn same_compares_lengths_and_every_byte() {
        assert_eq!(Sha.same(b"", b""), Same::Yes);
        assert_eq!(Sha.same(b"abc", b"abc"), Same::Yes);
        for other in ["abd", "bbc", "ab", "abcd", ""] {
            assert_eq!(Sha.same(b"abc", other.as_bytes()), Same::No, "{other}");
        }
    }
}
