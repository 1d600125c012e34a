//! Remembers tokens that were verified, so that a client who sends one token a thousand times costs
//! one verification (some twenty microseconds for HS256, more for public keys).
//!
//! Changes no verdict: only good verdicts are kept, only while nothing that time decides can have
//! turned them, and the key is the whole token. So nobody can fill it with forgeries.

use crate::metrics::Recall;
use hashbrown::HashMap;
use policy::time::Nanos;
use policy::verify::{TokenError, Verified, Verify};

/// Most tokens that one VM remembers: some 4 MiB with tokens of common size, some 30 MiB when every
/// one of them is as long as [`TOKEN_BYTES_MAX`] allows.
const TOKENS_MAX: usize = 2048;
/// Longer tokens are verified each time.
const TOKEN_BYTES_MAX: usize = 4096;
/// Longest trust in a verdict, for tokens that never expire.
const TRUST_MAX: Nanos = Nanos::from_secs(300);

/// A verifier with a memory.
pub(crate) struct Remembering<V> {
    inner: V,
    /// Told of every look.
    note: Box<dyn Fn(Recall)>,
    /// Used since the halves were last swapped.
    young: HashMap<Vec<u8>, Good>,
    /// Not used since; dropped at the next swap.
    old: HashMap<Vec<u8>, Good>,
}

/// A good verdict, and the wall-clock times between which it holds.
#[derive(Debug)]
struct Good {
    verified: Verified,
    from: Nanos,
    until: Nanos,
}

impl<V> Remembering<V> {
    pub(crate) fn new(inner: V, note: Box<dyn Fn(Recall)>) -> Self {
        Self { inner, note, young: HashMap::new(), old: HashMap::new() }
    }

    fn keep(&mut self, token: Vec<u8>, good: Good) {
        if self.young.len() >= TOKENS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, good);
    }
}

impl Good {
    /// A verdict of now. It holds until the token expires by the letter: within the tolerated clock
    /// skew after that it is asked for each time.
    fn new(verified: &Verified, now: Nanos) -> Self {
        let seconds = verified.claims.get("exp").and_then(|exp| exp.as_f64());
        let expiry = match seconds {
            Some(seconds) if seconds >= 0.0 => Nanos::from_secs(seconds as u64),
            Some(_) => Nanos::ZERO,
            None => Nanos(u64::MAX),
        };
        let until = expiry.min(now + TRUST_MAX);
        Self { verified: verified.clone(), from: now, until }
    }

    /// A clock that was set back may show a time before the token is valid.
    fn holds(&self, now: Nanos) -> bool {
        self.from <= now && now < self.until
    }
}

impl<V: Verify> Verify for Remembering<V> {
    fn verify(&mut self, token: &[u8], now: Nanos) -> Result<Verified, TokenError> {
        if let Some(good) = self.young.get(token).filter(|good| good.holds(now)) {
            (self.note)(Recall::Hit);
            return Ok(good.verified.clone());
        }
        if let Some((token, good)) = self.old.remove_entry(token).filter(|(_, g)| g.holds(now)) {
            let verified = good.verified.clone();
            self.keep(token, good);
            (self.note)(Recall::Hit);
            return Ok(verified);
        }
        (self.note)(Recall::Miss);
        let verified = self.inner.verify(token, now)?;
        let good = Good::new(&verified, now);
        if token.len() <= TOKEN_BYTES_MAX && good.holds(now) {
            self.keep(token.to_vec(), good);
        }
        Ok(verified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    /// Accepts tokens that begin with `good` and counts how often it is asked.
    struct Counting {
        asked: usize,
        exp: Option<f64>,
    }

    impl Verify for Counting {
        fn verify(&mut self, token: &[u8], _now: Nanos) -> Result<Verified, TokenError> {
            self.asked += 1;
            if !token.starts_with(b"good") {
                return Err(TokenError::Untrusted);
            }
            let mut claims = Map::new();
            if let Some(exp) = self.exp {
                claims.insert("exp".into(), json!(exp));
            }
            Ok(Verified { provider: 0, subject: None, claims })
        }
    }

    fn cache(exp: Option<f64>) -> Remembering<Counting> {
        Remembering::new(Counting { asked: 0, exp }, Box::new(|_| {}))
    }

    /// Verifies at these seconds and says how often the verifier was asked.
    fn asked(cache: &mut Remembering<Counting>, token: &[u8], seconds: &[u64]) -> usize {
        let before = cache.inner.asked;
        for second in seconds {
            let _verdict = cache.verify(token, Nanos::from_secs(*second));
        }
        cache.inner.asked - before
    }

    #[test]
    fn a_good_token_is_verified_once_until_it_expires() {
        let mut cache = cache(Some(1060.5));
        assert_eq!(asked(&mut cache, b"good", &[1000, 1001, 1059]), 1);
        assert_eq!(asked(&mut cache, b"good", &[1060, 1061, 1062]), 3);
    }

    #[test]
    fn every_look_is_told() {
        let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let note = std::rc::Rc::clone(&told);
        let inner = Counting { asked: 0, exp: None };
        let note = Box::new(move |recall| note.borrow_mut().push(recall));
        let mut cache = Remembering::new(inner, note);
        asked(&mut cache, b"good", &[1, 1]);
        asked(&mut cache, b"bad", &[1]);
        assert_eq!(*told.borrow(), [Recall::Miss, Recall::Hit, Recall::Miss]);
    }

    #[test]
    fn a_token_without_expiry_is_trusted_for_a_while() {
        let mut cache = cache(None);
        assert_eq!(asked(&mut cache, b"good", &[1000, 1299, 1300, 1301]), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_asks_again() {
        let mut cache = cache(None);
        assert_eq!(asked(&mut cache, b"good", &[1000, 999]), 2);
    }

    #[test]
    fn a_bad_token_and_a_long_one_are_never_remembered() {
        let mut cache = cache(None);
        assert_eq!(asked(&mut cache, b"bad", &[1, 1, 1]), 3);
        let long = [&b"good"[..], &[b'x'; TOKEN_BYTES_MAX]].concat();
        assert_eq!(asked(&mut cache, &long, &[1, 1, 1]), 3);
        assert!(cache.young.is_empty() && cache.old.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut cache = cache(None);
        for number in 0..10 * TOKENS_MAX {
            asked(&mut cache, format!("good{number}").as_bytes(), &[1]);
            asked(&mut cache, b"good", &[1]);
            assert!(cache.young.len() + cache.old.len() <= TOKENS_MAX);
        }
        assert_eq!(cache.inner.asked, 10 * TOKENS_MAX + 1);
    }
}
