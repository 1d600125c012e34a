//! How loaded this machine is, in thousandths: the larger of processor and memory pressure, for
//! adaptive limits. It is looked at only while a filter wants it.
//!
//! Processors: the share of the last second in which they were busy; where a cgroup (version 2) has a
//! quota, the share of that quota as well, because a process is throttled there long before the
//! machine is. Memory: nothing up to nine tenths in use, and from there evenly up to all of it.

#[cfg(test)]
mod tests;

use super::App;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// A load that is older is none: the kernel has not answered for so long, and what the machine was
/// like before says little. A few looks, one of which may be slow.
const FRESH: Duration = Duration::from_secs(2);
/// Looks that a share of time is taken over: half a second alone is too restless to throttle by.
const OVER: usize = 2;
/// From this share of memory on there is pressure, in thousandths: below it Linux keeps pages that it
/// can drop at once.
const MEMORY_FROM: u64 = 900;
/// All of it, in thousandths.
const FULL: u64 = 1000;
/// Most groups from our own up to the root: deeper nesting has no use.
const DEPTH_MAX: usize = 16;
/// Where Linux shows the groups.
const GROUPS: &str = "sys/fs/cgroup";

/// The load, as it was last seen, and when.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<Option<(u32, Instant)>>);

impl Load {
    /// In thousandths; `None` while nobody looks, before two looks, and when a look takes longer than
    /// [`FRESH`].
    pub(super) fn now(&self) -> Option<u32> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u32> {
        let fresh = |(_, seen): &(u32, Instant)| now.saturating_duration_since(*seen) <= FRESH;
        self.lock().filter(fresh).map(|(load, _)| load)
    }

    fn set(&self, load: Option<(u32, Instant)>) {
        *self.lock() = load;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for as long as the process runs.
pub(super) fn start(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = Looks::default();
        loop {
            ticks.tick().await;
            let status = app.channel.status();
            if !(status.connected && status.wants.load) {
                looks = Looks::default();
                app.load.set(None);
                continue;
            }
            // Files that the kernel makes up may take a while on a machine in need.
            let look = tokio::task::spawn_blocking(|| Look::at(Path::new("/"))).await;
            if let Ok(look) = look {
                let seen = look.at;
                app.load.set(looks.add(look).map(|load| (load, seen)));
            }
        }
    });
}

/// The latest looks, the newest last.
#[derive(Debug, Default)]
struct Looks(Vec<Look>);

impl Looks {
    /// Takes a look; gives the load since the oldest one that is held.
    fn add(&mut self, look: Look) -> Option<u32> {
        let load = self.0.first().and_then(|before| load(before, &look));
        self.0.push(look);
        if self.0.len() > OVER {
            self.0.remove(0);
        }
        load
    }
}

/// What was seen at one moment. What could not be read is `None`, and counts for nothing.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    processors: Option<Ticks>,
    groups: Vec<Group>,
    /// Memory in use, of the machine or of the group that has the least left, in thousandths.
    memory: Option<u64>,
}

/// Time of all processors together since the start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// A group with a quota of processor time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    path: PathBuf,
    /// Processor time that was used, in microseconds.
    used: u64,
    /// Processor time that may be used, in thousandths of real time: 2000 for two processors.
    quota: u64,
}

impl Look {
    /// Looks at what the kernel says below a directory, `/` but in tests.
    fn at(root: &Path) -> Self {
        let read = |path: &Path| fs::read_to_string(root.join(path)).unwrap_or_default();
        let mut look = Self {
            at: Instant::now(),
            processors: ticks(&read(Path::new("proc/stat"))),
            groups: Vec::new(),
            memory: machine_memory(&read(Path::new("proc/meminfo"))),
        };
        for group in groups(&read(Path::new("proc/self/cgroup"))) {
            let text = |name: &str| read(&group.join(name));
            if let (Some(quota), Some(used)) =
                (quota(&text("cpu.max")), named(&text("cpu.stat"), "usage_usec"))
            {
                look.groups.push(Group { path: group.clone(), used, quota });
            }
            let memory =
                group_memory(&text("memory.max"), &text("memory.current"), &text("memory.stat"));
            look.memory = look.memory.max(memory);
        }
        look
    }
}

/// The load between two looks; `None` when neither says anything.
fn load(before: &Look, after: &Look) -> Option<u32> {
    let processors = before.processors.zip(after.processors).and_then(|(before, after)| {
        share(after.busy.checked_sub(before.busy)?, after.all.checked_sub(before.all)?)
    });
    let passed = after.at.saturating_duration_since(before.at).as_micros();
    let passed = u64::try_from(passed).unwrap_or(u64::MAX);
    let groups = after.groups.iter().filter_map(|group| {
        let before = before.groups.iter().find(|before| before.path == group.path)?;
        let granted = u128::from(passed) * u128::from(group.quota) / u128::from(FULL);
        share(group.used.checked_sub(before.used)?, u64::try_from(granted).ok()?)
    });
    let memory = after
        .memory
        .map(|used| used.saturating_sub(MEMORY_FROM).saturating_mul(FULL) / (FULL - MEMORY_FROM));
    let load = processors.into_iter().chain(groups).chain(memory).max()?;
    u32::try_from(load.min(FULL)).ok()
}

/// A part of a whole in thousandths, rounded down.
fn share(part: u64, whole: u64) -> Option<u64> {
    let share = (u128::from(part) * u128::from(FULL)).checked_div(u128::from(whole))?;
    Some(u64::try_from(share).unwrap_or(FULL).min(FULL))
}

/// The first line of `/proc/stat`: `cpu user nice system idle iowait irq softirq steal guest ...`. Time
/// that the host of a virtual machine took away is busy: nobody here has it. Guests are part of user.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> =
        line.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
    let [user, nice, system, idle, waiting, rest @ ..] = times.as_slice() else { return None };
    let busy = rest.iter().chain([user, nice, system]).sum::<u64>();
    Some(Ticks { busy, all: busy.saturating_add(*idle).saturating_add(*waiting) })
}

/// Our own group of version 2 (`0::/path`) and those that it is in, as paths below the root.
fn groups(cgroup: &str) -> Vec<PathBuf> {
    let Some(own) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    // A path with `..` is outside of what this container can see.
    let own = if own.contains("..") { "" } else { own };
    let path: PathBuf = Path::new(GROUPS).join(own).components().collect();
    path.ancestors()
        .take(DEPTH_MAX)
        .take_while(|path| path.starts_with(GROUPS))
        .map(Into::into)
        .collect()
}

/// `cpu.max`: `50000 100000`, or `max 100000` for no quota; in thousandths of real time.
fn quota(max: &str) -> Option<u64> {
    let (quota, period) = max.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(FULL)?.checked_div(period).filter(|quota| *quota > 0)
}

/// The number behind a name on a line of its own.
fn named(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', ':']))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `/proc/meminfo`: what is not available is in use.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let (all, free) = (named(meminfo, "MemTotal")?, named(meminfo, "MemAvailable")?);
    share(all.saturating_sub(free), all)
}

/// A group's memory: pages of files that nobody has used lately can be dropped, and do not count.
fn group_memory(max: &str, current: &str, stat: &str) -> Option<u64> {
    let (max, current): (u64, u64) = (max.trim().parse().ok()?, current.trim().parse().ok()?);
    share(current.saturating_sub(named(stat, "inactive_file").unwrap_or(0)), max)
}
