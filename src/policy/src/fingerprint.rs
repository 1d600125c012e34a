//! Keyed fingerprints: what stands in shared data instead of who somebody is.
//!
//! The key is random per process, so nobody outside can aim two identities at one record, and a
//! record cannot be turned back into a name.

use core::hash::Hasher;
#[expect(
    deprecated,
    reason = "core's only keyed hash; DoS-resistant, and it needs no dependency"
)]
use core::hash::SipHasher;

/// A fingerprint in the making. Parts are length-prefixed, so `"a|b", "c"` and `"a", "b|c"` differ
/// whatever bytes they hold.
#[expect(deprecated, reason = "see the import")]
#[derive(Clone, Debug)]
pub struct Fingerprint(SipHasher);

impl Fingerprint {
    /// Starts one; `domain` keeps the fingerprints of different tables apart.
    #[must_use]
    #[expect(deprecated, reason = "see the import")]
    pub fn new(seed: [u64; 2], domain: &str) -> Self {
        let [k0, k1] = seed;
        let mut print = Self(SipHasher::new_with_keys(k0, k1));
        print.part(domain.as_bytes());
        print
    }

    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.write_u64(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.write(bytes);
    }

    /// The result; never zero, which means "nobody" in a record.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.0.finish().max(1)
    }
}

/// The fingerprint of one name.
#[must_use]
pub fn of(seed: [u64; 2], domain: &str, name: &str) -> u64 {
    let mut print = Fingerprint::new(seed, domain);
    print.part(name.as_bytes());
    print.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_inside_parts_do_not_confuse() {
        let print = |parts: &[&str]| {
            let mut print = Fingerprint::new([1, 2], "t");
            parts.iter().for_each(|part| print.part(part.as_bytes()));
            print.finish()
        };
        assert_ne!(print(&["a|b", "c"]), print(&["a", "b|c"]));
        assert_ne!(print(&["", "a"]), print(&["a", ""]));
        assert_ne!(print(&["a"]), print(&["a", ""]));
        assert_eq!(print(&["a", "b"]), print(&["a", "b"]));
    }

    #[test]
    fn another_seed_gives_another_fingerprint() {
        assert_ne!(of([1, 2], "t", "x"), of([1, 3], "t", "x"));
        assert_ne!(of([1, 2], "t", "x"), of([1, 2], "u", "x"));
    }
}
