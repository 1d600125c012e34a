//! RSA keys of a broken generator (ROCA, CVE-2017-15361), which anybody can factor.

/// Primes for which the powers of 65537 do not reach every remainder. The primes of those keys are
/// `k * M + 65537^a mod M` with an `M` that all of these divide, so that the modulus, too, is a power
/// of 65537 for each of them (Nemec et al., "The Return of Coppersmith's Attack", 2017).
const PRIMES: [u32; 17] =
    [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Whether a modulus (big-endian) has the mark. About one sound key in 100 million has it as well.
pub(crate) fn has_mark(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| {
        let rest = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        is_power(rest, *prime)
    })
}

/// Whether some power of 65537 leaves that rest.
fn is_power(rest: u32, prime: u32) -> bool {
    let mut power = 1;
    // The powers repeat after `prime - 1` of them at the latest.
    (1..prime).any(|_| {
        power = power * (65_537 % prime) % prime;
        power == rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_of_65537_has_the_mark_and_its_neighbours_do_not() {
        let mut power = [0_u8; 16];
        // 65537^3 = 281 487 861 809 153
        power[8..].copy_from_slice(&281_487_861_809_153_u64.to_be_bytes());
        assert!(has_mark(&power));
        for near in [-2_i64, 2, 4, 6] {
            let number = 281_487_861_809_153_u64.wrapping_add_signed(near);
            assert!(!has_mark(&number.to_be_bytes()), "{near}");
        }
    }

    #[test]
    fn each_prime_of_the_table_tells_something() {
        for prime in PRIMES {
            let powers = (1..prime).filter(|rest| is_power(*rest, prime)).count();
            assert!(powers < prime as usize - 1, "{prime}");
        }
    }
}
