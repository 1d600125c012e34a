//! Target `batch`: what the sidecar hands over, and what is read of it from shared data.
//!
//! Nothing panics; what was decoded means the same once it was encoded again; an API key is found
//! by its own hash alone.

use crate::input::Input;
use policy::replica::batch::Batch;
use policy::replica::{State, api_keys, bans, files, overrides, revocations};
use policy::store::{Store, StoreError, Swap, Versioned};
use token::Sha;

/// Shared data in which every key holds the same bytes.
struct Same<'a>(&'a [u8]);

impl Store for Same<'_> {
    fn read(&mut self, _: &[u8]) -> Result<Option<Versioned>, StoreError> {
        Ok(Some(Versioned { bytes: self.0.to_vec(), cas: 1 }))
    }

    fn swap(&mut self, _: &[u8], _: &[u8], _: Option<u32>) -> Result<Swap, StoreError> {
        Err(StoreError::Unavailable)
    }
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 7 {
        0 => batch(input.rest()),
        1 => keys(input.rest()),
        2 => held_files(input.rest()),
        3 => revoked(input.rest()),
        4 => {
            if let Some(state) = State::from_bytes(input.rest()) {
                assert_eq!(State::from_bytes(&state.to_bytes()), Some(state));
            }
        }
        5 => banned(input.rest()),
        _ => overridden(input.rest()),
    }
}

fn batch(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    for (bucket, _) in &batch.buckets {
        assert!(bucket.index < bucket.table.buckets(), "{bucket:?} is outside of its table");
    }
    assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
}

fn keys(bytes: &[u8]) {
    let hash = bytes.first_chunk::<32>().copied().unwrap_or_default();
    let found = api_keys::find(&hash, &Sha, &mut Same(bytes));
    if let Ok(Some(entry)) = &found {
        let again = api_keys::encode([(&hash, entry)]);
        assert_eq!(api_keys::find(&hash, &Sha, &mut Same(&again)), found, "encoded again");
    }
    if !bytes.windows(32).any(|window| window == [0xA5; 32]) {
        let other = api_keys::find(&[0xA5; 32], &Sha, &mut Same(bytes));
        assert_eq!(other, Ok(None), "a hash that is nowhere");
    }
}

fn held_files(bytes: &[u8]) {
    let held = files::decode(bytes);
    let total: usize = held.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(total <= bytes.len(), "{total} bytes of {}", bytes.len());
    let pairs = held.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
    assert_eq!(files::decode(&files::encode(pairs)), held, "encoded again");
}

fn revoked(bytes: &[u8]) {
    let records: Vec<_> = revocations::decode(bytes).collect();
    let again = revocations::encode(&records);
    assert!(bytes.starts_with(&again), "encoded again");
    let text = String::from_utf8_lossy(bytes);
    let half = text.get(..text.len() / 2);
    let token = revocations::Token { id: half, subject: half, issuer: half, issued: Some(1) };
    let said = revocations::look(&token, [1, 2], &mut Same(bytes), 1);
    assert!(said.is_ok(), "shared data answers");
}

fn banned(bytes: &[u8]) {
    let records: Vec<_> = bans::decode(bytes).collect();
    let again: Vec<_> = bans::decode(&bans::encode(&records)).collect();
    assert_eq!(again, records, "encoded again");
}

fn overridden(bytes: &[u8]) {
    let all = overrides::decode(bytes);
    let named = all.iter().map(|(limit, over)| (limit.as_str(), over)).collect();
    assert_eq!(overrides::decode(&overrides::encode(&named)), all, "encoded again");
    for (limit, over) in &all {
        let found = overrides::read(limit, &mut Same(bytes));
        assert_eq!(found.as_ref(), Ok(&Some(over.clone())), "found by its name");
    }
}
