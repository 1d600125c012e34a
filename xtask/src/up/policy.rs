//! The policy that was chosen: checked by the sidecar's own command, its variables found in the
//! environment or made up, and what a demonstration can know of it.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;
use test_harness::token::{Key, Token};
use test_harness::{Artefacts, policy, sidecar};

/// Random bytes of a secret that we make up: as many as HS256 can use.
const SECRET_BYTES: usize = 32;
/// Lifetime of the tokens that are shown.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Where the policy's JSON text lies in the rendered resource.
const POLICY: &str = "/resources/0/typed_config/config/configuration/value";
/// Where the names of its variables lie.
const VARIABLES: &str =
    "/resources/0/typed_config/config/vm_config/environment_variables/host_env_keys";

/// A policy with everything that the parts need to run with it.
pub(super) struct Chosen {
    /// The file.
    pub(super) file: PathBuf,
    /// Whether it is the demo policy, whose answers are known.
    pub(super) demo: bool,
    /// The policy.
    policy: Value,
    /// The variables that it names, with their values.
    variables: Vec<(String, String)>,
    /// The token of the channel between filter and sidecar.
    sync_token: String,
}

impl Chosen {
    /// Checks the policy and finds its variables.
    pub(super) fn read(artefacts: &Artefacts, file: PathBuf, demo: bool) -> Result<Self> {
        let resource = rendered(artefacts, &file)?;
        let text = resource.pointer(POLICY).and_then(Value::as_str).unwrap_or_default();
        let policy: Value = serde_json::from_str(text).context("reading the rendered policy")?;
        let names = resource.pointer(VARIABLES).and_then(Value::as_array);
        let sync = policy.pointer("/sidecar/token/env").and_then(Value::as_str);
        let mut variables = Vec::new();
        let mut missing = Vec::new();
        for name in names.into_iter().flatten().filter_map(Value::as_str) {
            // Filter and sidecar are both ours: the token between them needs nobody else.
            let made_up = Some(name) == sync || (demo && name == policy::JWT_VARIABLE);
            match std::env::var(name) {
                Ok(value) if !value.is_empty() => variables.push((name.to_owned(), value)),
                _ if made_up => variables.push((name.to_owned(), random()?)),
                _ => missing.push(name),
            }
        }
        if !missing.is_empty() {
            bail!(
                "{} names environment variables that are not set: {}\nSet them for this command: \
                 {}=… cargo xtask up …",
                file.display(),
                missing.join(", "),
                missing.first().copied().unwrap_or_default()
            );
        }
        let known = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let inline = policy.pointer("/sidecar/token/inline_secret").and_then(Value::as_str);
        let sync_token = match sync.and_then(known).or_else(|| inline.map(str::to_owned)) {
            Some(token) => token,
            None => random()?,
        };
        Ok(Self { file, demo, policy, variables, sync_token })
    }

    /// What Envoy gets in addition to our own environment.
    pub(super) fn envoy_environment(&self) -> Vec<(String, String)> {
        self.variables.clone()
    }

    /// What the sidecar gets in addition to our own environment.
    pub(super) fn sidecar_environment(&self) -> Vec<(String, String)> {
        vec![(policy::SYNC_VARIABLE.to_owned(), self.sync_token.clone())]
    }

    /// Whether filter and sidecar will talk to each other.
    pub(super) fn has_sidecar(&self) -> bool {
        self.policy.get("sidecar").is_some_and(|section| !section.is_null())
    }

    /// Whether tokens can be revoked.
    pub(super) fn revokes(&self) -> bool {
        self.policy.get("revocation").is_some_and(|section| !section.is_null())
    }

    /// Clusters that it fetches key sets from, each with the host that it names.
    pub(super) fn issuers(&self) -> Vec<(String, String)> {
        let providers = self.policy.pointer("/authentication/jwt/providers");
        let remote = |provider: &Value| {
            let text = |at: &str| provider.pointer(at)?.as_str().map(str::to_owned);
            Some((text("/keys/jwks/cluster")?, text("/keys/jwks/host")?))
        };
        providers.and_then(Value::as_array).into_iter().flatten().filter_map(remote).collect()
    }

    /// Every permission that a rule asks for.
    fn permissions(&self) -> Vec<String> {
        let rules = self.policy.pointer("/authorization/rules").and_then(Value::as_array);
        let rules = rules.into_iter().flatten();
        let asked = rules.flat_map(|rule| [rule.get("require"), rule.get("require_any")]);
        let lists = asked.flatten().filter_map(Value::as_array).flatten();
        let mut all: Vec<String> = lists.filter_map(Value::as_str).map(str::to_owned).collect();
        all.sort();
        all.dedup();
        all
    }

    /// A token that this policy trusts and lets do everything that its rules speak of; `None` when it trusts nobody whose key we have.
    pub(super) fn token(&self, subject: &str) -> Result<Option<String>> {
        let providers = self.policy.pointer("/authentication/jwt/providers");
        for provider in providers.and_then(Value::as_array).into_iter().flatten() {
            let name = provider.pointer("/keys/secret/env").and_then(Value::as_str);
            let secret = name.and_then(|name| self.variables.iter().find(|(n, _)| n == name));
            let algorithms = provider.get("algorithms").and_then(Value::as_array);
            let hs256 = algorithms.is_none_or(|list| list.iter().any(|a| a == "HS256"));
            let (true, Some((_, secret))) = (hs256, secret) else { continue };
            let mut token = Token::new(Key::Hs256(secret.clone().into_bytes()), subject);
            for (claim, place) in [("iss", "/issuer"), ("aud", "/audiences/0")] {
                if let Some(value) = provider.pointer(place) {
                    token = token.claim(claim, value.clone());
                }
            }
            // One of a list is enough, but each line of a policy asks for something of its own.
            let claim = provider.pointer("/permission_claims/0").and_then(Value::as_str);
            if let Some(claim) = claim {
                token = token.claim(claim, self.permissions());
            }
            return token.expires_in(LIFETIME).sign().map(Some);
        }
        Ok(None)
    }
}

/// The resource that the sidecar makes of the policy.
fn rendered(artefacts: &Artefacts, file: &std::path::Path) -> Result<Value> {
    let text = |path: &std::path::Path| {
        path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
    };
    let (policy, module) = (text(file)?, text(&artefacts.module)?);
    let said = sidecar::run(&artefacts.sidecar, &["render", &policy, "--module", &module])?;
    if !said.ok {
        bail!("the policy is refused:\n{}", said.stderr.trim_end());
    }
    eprint!("{}", said.stderr);
    serde_json::from_str(&said.stdout).context("reading what `gateway-sidecar render` wrote")
}

/// A secret that nobody knows, as text.
fn random() -> Result<String> {
    let mut bytes = [0_u8; SECRET_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
