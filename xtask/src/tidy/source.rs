//! A file as the rules see it: its text, its code without comments and literals, and which of its
//! lines are tests. Knows Rust's tokens, not its grammar.

use std::collections::BTreeSet;
use std::ops::Range;

/// What marks an item as a test's.
const TEST_MARK: &str = "#[cfg(test)]";

/// One file of the tree.
#[derive(Debug)]
pub(super) struct Source {
    /// Its path below the root, with `/`.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
    /// Rust only: the text with the content of comments and literals blanked, byte for byte.
    pub(super) code: String,
}

/// A function in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Its name.
    pub(super) name: String,
    /// Its first line, from 1.
    pub(super) line: usize,
    /// How many lines it has, braces included.
    pub(super) lines: usize,
}

impl Source {
    /// Takes a file.
    pub(super) fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") { blank(&text) } else { String::new() };
        Self { path, text, code }
    }

    /// The line, from 1, of a byte.
    pub(super) fn line_of(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// The bytes of items that are compiled for tests only.
    pub(super) fn test_ranges(&self) -> Vec<Range<usize>> {
        self.code
            .match_indices(TEST_MARK)
            .map(|(at, _)| {
                let rest = self.code.get(at..).unwrap_or_default();
                let open = rest.find('{');
                let end = rest.find(';');
                match (open, end) {
                    (Some(open), end) if end.is_none_or(|end| open < end) => {
                        at..at + closing(rest, open).unwrap_or(rest.len())
                    }
                    (_, Some(end)) => at..at + end,
                    _ => at..self.code.len(),
                }
            })
            .collect()
    }

    /// Every function with a body.
    pub(super) fn functions(&self) -> Vec<Function> {
        self.code.match_indices("fn ").filter_map(|(at, _)| self.function(at)).collect()
    }

    /// The function whose `fn` is at this byte; `None` for a declaration, a type, a longer word.
    fn function(&self, at: usize) -> Option<Function> {
        let before = self.code.get(..at)?.chars().next_back();
        if before.is_some_and(is_word) {
            return None;
        }
        let rest = self.code.get(at..)?;
        let name: String = rest.get(3..)?.chars().take_while(|c| is_word(*c)).collect();
        let open = body(rest)?;
        let end = closing(rest, open)?;
        if name.is_empty() {
            return None;
        }
        let line = self.line_of(at);
        Some(Function { name, line, lines: self.line_of(at + end) - line + 1 })
    }
}

/// Files that hold nothing but tests: by their place, or because their parent says so.
pub(super) fn test_files(tree: &[Source]) -> BTreeSet<String> {
    let mut tests: BTreeSet<String> = tree
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| path.ends_with("/tests.rs") || path.contains("/tests/"))
        .collect();
    for file in tree.iter().filter(|file| file.path.ends_with(".rs")) {
        for (at, _) in file.code.match_indices(TEST_MARK) {
            let item = file.code.get(at + TEST_MARK.len()..).unwrap_or_default();
            let item = item.split(['{', ';']).next().unwrap_or_default().trim();
            let Some((_, name)) = item.rsplit_once("mod ") else { continue };
            let base = module_folder(&file.path);
            let (leaf, below) = (format!("{base}/{name}.rs"), format!("{base}/{name}/"));
            let found =
                tree.iter().map(|f| &f.path).filter(|p| **p == leaf || p.starts_with(&below));
            tests.extend(found.cloned());
        }
    }
    tests
}

/// The folder in which the modules that a file declares lie.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name.trim_end_matches(".rs") {
        "lib" | "main" | "mod" => folder.to_owned(),
        stem => format!("{folder}/{stem}"),
    }
}

/// Where a function's body opens; `None` when a `;` comes first.
fn body(function: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in function.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Where the brace that opens at `open` closes.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Whether a character can be part of a name.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What the reader of [`blank`] is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    Line,
    Block(usize),
    Text,
    Raw(usize),
    Char,
}

/// Blanks comments and the content of literals. Newlines stay, so lines and bytes still count.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut inside = Inside::Code;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let before = at.checked_sub(1).and_then(|i| bytes.get(i)).copied();
        let (next, taken, keep) = step(inside, rest, before);
        for byte in rest.iter().take(taken) {
            out.push(if keep || *byte == b'\n' { *byte } else { b' ' });
        }
        inside = next;
        at += taken.max(1);
    }
    String::from_utf8(out).unwrap_or_default()
}

/// What comes next, how many bytes were read, and whether they are code.
fn step(inside: Inside, rest: &[u8], before: Option<u8>) -> (Inside, usize, bool) {
    match inside {
        Inside::Code => step_code(rest, before),
        Inside::Line if rest.starts_with(b"\n") => (Inside::Code, 1, true),
        Inside::Block(depth) if rest.starts_with(b"/*") => (Inside::Block(depth + 1), 2, false),
        Inside::Block(depth) if rest.starts_with(b"*/") => match depth {
            1 => (Inside::Code, 2, false),
            _ => (Inside::Block(depth - 1), 2, false),
        },
        Inside::Text | Inside::Char if rest.starts_with(b"\\") => {
            (inside, 2.min(rest.len()), false)
        }
        Inside::Text if rest.starts_with(b"\"") => (Inside::Code, 1, true),
        Inside::Char if rest.starts_with(b"'") => (Inside::Code, 1, true),
        Inside::Raw(hashes) if closes_raw(rest, hashes) => (Inside::Code, 1 + hashes, true),
        _ => (inside, 1, false),
    }
}

/// The same, in code: does something begin that is none?
fn step_code(rest: &[u8], before: Option<u8>) -> (Inside, usize, bool) {
    let in_word = before.is_some_and(|byte| is_word(char::from(byte)));
    match rest {
        [b'/', b'/', ..] => (Inside::Line, 2, false),
        [b'/', b'*', ..] => (Inside::Block(1), 2, false),
        [b'"', ..] => (Inside::Text, 1, true),
        [b'r', tail @ ..] if !in_word || before == Some(b'b') => match hashes_at(tail) {
            hashes if tail.get(hashes) == Some(&b'"') => (Inside::Raw(hashes), hashes + 2, true),
            _ => (Inside::Code, 1, true),
        },
        // A lifetime has no second quote where a character would have one.
        [b'\'', b'\\', ..] => (Inside::Char, 1, true),
        [b'\'', tail @ ..] => {
            let width = first_width(tail);
            let quoted = tail.get(width) == Some(&b'\'');
            (if quoted { Inside::Char } else { Inside::Code }, 1, true)
        }
        _ => (Inside::Code, 1, true),
    }
}

/// How many bytes the first character of valid UTF-8 has.
fn first_width(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(0xF0..) => 4,
        Some(0xE0..) => 3,
        Some(0xC0..) => 2,
        _ => 1,
    }
}

/// Whether a raw literal with so many `#` ends here.
fn closes_raw(rest: &[u8], hashes: usize) -> bool {
    rest.strip_prefix(b"\"").is_some_and(|tail| hashes_at(tail) >= hashes)
}

/// How many `#` stand here.
fn hashes_at(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte == b'#').count()
}
