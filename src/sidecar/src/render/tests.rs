//! What Envoy gets to read.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own for each test, removed at its end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gateway-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The text that the filter gets.
fn policy_text(rendered: &Rendered) -> String {
    wasm(rendered)["configuration"]["value"].as_str().unwrap().to_owned()
}

fn wasm(rendered: &Rendered) -> Value {
    let resource: Value = serde_json::from_str(&rendered.resource).unwrap();
    resource["resources"][0]["typed_config"]["config"].clone()
}

#[test]
fn a_policy_reaches_the_filter_as_written() {
    let text = "version: 1\nhttps: { mode: off }\nsidecar: {cluster: s, token: {env: TOKEN}}\n";
    let rendered = render(text, Path::new("/m.wasm"));
    assert_eq!(rendered.findings, []);
    let wasm = wasm(&rendered);
    assert_eq!(wasm["vm_config"]["code"]["local"]["filename"], "/m.wasm");
    assert_eq!(wasm["vm_config"]["environment_variables"]["host_env_keys"], json!(["TOKEN"]));
    // Envoy before 1.40 would share a VM that has other variables.
    assert_eq!(wasm["vm_config"]["configuration"]["value"], "TOKEN");
    let policy: Value = serde_json::from_str(&policy_text(&rendered)).unwrap();
    assert_eq!(
        policy,
        json!({"version": 1, "https": {"mode": "off"},
               "sidecar": {"cluster": "s", "token": {"env": "TOKEN"}}})
    );
}

#[test]
fn a_policy_with_mistakes_is_rendered_for_the_gateway_to_refuse() {
    let rendered = render("version: 7\n", Path::new("/m.wasm"));
    assert_eq!(rendered.findings.len(), 1);
    assert_eq!(policy_text(&rendered).trim_end(), r#"{"version":7}"#);
    let rendered = render("version: [\n", Path::new("/m.wasm"));
    assert_eq!(rendered.findings.len(), 1);
    assert_eq!(policy_text(&rendered).trim_end(), "version: [");
}

/// Envoy would otherwise answer for a policy that it has seen before in the filter's place.
#[test]
fn each_render_is_another_text_for_envoy_and_the_same_policy_for_the_filter() {
    let texts: Vec<String> = (0..20)
        .map(|_| policy_text(&render("version: 1\nname: same\n", Path::new("/m.wasm"))))
        .collect();
    for (index, text) in texts.iter().enumerate() {
        assert!(!texts[..index].contains(text), "{text:?} came twice");
        let read = |text: &str| validate::judge(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(read(text).hash, read(text.trim_end()).hash);
        assert_eq!(read(text).hash, read(&texts[0]).hash);
    }
}

#[test]
fn only_one_bare_policy_is_rendered() {
    let two = render("version: 1\n---\nversion: 1\n", Path::new("/m.wasm"));
    assert_eq!(two.findings[0].wrong, "a second document begins here");
    let host = render("admin: {}\n", Path::new("/m.wasm"));
    assert!(!host.findings.is_empty());
}

#[test]
fn a_replaced_file_leaves_nothing_beside_it() {
    let directory = Directory::new();
    let path = directory.0.join("policy.yaml");
    replace(&path, "one").unwrap();
    replace(&path, "two").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
    assert!(replace(&directory.0.join("absent/policy.yaml"), "x").is_err());
}

#[tokio::test]
async fn a_saved_policy_is_rendered_again_and_a_bad_one_too() {
    let directory = Directory::new();
    let files = watch::Files {
        policy: directory.0.join("in.yaml"),
        module: PathBuf::from("/m.wasm"),
        out: directory.0.join("out.yaml"),
    };
    fs::write(&files.policy, "version: 1\nname: old\n").unwrap();
    let watched = files.clone();
    let watching =
        tokio::spawn(async move { watch::watch(&watched, "version: 1\nname: old\n".into()).await });
    for name in ["new", "with spaces", "newer"] {
        fs::write(&files.policy, format!("version: 1\nname: \"{name}\"\n")).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while !fs::read_to_string(&files.out).is_ok_and(|text| text.contains(name)) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_saved_unchanged_is_not_rendered_again() {
    let directory = Directory::new();
    let files = watch::Files {
        policy: directory.0.join("in.yaml"),
        module: PathBuf::from("/m.wasm"),
        out: directory.0.join("out.yaml"),
    };
    let text = "version: 1\nname: same\n";
    fs::write(&files.policy, text).unwrap();
    // Paused time runs on whenever everybody waits: a minute is a thousand looks, and over at once.
    let minute = std::time::Duration::from_mins(1);
    let mut watching = std::pin::pin!(watch::watch(&files, text.into()));
    assert!(tokio::time::timeout(minute, &mut watching).await.is_err());
    fs::write(&files.policy, text).unwrap();
    assert!(tokio::time::timeout(minute, &mut watching).await.is_err());
    assert!(!files.out.exists());
}
