//! Files that the policy names: read here, because the filter can read none, and handed over.
//!
//! Only what lies in one directory is read, links resolved. A file that cannot be read stays as it
//! was handed over last. What a file holds never reaches a log.

#[cfg(test)]
mod tests;

use super::App;
use super::replica::{Held, Replica};
use crate::store::{Change, StoreError};
use policy::model::Secret;
use policy::replica::files::{self, BYTES_MAX, FILES_MAX};
use policy::sync::Position;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;
use tracing::{error, info};

/// How often files are looked at, while a filter wants them.
const EVERY: Duration = Duration::from_secs(1);
/// A file that no policy has wanted for this long is let go: longer than a policy takes to be
/// replaced, and replaced back.
const UNWANTED_FOR: Duration = Duration::from_secs(60);
/// Between two log lines about the same fault of a file.
const QUIET: Duration = Duration::from_secs(60);
/// A file that changed this recently may change once more without its time of change showing it.
const FRESH: Duration = Duration::from_secs(2);
/// Longest path, as Linux has it.
const PATH_MAX: usize = 4096;

/// The files that are wanted, and what is known of them.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    wanted: Mutex<Wanted>,
    known: Mutex<BTreeMap<String, Known>>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    /// By path: since when it is not wanted any more.
    paths: BTreeMap<String, Option<Instant>>,
    /// Whether the filter has a copy of our state, so that it may have files that we lack.
    follows: bool,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    trouble: Option<String>,
    said: Option<Instant>,
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Nothing is wanted yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (wanted, known) = (Mutex::default(), Mutex::default());
        Self { directory, wanted, known, news: Notify::new() }
    }

    /// Takes the list of a poll.
    pub(crate) fn want(&self, paths: &[String], theirs: &Position, ours: Position) {
        let now = Instant::now();
        let mut wanted = lock(&self.wanted);
        wanted.follows = theirs.store == ours.store;
        for (path, unwanted) in &mut wanted.paths {
            if !paths.contains(path) && unwanted.is_none() {
                *unwanted = Some(now);
            }
        }
        let mut news = false;
        for path in paths.iter().take(FILES_MAX).filter(|path| path.len() <= PATH_MAX) {
            news |= wanted.paths.insert(path.clone(), None).is_none();
        }
        drop(wanted);
        if news {
            self.news.notify_one();
        }
    }

    /// What is wrong, file by file; empty when nothing is.
    pub(crate) fn trouble(&self) -> Vec<String> {
        let known = lock(&self.known);
        let told = known.iter().filter_map(|(path, known)| Some((path, known.trouble.as_ref()?)));
        told.map(|(path, why)| format!("{path}: {why}")).collect()
    }

    /// Looks at every wanted file, and hands over what changed. Blocks, and nobody else meanwhile:
    /// what is known is locked neither for the disk nor for the store.
    ///
    /// # Errors
    /// When the store failed; everything is looked at again next time.
    pub(super) fn pass(&self, replica: &Replica, now: Instant) -> Result<(), StoreError> {
        let (paths, follows) = self.still_wanted(now);
        let stamps = self.stamps(&paths);
        let looks: Vec<_> = stamps
            .into_iter()
            .map(|(path, stamp)| {
                let found = look(&self.directory, Path::new(path), stamp.as_ref());
                (path, found)
            })
            .collect();
        let read = self.judge(looks, now);
        let gone = |held: &Held| held.files().keys().any(|path| !paths.contains(path));
        if read.is_empty() && !gone(&replica.held()) {
            return Ok(());
        }
        replica.change(|held| {
            let changes = changes(held, &paths, &read, follows);
            for change in &changes {
                if let Change::File(path, Some(_)) = change {
                    info!(path, "a file that the policy names was read, and is handed over");
                }
            }
            Ok::<_, StoreError>((changes, ()))
        })?;
        // What was held back is read again, and so is what may still be changing.
        let held = replica.held();
        let handed =
            read.into_iter().filter(|(path, _, bytes)| held.files().get(path) == Some(bytes));
        let stamps: Vec<_> = handed.map(|(path, stamp, _)| (path, stamp)).collect();
        drop(held);
        let mut known = lock(&self.known);
        for (path, stamp) in stamps {
            if let Some(known) = known.get_mut(&path) {
                known.stamp = stamp;
            }
        }
        Ok(())
    }

    /// What each file was like when it was last read. What is known of others is forgotten.
    fn stamps<'a>(&self, paths: &'a [String]) -> Vec<(&'a str, Option<Stamp>)> {
        let mut known = lock(&self.known);
        known.retain(|path, _| paths.contains(path));
        let stamp = |path: &String| known.get(path).and_then(|known| known.stamp.clone());
        paths.iter().map(|path| (path.as_str(), stamp(path))).collect()
    }

    /// Takes note of what is wrong and what no longer is; gives what was read.
    fn judge(&self, looks: Vec<(&str, Result<Found, String>)>, now: Instant) -> Vec<Read> {
        let mut all = lock(&self.known);
        let mut read = Vec::new();
        for (path, found) in looks {
            let known = all.entry(path.to_owned()).or_default();
            match found {
                Ok(found) => {
                    if known.trouble.take().is_some() {
                        info!(path, "a file that the policy names can be read again");
                    }
                    read.extend(found.map(|(stamp, bytes)| (path.to_owned(), stamp, bytes)));
                }
                Err(why) => known.complain(path, why, now),
            }
        }
        read
    }

    fn still_wanted(&self, now: Instant) -> (Vec<String>, bool) {
        let mut wanted = lock(&self.wanted);
        wanted.paths.retain(|_, unwanted| {
            unwanted.is_none_or(|since| now.saturating_duration_since(since) < UNWANTED_FOR)
        });
        (wanted.paths.keys().cloned().collect(), wanted.follows)
    }
}

