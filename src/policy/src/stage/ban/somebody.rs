//! Who waits, when the request that said so is not at hand.

use super::Who;
use crate::stage::authenticate::Identity;
use alloc::string::{String, ToString};

/// Somebody with an identity, by names of his own: for a request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Somebody {
    /// `None` for an API key.
    provider: Option<String>,
    name: String,
}

impl Somebody {
    /// The one behind an identity; `None` for an anonymous request.
    #[must_use]
    pub fn of(identity: &Identity<'_>) -> Option<Self> {
        let name = identity.user()?.to_string();
        Some(Self { provider: identity.provider().map(ToString::to_string), name })
    }

    /// Who it is.
    #[must_use]
    pub fn who(&self) -> Who<'_> {
        let name = self.name.as_str();
        match &self.provider {
            Some(provider) => Who::User { provider, name },
            None => Who::ApiKey(name),
        }
    }
}
