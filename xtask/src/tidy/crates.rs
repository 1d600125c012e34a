//! The rules for manifests: who may depend on whom, and what a crate is called.

use super::Finding;
use super::source::Source;

/// Our crates that are part of the product. The harness sees them as users do: from outside.
const PRODUCT: [&str; 4] = ["policy", "token", "filter", "sidecar"];
/// The one crate with lints of its own, because one of its files may be unsafe.
const OWN_LINTS: &str = "src/filter/Cargo.toml";

/// Checks one manifest.
pub(super) fn check(file: &Source, found: &mut Vec<Finding>) {
    let mut report = |line: usize, message: String| {
        found.push(Finding { file: file.path.clone(), line, message });
    };
    let entries = entries(&file.text);
    if file.path == "test-harness/Cargo.toml" {
        for (line, section, name, _) in &entries {
            if section.ends_with("dependencies") && PRODUCT.contains(&name.as_str()) {
                report(*line, format!("the harness knows artefacts, not crates: drop `{name}`"));
            }
        }
    }
    let folder = file.path.strip_prefix("src/").and_then(|rest| rest.split('/').next());
    let named = entries.iter().find(|(_, section, key, _)| section == "package" && key == "name");
    if let (Some(folder), Some((line, _, _, name))) = (folder, named)
        && folder != name
    {
        report(*line, format!("folder `{folder}` holds crate `{name}`: give both one name"));
    }
    let inherits = entries.iter().any(|(_, section, key, value)| {
        section == "lints" && key == "workspace" && value == "true"
    });
    if named.is_some() && !inherits && file.path != OWN_LINTS {
        report(1, "add `[lints]` with `workspace = true`: lints are stated once".to_owned());
    }
}

/// Line, section, first part of the key, and value of each entry of a manifest.
fn entries(text: &str) -> Vec<(usize, String, String, String)> {
    let mut section = String::new();
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            let value = value.trim().trim_matches('"');
            entries.push((index + 1, section.clone(), key.to_owned(), value.to_owned()));
        }
    }
    entries
}
