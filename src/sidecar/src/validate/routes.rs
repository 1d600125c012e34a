//! Routes must not match on headers that the gateway edits: Envoy picks the route again after an
//! edit, so a request could end at another service than the one that it was judged for.

use crate::document::{Finding, Kind, Node, join};
use policy::model::{Policy, TokenLocation};
use std::collections::BTreeMap;

/// Finds the matches on edited headers in an Envoy document.
pub(super) fn check(document: &Node, policies: &[Policy]) -> Vec<Finding> {
    let edited = edited_headers(policies);
    let mut findings = Vec::new();
    if !edited.is_empty() {
        walk(document, "", &edited, &mut findings);
    }
    findings
}

/// Lower-case names, each with why it is edited.
fn edited_headers(policies: &[Policy]) -> BTreeMap<String, &'static str> {
    let mut edited = BTreeMap::new();
    let providers = policies.iter().filter_map(|policy| policy.authentication.as_ref());
    for provider in providers.flat_map(|authentication| &authentication.providers) {
        for (_, header) in &provider.forward_claims {
            edited.insert(header.to_ascii_lowercase(), "forward.claims writes");
        }
        for location in &provider.locations {
            if let (TokenLocation::Header { name, .. }, false) = (location, provider.forward_token)
            {
                edited.insert(name.to_ascii_lowercase(), "forward.token removes");
            }
        }
    }
    edited
}

fn walk(
    node: &Node,
    path: &str,
    edited: &BTreeMap<String, &'static str>,
    findings: &mut Vec<Finding>,
) {
    match &node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                walk(node, &format!("{path}[{index}]"), edited, findings);
            }
        }
        Kind::Map(entries) => {
            for (line, at, name) in matched_headers(node, path) {
                if let Some(why) = edited.get(&name.to_ascii_lowercase()) {
                    findings.push(Finding {
                        line,
                        path: at,
                        wrong: format!(
                            "a route matches on `{name}`, which the policy's {why} after the \
                             route was picked"
                        ),
                        allowed: "a header that the policy does not edit".to_owned(),
                    });
                }
            }
            for entry in entries {
                walk(&entry.value, &join(path, &entry.key), edited, findings);
            }
        }
    }
}

/// The headers that this very mapping matches on: a route's `match.headers`, or the input of a
/// generic matcher.
fn matched_headers<'a>(node: &'a Node, path: &str) -> Vec<(usize, String, &'a str)> {
    let mut matched = Vec::new();
    if let Some(Kind::List(headers)) =
        node.get("match").and_then(|matching| matching.get("headers")).map(|list| &list.kind)
    {
        for (index, header) in headers.iter().enumerate() {
            if let Some(name) = header.text_of(&["name"]) {
                let at = join(path, &format!("match.headers[{index}].name"));
                matched.push((header.line, at, name));
            }
        }
    }
    let input = node.text_of(&["@type"]).is_some_and(|name| {
        name.ends_with("matching.common_inputs.network.v3.HttpRequestHeaderMatchInput")
            || name.ends_with("type.matcher.v3.HttpRequestHeaderMatchInput")
    });
    if let (true, Some(name)) = (input, node.text_of(&["header_name", "headerName"])) {
        matched.push((node.line, join(path, "header_name"), name));
    }
    matched
}
