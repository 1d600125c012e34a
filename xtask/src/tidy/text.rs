//! The rules for every file, whatever it is written in.

use super::Finding;
use super::source::Source;

/// Work that was left. In two halves, so that this file does not find itself.
const UNFINISHED: &str = concat!("FIX", "ME");
/// Work that waits for an issue.
const WAITING: &str = concat!("TO", "DO");
/// Where developers' files lie. A path like that works on one machine only.
const MACHINE_PATHS: [&str; 7] = [
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/."),
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("/tmp", "/t/"),
    concat!("/tmp", "/pre"),
];
/// The map, whose names must exist.
const MAP: &str = "ARCHITECTURE.md";
/// What a name of a file ends in, when it has no folder.
const FILE_ENDINGS: [&str; 7] = [".rs", ".toml", ".md", ".yaml", ".yml", ".txt", ".json"];

/// Checks one file.
pub(super) fn check(file: &Source, found: &mut Vec<Finding>) {
    if file.path == "Cargo.lock" {
        return;
    }
    for (index, line) in file.text.lines().enumerate() {
        let mut report = |message: String| {
            found.push(Finding { file: file.path.clone(), line: index + 1, message });
        };
        if line.contains(UNFINISHED) {
            report(format!("{UNFINISHED}: mend it now, or write an issue and a {WAITING} with it"));
        }
        if names(line, WAITING) && !names_issue(line) {
            report(format!("{WAITING} without an issue: write {WAITING}(#12)"));
        }
        for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
            report(format!("`{path}` is a path of one machine: take it from the environment"));
        }
    }
}

/// Checks that every file and folder that the map names exists.
pub(super) fn names_exist(tree: &[Source], found: &mut Vec<Finding>) {
    let Some(map) = tree.iter().find(|file| file.path == MAP) else { return };
    let mut fenced = false;
    for (index, line) in map.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            if !exists(tree, name) {
                found.push(Finding {
                    file: map.path.clone(),
                    line: index + 1,
                    message: format!("`{name}` does not exist: name what replaced it"),
                });
            }
        }
    }
}

/// Whether a quoted word names a file or folder of ours.
fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let ending =
        FILE_ENDINGS.iter().any(|ending| word.len() > ending.len() && word.ends_with(ending));
    let outside = word.starts_with('/') || word.starts_with("target/") || word.starts_with('-');
    // `a/b` alone may be a kind of content or a header's value; ours end in `/` or in a known way.
    word.chars().all(plain) && !outside && (ending || word.ends_with('/'))
}

/// Whether a file or folder of that name is in the tree, at its root or deeper.
fn exists(tree: &[Source], name: &str) -> bool {
    let name = name.trim_start_matches("./");
    let deeper = format!("/{name}");
    tree.iter().any(|file| {
        let path = &file.path;
        if name.ends_with('/') {
            path.starts_with(name) || path.contains(&deeper)
        } else {
            path == name || path.ends_with(&deeper)
        }
    })
}

/// Whether a word stands alone in a line.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let outer = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        outer(before) && outer(after)
    })
}

/// Whether a line names an issue: `#` and a number.
fn names_issue(line: &str) -> bool {
    line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
