//! Secrets that the policy names by file: what the sidecar handed over, as one worker remembers it.

use crate::host::{Host, Level};
use crate::log;
use crate::replica::View;
use crate::store::SharedData;
use policy::model::{Policy, SecretSource};
use policy::replica::{State, files};
use policy::verify::Secrets;
use std::rc::Rc;

/// Shorter secrets are no secrets; the policy's own must be as long.
const BYTES_MIN: usize = 32;

/// The secrets of one policy that are neither in it nor of a provider of tokens.
pub(crate) struct Files<H: Host> {
    host: H,
    view: Rc<View<H>>,
    held: Vec<(String, Option<Vec<u8>>)>,
    /// The state that they were read from; `None` to read them again.
    read: Option<Option<State>>,
}

impl<H: Host> Files<H> {
    pub(crate) fn new(policy: &Policy, host: &H, view: &Rc<View<H>>) -> Self {
        let token = policy.csrf.as_ref().and_then(|csrf| csrf.token.as_ref());
        let held = match token.map(|token| &token.secret) {
            Some(SecretSource::File(path)) => vec![(path.clone(), None)],
            Some(SecretSource::Known(_)) | None => Vec::new(),
        };
        Self { host: host.clone(), view: Rc::clone(view), held, read: None }
    }

    /// Reads them again when the sidecar's state has moved. A file that is gone keeps its secret:
    /// that says nothing about what was signed with it.
    pub(crate) fn keep_up(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let seen = self.view.look();
        if self.read == Some(seen.state) {
            return;
        }
        let mut store = SharedData(self.host.clone());
        let mut whole = true;
        for (path, held) in &mut self.held {
            match files::read(path, &mut store) {
                Ok(Some(bytes)) => {
                    let bytes = without_line_end(bytes);
                    if bytes.len() >= BYTES_MIN {
                        *held = Some(bytes);
                    } else {
                        let fields =
                            [("file", path.as_str().into()), ("bytes_min", BYTES_MIN.into())];
                        log::line(&self.host, Level::Error, "secret too short, not taken", &fields);
                    }
                }
                Ok(None) => {}
                Err(_) => whole = false,
            }
        }
        self.read = Some(seen.state).filter(|_| whole);
    }
}

impl<H: Host> Secrets for Files<H> {
    fn reveal<'a>(&'a self, source: &'a SecretSource) -> Option<&'a [u8]> {
        match source {
            SecretSource::Known(secret) => Some(secret.reveal()),
            SecretSource::File(path) => {
                let (_, held) = self.held.iter().find(|(known, _)| known == path)?;
                held.as_deref()
            }
        }
    }
}

/// Editors end a file with a line end, which nobody means as part of a secret.
fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::testing::FakeHost;
    use policy::config::{self, Environment};
    use policy::replica::{Bans, STATE_KEY, Seeded};
    use policy::store::{Change, update};
    use serde_json::json;

    const PATH: &str = "/run/secrets/csrf";

    /// Hands `text` over as the file, as the sidecar does it the `number`th time.
    fn hand_over(host: &FakeHost, number: u64, text: &str) {
        let mut store = SharedData(host.clone());
        let bytes = files::encode([(PATH, text.as_bytes())]);
        update(&mut store, &files::bucket(PATH).key(), |_| Change::Write(bytes.clone(), ()))
            .unwrap();
        let state = State { store: 1, number, keys: [1, 2], seeded: Seeded::Yes, bans: Bans::None };
        update(&mut store, STATE_KEY, |_| Change::Write(state.to_bytes(), ())).unwrap();
        View::new(host, &Metrics::new(host.clone())).changed();
    }

    #[test]
    fn a_secret_comes_with_its_file_and_a_bad_one_does_not_replace_it() {
        let host = FakeHost::new(1);
        let document = json!({
            "version": 1,
            "csrf": {"cookie": "session", "token": {"secret": {"file": PATH}}},
            "sidecar": {"cluster": "side", "token": {"env": "T"}},
        });
        let token = |_: &str| Some("a-token-that-is-long-enough-for-it".to_owned());
        let policy = config::read(&document, Environment::Given(&token)).unwrap();
        let view = Rc::new(View::new(&host, &Metrics::new(host.clone())));
        let mut files = Files::new(&policy, &host, &view);
        let source = SecretSource::File(PATH.into());
        let good = "0123456789abcdef0123456789abcdef";
        for (number, text, expected) in [
            (1, "too short", None),
            (2, &*format!("{good}\r\n"), Some(good)),
            (3, "", Some(good)),
            (4, "0123456789abcdef0123456789abcdeF", Some("0123456789abcdef0123456789abcdeF")),
        ] {
            hand_over(&host, number, text);
            files.keep_up();
            assert_eq!(files.reveal(&source), expected.map(str::as_bytes), "{number}");
        }
        assert_eq!(host.logged("too short"), 2);
        let other = SecretSource::File("/else".into());
        assert_eq!(files.reveal(&other), None);
    }
}
