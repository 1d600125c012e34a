//! An identity provider as the gateway sees one: a server with a key set that can be rotated, spoilt,
//! slow or gone.

use crate::upstream::{Fault, Rule, Upstream};
use anyhow::Result;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Where the key set is.
pub const PATH: &str = "/jwks.json";
/// What a fetch names as its host.
pub const HOST: &str = "idp.example";
/// The cluster, as tests name it.
pub const CLUSTER: &str = "idp";

/// A running issuer. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Issuer(Upstream);

impl Issuer {
    /// Starts one that serves this key set.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start(set: &Value) -> Result<Self> {
        let issuer = Self(Upstream::start(CLUSTER)?);
        issuer.serve(set);
        Ok(issuer)
    }

    /// Starts one at an address that is known already: it was down, and now it is up.
    ///
    /// # Errors
    /// The address is taken.
    pub fn listen(address: SocketAddr, set: &Value) -> Result<Self> {
        let issuer = Self(Upstream::listen(CLUSTER, address)?);
        issuer.serve(set);
        Ok(issuer)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Serves this key set from now on.
    pub fn serve(&self, set: &Value) {
        self.0.only(Rule::json(set));
    }

    /// Answers this from now on, whatever it is.
    pub fn serve_text(&self, text: &str) {
        self.0.only(Rule::default().body(text));
    }

    /// Answers with this status from now on.
    pub fn fail(&self, status: u16) {
        self.0.only(Rule::status(status));
    }

    /// Accepts requests and answers none of them, until told something else.
    pub fn hang(&self) {
        self.0.only(Rule::fault(Fault::Hang));
    }

    /// Serves this key set after so long.
    pub fn serve_slowly(&self, set: &Value, delay_ms: u64) {
        self.0.only(Rule { delay_ms, ..Rule::json(set) });
    }

    /// Does what a rule says, and nothing else.
    pub fn only(&self, rule: Rule) {
        self.0.only(rule);
    }

    /// How often it was asked.
    #[must_use]
    pub fn fetches(&self) -> u64 {
        self.0.count()
    }

    /// The service that it is made of.
    #[must_use]
    pub const fn upstream(&self) -> &Upstream {
        &self.0
    }
}

/// The `keys` of a provider whose key set is fetched from an [`Issuer`], with these settings in
/// addition, or instead.
#[must_use]
pub fn keys(settings: &Value) -> Value {
    let mut jwks = json!({ "cluster": CLUSTER, "host": HOST, "path": PATH });
    if let (Some(jwks), Some(settings)) = (jwks.as_object_mut(), settings.as_object()) {
        jwks.extend(settings.clone());
    }
    json!({ "jwks": jwks })
}
