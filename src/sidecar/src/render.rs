//! From a bare policy to the resource that Envoy loads from its watched directory.
//!
//! The policy goes in as JSON text, not as a `Struct`: Envoy's YAML loader makes strings of
//! fractions and booleans of words such as `off`, and a policy must reach the filter as written.

#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod watch;

use crate::document::scalar::Reader;
use crate::document::{self, Finding};
use crate::validate;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A rendered resource, and what is wrong with the policy in it.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// The text of the resource file. It is JSON, which every YAML reader takes.
    pub(crate) resource: String,
    /// Mistakes; the gateway will refuse the resource unless this is empty.
    pub(crate) findings: Vec<Finding>,
    /// What is legal but deserves a word.
    pub(crate) warnings: Vec<String>,
}

/// Wraps the policy in `text`. A text that is no policy at all is wrapped as well: the gateway then
/// refuses it in the open, with its metric and its log line.
pub(crate) fn render(text: &str, module: &Path) -> Rendered {
    let mut report = validate::check(text);
    let documents: Vec<_> = document::parse(text)
        .unwrap_or_default()
        .into_iter()
        .filter(|node| !node.is_null())
        .collect();
    let (policy, variables) = match documents.as_slice() {
        [node] => {
            let policy = node.to_json(Reader::Core);
            let variables = policy::config::variables(&policy);
            (policy.to_string(), variables)
        }
        _ => (text.to_owned(), Vec::new()),
    };
    let not_bare = match documents.as_slice() {
        [] => None,
        [node] if validate::is_bare(node) => None,
        [node] => Some((node.line, "the file belongs to Envoy or Kubernetes")),
        [_, second, ..] => Some((second.line, "a second document begins here")),
    };
    if let Some((line, wrong)) = not_bare {
        let (wrong, allowed) = (wrong.to_owned(), "one bare policy".to_owned());
        report.findings.push(Finding { line, path: String::new(), wrong, allowed });
    }
    let resource = resource(&unlike_any_before(policy), &variables, module);
    Rendered { resource, findings: report.findings, warnings: report.warnings }
}

/// Makes this render's text another than that of every render before, by blanks behind the document
/// that no reader of JSON sees: Envoy remembers its verdict on a configuration by its text, and
/// would refuse a bad policy that comes back without asking the filter, so without a word of why.
fn unlike_any_before(mut policy: String) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut moment = now.as_nanos();
    while moment > 0 {
        policy.push(if moment & 1 == 0 { ' ' } else { '\t' });
        moment >>= 1;
    }
    policy
}

fn resource(policy: &str, variables: &[String], module: &Path) -> String {
    let mut vm = json!({
        "vm_id": "tracseq-gateway",
        "runtime": "envoy.wasm.runtime.v8",
        "code": { "local": { "filename": module.to_string_lossy() } },
    });
    if let (false, Value::Object(vm)) = (variables.is_empty(), &mut vm) {
        vm.insert("environment_variables".into(), json!({ "host_env_keys": variables }));
        // Before 1.40 Envoy gives two plugins one VM even if they name other variables, so the VM
        // that pins the shared data, or that of an older policy, would be reused without ours. A VM
        // configuration, which the filter does not read, keeps them apart; the shared data goes by
        // vm_id and stays common.
        let value = variables.join(" ");
        let kind = "type.googleapis.com/google.protobuf.StringValue";
        vm.insert("configuration".into(), json!({ "@type": kind, "value": value }));
    }
    let resource = json!({ "resources": [{
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "gateway",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "gateway",
                "root_id": "gateway",
                "failure_policy": "FAIL_RELOAD",
                "vm_config": vm,
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": policy,
                },
            },
        },
    }]});
    format!("{resource:#}\n")
}

/// Writes a file so that a reader sees the old or the new text and never a part: into a temporary
/// file of the same directory, then renamed. (Envoy looks at its directory for renames only.)
///
/// # Errors
/// What the file system said; the old file is untouched then.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("is not the name of a file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let temporary: PathBuf = path.with_file_name(hidden);
    let written = write_all(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() && temporary.exists() {
        fs::remove_file(&temporary)?;
    }
    written
}

fn write_all(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
