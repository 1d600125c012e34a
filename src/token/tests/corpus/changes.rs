//! No change of a good token is a good token.

use crate::read::{Verifiers, cases, name_of, token_of, unchangeable};
use serde_json::Value;
use std::collections::BTreeSet;
use token::NoHost;

/// Changes per token that go as far as a slow signature, in the tests by chance.
const SLOW_CHANGES: usize = 120;

/// Numbers from a seed that reproduces them.
struct Chance(u64);

impl Chance {
    /// A new one for every run; a run that failed has printed it.
    fn new() -> Self {
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let seed = std::env::var("SEED").ok().map_or(started.as_nanos() as u64, |seed| {
            seed.parse().unwrap_or_else(|_| panic!("SEED is a number"))
        });
        println!("SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// Whether a signature of this token takes milliseconds to check without optimisation.
fn is_slow(case: &Value) -> bool {
    !name_of(case).contains("HS") && !name_of(case).contains("A.1")
}

/// Whether a change of one bit can get as far as the signature: it must be base64url still.
fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[test]
fn no_single_bit_of_a_good_token_can_be_flipped() {
    let (mut chance, mut verifiers) = (Chance::new(), Verifiers::new(&NoHost));
    let mut kinds = BTreeSet::new();
    for case in unchangeable() {
        let good = token_of(case);
        assert!(verifiers.judge(case, &good).is_ok(), "{case}");
        kinds.insert(case["kind"].as_str());
        let signature = good.len() - good.rsplit(|byte| *byte == b'.').next().unwrap().len();
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bent = good.clone();
            bent[at] ^= 1 << bit;
            let reaches = at >= signature && is_base64url(bent[at]);
            let share = (good.len() - signature) * 5 / SLOW_CHANGES;
            if is_slow(case) && reaches && chance.below(share.max(1)) != 0 {
                continue;
            }
            let verdict = verifiers.judge(case, &bent);
            assert!(verdict.is_err(), "bit {bit} of letter {at} of {}: {verdict:?}", name_of(case));
        }
    }
    assert_eq!(kinds.iter().flatten().count(), 12);
}

#[test]
fn no_shorter_and_no_longer_token_is_accepted() {
    let mut verifiers = Verifiers::new(&NoHost);
    for case in unchangeable() {
        let good = token_of(case);
        for length in 0..good.len() {
            let verdict = verifiers.judge(case, &good[..length]);
            assert!(verdict.is_err(), "{length} letters of {}", name_of(case));
        }
        for letter in 0..=255 {
            let longer = [good.as_slice(), &[letter]].concat();
            assert!(verifiers.judge(case, &longer).is_err(), "{letter} after {}", name_of(case));
            let longer = [&[letter], good.as_slice()].concat();
            assert!(verifiers.judge(case, &longer).is_err(), "{letter} before {}", name_of(case));
        }
    }
}

#[test]
fn no_segment_of_one_good_token_fits_another() {
    let mut verifiers = Verifiers::new(&NoHost);
    let good: Vec<_> = unchangeable().map(|case| (case, token_of(case))).collect();
    for (case, token) in &good {
        let segments: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        for (other, _) in good.iter().filter(|(other, _)| other["token"] != case["token"]) {
            let others = token_of(other);
            let theirs: Vec<&[u8]> = others.split(|byte| *byte == b'.').collect();
            for swapped in 1..8_usize {
                let pick = |place: usize| {
                    if swapped >> place & 1 == 1 { theirs[place] } else { segments[place] }
                };
                let bent = [pick(0), pick(1), pick(2)].join(&b'.');
                if bent != *token && bent != others {
                    let verdict = verifiers.judge(case, &bent);
                    assert!(verdict.is_err(), "{} and {}", name_of(case), name_of(other));
                }
            }
        }
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let bent = order.map(|place| segments[place]).join(&b'.');
            assert!(verifiers.judge(case, &bent).is_err(), "{order:?} of {}", name_of(case));
        }
    }
}

/// A few edits of a token.
fn edited(token: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bent = token.to_vec();
    for _ in 0..=chance.below(3) {
        let (from, to) = (chance.below(bent.len()), chance.below(bent.len() + 1));
        match chance.below(5) {
            0 => bent.insert(to, b".AQ=_-\0 e{\xff"[chance.below(11)]),
            1 if !bent.is_empty() => drop(bent.remove(from)),
            2 => bent.extend_from_within(from.min(to)..from.max(to).min(from + 40)),
            3 => drop(bent.drain(from.min(to)..from.max(to).min(bent.len()))),
            _ if !bent.is_empty() => bent[from] = b"Aa0_-.z9"[chance.below(8)],
            _ => {}
        }
    }
    bent
}

#[test]
fn edits_of_any_token_neither_stop_us_nor_make_a_new_good_one() {
    let (mut chance, mut verifiers) = (Chance::new(), Verifiers::new(&NoHost));
    let tokens: Vec<_> = cases().iter().map(|case| (token_of(case), case)).collect();
    let known: BTreeSet<_> =
        tokens.iter().map(|(token, case)| (case["setup"].as_str(), token.as_slice())).collect();
    for (token, case) in tokens.iter().cycle().take(20_000) {
        let bent = edited(token, &mut chance);
        let is_known = known.contains(&(case["setup"].as_str(), bent.as_slice()));
        if !is_known && verifiers.judge(case, &bent).is_ok() {
            panic!("{} became {}", name_of(case), String::from_utf8_lossy(&bent));
        }
    }
}
