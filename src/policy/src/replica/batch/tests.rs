//! Batches: what was written is read, and no bytes are read as something that nobody wrote.

use super::*;
use alloc::vec;

fn batch() -> Batch {
    let bucket = |table, index| Bucket { table, index };
    Batch {
        store: 7,
        number: u64::MAX,
        keys: [1, 2],
        begin: Begin::Afresh,
        end: End::More,
        buckets: vec![
            (bucket(Table::Revocations, 65_535), vec![1; 48]),
            (bucket(Table::ApiKeys, 0), vec![]),
            (bucket(Table::Files, 63), vec![0xff; 3]),
            (bucket(Table::Bans, 4095), vec![2; 44]),
            (bucket(Table::Overrides, 63), vec![b'{']),
        ],
    }
}

/// A small generator, so that a failure is the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        self.0 >> 33
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap() % bound
    }
}

#[test]
fn a_batch_is_read_back() {
    for begin in [Begin::Afresh, Begin::Continue] {
        for end in [End::More, End::Complete] {
            let batch = Batch { begin, end, ..batch() };
            assert_eq!(Batch::decode(&batch.encode()), Ok(batch.clone()));
            let head = Head { store: 7, number: u64::MAX, keys: [1, 2], begin, end };
            assert_eq!(check(&batch.encode()), Ok(head));
        }
    }
    let empty = Batch { buckets: vec![], ..batch() };
    assert_eq!(Batch::decode(&empty.encode()), Ok(empty));
}

#[test]
fn reading_may_stop_at_a_bucket_and_go_on_there() {
    let batch = batch();
    let bytes = batch.encode();
    let mut at = Entries::new(&bytes).at();
    let mut read = vec![];
    loop {
        let mut entries = Entries::from(&bytes, at);
        let Some((bucket, held)) = entries.read().unwrap() else { break };
        read.push((bucket, held.to_vec()));
        at = entries.at();
    }
    assert_eq!(read, batch.buckets);
    assert_eq!(at, bytes.len());
}

#[test]
fn what_is_broken_is_refused_whole() {
    let good = batch().encode();
    let cuts = (0..good.len()).filter(|cut| Batch::decode(&good[..*cut]).is_ok());
    let mut ends = vec![HEAD];
    let mut entries = Entries::new(&good);
    while entries.read().unwrap().is_some() {
        ends.push(entries.at());
    }
    ends.pop();
    // Cut between two buckets it is a shorter batch: the transport tells lengths.
    assert_eq!(cuts.collect::<Vec<_>>(), ends);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Batch::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 2), BatchError::Version);
    assert_eq!(with(0, 0), BatchError::Version);
    assert_eq!(with(1, 4), BatchError::Version);
    assert_eq!(with(2, 0), BatchError::NoStore);
    assert_eq!(with(HEAD, 0), BatchError::UnknownBucket);
    assert_eq!(with(HEAD, 6), BatchError::UnknownBucket);
    assert_eq!(with(HEAD + 3, 1), BatchError::UnknownBucket, "an index beyond the table");
    assert_eq!(with(HEAD + 8, 0xff), BatchError::Truncated, "a length that lies");
    assert_eq!(Batch::decode(b""), Err(BatchError::Truncated));
    assert_eq!(Batch::decode(b"{\"store\":1}"), Err(BatchError::Version));
}

#[test]
fn what_is_read_of_any_bytes_is_written_as_the_same_bytes() {
    let mut random = Random(11);
    let good = batch().encode();
    let mut accepted = 0;
    for _ in 0..50_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, random.next().to_le_bytes()[0]),
                _ => bytes[at] = random.next().to_le_bytes()[0],
            }
        }
        if let Ok(read) = Batch::decode(&bytes) {
            accepted += 1;
            assert_eq!(read.encode(), bytes, "one spelling of a batch");
            assert!(read.buckets.iter().all(|(one, _)| one.index < one.table.buckets()));
            assert_ne!(read.store, 0);
        }
        assert_eq!(check(&bytes).is_ok(), Batch::decode(&bytes).is_ok());
    }
    assert!(accepted > 100, "the test reads something: {accepted}");
    for _ in 0..50_000 {
        let length = random.below(80);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        if let Some(version) = bytes.first_mut() {
            *version = VERSION;
        }
        if let Ok(read) = Batch::decode(&bytes) {
            assert_eq!(read.encode(), bytes);
        }
    }
}
