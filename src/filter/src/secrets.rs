//! Secrets that the policy names by file: what the sidecar handed over, as one worker remembers it.

use crate::host::Host;
use crate::replica::View;
use crate::store::SharedData;
use policy::model::{Policy, SecretSource};
use policy::replica::{State, files};
use policy::verify::Secrets;
use std::rc::Rc;

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
                Ok(Some(bytes)) => *held = Some(without_line_end(bytes)),
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
