//! Checks policies, bare or inside an Envoy or Istio YAML, and says every mistake with its line.
//!
//! It reads no file and prints nothing: text in, findings out. What a policy may say is decided by
//! `policy::config`; here it is only found, read as its host would read it, and given lines.

mod embedded;
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
    /// Names of the policies that are good.
    pub(crate) good: Vec<String>,
}

/// Checks every policy in a text.
pub(crate) fn check(text: &str) -> Report {
    let mut report = Report::default();
    let documents = match document::parse(text) {
        Ok(documents) => documents,
        Err(finding) => {
            report.findings.push(finding);
            return report;
        }
    };
    let documents: Vec<Node> = documents.into_iter().filter(|node| !node.is_null()).collect();
    let mut read = Vec::new();
    for node in &documents {
        report.findings.extend(document::duplicates(node, ""));
        if embedded::is_host_document(node) {
            embedded::find(node, "", &mut read, &mut report.findings);
        } else {
            read.push(Embedded { node: node.clone(), path: String::new(), reader: Reader::Core });
        }
    }
    if read.is_empty() && report.findings.is_empty() {
        report.findings.push(nothing_to_check(documents.first()));
    }
    let mut policies = Vec::new();
    for embedded in &read {
        policies.extend(embedded.check(&mut report));
    }
    for node in &documents {
        report.findings.extend(routes::check(node, &policies));
    }
    report.good.extend(policies.into_iter().map(|policy| policy.name));
    report.findings.sort();
    report.findings.dedup();
    report
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
                Some(policy)
            }
            Err(mistakes) => {
                report.findings.extend(mistakes.into_iter().map(|mistake| self.locate(mistake)));
                None
            }
        }
    }

    fn locate(&self, mistake: Mistake) -> Finding {
        let Mistake { path, wrong, allowed } = mistake;
        let allowed = match self.reader {
            Reader::Core => allowed,
            Reader::Envoy | Reader::Kubernetes => self.explain(&path, allowed),
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
