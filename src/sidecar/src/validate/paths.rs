//! A listener whose policy has rules about paths must bring paths into one spelling before the
//! filter sees them: otherwise `/a//b`, `/a/x/../b` or `/a%2Fb` passes by a rule about `/a/b`, and
//! the service behind may take it for just that.

use super::{embedded, judge};
use crate::document::scalar::Reader;
use crate::document::{Finding, Kind, Node, join};
use policy::model::Policy;
use serde_json::Value;

/// What Envoy calls the configuration of a listener's HTTP side.
const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// One setting of the connection manager, and its values that are safe.
struct Setting {
    /// As in Envoy's documentation.
    name: &'static str,
    /// The other spelling that Envoy takes.
    camel: &'static str,
    /// How the safe values are said.
    allowed: &'static str,
    safe: fn(&Value) -> bool,
    /// What passes by a rule otherwise.
    otherwise: &'static str,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        name: "normalize_path",
        camel: "normalizePath",
        allowed: "true",
        safe: is_true,
        otherwise: "`/x/../public`",
    },
    Setting {
        name: "merge_slashes",
        camel: "mergeSlashes",
        allowed: "true",
        safe: is_true,
        otherwise: "`//path`",
    },
    Setting {
        name: "path_with_escaped_slashes_action",
        camel: "pathWithEscapedSlashesAction",
        allowed: "REJECT_REQUEST, UNESCAPE_AND_REDIRECT or UNESCAPE_AND_FORWARD",
        safe: leaves_no_escaped_slash,
        otherwise: "`/a%2Fb`",
    },
];

fn is_true(value: &Value) -> bool {
    value == &Value::Bool(true)
}

/// Enums of protobuf may be written as their numbers too.
fn leaves_no_escaped_slash(value: &Value) -> bool {
    match value {
        Value::String(name) => ["REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]
            .contains(&name.as_str()),
        value => value.as_u64().is_some_and(|number| (2..=4).contains(&number)),
    }
}

/// Finds the connection managers in an Envoy document that carry the gateway and leave paths as
/// they come. `policies` are those of all files: one of them is what comes by ECDS.
pub(super) fn check(document: &Node, policies: &[Policy]) -> Vec<Finding> {
    let mut findings = Vec::new();
    walk(document, "", policies, &mut findings);
    findings
}

fn walk(node: &Node, path: &str, policies: &[Policy], findings: &mut Vec<Finding>) {
    match &node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                walk(node, &format!("{path}[{index}]"), policies, findings);
            }
        }
        Kind::Map(entries) => {
            if let Some((manager, at)) = embedded::unwrap(node, path, MANAGER) {
                if judges_paths(manager, policies) {
                    findings.extend(SETTINGS.iter().filter_map(|one| one.check(manager, &at)));
                }
                return;
            }
            for entry in entries {
                walk(&entry.value, &join(path, &entry.key), policies, findings);
            }
        }
    }
}

impl Setting {
    fn check(&self, manager: &Node, path: &str) -> Option<Finding> {
        let (key, value) = [self.name, self.camel]
            .into_iter()
            .find_map(|key| Some((key, manager.get(key)?.to_json(Reader::Envoy))))
            .unwrap_or((self.name, Value::Null));
        if (self.safe)(&value) {
            return None;
        }
        let is = if value.is_null() { "is not set".to_owned() } else { format!("is {value}") };
        Some(Finding {
            line: manager.line_of(key),
            path: join(path, key),
            wrong: format!("{is}, so {} passes by the policy's rules about paths", self.otherwise),
            allowed: self.allowed.to_owned(),
        })
    }
}

/// Whether a gateway of this connection manager has rules about paths: its own policy when that
/// stands in it, else any policy that was given beside it.
fn judges_paths(manager: &Node, policies: &[Policy]) -> bool {
    let filters = manager.get_any(&["http_filters", "httpFilters"]);
    let Some(Kind::List(filters)) = filters.map(|list| &list.kind) else { return false };
    filters.iter().any(|filter| {
        let mut own = Vec::new();
        // What is wrong with them has been found already.
        embedded::find(filter, "", &mut own, &mut Vec::new());
        let own = own.iter().filter_map(|own| judge(&own.node.to_json(own.reader)).ok());
        own.into_iter().any(|policy| has_path_rule(&policy))
            || (is_discovered(filter) && policies.iter().any(has_path_rule))
    })
}

/// Whether the filter is the gateway that comes by ECDS: a resource has the name of its filter.
fn is_discovered(filter: &Node) -> bool {
    let Some(discovery) = filter.get_any(&["config_discovery", "configDiscovery"]) else {
        return false;
    };
    let wasm = match discovery.get_any(&["type_urls", "typeUrls"]).map(|list| &list.kind) {
        Some(Kind::List(types)) => {
            types.iter().filter_map(Node::text).any(|name| name.ends_with(embedded::WASM))
        }
        _ => true,
    };
    wasm && filter.text_of(&["name"]) == Some(embedded::ROOT_ID)
}

fn has_path_rule(policy: &Policy) -> bool {
    let public = policy.authentication.as_ref().is_some_and(|auth| !auth.public.is_empty());
    let limited = policy.rate_limits.iter().any(|limit| !limit.matches.paths.is_empty());
    public || limited || !policy.endpoints.is_empty()
}
