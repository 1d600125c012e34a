//! What filters are handed: everything, once, in pieces, whatever they have.

use super::*;
use crate::store::memory::Memory;
use crate::store::{About, ApiKey, Revocation};
use policy::model::Secret;
use policy::replica::revocations::Kind;
use policy::replica::{api_keys, files};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

fn load(store: &Arc<Memory>) -> Replica {
    Replica::load(Arc::clone(store) as _).unwrap()
}

fn new() -> Replica {
    load(&Arc::default())
}

fn put(replica: &Replica, id: &str) -> Change {
    let one = Revocation {
        kind: Kind::Token,
        issuer: None,
        value: id.to_owned(),
        issued_before: None,
        expires: None,
        created: 1,
        note: None,
    };
    Change::PutRevocation(one.print(replica.keys()), one)
}

fn key(first: u8, id: &str) -> ApiKey {
    let mut sha256 = [9; 32];
    sha256[0] = first;
    let entry = api_keys::Entry { id: id.into(), ..api_keys::Entry::default() };
    ApiKey { sha256, about: About { entry, created: 1, replaced: false } }
}

fn file(path: &str, text: &str) -> Change {
    Change::File(path.into(), Some(Secret::new(text.as_bytes().to_vec())))
}

#[track_caller]
fn make(replica: &Replica, changes: Vec<Change>) -> u64 {
    let ((), position) = replica.change(|_| Ok::<_, StoreError>((changes, ()))).unwrap();
    position.number
}

/// A filter's copy, and how it got it.
#[derive(Default)]
struct Copy {
    has: Position,
    buckets: HashMap<Bucket, Vec<u8>>,
    /// Bytes, and how many buckets, of each batch.
    batches: Vec<(usize, usize)>,
    afresh: usize,
}

impl Copy {
    fn fetch(&mut self, replica: &Replica) -> End {
        let batch = replica.batch(&self.has);
        let bytes = batch.encode();
        assert_eq!(Batch::decode(&bytes).as_ref(), Ok(&batch));
        if batch.begin == Begin::Afresh {
            self.buckets.clear();
            self.afresh += 1;
        }
        self.batches.push((bytes.len(), batch.buckets.len()));
        self.has = Position { store: format!("{:016x}", batch.store), number: batch.number };
        self.buckets.extend(batch.buckets);
        batch.end
    }

    fn follow(&mut self, replica: &Replica) {
        while self.fetch(replica) == End::More {}
        assert_eq!(self.has, replica.position());
    }
}

#[test]
fn a_filter_without_anything_begins_afresh_and_then_gets_what_changed() {
    let replica = new();
    let mut copy = Copy::default();
    copy.follow(&replica);
    assert_eq!((copy.afresh, copy.buckets.len()), (1, 0));
    make(&replica, vec![put(&replica, "a"), put(&replica, "b")]);
    copy.follow(&replica);
    assert_eq!((copy.afresh, copy.buckets.len()), (1, 2));
    let before = copy.batches.len();
    make(&replica, vec![put(&replica, "c")]);
    copy.follow(&replica);
    assert_eq!(copy.batches[before..].iter().map(|(_, buckets)| buckets).sum::<usize>(), 1);
    let mut other = Copy::default();
    other.follow(&replica);
    assert_eq!(other.buckets, copy.buckets);
}

#[test]
fn an_emptied_bucket_is_handed_over_empty() {
    let replica = new();
    let mut copy = Copy::default();
    let change = put(&replica, "a");
    let bucket = change.bucket();
    let Change::PutRevocation(print, _) = &change else { unreachable!() };
    let drop = Change::DropRevocation(*print);
    make(&replica, vec![change]);
    copy.follow(&replica);
    assert_eq!(copy.buckets[&bucket].len(), 24);
    make(&replica, vec![drop]);
    copy.follow(&replica);
    assert_eq!(copy.buckets[&bucket].len(), 0);
}

#[test]
fn pieces_are_bounded_and_nothing_is_lost_between_them() {
    let replica = new();
    let many = (0..60_000).map(|index| put(&replica, &format!("t-{index}"))).collect();
    make(&replica, many);
    let mut copy = Copy::default();
    let mut seen = HashSet::new();
    // While it copies, what it has copied already changes.
    while copy.fetch(&replica) == End::More {
        let index = copy.batches.len();
        let late = put(&replica, &format!("late-{index}"));
        seen.insert(late.bucket());
        make(&replica, vec![late]);
        assert!(index < 20);
    }
    assert!(copy.batches.len() > 2, "{:?}", copy.batches);
    for (bytes, buckets) in &copy.batches {
        assert!(*bytes < BYTES_SOON + 10_000 && *buckets > 0, "{bytes} {buckets}");
    }
    let records: usize = copy.buckets.values().map(|bytes| bytes.len() / 24).sum();
    assert_eq!(records, 60_000 + copy.batches.len() - 1);
    assert!(seen.iter().all(|bucket| copy.buckets.contains_key(bucket)));
    let mut other = Copy::default();
    other.follow(&replica);
    assert_eq!(other.buckets, copy.buckets);
}

