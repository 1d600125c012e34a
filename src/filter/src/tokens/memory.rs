//! Remembers tokens that were verified, so that a client who sends one token a thousand times costs
//! one verification (some twenty microseconds for HS256, more for public keys).
//!
//! Changes no verdict: only good verdicts are kept, only while nothing that time decides can have
//! turned them, and the key is the whole token. So nobody can fill it with forgeries.

use lru::LruCache;
use policy::model::TokenCache;
use policy::time::{Moment, Nanos};
use policy::verify::Verified;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

/// Longer tokens are verified each time.
const TOKEN_BYTES_MAX: usize = 4096;
/// Most memory for tokens per worker, whatever the policy allows: twelve thousand tokens of common
/// size.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an entry costs beside its token's text, and how much more the claims take when they are
/// read than as text. Estimates, on the high side.
const ENTRY_BYTES: usize = 384;
const CLAIMS_FACTOR: usize = 3;

/// How far the sidecar's state was when a token was looked up in it: its store and number.
pub(super) type Position = (u64, u64);

/// A good verdict, and when it holds.
#[derive(Debug)]
pub(super) struct Good {
    pub(super) verified: Verified,
    /// The state in which nothing revoked it; `None` while that is not known.
    pub(super) checked: Option<Position>,
    /// From when until when it holds on the wall clock: until the token expires by the letter.
    /// Within the tolerated clock skew after that it is asked for each time.
    wall: (Nanos, Nanos),
    /// Until when it is trusted on the monotonic clock.
    trusted: Nanos,
}

impl Good {
    /// Whether it still holds. A clock that was set back may show a time before the token is valid.
    fn holds(&self, now: Moment) -> bool {
        let (from, until) = self.wall;
        from <= now.wall && now.wall < until && now.monotonic < self.trusted
    }
}

/// The tokens of one worker, the least recently used first to go.
pub(super) struct Memory {
    settings: TokenCache,
    tokens: LruCache<Box<[u8]>, Good, ByTail>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(settings: TokenCache) -> Self {
        Self { settings, tokens: LruCache::unbounded_with_hasher(ByTail::default()), bytes: 0 }
    }

    /// A token that was verified before, if that still counts.
    pub(super) fn recall(
        &mut self,
        token: &[u8],
        now: Moment,
    ) -> Option<(Verified, Option<Position>)> {
        let good = self.tokens.get(token)?;
        if good.holds(now) {
            return Some((good.verified.clone(), good.checked));
        }
        self.drop(token);
        None
    }

    /// Keeps a good verdict of now.
    pub(super) fn keep(
        &mut self,
        token: &[u8],
        verified: &Verified,
        checked: Option<Position>,
        now: Moment,
    ) {
        let wall = (now.wall, expiry(verified));
        let trusted = now.monotonic + self.settings.ttl;
        let good = Good { verified: verified.clone(), checked, wall, trusted };
        let most = usize::try_from(self.settings.max_entries).unwrap_or(usize::MAX);
        if most == 0 || token.len() > TOKEN_BYTES_MAX || !good.holds(now) {
            return;
        }
        self.drop(token);
        self.bytes += cost(token);
        self.tokens.put(token.into(), good);
        while self.tokens.len() > most || self.bytes > BYTES_MAX {
            let Some((oldest, _)) = self.tokens.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(cost(&oldest));
        }
    }

    /// Notes in which state a remembered token was not revoked.
    pub(super) fn note(&mut self, token: &[u8], checked: Option<Position>) {
        if let Some(good) = self.tokens.peek_mut(token) {
            good.checked = checked;
        }
    }

    /// Forgets one token.
    pub(super) fn drop(&mut self, token: &[u8]) {
        if self.tokens.pop(token).is_some() {
            self.bytes = self.bytes.saturating_sub(cost(token));
        }
    }

    /// Forgets all tokens.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.bytes = 0;
    }
}

/// Hashes the end of a token, seeded from the host's randomness: nobody can aim tokens at one place.
/// The end is its signature, which is as good as random, and only tokens with a good one are kept;
/// they are compared whole.
#[derive(Clone, Default)]
struct ByTail(RandomState);

/// [`ByTail`] at work.
struct TailHasher(DefaultHasher);

/// So many bytes at the end of a token are hashed: 192 bits of every signature.
const TAIL: usize = 32;

impl BuildHasher for ByTail {
    type Hasher = TailHasher;

    fn build_hasher(&self) -> TailHasher {
        TailHasher(self.0.build_hasher())
    }
}

