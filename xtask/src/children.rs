//! Who descends from a process, by the kernel's own account: to end what has been started and is not
//! wanted any more, and to see that nothing is left.

use crate::workspace::output;
use std::path::Path;
use std::process::Command;

/// A process that descends from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pid: u32,
    parent: u32,
    group: u32,
    /// In clock ticks since the machine's start: with the id it means this process and no later one.
    started: u64,
    /// Its program and arguments.
    pub(crate) line: String,
}

impl Child {
    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// Everything that descends from this process and runs.
pub(crate) fn below(pid: u32) -> Vec<Child> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut others: Vec<Child> = pids.filter_map(read).collect();
    let mut found: Vec<Child> = Vec::new();
    loop {
        let known = |one: &Child| one.parent == pid || found.iter().any(|f| f.pid == one.parent);
        let (more, rest): (Vec<Child>, Vec<Child>) = others.into_iter().partition(known);
        if more.is_empty() {
            return found;
        }
        found.extend(more);
        others = rest;
    }
}

/// Kills everything that descends from this process in its own process group. What has a group of its
/// own has an owner who ends it.
pub(crate) fn kill_group_below(pid: u32) {
    let Some(own) = read(pid) else { return };
    for child in below(pid).iter().filter(|child| child.group == own.group && child.runs()) {
        // It may have ended meanwhile.
        let _ = output(Command::new("kill").args(["-KILL", &child.pid.to_string()]));
    }
}

/// A process that is there and has not ended.
fn read(pid: u32) -> Option<Child> {
    let place = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(place.join("stat")).ok()?;
    let line = String::from_utf8_lossy(&std::fs::read(place.join("cmdline")).ok()?).into_owned();
    // Its name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let small = |index: usize| u32::try_from(number(index)?).ok();
    let over = matches!(*fields.first()?, "Z" | "X");
    let (parent, group, started) = (small(1)?, small(2)?, number(19)?);
    let line = line.replace('\0', " ");
    (!over).then_some(Child { pid, parent, group, started, line })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use test_harness::wait;

    #[test]
    fn descendants_are_found_killed_and_known_to_be_gone() {
        // Two commands, so that the shell stays.
        let mut shell =
            Command::new("sh").args(["-c", "tail -f /dev/null; exit 7"]).spawn().unwrap();
        let tail = wait::until("the shell's child", Duration::from_secs(10), || {
            Ok(below(shell.id()).into_iter().find(|child| child.line.starts_with("tail")))
        })
        .unwrap();
        assert!(below(std::process::id()).contains(&tail));
        assert!(tail.runs());
        kill_group_below(shell.id());
        assert_eq!(shell.wait().unwrap().code(), Some(7));
        assert!(!tail.runs());
    }
}
