//! What every store must do.

use super::embedded::{Embedded, FILE};
use super::memory::Memory;
use super::*;
use crate::render::tests::Directory;
use std::fs;
use std::path::Path;

fn revocation(value: &str) -> Revocation {
    Revocation {
        kind: Kind::Subject,
        issuer: Some("i".into()),
        value: value.into(),
        issued_before: Some(5),
        expires: Some(1000),
        created: 3,
        note: None,
    }
}

fn key(id: &str, hash: u8) -> ApiKey {
    let entry = api_keys::Entry { id: id.into(), ..api_keys::Entry::default() };
    ApiKey { sha256: [hash; 32], about: About { entry, created: 4, replaced: false } }
}

fn ban(name: &str, serial: u64) -> Ban {
    let admin = AdminBan { since_ms: 1, until_ms: Some(5000), note: Some("n".into()) };
    let penalty = PenaltyBan {
        serial,
        limit: "l".into(),
        level: 2,
        made_ms: 3,
        until_ms: u64::MAX,
        stands: Stands::Lifted,
    };
    let nobody = Ban::nobody(bans::Kind::User, Some("idp".into()), name.into());
    Ban { admin: Some(admin), penalty: Some(penalty), ..nobody }
}

fn overridden(requests: u32) -> Overridden {
    let change = Override { requests: Some(requests), per_ms: Some(1), ..Override::default() };
    Overridden { change, since: 6 }
}

const fn ban_key(first: u8) -> BanKey {
    let mut key = [1; 24];
    key[0] = first;
    key
}

const fn print(first: u8) -> Print {
    let mut print = [0; 16];
    print[0] = first;
    print
}

fn commit(store: &dyn Store, changes: &[Change]) -> u64 {
    let mut touched: Vec<Bucket> = changes.iter().map(Change::bucket).collect();
    touched.sort_unstable();
    touched.dedup();
    store.commit(changes, &touched).unwrap()
}

/// Every promise of [`Store`]; `reopen` gives the same store after a restart.
fn conforms(store: Box<dyn Store>, reopen: impl Fn(Box<dyn Store>) -> Box<dyn Store>) {
    // It begins with nothing, and its identity stays.
    let identity = store.identity();
    let contents = store.load().unwrap();
    assert_eq!((contents.number, contents.revocations.len(), contents.keys.len()), (0, 0, 0));
    assert_eq!((contents.bans.len(), contents.overrides.len()), (0, 0));
    let store = reopen(store);
    assert!(store.identity() == identity);

    // Each bucket that is touched gets a number of its own, in the order given.
    let changes = [
        Change::PutRevocation(print(9), revocation("nine")),
        Change::PutRevocation(print(3), revocation("three")),
        Change::PutKey(key("k", 7)),
        Change::File("/f".into(), Some(Secret::new(b"secret".to_vec()))),
    ];
    assert_eq!(commit(store.as_ref(), &changes), 4);
    let store = reopen(store);
    let contents = store.load().unwrap();
    assert_eq!(contents.number, 4);
    let prints: Vec<u8> = contents.revocations.iter().map(|(print, _)| print[0]).collect();
    assert_eq!(prints, [3, 9]);
    assert_eq!(contents.revocations[0].1, revocation("three").times());
    assert_eq!(contents.keys, [key("k", 7)]);
    let mut numbers = contents.buckets;
    numbers.sort_by_key(|(_, number)| *number);
    let expected: Vec<(Bucket, u64)> =
        [changes[1].bucket(), changes[0].bucket(), changes[2].bucket(), changes[3].bucket()]
            .into_iter()
            .zip(1..)
            .collect();
    assert_eq!(numbers, expected);

    finds_and_pages(store.as_ref());

    // Changes are made in order, what is not there may be dropped, and a bucket keeps one number.
    let again = Revocation { expires: None, ..revocation("nine") };
    let number = commit(
        store.as_ref(),
        &[
            Change::DropRevocation(print(3)),
            Change::DropRevocation(print(200)),
            Change::PutRevocation(print(9), again.clone()),
            Change::PutKey(key("l", 8)),
            Change::DropKey([8; 32]),
            Change::DropKey([7; 32]),
        ],
    );
    assert_eq!(number, 9);
    let store = reopen(store);
    let contents = store.load().unwrap();
    assert_eq!(contents.revocations, [(print(9), again.times())]);
    assert_eq!(contents.revocations[0].1.until, u32::MAX);
    assert!(contents.keys.is_empty());
    assert_eq!(contents.buckets.len(), 6);
    assert_eq!(store.commit(&[], &[]).unwrap(), 9, "nothing touched, no number");
    keeps_bans_and_overrides(store, reopen);
}