impl Known {
    /// Keeps what is wrong, and says it when it is new or was last said a while ago.
    fn complain(&mut self, path: &str, why: String, now: Instant) {
        let new = self.trouble.as_ref() != Some(&why);
        if new || self.said.is_none_or(|said| now.saturating_duration_since(said) >= QUIET) {
            error!(path, why, "a file that the policy names cannot be handed over");
            self.said = Some(now);
        }
        self.trouble = Some(why);
    }
}

/// What is to be handed over.
fn changes(held: &Held, paths: &[String], read: &[Read], follows: bool) -> Vec<Change> {
    let mut changes: Vec<Change> = read
        .iter()
        .filter(|(path, _, bytes)| held.files().get(path) != Some(bytes))
        .map(|(path, _, bytes)| Change::File(path.clone(), Some(bytes.clone())))
        .collect();
    let gone = held.files().keys().filter(|path| !paths.contains(path));
    changes.extend(gone.map(|path| Change::File(path.clone(), None)));
    changes.retain(|change| !(follows && would_lose(held, change, paths, read)));
    changes
}

/// Whether a change would take another file from a filter that may still have it from before the
/// sidecar was started: both stand in one bucket, nothing of that bucket was handed over since the
/// start, and the other cannot be read.
fn would_lose(held: &Held, change: &Change, paths: &[String], read: &[Read]) -> bool {
    let bucket = change.bucket();
    let in_bucket = |path: &&String| files::bucket(path) == bucket;
    held.is_unknown(bucket)
        && paths.iter().filter(in_bucket).any(|path| !read.iter().any(|(known, ..)| known == path))
}

/// What a look at a file found: `None` when it is as it was. The stamp is `None` while the file may
/// change without its stamp showing it.
type Found = Option<(Option<Stamp>, Secret)>;
/// A file that was read: its path, and what was found.
type Read = (String, Option<Stamp>, Secret);

/// Looks at one file.
fn look(directory: &Path, path: &Path, known: Option<&Stamp>) -> Result<Found, String> {
    if !path.is_absolute() {
        return Err("is no absolute path".to_owned());
    }
    let directory = directory
        .canonicalize()
        .map_err(|error| format!("--files-dir: {}: {error}", directory.display()))?;
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    if !real.starts_with(&directory) {
        return Err(format!("does not lie in the directory {} (--files-dir)", directory.display()));
    }
    // Before it is opened: opening a pipe would wait for its other end.
    let before = fs::symlink_metadata(&real).map_err(|error| error.to_string())?;
    if !before.is_file() {
        return Err("is no regular file".to_owned());
    }
    let stamp = Stamp::of(real.clone(), &before);
    if known == Some(&stamp) {
        return Ok(None);
    }
    let file = File::open(&real).map_err(|error| error.to_string())?;
    let opened = file.metadata().map_err(|error| error.to_string())?;
    if Stamp::of(real, &opened) != stamp {
        return Err("changed while it was read".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > BYTES_MAX {
        return Err(format!("has more than {BYTES_MAX} bytes"));
    }
    let fresh = opened
        .modified()
        .is_ok_and(|at| SystemTime::now().duration_since(at).map_or(true, |age| age < FRESH));
    Ok(Some(((!fresh).then_some(stamp), Secret::new(without_newline(bytes)))))
}

impl Stamp {
    fn of(path: PathBuf, metadata: &fs::Metadata) -> Self {
        Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Editors and `echo` end a file with a newline that is no part of a secret. One is cut off, as Unix
/// or Windows writes it; a key set does not mind.
fn without_newline(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

/// Looks at files for as long as the process runs.
pub(super) fn start(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = app.files.news.notified() => {}
            }
            let looking = Arc::clone(&app);
            let passed = tokio::task::spawn_blocking(move || {
                looking.files.pass(&looking.replica, Instant::now())
            });
            match passed.await {
                Ok(Ok(())) => app.channel.offer(|| app.replica.position()),
                Ok(Err(error)) => app.complaints.say(|| error!(%error, "the store failed")),
                Err(error) => app.complaints.say(|| error!(%error, "looking at files broke off")),
            }
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
