//! Files from the disk to the filter.

use super::*;
use crate::render::tests::Directory;
use crate::serve::tests::{Copied, Needs, app, app_with, connected, copier, nobody};
use crate::store::Store;
use crate::store::memory::Memory;
use policy::replica::files::read;
use std::os::unix::fs::symlink;

/// What a pass has handed over, by path.
#[track_caller]
fn pass(files: &Files, replica: &Replica, now: Instant) -> Vec<(String, String)> {
    files.pass(replica, now).unwrap();
    let held = replica.held();
    let all = held.files().iter();
    all.map(|(path, bytes)| (path.clone(), String::from_utf8_lossy(bytes.reveal()).into()))
        .collect()
}

fn replica(store: &Arc<Memory>) -> Replica {
    Replica::load(Arc::clone(store) as _).unwrap()
}

/// A directory for files, with something beside it.
struct Place(Directory);

impl Place {
    fn new() -> Self {
        let place = Self(Directory::new());
        fs::create_dir(place.inside("")).unwrap();
        place
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.0.0.join("files").join(name)
    }

    fn files(&self, names: &[&str]) -> Files {
        let files = Files::new(self.inside(""));
        self.want(&files, names, "");
        files
    }

    fn want(&self, files: &Files, names: &[&str], theirs: &str) {
        let paths: Vec<String> = names.iter().map(|name| self.path(name)).collect();
        let position = |store: &str| Position { store: store.into(), number: 0 };
        files.want(&paths, &position(theirs), position("ab"));
    }

    fn path(&self, name: &str) -> String {
        self.inside(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn what_changes_is_read_again_and_one_newline_is_cut_off() {
    let (place, replica, now) = (Place::new(), replica(&Arc::default()), Instant::now());
    fs::write(place.inside("a"), "one\n").unwrap();
    fs::write(place.inside("b"), "two\r\n").unwrap();
    fs::write(place.inside("c"), "three\n\n").unwrap();
    let files = place.files(&["a", "b", "c"]);
    let texts = |passed: Vec<(String, String)>| -> Vec<String> {
        passed.into_iter().map(|(_, text)| text).collect()
    };
    assert_eq!(texts(pass(&files, &replica, now)), ["one", "two", "three\n"]);
    let number = replica.position().number;
    pass(&files, &replica, now);
    assert_eq!(replica.position().number, number, "nothing changed");
    // The same length, at once, in place; and by a rename.
    fs::write(place.inside("a"), "eno\n").unwrap();
    fs::write(place.inside("d"), "four").unwrap();
    fs::rename(place.inside("d"), place.inside("b")).unwrap();
    assert_eq!(texts(pass(&files, &replica, now)), ["eno", "four", "three\n"]);
}

#[test]
fn links_are_followed_within_the_directory_only() {
    let (place, replica, now) = (Place::new(), replica(&Arc::default()), Instant::now());
    let outside = place.0.0.join("outside");
    fs::write(&outside, "not for the filter").unwrap();
    fs::create_dir(place.0.0.join("files-too")).unwrap();
    fs::write(place.0.0.join("files-too/x"), "neither").unwrap();
    fs::write(place.inside("real"), "good").unwrap();
    symlink(place.inside("real"), place.inside("link")).unwrap();
    symlink(&outside, place.inside("out")).unwrap();
    symlink(&place.0.0, place.inside("up")).unwrap();
    symlink(place.inside("loop"), place.inside("loop")).unwrap();
    let bad = ["out", "up/outside", "../outside", "../files-too/x", "loop", "nothing", "", "up"];
    let mut names = bad.to_vec();
    names.push("link");
    let files = place.files(&names);
    assert_eq!(pass(&files, &replica, now), [(place.path("link"), "good".to_owned())]);
    let trouble = files.trouble();
    assert_eq!(trouble.len(), bad.len(), "{trouble:#?}");
    let outside = trouble.iter().filter(|said| said.contains("--files-dir")).count();
    assert_eq!(outside, 5, "{trouble:#?}");
    assert!(!format!("{files:?} {trouble:?}").contains("not for"));
}

#[test]
fn only_regular_files_of_a_bounded_size_are_read() {
    let (place, replica, now) = (Place::new(), replica(&Arc::default()), Instant::now());
    fs::create_dir(place.inside("dir")).unwrap();
    fs::write(place.inside("fits"), vec![b'x'; BYTES_MAX]).unwrap();
    fs::write(place.inside("large"), vec![b'x'; BYTES_MAX + 1]).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.inside("socket")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.inside("pipe")).status().unwrap();
    assert!(made.success());
    let files = place.files(&["dir", "fits", "large", "socket", "pipe"]);
    let passed = pass(&files, &replica, now);
    assert_eq!(
        passed.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(),
        [place.path("fits")]
    );
    let trouble = files.trouble();
    assert_eq!(trouble.iter().filter(|said| said.contains("no regular file")).count(), 3);
    assert_eq!(trouble.iter().filter(|said| said.contains("more than 262144 bytes")).count(), 1);
    let relative = Files::new(place.inside(""));
    relative.want(&["fits".into()], &Position::default(), Position::default());
    relative.pass(&replica, now).unwrap();
    assert!(relative.trouble()[0].contains("no absolute path"));
}

#[test]
fn a_file_that_vanishes_stays_as_it_was_and_is_missed() {
    let (place, replica, now) = (Place::new(), replica(&Arc::default()), Instant::now());
    fs::write(place.inside("a"), "one").unwrap();
    let files = place.files(&["a"]);
    pass(&files, &replica, now);
    fs::remove_file(place.inside("a")).unwrap();
    assert_eq!(pass(&files, &replica, now), [(place.path("a"), "one".to_owned())]);
    assert_eq!(files.trouble().len(), 1);
    fs::write(place.inside("a"), "two").unwrap();
    assert_eq!(pass(&files, &replica, now), [(place.path("a"), "two".to_owned())]);
    assert!(files.trouble().is_empty());
}

#[test]
fn a_file_that_is_not_wanted_any_more_is_let_go_after_a_while() {
    let (place, replica, now) = (Place::new(), replica(&Arc::default()), Instant::now());
    fs::write(place.inside("a"), "one").unwrap();
    fs::write(place.inside("b"), "two").unwrap();
    let files = place.files(&["a", "b"]);
    assert_eq!(pass(&files, &replica, now).len(), 2);
    place.want(&files, &["b"], "ab");
    assert_eq!(pass(&files, &replica, now + UNWANTED_FOR / 2).len(), 2);
    place.want(&files, &["a", "b"], "ab");
    assert_eq!(pass(&files, &replica, now + UNWANTED_FOR * 2).len(), 2);
    place.want(&files, &["b"], "ab");
    assert_eq!(pass(&files, &replica, now + UNWANTED_FOR * 4).len(), 1);
    assert!(files.trouble().is_empty());
}

#[test]
fn a_restarted_sidecar_does_not_take_a_file_that_it_cannot_read_from_a_filter() {
    let (place, store, now) = (Place::new(), Arc::default(), Instant::now());
    // Two files in one bucket.
    let first = place.path("a");
    let twin = (0..)
        .map(|index| format!("t-{index}"))
        .find(|name| files::bucket(&place.path(name)) == files::bucket(&first))
        .unwrap();
    fs::write(place.inside("a"), "one").unwrap();
    fs::write(place.inside(&twin), "two").unwrap();
    let before = replica(&store);
    assert_eq!(pass(&place.files(&["a", &twin]), &before, now).len(), 2);
    drop(before);
    fs::remove_file(place.inside("a")).unwrap();
    let after = replica(&store);
    let files = Files::new(place.inside(""));
    place.want(&files, &["a", &twin], "ab");
    assert_eq!(pass(&files, &after, now).len(), 0, "the filter has both");
    // A filter that has nothing gets what there is.
    place.want(&files, &["a", &twin], "");
    assert_eq!(pass(&files, &after, now), [(place.path(&twin), "two".to_owned())]);
}

#[test]
fn looking_at_files_that_have_not_changed_leaves_the_store_alone() {
    let (place, store, now) = (Place::new(), Arc::<Memory>::default(), Instant::now());
    let replica = replica(&store);
    let broken = |is: bool| store.broken.store(is, std::sync::atomic::Ordering::Relaxed);
    let nothing = place.files(&[]);
    broken(true);
    replica.revocations(None, 1).unwrap_err();
    nothing.pass(&replica, now).unwrap();
    broken(false);
    assert!(replica.trouble().is_some(), "whether it works again is not found out here");
    replica.recover().unwrap();
    fs::write(place.inside("a"), "one").unwrap();
    let files = place.files(&["a"]);
    pass(&files, &replica, now);
    assert_eq!(replica.held().files().len(), 1);
    fs::remove_file(place.inside("a")).unwrap();
    broken(true);
    replica.revocations(None, 1).unwrap_err();
    files.pass(&replica, now).unwrap();
}

#[test]
fn what_is_known_of_files_can_be_asked_while_the_store_is_slow() {
    let (place, replica, now) = (Place::new(), replica(&Arc::default()), Instant::now());
    fs::write(place.inside("a"), "one").unwrap();
    let files = place.files(&["a", "missing"]);
    std::thread::scope(|scope| {
        let held = replica.held();
        // It waits for the change, until `held` is let go.
        let passing = scope.spawn(|| files.pass(&replica, now));
        let asked = scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(20);
            while files.trouble().is_empty() && Instant::now() < until {
                std::thread::yield_now();
            }
            files.trouble().len()
        });
        assert_eq!(asked.join().unwrap(), 1);
        assert!(!passing.is_finished());
        drop(held);
        passing.join().unwrap().unwrap();
    });
    assert_eq!(replica.held().files().len(), 1);
}

