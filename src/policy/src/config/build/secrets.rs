//! Secrets: from the environment, from a file that the sidecar hands over, or written down.

use super::Site;
use crate::config::Environment;
use crate::config::section::Section;
use crate::model::{Secret, SecretSource};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A secret, as far as this process can know it.
pub(super) enum Found {
    /// Its bytes.
    Known(Secret),
    /// It will come from a file of this path.
    File(String),
    /// It exists somewhere else, or was reported as a mistake.
    Unknown,
}

/// How long a secret must be.
pub(super) struct Least<'a> {
    /// In bytes.
    pub(super) bytes: usize,
    /// What for.
    pub(super) purpose: &'a str,
}

impl Site<'_> {
    /// A secret that may come from a file, and must not be short.
    pub(super) fn secret_source(
        &mut self,
        reference: &Section<'_>,
        least: &Least<'_>,
    ) -> SecretSource {
        let secret = match self.secret(reference) {
            Found::Known(secret) => secret,
            Found::File(path) => {
                self.needs_sidecar(&reference.at("file"), "the sidecar is what reads files");
                return SecretSource::File(path);
            }
            Found::Unknown => return SecretSource::Known(Secret::new(Vec::new())),
        };
        let length = secret.reveal().len();
        if length < least.bytes {
            let wrong = format!("the secret has {length} bytes");
            let allowed = format!(
                "at least {} bytes for {}, such as the output of `openssl rand -hex 32`",
                least.bytes, least.purpose
            );
            self.mistake(reference.path(), wrong, allowed);
        }
        SecretSource::Known(secret)
    }

    /// Looks a secret up.
    pub(super) fn secret(&mut self, reference: &Section<'_>) -> Found {
        if let Some(text) = reference.text("inline_secret") {
            self.warn(
                &reference.at("inline_secret"),
                "everybody who can read the policy can read this secret; {env: NAME} hides it",
            );
            return Found::Known(Secret::new(text.as_bytes().to_vec()));
        }
        if let Some(path) = reference.text("file") {
            return Found::File(path.to_string());
        }
        let (Some(name), Environment::Given(lookup)) = (reference.text("env"), self.environment)
        else {
            return Found::Unknown;
        };
        let wrong = match lookup(name) {
            Some(value) if !value.is_empty() => {
                return Found::Known(Secret::new(value.into_bytes()));
            }
            Some(_) => format!("the variable {name} is empty"),
            None => format!("the variable {name} is not set"),
        };
        let allowed = "a variable that Envoy is started with and that `host_env_keys` names";
        self.mistake(&reference.at("env"), wrong, allowed);
        Found::Unknown
    }
}