/// The part of the suite about bans and overrides: the number is 9, and there are none.
fn keeps_bans_and_overrides(
    store: Box<dyn Store>,
    reopen: impl Fn(Box<dyn Store>) -> Box<dyn Store>,
) {
    let bare = Ban { admin: None, penalty: None, ..ban("bare", 1) };
    let changes = [
        Change::PutBan(ban_key(9), ban("nine", u64::MAX)),
        Change::PutBan(ban_key(3), bare.clone()),
        Change::PutOverride("b".into(), overridden(1)),
        Change::PutOverride("a".into(), overridden(u32::MAX)),
    ];
    assert_eq!(commit(store.as_ref(), &changes), 13);
    let store = reopen(store);
    let contents = store.load().unwrap();
    let bans = [(ban_key(3), bare), (ban_key(9), ban("nine", u64::MAX))];
    assert_eq!(contents.bans, bans);
    let overrides = [("a".to_owned(), overridden(u32::MAX)), ("b".to_owned(), overridden(1))];
    assert_eq!(contents.overrides, overrides);
    let buckets: std::collections::HashMap<_, _> = contents.buckets.into_iter().collect();
    let numbers: Vec<u64> = changes.iter().map(|change| buckets[&change.bucket()]).collect();
    assert_eq!((numbers[0].min(numbers[1]), numbers[0].max(numbers[1])), (10, 11));
    assert_eq!((numbers[2].min(numbers[3]), numbers[2].max(numbers[3])), (12, 13));
    let changes = [
        Change::DropBan(ban_key(9)),
        Change::DropBan(ban_key(200)),
        Change::PutBan(ban_key(3), ban("three", 2)),
        Change::PutOverride("b".into(), overridden(2)),
        Change::DropOverride("a".into()),
        Change::DropOverride("z".into()),
    ];
    commit(store.as_ref(), &changes);
    let store = reopen(store);
    let contents = store.load().unwrap();
    assert_eq!(contents.bans, [(ban_key(3), ban("three", 2))]);
    assert_eq!(contents.overrides, [("b".to_owned(), overridden(2))]);
}

/// The part of the suite that looks at single revocations: there are 3 and 9.
#[track_caller]
fn finds_and_pages(store: &dyn Store) {
    // One is found by its fingerprint, and pages follow each other.
    assert_eq!(store.revocation(&print(9)).unwrap(), Some(revocation("nine")));
    assert_eq!(store.revocation(&print(1)).unwrap(), None);
    let page = |after: Option<&Print>, limit| -> Vec<u8> {
        let page = store.revocations(after, limit).unwrap();
        page.into_iter().map(|(print, _)| print[0]).collect()
    };
    assert_eq!(page(None, 10), [3, 9]);
    assert_eq!(page(None, 1), [3]);
    assert_eq!(page(Some(&print(3)), 10), [9]);
    assert_eq!(page(Some(&print(4)), 10), [9]);
    assert_eq!(page(Some(&print(9)), 10), [0; 0]);
}

#[test]
fn the_store_in_memory_conforms() {
    conforms(Box::new(Memory::default()), |store| store);
}

#[test]
fn the_store_in_a_file_conforms() {
    let directory = Directory::new();
    conforms(Box::new(Embedded::open(&directory.0).unwrap()), |store| {
        drop(store);
        Box::new(Embedded::open(&directory.0).unwrap())
    });
}

#[test]
fn secrets_of_files_do_not_reach_the_disk() {
    let directory = Directory::new();
    let store = Embedded::open(&directory.0).unwrap();
    let secret = Secret::new(b"only-in-its-own-file".to_vec());
    commit(&store, &[Change::File("/f".into(), Some(secret))]);
    drop(store);
    let bytes = fs::read(directory.0.join(FILE)).unwrap();
    assert!(!bytes.windows(20).any(|part| part == b"only-in-its-own-file"));
}

#[test]
fn the_file_is_its_owners_only_and_nothing_else_is_left() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let store = Embedded::open(&directory.0).unwrap();
    let names: Vec<_> =
        fs::read_dir(&directory.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [FILE]);
    let mode = fs::metadata(directory.0.join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
}

