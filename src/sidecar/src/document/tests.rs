//! The reader of YAML: values, lines, bounds.

use super::scalar::Reader;
use super::*;
use serde_json::json;

#[track_caller]
fn check(text: &str, reader: Reader, expected: Value) {
    let documents = parse(text).unwrap();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(documents[0].to_json(reader), expected);
}

#[test]
fn a_bare_policy_is_read_by_yaml_1_2() {
    check(
        "a: off\nb: yes\nc: 0.5\nd: 010\ne: 0x10\nf: 0o17\ng: ~\nh:\ni: true\nj: '5'\nk: 1e3\n\
         l: -3\nm: +4\nn: 60s\no: 10.0.0.0/8\np: 1.2.3.4\nq: 3000000000\nr: --5\ns: '.'",
        Reader::Core,
        json!({"a": "off", "b": "yes", "c": 0.5, "d": 10, "e": 16, "f": 15, "g": null, "h": null,
               "i": true, "j": "5", "k": 1000.0, "l": -3, "m": 4, "n": "60s", "o": "10.0.0.0/8",
               "p": "1.2.3.4", "q": 3_000_000_000_u64, "r": "--5", "s": "."}),
    );
}

/// Each value as Envoy 1.40 showed it in its config dump.
#[test]
fn envoy_reads_words_as_booleans_and_fractions_as_text() {
    check(
        "{a: 0.5, b: off, c: 3000000000, d: 2, e: y, f: \"off\", g: 1e3, h: ~, i: 0x10, j: 010, \
          k: 2026-01-01, l: No, m: 0o7, n: \"5\", o: TRUE, p: NULL, q: Null, r: tRue}",
        Reader::Envoy,
        json!({"a": "0.5", "b": false, "c": "3000000000", "d": 2, "e": true, "f": "off",
               "g": "1e3", "h": null, "i": 16, "j": 8, "k": "2026-01-01", "l": false, "m": "0o7",
               "n": "5", "o": true, "p": null, "q": null, "r": "tRue"}),
    );
}

#[test]
fn kubernetes_reads_words_as_booleans_and_keeps_fractions() {
    check("{a: off, b: 0.5, c: On}", Reader::Kubernetes, json!({"a": false, "b": 0.5, "c": true}));
}

#[test]
fn json_is_read_too_tabs_included() {
    check(
        "{\n\t\"a\": [1, {\"b\": null}],\n\t\"c\": \"x\\ny\"\n}\n",
        Reader::Core,
        json!({"a": [1, {"b": null}], "c": "x\ny"}),
    );
}

#[test]
fn an_alias_is_its_anchor() {
    check(
        "a: &x {b: 1}\nc: *x\nd: [*x]",
        Reader::Core,
        json!({"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}]}),
    );
}

#[test]
fn lines_are_those_of_the_key_or_of_its_nearest_parent() {
    let text = "version: 1\n\nrate_limits:\n  - name: a\n    requests: 0\n  - {name: b}\nclaims:\n  \
                \"https://x.y/z\": h\n  https: 1\n";
    let node = &parse(text).unwrap()[0];
    let line = |path| node.line_of(path);
    assert_eq!(line(""), 1);
    assert_eq!(line("version"), 1);
    assert_eq!(line("rate_limits"), 3);
    assert_eq!(line("rate_limits[0].requests"), 5);
    assert_eq!(line("rate_limits[0].per"), 4);
    assert_eq!(line("rate_limits[1].requests"), 6);
    assert_eq!(line("rate_limits[7].requests"), 3);
    assert_eq!(line("claims.https://x.y/z"), 8);
    assert_eq!(line("unheard.of"), 1);
}

#[test]
fn duplicate_keys_are_found_with_both_lines() {
    let node = &parse("a:\n  b: 1\n  c: 2\n  b: 3\na: 4\n").unwrap()[0];
    let found: Vec<String> = duplicates(node, "").iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "4: a.b: this key stands on line 2 already; allowed: each key once",
            "5: a: this key stands on line 1 already; allowed: each key once",
        ]
    );
    assert_eq!(node.to_json(Reader::Core), json!({"a": {"b": 1, "c": 2}}));
}

#[test]
fn a_syntax_error_has_its_line() {
    let error = parse("a: 1\nb: [1, 2\nc: }\n").unwrap_err();
    assert!(error.line >= 2, "{error}");
    assert_eq!(error.allowed, "well-formed YAML");
}

#[test]
fn documents_are_kept_apart() {
    let documents = parse("a: 1\n---\nb: 2\n").unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1].line_of("b"), 3);
}

#[test]
fn a_bomb_of_aliases_or_brackets_is_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(","));
    }
    let bomb = parse(&bomb).unwrap_err();
    assert!(bomb.wrong.contains("too large"), "{bomb}");
    let deep = parse(&"[".repeat(100)).unwrap_err();
    assert!(deep.wrong.contains("deeply"), "{deep}");
    assert!(parse(&"[".repeat(1_000_000)).is_err());
    assert!(parse("a: &x [*x]").is_err());
}

/// Edits of a real document from seeds: whatever stands in a file, the answer is a tree or a finding.
#[test]
fn no_text_makes_the_reader_panic() {
    const TEXT: &[u8] = b"a: &x {b: [1, 'two', \"\\u0041\"], c: |\n  text\n}\n---\n? k\n: - *x\n  - !!str 5\n...\n%YAML 1.2\n";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for _ in 0..20_000 {
        let mut text = TEXT.to_vec();
        for _ in 0..=random(6) {
            let at = random(text.len().max(1));
            let other = TEXT[random(TEXT.len())];
            match random(4) {
                0 => text[at] = other,
                1 => text.insert(at, other),
                2 if text.len() > 8 => drop(text.remove(at)),
                _ => text.truncate(at.max(8)),
            }
        }
        let text = String::from_utf8(text).unwrap();
        for node in parse(&text).unwrap_or_default() {
            let _ = (node.to_json(Reader::Core), duplicates(&node, ""), node.line_of("a.b[2]"));
        }
    }
}
