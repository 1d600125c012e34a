//! `cargo xtask tidy`: the rules of this project that neither the compiler nor clippy knows. Each
//! finding names file, line and remedy. What a rule is for: the project's conventions.

mod code;
mod crates;
mod source;
#[cfg(test)]
mod tests;
mod text;

use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use source::Source;
use std::fmt;
use std::path::Path;

/// Folders that hold nothing that people write.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
/// What is read: everything else is data.
const READ: [&str; 8] = ["rs", "toml", "md", "yaml", "yml", "json", "txt", "html"];
/// A file of this size is a fixture, not something that a person wrote.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// The command.
pub(crate) fn run(ctx: &Workspace) -> Result<()> {
    let tree = read(ctx.root())?;
    let findings = findings(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} to mend", findings.len());
    }
    println!("    tidy: {} files, nothing to mend", tree.len());
    Ok(())
}

/// Everything that is wrong with a tree of files, in the order of the files.
fn findings(tree: &[Source]) -> Vec<Finding> {
    let tests = source::test_files(tree);
    let mut found = Vec::new();
    for file in tree {
        text::check(file, &mut found);
        if file.path.ends_with(".rs") {
            code::check(file, tests.contains(&file.path), &mut found);
        }
        if file.path.ends_with("Cargo.toml") {
            crates::check(file, &mut found);
        }
    }
    text::names_exist(tree, &mut found);
    found.sort();
    found
}

/// Reads every file that people write.
fn read(root: &Path) -> Result<Vec<Source>> {
    let mut tree = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !SKIPPED.contains(&name.as_ref()) {
                    folders.push(path);
                }
            } else if is_read(&path) && entry.metadata().is_ok_and(|m| m.len() <= FILE_BYTES_MAX) {
                let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                let bytes = std::fs::read(&path).with_context(|| format!("reading {shown}"))?;
                tree.push(Source::new(shown, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    Ok(tree)
}

/// Whether a file is one that people write.
fn is_read(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let known = path.extension().is_some_and(|ext| READ.iter().any(|known| ext == *known));
    known || name == "run" || name.starts_with("Dockerfile")
}
