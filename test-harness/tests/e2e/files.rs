//! Secrets and key sets from files that the sidecar reads and hands over.

use anyhow::Result;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use test_harness::mesh::SOON;
use test_harness::token::{Key, Token, key_set};
use test_harness::wait::until_true;
use test_harness::{Mesh, policy};

const FIRST: &str = "the first secret of the files, long enough";
const SECOND: &str = "the second secret of the files, long enough";

/// A directory whose path has no link in it.
fn directory() -> Result<(TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().canonicalize()?;
    Ok((dir, path))
}

/// As editors and secret managers do: a whole file takes the place of another.
fn write(file: &Path, text: &str) -> Result<()> {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, text)?;
    Ok(std::fs::rename(&fresh, file)?)
}

/// Two issuers, whose keys are in these files.
fn policy(dir: &Path) -> Value {
    let provider = |name: &str, algorithms: Value, keys: Value| {
        json!({ "name": name, "issuer": format!("https://{name}.example"),
            "audiences": ["tracseq-api"], "algorithms": algorithms, "keys": keys })
    };
    policy::with(&json!({ "authentication": { "jwt": { "providers": [
        provider("shared", json!(["HS256"]), json!({ "secret": { "file": dir.join("secret") } })),
        provider("set", json!(["RS256", "ES256"]), json!({ "jwks_file": dir.join("jwks.json") }))
    ]}}}))
}

fn shared(secret: &str) -> Result<String> {
    Token::new(Key::Hs256(secret.into()), "anna").claim("iss", "https://shared.example").sign()
}

fn set(key: Key) -> Result<String> {
    Token::new(key, "anna").claim("iss", "https://set.example").sign()
}

fn status(mesh: &Mesh, token: &str) -> Result<u16> {
    Ok(mesh.get("/api/auth/x").bearer(token).send()?.status)
}

fn until(mesh: &Mesh, token: &str, wanted: u16) -> Result<()> {
    until_true(&format!("{wanted}"), SOON, || Ok(status(mesh, token)? == wanted))
}

#[test]
fn keys_come_from_files_and_change_with_them() -> Result<()> {
    let (_dir, dir) = directory()?;
    write(&dir.join("secret"), FIRST)?;
    write(&dir.join("jwks.json"), &key_set(&[Key::Rs256])?.to_string())?;
    Mesh::with(policy(&dir)).files(&dir).run(|mesh| {
        let (first, second) = (shared(FIRST)?, shared(SECOND)?);
        let (rs, es) = (set(Key::Rs256)?, set(Key::Es256)?);
        until(mesh, &first, 200)?;
        until(mesh, &rs, 200)?;
        for wrong in [&second, &es] {
            let answer = mesh.get("/api/auth/x").bearer(wrong).send()?;
            answer.expect_refusal(401, "token-untrusted")?;
        }
        write(&dir.join("secret"), SECOND)?;
        write(&dir.join("jwks.json"), &key_set(&[Key::Es256])?.to_string())?;
        until(mesh, &second, 200)?;
        until(mesh, &es, 200)?;
        // What was remembered is forgotten.
        for old in [&first, &rs] {
            until(mesh, old, 401)?;
            let answer = mesh.get("/api/auth/x").bearer(old).send()?;
            answer.expect_refusal(401, "token-untrusted")?;
        }
        Ok(())
    })
}

#[test]
fn without_its_keys_a_token_is_told_so_and_not_that_it_is_bad() -> Result<()> {
    let (_dir, dir) = directory()?;
    write(&dir.join("secret"), FIRST)?;
    Mesh::with(policy(&dir)).files(&dir).run(|mesh| {
        until(mesh, &shared(FIRST)?, 200)?;
        let rs = set(Key::Rs256)?;
        mesh.get("/api/auth/x").bearer(&rs).send()?.expect_refusal(503, "keys-unavailable")?;
        write(&dir.join("jwks.json"), &key_set(&[Key::Rs256])?.to_string())?;
        until(mesh, &rs, 200)?;
        // Nonsense changes nothing, nor does an empty file.
        for nonsense in ["nonsense", "", "{\"keys\":[]}"] {
            write(&dir.join("jwks.json"), nonsense)?;
            let both = key_set(&[Key::Rs256, Key::Es256])?.to_string();
            assert_eq!(status(mesh, &rs)?, 200, "{nonsense:?}");
            write(&dir.join("jwks.json"), &both)?;
            until(mesh, &set(Key::Es256)?, 200)?;
        }
        // They are in Envoy: the sidecar may go. A new Envoy has none until it is back.
        mesh.sidecar()?.kill9()?;
        assert_eq!(status(mesh, &rs)?, 200);
        mesh.restart_envoy()?;
        let answer = mesh.get("/api/auth/x").bearer(&rs).send()?;
        answer.expect_refusal(503, "keys-unavailable")?;
        mesh.sidecar()?.restart()?;
        until(mesh, &rs, 200)
    })
}

#[test]
fn a_file_outside_the_directory_is_not_read() -> Result<()> {
    let (_dir, dir) = directory()?;
    let (_other, other) = directory()?;
    write(&other.join("secret"), FIRST)?;
    write(&other.join("jwks.json"), &key_set(&[Key::Rs256])?.to_string())?;
    // One is named outright, the other by a link that leads out.
    std::os::unix::fs::symlink(other.join("jwks.json"), dir.join("jwks.json"))?;
    let mut policy = policy(&dir);
    policy["authentication"]["jwt"]["providers"][0]["keys"] =
        json!({ "secret": { "file": other.join("secret") } });
    Mesh::with(policy).files(&dir).run(|mesh| {
        until_true("the sidecar to say so", SOON, || {
            Ok(mesh.sidecar()?.tail().contains(&*dir.to_string_lossy()))
        })?;
        for token in [shared(FIRST)?, set(Key::Rs256)?] {
            let answer = mesh.get("/api/auth/x").bearer(&token).send()?;
            answer.expect_refusal(503, "keys-unavailable")?;
        }
        Ok(())
    })
}
