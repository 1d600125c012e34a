//! Checks policies, bare or inside an Envoy or Istio YAML, and says every mistake with its line.
//!
//! It reads no file and prints nothing: text in, findings out. What a policy may say is decided by
//! `policy::config`; here it is only found, read as its host would read it, and given lines.

mod clusters;
mod embedded;
mod memory;
mod paths;
mod routes;
#[cfg(test)]
mod tests;

use crate::document::scalar::Reader;
use crate::document::{self, Finding, Node};
use policy::config::{Environment, Mistake};
use policy::model::Policy;
use serde_json::Value;

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Mistakes, in the order of the lines.
    pub(crate) findings: Vec<Finding>,
    /// What is legal but deserves a word.
    pub(crate) warnings: Vec<String>,
    /// What is good to know of the policies that are good.
    pub(crate) notes: Vec<String>,
    /// Names of the policies that are good.
    pub(crate) good: Vec<String>,
}

/// Checks every policy in a text.
pub(crate) fn check(text: &str) -> Report {
    check_together(&[text.to_owned()]).pop().unwrap_or_default()
}

/// Checks several texts, one report each: the listener of one may get its policy from another, and a file without a policy is good beside one that has it.
pub(crate) fn check_together(texts: &[String]) -> Vec<Report> {
    let mut files: Vec<File> = texts.iter().map(|text| File::read(text)).collect();
    let policies: Vec<Policy> = files.iter_mut().flat_map(File::judge).collect();
    let lonely = files.iter().all(|file| file.embedded.is_empty());
    for file in &mut files {
        if file.embedded.is_empty() && file.report.findings.is_empty() && lonely {
            file.report.findings.push(nothing_to_check(file.documents.first()));
        }
        for node in &file.documents {
            file.report.findings.extend(routes::check(node, &policies));
            file.report.findings.extend(paths::check(node, &policies));
        }
    }
    let documents: Vec<(usize, &Node)> = files
        .iter()
        .enumerate()
        .flat_map(|(index, file)| file.documents.iter().map(move |node| (index, node)))
        .collect();
    for clusters::Said { file, what } in clusters::check(&documents, &policies) {
        let Some(File { report, .. }) = files.get_mut(file) else { continue };
        match what {
            clusters::What::Finding(finding) => report.findings.push(finding),
            clusters::What::Warning(warning) => report.warnings.push(warning),
        }
    }
    for file in &mut files {
        file.report.findings.sort();
        file.report.findings.dedup();
    }
    files.into_iter().map(|file| file.report).collect()
}

/// A text on its way to a report.
struct File {
    documents: Vec<Node>,
    embedded: Vec<Embedded>,
    report: Report,
}

impl File {
    fn read(text: &str) -> Self {
        let mut file =
            Self { documents: Vec::new(), embedded: Vec::new(), report: Report::default() };
        match document::parse(text) {
            Ok(documents) => {
                file.documents = documents.into_iter().filter(|node| !node.is_null()).collect();
            }
            Err(finding) => file.report.findings.push(finding),
        }
        for node in &file.documents {
            let findings = &mut file.report.findings;
            findings.extend(document::duplicates(node, ""));
            if is_bare(node) {
                let (node, path, reader) = (node.clone(), String::new(), Reader::Core);
                file.embedded.push(Embedded { node, path, reader });
            } else {
                embedded::find(node, "", &mut file.embedded, findings);
            }
        }
        file
    }

    fn judge(&mut self) -> Vec<Policy> {
        let report = &mut self.report;
        let policies: Vec<Policy> =
            self.embedded.iter().filter_map(|embedded| embedded.check(report)).collect();
        report.good.extend(policies.iter().map(|policy| policy.name.clone()));
        policies
    }
}

fn nothing_to_check(first: Option<&Node>) -> Finding {
    let (line, wrong) = match first {
        Some(node) => (node.line, "no gateway policy stands in this file"),
        None => (1, "the file is empty"),
    };
    Finding {
        line,
        path: String::new(),
        wrong: wrong.to_owned(),
        allowed: "a bare policy, a wasm filter with root_id gateway and its configuration, or an \
                  Istio WasmPlugin with pluginName gateway and its pluginConfig (a policy that \
                  comes by ECDS is checked in its own file)"
            .to_owned(),
    }
}

/// A policy and where it stands.
#[derive(Clone, Debug)]
struct Embedded {
    /// The policy itself.
    node: Node,
    /// Its place in the document; empty when it is the document.
    path: String,
    /// Who reads it.
    reader: Reader,
}

impl Embedded {
    /// Adds what is wrong to the report; gives the policy when it could be read all the same.
    fn check(&self, report: &mut Report) -> Option<Policy> {
        let document = self.node.to_json(self.reader);
        match judge(&document) {
            Ok(policy) => {
                let place =
                    if self.path.is_empty() { String::new() } else { self.path.clone() + ": " };
                let said = policy.warnings.iter().map(|warning| format!("{place}{warning}"));
                report.warnings.extend(said);
                report.notes.extend(memory::note(&policy).map(|note| format!("{place}{note}")));
                Some(policy)
            }
            Err(mistakes) => {
                // What is wrong for every reader is not this one's doing.
                let plain = match self.reader {
                    Reader::Core => Vec::new(),
                    Reader::Envoy | Reader::Kubernetes => {
                        judge(&self.node.to_json(Reader::Core)).err().unwrap_or_default()
                    }
                };
                let locate = |mistake: Mistake| {
                    let known = plain.iter().any(|other| other.path == mistake.path);
                    self.locate(mistake, known)
                };
                report.findings.extend(mistakes.into_iter().map(locate));
                None
            }
        }
    }

    /// The mistake at its line; `plain` when any other host would refuse it too.
    fn locate(&self, mistake: Mistake, plain: bool) -> Finding {
        let Mistake { path, wrong, allowed } = mistake;
        let allowed = match self.reader {
            Reader::Envoy | Reader::Kubernetes if !plain => self.explain(&path, allowed),
            Reader::Core | Reader::Envoy | Reader::Kubernetes => allowed,
        };
        Finding { line: self.node.line_of(&path), path: under(&self.path, &path), wrong, allowed }
    }

    /// Words that only this reader takes for booleans are worth a hint: nobody sees them as such.
    fn explain(&self, path: &str, allowed: String) -> String {
        let Some(text) = self.node.at(path).and_then(Node::text) else { return allowed };
        if self.reader.read(text) == Reader::Core.read(text) {
            return allowed;
        }
        format!(
            "{allowed} (this host's YAML does not take a bare `{text}` as written: use a \
                 StringValue with JSON, or quotes for words)"
        )
    }
}

/// `path` inside what stands at `place`.
fn under(place: &str, path: &str) -> String {
    if path.starts_with('[') {
        format!("{place}{path}")
    } else if path.is_empty() {
        place.to_owned()
    } else {
        document::join(place, path)
    }
}

/// Everything that the gateway would say of a policy document, keys included.
///
/// # Errors
/// Every mistake.
pub(crate) fn judge(document: &Value) -> Result<Policy, Vec<Mistake>> {
    let policy = policy::config::read(document, Environment::Unknown)?;
    if let Some(authentication) = &policy.authentication {
        token::Verifier::new(authentication, token::NoHost)?;
    }
    Ok(policy)
}

/// Whether a document is a policy by itself, rather than a file of Envoy or Kubernetes.
pub(crate) fn is_bare(node: &Node) -> bool {
    !embedded::is_host_document(node)
}
