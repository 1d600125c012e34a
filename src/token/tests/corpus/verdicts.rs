//! Every token gets the verdict that it deserves, at every clock that its case speaks of.

use crate::read::{CORPUS, Verifiers, cases, name_of, now_of, token_of, word};
use policy::verify::Signatures;
use serde_json::Value;
use std::collections::BTreeSet;
use token::NoHost;

/// Present times at which the cases for any clock are judged as well: a day of 2026 and the last
/// second of 2099.
const PRESENT: [u64; 2] = [1_795_000_000, 4_102_444_799];

/// What is different from what the case asks for.
fn complaint<S: Signatures + Clone>(
    case: &Value,
    verifiers: &mut Verifiers<S>,
    secs: u64,
) -> Option<String> {
    let want = case["want"].as_str().unwrap();
    let name = format!("{} at {secs}", name_of(case));
    let verified = match verifiers.at(case, &token_of(case), secs) {
        Err(error) => {
            let got = word(error);
            return (got != want).then(|| format!("{name}: want {want}, got {got}"));
        }
        Ok(verified) => verified,
    };
    if want != "accepted" {
        return Some(format!("{name}: want {want}, got accepted"));
    }
    if verified.provider as u64 != case["provider"].as_u64().unwrap_or(0) {
        return Some(format!("{name}: provider {}", verified.provider));
    }
    let subject = case.get("subject").map(|subject| subject.as_str().map(str::to_owned));
    if subject.is_some_and(|subject| subject != verified.subject) {
        return Some(format!("{name}: subject {:?}", verified.subject));
    }
    None
}

fn check(cases: impl Iterator<Item = (&'static Value, u64)>) {
    let mut verifiers = Verifiers::new(&NoHost);
    let complaints = cases.filter_map(|(case, secs)| complaint(case, &mut verifiers, secs));
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_token_of_the_corpus_gets_its_verdict() {
    assert!(cases().len() >= 2000, "the corpus has shrunk");
    check(cases().iter().map(|case| (case, now_of(case))));
}

#[test]
fn the_verdicts_for_any_clock_hold_at_present_times() {
    let any = || cases().iter().filter(|case| case["clock"] == "any");
    assert!(any().count() >= 1800, "{} cases only", any().count());
    // What a signature decides is slow here, and was decided above: half of the cases at each end.
    let half = |from, secs| any().skip(from).step_by(2).map(move |case| (case, secs));
    check(half(0, PRESENT[0]).chain(half(1, PRESENT[1])));
}

#[test]
fn the_corpus_has_every_algorithm_and_every_verdict() {
    let all = |name: &str| {
        let values = cases().iter().filter_map(|case| case[name].as_str());
        values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let verdicts =
        ["accepted", "expired", "keys-unavailable", "malformed", "not-yet-valid", "untrusted"];
    assert_eq!(all("want"), verdicts);
    assert_eq!(all("clock"), ["any", "fixed"]);
    assert_eq!(all("kind").len(), 12);
    let names: BTreeSet<String> = cases().iter().map(name_of).collect();
    assert_eq!(names.len(), cases().len(), "two cases of one name");
    assert_eq!(CORPUS["now"], 1_700_000_000);
}
