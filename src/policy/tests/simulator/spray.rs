//! Ten million keys through one small table, and one client that is limited.

use policy::event::Event;
use policy::kernel::Judgement;
use policy::kernel::token_bucket::{FullAt, take};
use policy::model::Bucket;
use policy::store::{Store, StoreError, Swap, Versioned};
use policy::table::{Keep, Place, Reader, Record, amend};
use policy::time::Nanos;
use std::thread;

/// Sets of the table: room for 8,192 keys.
const SETS: u32 = 1_024;
/// Keys that come once each.
const KEYS: u64 = 10_000_000;
/// Between two of them: a hundred thousand requests a second.
const PACE: u64 = 10_000;
/// Ten at once, then one every second; the limited client asks each time a thousand keys have come.
const LIMIT: Bucket = Bucket { requests: 1, per: Nanos::SECOND, burst: 10 };

/// A table's sets as they are in shared data.
struct Sets {
    values: Vec<Versioned>,
    bytes: usize,
}

/// The set's number stands last in its key.
fn number(key: &[u8]) -> usize {
    let last = key.last_chunk::<4>().copied().unwrap_or_default();
    usize::try_from(u32::from_le_bytes(last)).unwrap()
}

impl Store for Sets {
    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        let value = &self.values[number(key)];
        Ok((!value.bytes.is_empty()).then(|| value.clone()))
    }

    fn swap(
        &mut self,
        key: &[u8],
        value: &[u8],
        expected: Option<u32>,
    ) -> Result<Swap, StoreError> {
        let found = &mut self.values[number(key)];
        if expected.unwrap_or(0) != found.cas {
            return Ok(Swap::Lost);
        }
        self.bytes = self.bytes + value.len() - found.bytes.len();
        found.bytes.clear();
        found.bytes.extend_from_slice(value);
        found.cas += 1;
        Ok(Swap::Done)
    }
}

/// The record of a token bucket.
#[derive(Clone, Copy)]
struct Debt(FullAt);

impl Record for Debt {
    const KIND: u8 = b's';
    const SIZE: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.ns.to_le_bytes());
        out.extend_from_slice(&self.0.frac.to_le_bytes());
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut read = Reader(body);
        Some(Self(FullAt { ns: read.u64()?, frac: read.u32()? }))
    }

    fn weight(&self, now: Nanos) -> u64 {
        self.0.ns.saturating_sub(now.0)
    }

    fn who(&self) -> [u32; 2] {
        [0; 2]
    }
}

/// Whether a key is admitted, as the limit's stage asks for it.
fn ask(store: &mut Sets, tag: u64, now: Nanos) -> u64 {
    let place = Place { table: 1, sets: SETS, shape: 1, tag };
    let judged = amend::<Debt, _>(store, &mut |_: Event<'_>| {}, &place, now, |old| {
        match take(old.map(|debt| debt.0).unwrap_or_default(), &LIMIT, 1, now) {
            Judgement::Admitted { state, .. } => Keep::Put(Debt(state), 1),
            Judgement::Refused { .. } => Keep::Same(0),
        }
    });
    judged.unwrap()
}

/// SplitMix64's finish: spreads numbers evenly over all tags.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Two threads share the keys; each has a table and a limited client of its own.
pub(crate) fn ten_million() {
    let spray = |half: u64| {
        let empty = Versioned { bytes: Vec::new(), cas: 0 };
        let mut store = Sets { values: vec![empty; SETS as usize], bytes: 0 };
        let client = 0x0123_4567_89ab_cdef ^ half;
        let start = Nanos::from_secs(1_000);
        let (mut admitted, mut now) = (0, start);
        for number in 0..KEYS / 2 {
            now = start + Nanos(number * PACE);
            if number % 1_000 == 0 {
                admitted += ask(&mut store, client, now);
            }
            // No two are the same (the mixing can be undone), and none is the client.
            ask(&mut store, mix(2 * number + half), now);
        }
        let most = 10 + (now - start).as_secs();
        assert!(admitted <= most, "{admitted} of {most}");
        assert!(admitted + 1 >= most, "{admitted} of {most}: it gets what is its own");
        let room = SETS as usize * policy::table::set_bytes_max::<Debt>();
        assert_eq!(store.bytes, room, "the table is full, and not larger");
    };
    thread::scope(|scope| {
        scope.spawn(|| spray(0));
        scope.spawn(|| spray(1));
    });
}
