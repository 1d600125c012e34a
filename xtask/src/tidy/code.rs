//! The rules for Rust files.

use super::Finding;
use super::source::{Source, is_word};

/// A function fits one screen.
const FUNCTION_LINES_MAX: usize = 60;
/// A file holds one idea.
const FILE_LINES_MAX: usize = 400;
/// A file of tests is read one test at a time, so it may be longer.
const TEST_FILE_LINES_MAX: usize = 800;
/// The one module that talks to the host, and so may be unsafe.
const HOST_FILE: &str = "src/filter/src/wasm.rs";
/// The rest of that module.
const HOST_FOLDER: &str = "src/filter/src/wasm/";
/// The core, which must compile for any host.
const CORE: &str = "src/policy/src/";

/// What may stand in no Rust file, and what to do instead.
const NOWHERE: [(&str, &str); 4] = [
    ("#[ignore", "delete the test or mend it: an ignored test proves nothing"),
    ("#[should_panic", "return the error and compare it: a panic in the filter ends its VM"),
    ("#[allow(", "use #[expect(lint, reason = \"…\")], which says why and ends by itself"),
    ("#![allow(", "use #![expect(lint, reason = \"…\")], which says why and ends by itself"),
];

/// Checks one file; `all_tests` when it holds nothing but tests.
pub(super) fn check(file: &Source, all_tests: bool, found: &mut Vec<Finding>) {
    let mut report = |line: usize, message: String| {
        found.push(Finding { file: file.path.clone(), line, message });
    };
    if !file.text.starts_with("//!") {
        report(1, "open the file with `//!`: what it is for, what it does not do".to_owned());
    }
    let lines = file.text.lines().count();
    let lines_max = if all_tests { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
    if lines > lines_max {
        report(lines, format!("{lines} lines; split by idea: {lines_max} at most"));
    }
    for function in file.functions().iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
        let (name, lines) = (&function.name, function.lines);
        report(
            function.line,
            format!("`{name}` has {lines} lines; split it: {FUNCTION_LINES_MAX} at most"),
        );
    }
    let tests = file.test_ranges();
    let is_test = |at: usize| all_tests || tests.iter().any(|range| range.contains(&at));
    for (at, message) in forbidden(file, is_test) {
        report(file.line_of(at), message);
    }
}

/// Every forbidden word, with the byte where it stands.
fn forbidden(file: &Source, is_test: impl Fn(usize) -> bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (pattern, remedy) in NOWHERE {
        found.extend(words(file, pattern).map(|at| (at, format!("`{pattern}`: {remedy}"))));
    }
    let sleeping = words(file, "sleep(").filter(|at| is_test(*at));
    found.extend(sleeping.map(|at| {
        (at, "`sleep(` in a test: wait for a condition with a deadline instead".to_owned())
    }));
    if file.path.starts_with(CORE) {
        found.extend(words(file, "std::").filter(|at| !is_test(*at)).map(|at| {
            (at, "`std::` in the core: use `core::` or `alloc::`, or pass it in".to_owned())
        }));
    }
    let is_host = file.path == HOST_FILE || file.path.starts_with(HOST_FOLDER);
    if file.path.starts_with("src/") && !is_host {
        for pattern in ["unsafe ", "extern \"", "no_mangle", "proxy_"] {
            let name = pattern.trim();
            found.extend(words(file, pattern).map(|at| {
                (
                    at,
                    format!(
                        "`{name}` belongs into {HOST_FILE}, the one module that knows the host"
                    ),
                )
            }));
        }
    }
    found
}

/// Where a pattern begins, if not in the middle of a longer name.
fn words<'a>(file: &'a Source, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let starts_as_word = pattern.starts_with(is_word);
    file.code.match_indices(pattern).map(|(at, _)| at).filter(move |at| {
        let before = file.code.get(..*at).and_then(|text| text.chars().next_back());
        !(starts_as_word && before.is_some_and(is_word))
    })
}
