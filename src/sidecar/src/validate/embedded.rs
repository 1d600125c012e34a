//! Where policies stand inside the files of Envoy and Istio.

use super::Embedded;
use crate::document::scalar::Reader;
use crate::document::{self, Finding, Kind, Node, join};

/// The root id of the plugin that reads policies.
pub(super) const ROOT_ID: &str = "gateway";
/// The type of a wasm HTTP filter.
pub(super) const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
/// Keys that no policy has at its top and that files of Envoy, xDS and Kubernetes have.
const HOST_KEYS: [&str; 12] = [
    "@type",
    "admin",
    "apiVersion",
    "bootstrap_extensions",
    "dynamic_resources",
    "filter_chains",
    "kind",
    "layered_runtime",
    "node",
    "resources",
    "static_resources",
    "typed_config",
];

/// Whether a document belongs to Envoy or Kubernetes, rather than being a policy.
pub(super) fn is_host_document(node: &Node) -> bool {
    HOST_KEYS.iter().any(|key| node.get(key).is_some())
}

/// Finds the policies in a document, and what is wrong with the way that they are embedded.
pub(super) fn find(node: &Node, path: &str, out: &mut Vec<Embedded>, findings: &mut Vec<Finding>) {
    match &node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                find(node, &format!("{path}[{index}]"), out, findings);
            }
        }
        Kind::Map(entries) => {
            if let Some((wasm, at)) = unwrap(node, path, WASM) {
                plugin(wasm, &at, out, findings);
            } else if node.text_of(&["kind"]) == Some("WasmPlugin") {
                wasm_plugin(node, path, out, findings);
            } else {
                for entry in entries {
                    find(&entry.value, &join(path, &entry.key), out, findings);
                }
            }
        }
    }
}

/// A message of the type `kind` and its place, a TypedStruct around it taken off.
pub(super) fn unwrap<'a>(node: &'a Node, path: &str, kind: &str) -> Option<(&'a Node, String)> {
    let name = node.text_of(&["@type"])?;
    if name.ends_with(kind) {
        return Some((node, path.to_owned()));
    }
    let typed = name.ends_with(".v1.TypedStruct")
        && node.text_of(&["type_url", "typeUrl"]).is_some_and(|url| url.ends_with(kind));
    typed.then(|| Some((node.get("value")?, join(path, "value")))).flatten()
}

fn plugin(wasm: &Node, path: &str, out: &mut Vec<Embedded>, findings: &mut Vec<Finding>) {
    let Some(config) = wasm.get("config") else { return };
    if config.text_of(&["root_id", "rootId"]) != Some(ROOT_ID) {
        return;
    }
    let path = join(path, "config.configuration");
    let mut refuse = |line, wrong: String| {
        findings.push(Finding {
            line,
            path: path.clone(),
            wrong,
            allowed: "a google.protobuf.Struct or StringValue that holds the policy".to_owned(),
        });
    };
    let Some(configuration) = config.get("configuration") else {
        return refuse(config.line, "is not set".to_owned());
    };
    let kind = configuration.text_of(&["@type"]).unwrap_or_default();
    let at = join(&path, "value");
    let reader = Reader::Envoy;
    match configuration.get("value") {
        None => refuse(configuration.line, "has no value".to_owned()),
        Some(value) if kind.ends_with("google.protobuf.Struct") => {
            out.push(Embedded { node: value.clone(), path: at, reader });
        }
        Some(value) if kind.ends_with("google.protobuf.StringValue") => match json_text(value) {
            Ok(node) => out.push(Embedded { node, path: at, reader: Reader::Core }),
            Err(finding) => findings.push(Finding { path: at, ..finding }),
        },
        Some(_) => refuse(configuration.line, format!("has the type `{kind}`")),
    }
}

/// The document inside a string: the gateway reads it as JSON, so JSON it must be.
fn json_text(value: &Node) -> Result<Node, Finding> {
    let Kind::Scalar { text, .. } = &value.kind else {
        return Err(text_finding(value.line, "is not text".to_owned()));
    };
    let before = value.line.saturating_sub(1);
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let line = before.saturating_add(error.line());
        return Err(text_finding(line, format!("is not JSON: {error}")));
    }
    let mut documents = document::parse(text)?;
    match documents.pop() {
        Some(mut node) => {
            node.shift(before);
            Ok(node)
        }
        None => Err(text_finding(value.line, "is empty".to_owned())),
    }
}

fn text_finding(line: usize, wrong: String) -> Finding {
    Finding { line, path: String::new(), wrong, allowed: "the policy as JSON text".to_owned() }
}

fn wasm_plugin(node: &Node, path: &str, out: &mut Vec<Embedded>, findings: &mut Vec<Finding>) {
    let path = join(path, "spec");
    let Some(spec) = node.get("spec") else { return };
    match spec.text_of(&["pluginName"]) {
        Some(ROOT_ID) => {}
        Some(_) => return,
        None => findings.push(Finding {
            line: spec.line,
            path: join(&path, "pluginName"),
            wrong: "is not set, so that Envoy asks the module for a plugin without a name"
                .to_owned(),
            allowed: ROOT_ID.to_owned(),
        }),
    }
    let path = join(&path, "pluginConfig");
    match spec.get("pluginConfig") {
        Some(policy) => {
            out.push(Embedded { node: policy.clone(), path, reader: Reader::Kubernetes });
        }
        None => findings.push(Finding {
            line: spec.line,
            path,
            wrong: "is not set".to_owned(),
            allowed: "the policy".to_owned(),
        }),
    }
}