#[test]
fn a_restarted_sidecar_goes_on_where_it_was() {
    let store = Arc::default();
    let replica = load(&store);
    let mut copy = Copy::default();
    make(&replica, vec![put(&replica, "a"), Change::PutKey(key(1, "k"))]);
    copy.follow(&replica);
    let behind = copy.has.clone();
    let last = put(&replica, "b");
    let bucket = last.bucket();
    make(&replica, vec![last]);
    drop(replica);
    let replica = load(&store);
    assert_eq!(replica.batch(&replica.position()).buckets.len(), 0);
    let batch = replica.batch(&behind);
    assert_eq!((batch.begin, batch.end), (Begin::Continue, End::Complete));
    assert_eq!(batch.buckets.iter().map(|(bucket, _)| *bucket).collect::<Vec<_>>(), [bucket]);
    copy.follow(&replica);
    let mut other = Copy::default();
    other.follow(&replica);
    assert_eq!(other.buckets, copy.buckets);
}

#[test]
fn another_store_and_a_filter_that_is_ahead_begin_afresh() {
    let replica = new();
    let number = make(&replica, vec![put(&replica, "a")]);
    let ours = replica.position().store;
    for (store, number, begin) in [
        (ours.as_str(), number, Begin::Continue),
        (&ours, number + 1, Begin::Afresh),
        ("00000000000000ac", number, Begin::Afresh),
        ("", 0, Begin::Afresh),
    ] {
        let batch = replica.batch(&Position { store: store.into(), number });
        assert_eq!(batch.begin, begin, "{store} {number}");
        assert_eq!(batch.buckets.len(), usize::from(begin == Begin::Afresh));
    }
}

/// A backup of a store, put in its place: numbers up to `number`, of another history.
fn backup(number: u64) -> Replica {
    let store = Arc::<Memory>::default();
    let before = load(&store);
    for index in 0..number {
        make(&before, vec![put(&before, &format!("b-{index}"))]);
    }
    load(&store)
}

#[test]
fn an_older_copy_of_the_store_is_not_taken_for_what_the_filter_has() {
    let replica = new();
    for index in 0..7 {
        make(&replica, vec![put(&replica, &format!("a-{index}"))]);
    }
    let mut copy = Copy::default();
    copy.follow(&replica);
    let replica = backup(4);
    // It comes to the filter's number, and beyond, before the filter is seen.
    for number in 4..9 {
        make(&replica, vec![put(&replica, &format!("c-{number}"))]);
    }
    replica.meet("filter", &copy.has);
    assert_ne!(copy.has.store, replica.position().store, "a poll is answered at once");
    let afresh = copy.afresh;
    copy.follow(&replica);
    assert_eq!(copy.afresh, afresh + 1);
    let mut other = Copy::default();
    other.follow(&replica);
    assert_eq!(copy.buckets, other.buckets);
    // Once is enough.
    replica.meet("filter", &copy.has);
    make(&replica, vec![put(&replica, "d")]);
    copy.follow(&replica);
    replica.meet("filter", &copy.has);
    copy.follow(&replica);
    assert_eq!(copy.afresh, afresh + 1);
    // Another filter with the old history is known for what it is, too.
    let late = Position { store: "00000000000000ab".into(), number: 7 };
    replica.meet("late", &late);
    assert_eq!(replica.batch(&late).begin, Begin::Afresh);
    assert_eq!(copy.has.store, replica.position().store);
}

#[test]
fn filters_that_follow_are_met_without_ado() {
    let replica = backup(4);
    let ours = replica.position();
    for (instance, number) in [("a", 0), ("b", 3), ("c", 4)] {
        replica.meet(instance, &Position { number, ..ours.clone() });
    }
    replica.meet("d", &Position::default());
    replica.meet("e", &Position { store: "cd".into(), number: 99 });
    let number = make(&replica, vec![put(&replica, "new")]);
    for instance in ["a", "b", "c", "d", "e"] {
        replica.meet(instance, &Position { number, ..ours.clone() });
    }
    for index in 0..2 * INSTANCES_MAX {
        replica.meet(&format!("many-{index}"), &Position::default());
    }
    assert_eq!(replica.position().store, ours.store);
}

