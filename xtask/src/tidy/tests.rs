//! Each rule of tidy, once kept and once broken.

use super::source::Source;
use super::{Finding, findings};

/// Checks a tree of files and compares `file:line` and a part of each message.
#[track_caller]
fn check(tree: &[(&str, &str)], expected: &[(&str, &str)]) {
    let tree: Vec<Source> =
        tree.iter().map(|(path, text)| Source::new((*path).into(), (*text).into())).collect();
    let found: Vec<Finding> = findings(&tree);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{shown:#?}");
    for (finding, (place, part)) in shown.iter().zip(expected) {
        assert!(finding.starts_with(&format!("{place}: ")), "{finding} is not at {place}");
        assert!(finding.contains(part), "{finding} does not say {part}");
    }
}

fn function(lines: usize) -> String {
    format!("//! A file.\nfn long() {{\n{}}}\n", "    call();\n".repeat(lines - 2))
}

#[test]
fn a_clean_file_has_no_findings() {
    check(&[("src/policy/src/a.rs", "//! A file.\nuse core::fmt;\nfn f() {}\n")], &[]);
}

#[test]
fn a_file_opens_with_its_purpose() {
    check(&[("xtask/src/a.rs", "fn f() {}\n")], &[("xtask/src/a.rs:1", "//!")]);
}

#[test]
fn a_function_of_sixty_lines_fits() {
    check(&[("xtask/src/a.rs", &function(60))], &[]);
    check(&[("xtask/src/a.rs", &function(61))], &[("xtask/src/a.rs:2", "`long` has 61 lines")]);
}

#[test]
fn braces_in_literals_and_comments_do_not_count() {
    let text = "//! A file.\nfn f() { g(\"}{{\", '{', b'{', r#\"{\"{\"#); /* { /* { */ */ } // {\n";
    check(&[("xtask/src/a.rs", &format!("{text}{}", "\n".repeat(90)))], &[]);
}

#[test]
fn a_lifetime_is_no_literal() {
    let text = "//! A file.\nfn f<'a>(a: &'a str) -> char { 'ä' }\nfn g() { sleep(1) }\n";
    check(&[("test-harness/tests/a.rs", text)], &[("test-harness/tests/a.rs:3", "deadline")]);
}

#[test]
fn a_long_file_is_split_and_tests_may_be_longer() {
    let text = format!("//! A file.\n{}", "\n".repeat(400));
    check(&[("xtask/src/a.rs", &text)], &[("xtask/src/a.rs:401", "401 lines")]);
    check(&[("xtask/src/a/tests.rs", &text)], &[]);
}

#[test]
fn tests_do_not_sleep() {
    let text = "//! A file.\nfn f() { sleep(1) }\n#[cfg(test)]\nmod t {\n fn g() { sleep(1) }\n}\n";
    check(&[("test-harness/src/a.rs", text)], &[("test-harness/src/a.rs:5", "sleep(")]);
}

#[test]
fn a_module_that_is_declared_for_tests_is_a_test() {
    let parent = "//! A file.\n#[cfg(test)]\npub(crate) mod probe;\n";
    let child = "//! A file.\nuse std::fs;\n";
    check(&[("src/policy/src/a.rs", parent), ("src/policy/src/a/probe.rs", child)], &[]);
    check(&[("src/policy/src/a/probe.rs", child)], &[("src/policy/src/a/probe.rs:2", "core::")]);
}

#[test]
fn tests_are_not_switched_off_and_lints_not_silenced() {
    let text = "//! A file.\n#[ignore]\n#[should_panic]\n#[allow(dead_code)]\nfn f() {}\n";
    let file = "xtask/src/a.rs";
    let places = ["xtask/src/a.rs:2", "xtask/src/a.rs:3", "xtask/src/a.rs:4"];
    check(&[(file, text)], &[(places[0], "mend"), (places[1], "panic"), (places[2], "expect")]);
}

#[test]
fn only_one_module_knows_the_host() {
    let text = "//! A file.\nunsafe extern \"C\" { fn proxy_log(); }\n";
    let remedy = "belongs into src/filter/src/wasm.rs";
    let place = "src/filter/src/host.rs:2";
    check(&[("src/filter/src/host.rs", text)], &[(place, remedy); 3]);
    check(&[("src/filter/src/wasm.rs", text), ("src/filter/src/wasm/imports.rs", text)], &[]);
}

#[test]
fn unfinished_work_names_its_issue() {
    let waiting = concat!("TO", "DO");
    let text = format!("# {waiting}(#7): later\n# {waiting}: later\n# {}\n", concat!("FIX", "ME"));
    check(&[("a.toml", &text)], &[("a.toml:2", "#12"), ("a.toml:3", "mend it")]);
}

#[test]
fn paths_of_one_machine_are_found() {
    let text = format!("see {}me/anna/notes\n", "/ho");
    check(&[("docs/a.md", &text)], &[("docs/a.md:1", "path of one machine")]);
}

#[test]
fn the_harness_uses_no_crate_of_the_product() {
    let text = "[package]\nname = \"test-harness\"\n[lints]\nworkspace = true\n\
                [dependencies]\npolicy.workspace = true\nserde_json = \"1\"\n";
    check(&[("test-harness/Cargo.toml", text)], &[("test-harness/Cargo.toml:6", "`policy`")]);
}

#[test]
fn a_crate_is_named_like_its_folder_and_takes_the_lints() {
    let text = "[package]\nname = \"core\"\n";
    let place = "src/policy/Cargo.toml";
    let (one, two) = (format!("{place}:1"), format!("{place}:2"));
    check(&[(place, text)], &[(&one, "[lints]"), (&two, "crate `core`")]);
}

#[test]
fn the_map_names_only_what_exists() {
    let map = "See `src/policy/src/a.rs`, `a.rs`, `src/policy/`, `/api/x.md`, `text/html`.\n\
               And `src/gone.rs` and `gone/`.\n```\n`nothing.rs`\n```\n";
    let place = "ARCHITECTURE.md:2";
    check(
        &[("ARCHITECTURE.md", map), ("src/policy/src/a.rs", "//! A file.\n")],
        &[(place, "`gone/`"), (place, "`src/gone.rs`")],
    );
}