impl Hasher for TailHasher {
    fn write(&mut self, bytes: &[u8]) {
        let tail = bytes.len().saturating_sub(TAIL);
        self.0.write(bytes.get(tail..).unwrap_or(bytes));
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// When a token expires by the letter.
fn expiry(verified: &Verified) -> Nanos {
    match verified.claims.get("exp").and_then(|exp| exp.as_f64()) {
        Some(seconds) if seconds >= 0.0 => Nanos::from_secs(seconds as u64),
        Some(_) => Nanos::ZERO,
        None => Nanos(u64::MAX),
    }
}

/// What keeping a token costs in bytes, about.
const fn cost(token: &[u8]) -> usize {
    ENTRY_BYTES + token.len() * (1 + CLAIMS_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    const SETTINGS: TokenCache = TokenCache { max_entries: 100, ttl: Nanos::from_secs(300) };

    fn at(seconds: u64) -> Moment {
        Moment { monotonic: Nanos::from_secs(seconds), wall: Nanos::from_secs(seconds) }
    }

    fn verified(exp: Option<f64>) -> Verified {
        let claims: Map<_, _> = exp.map(|exp| ("exp".to_owned(), json!(exp))).into_iter().collect();
        Verified { provider: 0, subject: None, claims: claims.into() }
    }

    /// Keeps a token at second 1000 and tells at which seconds it is remembered.
    #[track_caller]
    fn check(settings: TokenCache, exp: Option<f64>, seconds: &[u64], expected: &[bool]) {
        for (second, expected) in seconds.iter().zip(expected) {
            let mut memory = Memory::new(settings);
            memory.keep(b"token", &verified(exp), None, at(1000));
            assert_eq!(memory.recall(b"token", at(*second)).is_some(), *expected, "at {second}");
        }
    }

    #[test]
    fn a_good_token_is_remembered_until_it_expires() {
        check(SETTINGS, Some(1060.5), &[1000, 1059, 1060], &[true, true, false]);
        check(SETTINGS, Some(1000.0), &[1000], &[false]);
        check(SETTINGS, Some(-1.0), &[1000], &[false]);
    }

    #[test]
    fn a_token_is_trusted_for_the_time_that_the_policy_says() {
        check(SETTINGS, None, &[1299, 1300], &[true, false]);
        let short = TokenCache { ttl: Nanos::SECOND, ..SETTINGS };
        check(short, Some(9000.0), &[1000, 1001], &[true, false]);
        check(TokenCache { max_entries: 0, ..SETTINGS }, None, &[1000], &[false]);
    }

    #[test]
    fn a_clock_that_is_set_back_asks_again() {
        check(SETTINGS, None, &[999], &[false]);
    }

    #[test]
    fn tokens_are_compared_whole_and_long_ones_are_not_kept() {
        let mut memory = Memory::new(SETTINGS);
        memory.keep(b"token", &verified(None), None, at(1));
        assert!(memory.recall(b"tokeN", at(1)).is_none());
        assert!(memory.recall(b"token.", at(1)).is_none());
        let long = [b'x'; TOKEN_BYTES_MAX + 1];
        memory.keep(&long, &verified(None), None, at(1));
        assert!(memory.recall(&long, at(1)).is_none());
        assert!(memory.recall(long.get(1..).unwrap(), at(1)).is_none());
    }

    #[test]
    fn memory_is_bounded_by_number_and_what_is_used_stays() {
        let mut memory = Memory::new(SETTINGS);
        memory.keep(b"mine", &verified(None), None, at(1));
        for number in 0..1000 {
            memory.keep(format!("token{number}").as_bytes(), &verified(None), None, at(1));
            assert!(memory.recall(b"mine", at(1)).is_some());
            assert!(memory.tokens.len() <= 100);
        }
        let sum: usize = memory.tokens.iter().map(|(token, _)| cost(token)).sum();
        assert_eq!(memory.bytes, sum);
        memory.clear();
        assert_eq!((memory.tokens.len(), memory.bytes), (0, 0));
    }

    #[test]
    fn memory_is_bounded_by_bytes() {
        let mut memory = Memory::new(TokenCache { max_entries: 100_000, ..SETTINGS });
        for number in 0..3000 {
            memory.keep(format!("{number:04000}").as_bytes(), &verified(None), None, at(1));
        }
        assert!(memory.bytes <= BYTES_MAX && memory.tokens.len() > 900);
        memory.keep(b"again", &verified(None), None, at(1));
        memory.keep(b"again", &verified(None), None, at(2));
        let sum: usize = memory.tokens.iter().map(|(token, _)| cost(token)).sum();
        assert_eq!(memory.bytes, sum);
    }
}