#[test]
fn a_store_that_can_only_be_read_stays_in_trouble() {
    let store = Arc::<Memory>::default();
    let replica = load(&store);
    let change = || {
        let changes = vec![put(&replica, "a")];
        replica.change(|_| Ok::<_, StoreError>((changes, ())))
    };
    store.read_only.store(true, Ordering::Relaxed);
    change().unwrap_err();
    replica.recover().unwrap_err();
    assert!(replica.trouble().unwrap().contains("the disk is full"));
    let nothing = replica.change(|_| Ok::<_, StoreError>((Vec::new(), ())));
    nothing.unwrap_err();
    assert!(replica.trouble().is_some());
    store.read_only.store(false, Ordering::Relaxed);
    assert_eq!(replica.recover().unwrap().number, 0);
    assert_eq!(replica.trouble(), None);
    assert_eq!(change().unwrap().1.number, 1);
}

#[test]
fn keys_stand_in_the_bucket_of_their_hash_alone() {
    let replica = new();
    let keys: Vec<ApiKey> = (0..=255).map(|first| key(first, &format!("k-{first}"))).collect();
    make(&replica, keys.iter().cloned().map(Change::PutKey).collect());
    let mut copy = Copy::default();
    copy.follow(&replica);
    assert_eq!(copy.buckets.len(), 256);
    for key in keys {
        let expected = api_keys::encode([(&key.sha256, &key.about.entry)]);
        assert_eq!(copy.buckets[&api_keys::bucket(&key.sha256)], expected);
    }
}

#[test]
fn a_filter_keeps_its_files_until_a_restarted_sidecar_has_read_them() {
    let store = Arc::default();
    let replica = load(&store);
    let bucket = files::bucket("/f");
    make(&replica, vec![file("/f", "one")]);
    let mut copy = Copy::default();
    copy.follow(&replica);
    let one = copy.buckets[&bucket].clone();
    assert_eq!(files::decode(&one), [("/f".to_owned(), b"one".to_vec())]);
    drop(replica);
    let replica = load(&store);
    assert_eq!(replica.batch(&Position::default()).buckets, []);
    make(&replica, vec![put(&replica, "a")]);
    copy.follow(&replica);
    assert_eq!(copy.buckets[&bucket], one);
    make(&replica, vec![file("/f", "two")]);
    copy.follow(&replica);
    assert_eq!(files::decode(&copy.buckets[&bucket]), [("/f".to_owned(), b"two".to_vec())]);
    make(&replica, vec![Change::File("/f".into(), None)]);
    copy.follow(&replica);
    assert_eq!(copy.buckets[&bucket].len(), 0, "nothing wants it any more");
}

#[test]
fn a_plan_that_is_refused_changes_nothing() {
    let replica = new();
    let refused: Result<((), Position), _> =
        replica.change(|_| Err(StoreError::Failed("no".into())));
    assert!(refused.is_err());
    assert_eq!(replica.position().number, 0);
    assert_eq!(replica.trouble(), None, "it was not the store");
}

#[test]
fn after_a_failure_memory_is_what_the_store_has() {
    let store = Arc::<Memory>::default();
    let replica = load(&store);
    make(&replica, vec![put(&replica, "a"), file("/f", "one")]);
    let change = |id| {
        let changes = vec![put(&replica, id)];
        replica.change(|_| Ok::<_, StoreError>((changes, ())))
    };
    store.lying.store(true, Ordering::Relaxed);
    change("b").unwrap_err();
    assert!(replica.trouble().unwrap().contains("told to lie"));
    store.lying.store(false, Ordering::Relaxed);
    store.broken.store(true, Ordering::Relaxed);
    change("c").unwrap_err();
    replica.recover().unwrap_err();
    assert_eq!(replica.held().revocations().len(), 1, "what is known stays");
    store.broken.store(false, Ordering::Relaxed);
    assert_eq!(replica.recover().unwrap().number, 3);
    assert_eq!(replica.trouble(), None);
    let mut copy = Copy::default();
    copy.follow(&replica);
    assert_eq!(copy.buckets.len(), 3, "a, b and the file");
    assert_eq!(change("c").unwrap().1.number, 4);
    assert_eq!(replica.held().revocations().len(), 3);
}

#[test]
fn keys_and_secrets_are_not_printed() {
    let replica = new();
    make(&replica, vec![file("/f", "very secret")]);
    let printed = format!("{:?}", *replica.held());
    assert!(printed.contains("/f") && !printed.contains("very"), "{printed}");
}
