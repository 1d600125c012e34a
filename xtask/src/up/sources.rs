//! `--watch`: looks for saved source files and builds what they belong to, beside the running
//! gateway. A build that fails is reported by its compiler and leaves everything as it runs.

use crate::workspace::{Workspace, say};
use crate::{build, children};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime};

/// How often the sources are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What both the filter and the sidecar are made of.
const SHARED: [&str; 3] = ["src/policy", "src/token", "Cargo.lock"];

/// What was built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The filter.
    Filter,
    /// The sidecar.
    Sidecar,
}

/// A part and the state of its sources when it was last built.
struct Part {
    changed: Changed,
    folders: Vec<PathBuf>,
    built: Option<SystemTime>,
}

/// The watched sources.
pub(super) struct Sources {
    ctx: Workspace,
    parts: Vec<Part>,
    looked: Instant,
    /// A build that is under way: what it builds, and whether it worked.
    building: Option<(Changed, Receiver<bool>)>,
}

impl Sources {
    /// Starts watching; what is there now counts as built.
    pub(super) fn new(ctx: &Workspace) -> Self {
        let part = |changed, own: &str| {
            let all = SHARED.iter().copied().chain([own]);
            let folders: Vec<PathBuf> = all.map(|name| ctx.root().join(name)).collect();
            let built = newest(&folders);
            Part { changed, folders, built }
        };
        let parts =
            vec![part(Changed::Filter, "src/filter"), part(Changed::Sidecar, "src/sidecar")];
        Self { ctx: ctx.clone(), parts, looked: Instant::now(), building: None }
    }

    /// Looks for changes, and says what has been built anew since the last call. At most one build
    /// runs at a time.
    pub(super) fn rebuilt(&mut self) -> Option<Changed> {
        if let Some((changed, result)) = &self.building {
            let done = match result.try_recv() {
                Err(TryRecvError::Empty) => return None,
                Ok(worked) => worked.then_some(*changed),
                Err(TryRecvError::Disconnected) => None,
            };
            self.building = None;
            return done;
        }
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        let part = self.parts.iter_mut().find(|part| newest(&part.folders) != part.built)?;
        part.built = newest(&part.folders);
        let changed = part.changed;
        say("a source file has changed");
        let (sender, result) = channel();
        let ctx = self.ctx.clone();
        std::thread::spawn(move || {
            let built = match changed {
                Changed::Filter => build::filter(&ctx),
                Changed::Sidecar => build::native(&ctx),
            };
            if let Err(error) = &built {
                eprintln!("{error:#}\nwhat runs is still the last good build");
            }
            // Nobody listens any more when we are being stopped.
            let _ = sender.send(built.is_ok());
        });
        self.building = Some((changed, result));
        None
    }
}

impl Drop for Sources {
    /// A build that is under way has nobody left to build for. Whatever else we have started has a
    /// process group of its own.
    fn drop(&mut self) {
        if self.building.is_some() {
            children::kill_group_below(std::process::id());
        }
    }
}

/// When the newest of these files was saved. A folder counts with what is in it, and its own time
/// shows files that are gone.
fn newest(places: &[PathBuf]) -> Option<SystemTime> {
    places.iter().filter_map(|place| newest_below(place)).max()
}

fn newest_below(place: &Path) -> Option<SystemTime> {
    let own = std::fs::metadata(place).and_then(|meta| meta.modified()).ok();
    let Ok(entries) = std::fs::read_dir(place) else { return own };
    entries.flatten().filter_map(|entry| newest_below(&entry.path())).max().max(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_and_a_deleted_one_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let file = dir.path().join("src/a.rs");
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(&file, "a").unwrap();
        let set =
            |path: &Path, time| std::fs::File::open(path).unwrap().set_modified(time).unwrap();
        for path in [dir.path().to_owned(), dir.path().join("src"), file.clone()] {
            set(&path, old);
        }
        let places = [dir.path().to_owned()];
        assert_eq!(newest(&places), Some(old));
        let saved = old + Duration::from_secs(5);
        set(&file, saved);
        assert_eq!(newest(&places), Some(saved));
        std::fs::remove_file(&file).unwrap();
        assert!(newest(&places) > Some(saved));
    }
}