#[test]
fn two_stores_differ() {
    let (one, other) = (Directory::new(), Directory::new());
    let (one, other) = (Embedded::open(&one.0).unwrap(), Embedded::open(&other.0).unwrap());
    assert_ne!(one.identity().store, other.identity().store);
    assert_ne!(one.identity().keys, other.identity().keys);
    assert!(!format!("{:?}", one.identity()).contains(&one.identity().keys[0].to_string()));
}

#[test]
fn a_store_in_use_is_said_clearly() {
    let directory = Directory::new();
    let first = Embedded::open(&directory.0).unwrap();
    let error = Embedded::open(&directory.0).unwrap_err();
    assert_eq!(error, StoreError::Locked);
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(first);
    Embedded::open(&directory.0).unwrap();
}

#[test]
fn a_store_that_failed_is_opened_again() {
    let directory = Directory::new();
    let store = Embedded::open(&directory.0).unwrap();
    assert_eq!(commit(&store, &[Change::PutRevocation(print(1), revocation("a"))]), 1);
    // What is under its name now is another file: it must not be taken for this one.
    let (file, aside) = (directory.0.join(FILE), directory.0.join("aside"));
    let other = Directory::new();
    drop(Embedded::open(&other.0).unwrap());
    fs::rename(&file, &aside).unwrap();
    fs::copy(other.0.join(FILE), &file).unwrap();
    store.fail();
    let error = store.load().map(drop).unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
    fs::rename(&aside, &file).unwrap();
    assert_eq!(store.load().unwrap().number, 1);
    assert_eq!(commit(&store, &[Change::DropRevocation(print(1))]), 2);
}

/// Opens a file that was spoilt by `spoil`: it must be refused, and be as it was.
#[track_caller]
fn refused(spoil: impl Fn(&Path)) -> StoreError {
    let directory = Directory::new();
    let store = Embedded::open(&directory.0).unwrap();
    let changes: Vec<Change> = (0..200_u8)
        .map(|index| {
            let one = Revocation { note: Some("x".repeat(200)), ..revocation("spoilt") };
            Change::PutRevocation(print(index), one)
        })
        .collect();
    commit(&store, &changes);
    drop(store);
    let file = directory.0.join(FILE);
    spoil(&file);
    let before = fs::read(&file).unwrap();
    let error = Embedded::open(&directory.0).map(|store| store.load().map(drop)).unwrap_err();
    assert_eq!(fs::read(&file).unwrap().len(), before.len());
    error
}

#[test]
fn a_file_that_is_no_store_is_refused_and_kept() {
    let write = |bytes: Vec<u8>| move |file: &Path| fs::write(file, &bytes).unwrap();
    for (what, error) in [
        ("empty", refused(write(Vec::new()))),
        ("text", refused(write(b"hello".to_vec()))),
        ("zeros", refused(write(vec![0; 65_536]))),
        ("noise", refused(write((0..65_536).map(|i: u32| ((i * 7919) >> 3) as u8).collect()))),
        (
            "half",
            refused(|file| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
            }),
        ),
        (
            "cut in the first page",
            refused(|file| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..2000]).unwrap();
            }),
        ),
        (
            "pages overwritten",
            refused(|file| {
                let mut bytes = fs::read(file).unwrap();
                let needle = b"\"note\":\"xxx";
                let mut at = 0;
                while let Some(found) = bytes[at..].windows(needle.len()).position(|w| w == needle)
                {
                    at += found;
                    bytes[at] ^= 0x20;
                    at += 1;
                }
                fs::write(file, bytes).unwrap();
            }),
        ),
    ] {
        assert!(matches!(error, StoreError::Corrupt(_)), "{what}: {error:?}");
        assert!(error.to_string().contains("backup"), "{what}: {error}");
    }
}