/// Looks again and again at what a filter was handed, until it is as wanted.
async fn handed(copied: &Mutex<Copied>, path: &str, wanted: &str) {
    let arrived = async {
        while read(path, &mut *copied.lock().unwrap()).unwrap().as_deref()
            != Some(wanted.as_bytes())
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived).await.unwrap();
}

#[tokio::test]
async fn a_filter_that_wants_a_file_is_handed_it_and_its_changes() {
    let place = Place::new();
    fs::write(place.inside("a"), "one\n").unwrap();
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let app = app_with("127.0.0.1:9902", nobody().await, store);
    let app = {
        let mut app = app;
        Arc::get_mut(&mut app).unwrap().files = Files::new(place.inside(""));
        app
    };
    start(&app);
    let copied = Arc::<Mutex<Copied>>::default();
    let needs = Needs { files: vec![place.path("a")], ..Needs::default() };
    let filter = copier(&app, needs, Arc::clone(&copied));
    handed(&copied, &place.path("a"), "one").await;
    fs::write(place.inside("a"), "changed\n").unwrap();
    handed(&copied, &place.path("a"), "changed").await;
    filter.abort();
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_seen_in_health() {
    let app = app("127.0.0.1:9902", nobody().await);
    start(&app);
    let needs = Needs { files: vec!["/nonexistent/f".into()], ..Needs::default() };
    let filter = copier(&app, needs, Arc::default());
    connected(&app).await;
    let seen = async {
        while app.files.trouble().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    assert!(app.files.trouble()[0].starts_with("/nonexistent/f: "));
    filter.abort();
}
