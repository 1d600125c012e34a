//! What a target begins with: `fuzz/seeds/<target>/`, and for tokens and key sets the corpus of the
//! crate `token`, laid out as the targets read it.

use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Tokens and key sets that were made without our code.
const CORPUS: &str = "src/token/tests/corpus.json";

/// The folders of a target's seeds.
pub(super) fn lay_out(ctx: &Workspace, name: &str, place: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let committed = ctx.root().join("fuzz/seeds").join(name);
    if committed.is_dir() {
        folders.push(committed);
    }
    let made = match name {
        "token" => tokens(&corpus(ctx)?),
        "jwks" => key_sets(&corpus(ctx)?),
        _ => return Ok(folders),
    };
    let folder = place.join("made").join(name);
    // What an earlier corpus had may mean something else now.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for (index, bytes) in made.iter().enumerate() {
        let file = folder.join(format!("{index:04}"));
        fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))?;
    }
    folders.push(folder);
    Ok(folders)
}

fn corpus(ctx: &Workspace) -> Result<Value> {
    let text = fs::read_to_string(ctx.root().join(CORPUS)).context(CORPUS)?;
    serde_json::from_str(&text).context(CORPUS)
}

/// Every token as it stands: the number of its setup in the order of their names, 0 for "as it
/// stands", the token.
fn tokens(corpus: &Value) -> Vec<Vec<u8>> {
    let setups = corpus.get("setups").and_then(Value::as_object);
    let number_of = |name: &str| setups?.keys().position(|one| one == name);
    let cases = corpus.get("cases").and_then(Value::as_array).map(Vec::as_slice);
    let seed = |case: &Value| {
        let token = case.get("token")?.as_str()?;
        let setup = number_of(case.get("setup")?.as_str()?)?;
        Some([&[u8::try_from(setup).ok()?, 0], token.as_bytes()].concat())
    };
    cases.unwrap_or_default().iter().filter_map(seed).collect()
}

/// Every key set, of a policy and handed over, for a provider with every algorithm: two bytes of choice, 0 for "as it stands".
fn key_sets(corpus: &Value) -> Vec<Vec<u8>> {
    let setups = corpus.get("setups").and_then(Value::as_object);
    let providers = setups
        .into_iter()
        .flat_map(|setups| setups.values())
        .filter_map(|setup| setup.get("providers").and_then(Value::as_array));
    let sets = providers.flatten().filter_map(|provider| provider.pointer("/keys/jwks"));
    let sets = sets.map(Value::to_string);
    let handed_over = corpus.get("sets").and_then(Value::as_array).into_iter().flatten();
    let texts = handed_over.filter_map(|set| set.get("text")?.as_str().map(str::to_owned));
    sets.chain(texts).map(|set| [&[0xff, 0xff, 0], set.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn seeds_are_as_the_targets_read_them() {
        let set = json!({ "keys": [] });
        let corpus = json!({
            "setups": {
                "b": { "providers": [{ "keys": { "jwks": set } }] },
                "a": { "providers": [{ "keys": { "secret": "x" } }] },
            },
            "sets": [{ "text": "[]" }],
            "cases": [
                { "setup": "b", "token": "e.e.e" },
                { "setup": "a", "hex": "00" },
                { "setup": "a", "token": "" },
            ],
        });
        assert_eq!(tokens(&corpus), [b"\x01\x00e.e.e".to_vec(), b"\x00\x00".to_vec()]);
        let sets = [b"\xff\xff\x00{\"keys\":[]}".to_vec(), b"\xff\xff\x00[]".to_vec()];
        assert_eq!(key_sets(&corpus), sets);
    }
}