#[test]
fn no_damage_is_taken_for_a_store_that_holds_less() {
    let directory = Directory::new();
    let store = Embedded::open(&directory.0).unwrap();
    let one = |index: u8| Change::PutRevocation(print(index), revocation("damaged"));
    commit(&store, &(0..100).map(one).collect::<Vec<_>>());
    commit(&store, &[Change::PutKey(key("k", 7)), one(100)]);
    drop(store);
    let file = directory.0.join(FILE);
    let good = fs::read(&file).unwrap();
    let mut random = 88_172_645_463_325_252_u64;
    let (mut refused, mut whole) = (0, 0);
    for _ in 0..100 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // The first pages say where everything is: every second hit goes there.
        let length = if random >> 63 == 0 { 512 } else { good.len() };
        let at = (random >> 20) as usize % length;
        let mut bad = good.clone();
        bad[at] ^= 1 << (random >> 17 & 7);
        fs::write(&file, &bad).unwrap();
        match Embedded::open(&directory.0).and_then(|store| store.load()) {
            Ok(contents) => {
                assert_eq!((contents.revocations.len(), contents.keys.len()), (101, 1), "{at}");
                whole += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10 && whole > 10, "{refused} refused, {whole} whole");
}

#[test]
fn a_file_of_a_newer_sidecar_is_refused() {
    let error = refused(|file| {
        let database = redb::Database::open(file).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let meta = redb::TableDefinition::<&str, u64>::new("meta");
            transaction.open_table(meta).unwrap().insert("format", 3).unwrap();
        }
        transaction.commit().unwrap();
    });
    assert_eq!(error, StoreError::Newer(3));
    assert!(error.to_string().contains("newer sidecar"), "{error}");
}

/// Makes the file as sidecars made it before there were bans and overrides.
fn make_format_1(file: &Path) {
    let database = redb::Database::create(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        let mut meta = transaction.open_table(meta).unwrap();
        for (name, value) in
            [("format", 1), ("store", 77), ("key-0", 5), ("key-1", 6), ("number", 3)]
        {
            meta.insert(name, value).unwrap();
        }
        let revocations = redb::TableDefinition::<&[u8; 16], &[u8]>::new("revocations");
        let mut revocations = transaction.open_table(revocations).unwrap();
        let mut value = 5_u32.to_le_bytes().to_vec();
        value.extend(1120_u32.to_le_bytes());
        value.extend(
            br#"{"kind":"sub","issuer":"i","value":"old","issued_before":5,"expires":1000,"created":3}"#,
        );
        revocations.insert(&print(9), value.as_slice()).unwrap();
        let keys = redb::TableDefinition::<&[u8; 32], &[u8]>::new("api-keys");
        let mut keys = transaction.open_table(keys).unwrap();
        let about = br#"{"entry":{"id":"k","permissions":[],"tier":null,"expires":null,"cidrs":[]},"created":4,"replaced":false}"#;
        keys.insert(&[7; 32], about.as_slice()).unwrap();
        let buckets = redb::TableDefinition::<u64, u64>::new("buckets");
        let mut buckets = transaction.open_table(buckets).unwrap();
        buckets.insert((1 << 32) | 0x900, 3).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_file_of_an_older_sidecar_opens_keeps_what_it_has_and_takes_bans() {
    let directory = Directory::new();
    make_format_1(&directory.0.join(FILE));
    let store = Embedded::open(&directory.0).unwrap();
    assert!(store.identity() == Identity { store: 77, keys: [5, 6] });
    let contents = store.load().unwrap();
    assert_eq!(contents.number, 3);
    assert_eq!(contents.revocations, [(print(9), revocation("old").times())]);
    assert_eq!(contents.keys, [key("k", 7)]);
    assert_eq!(contents.buckets, [(Change::DropRevocation(print(9)).bucket(), 3)]);
    assert_eq!((contents.bans.len(), contents.overrides.len()), (0, 0));
    let changes =
        [Change::PutBan(ban_key(1), ban("new", 1)), Change::PutOverride("l".into(), overridden(1))];
    assert_eq!(commit(&store, &changes), 5);
    drop(store);
    let contents = Embedded::open(&directory.0).unwrap().load().unwrap();
    assert_eq!(contents.bans, [(ban_key(1), ban("new", 1))]);
    assert_eq!(contents.overrides, [("l".to_owned(), overridden(1))]);
    assert_eq!(contents.revocations.len(), 1);
}

#[test]
fn an_older_file_that_lacks_something_is_refused_as_it_is() {
    let directory = Directory::new();
    let file = directory.0.join(FILE);
    make_format_1(&file);
    {
        let database = redb::Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        let keys = redb::TableDefinition::<&[u8; 32], &[u8]>::new("api-keys");
        assert!(transaction.delete_table(keys).unwrap());
        transaction.commit().unwrap();
    }
    let error = Embedded::open(&directory.0).map(drop).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(why) if why.contains("api-keys")), "{error:?}");
    let database = redb::Database::open(&file).unwrap();
    use redb::ReadableDatabase;
    let read = database.begin_read().unwrap();
    let meta = read.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap();
    assert_eq!(meta.get("format").unwrap().unwrap().value(), 1);
}
