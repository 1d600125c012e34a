//! Policies as tests write them, and their way into the watched directory.

use crate::sidecar;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;

/// The variable of the demo policy's HMAC secret.
pub const JWT_VARIABLE: &str = "TRACSEQ_JWT_SECRET";
/// Its value in tests.
pub const JWT_SECRET: &str = "a secret of the tests, long enough for HS256";
/// The variable of the token between filter and sidecar.
pub const SYNC_VARIABLE: &str = "GATEWAY_SYNC_TOKEN";
/// Its value in tests.
pub const SYNC_TOKEN: &str = "a-token-between-filter-and-sidecar-in-tests";

/// A policy that does nothing but name its sidecar.
#[must_use]
pub fn base() -> Value {
    json!({
        "version": 1,
        "name": "test",
        "sidecar": { "cluster": "gateway-sidecar", "token": { "env": SYNC_VARIABLE } }
    })
}

/// [`base`] with these sections in addition, or instead.
#[must_use]
pub fn with(sections: &Value) -> Value {
    let mut policy = base();
    if let (Some(policy), Some(sections)) = (policy.as_object_mut(), sections.as_object()) {
        policy.extend(sections.clone());
    }
    policy
}

/// `authentication` by tokens of the demo's issuer, signed with [`JWT_SECRET`].
#[must_use]
pub fn hs256() -> Value {
    json!({
        "mode": "required",
        "public": ["/health"],
        "jwt": { "providers": [{
            "name": "tracseq",
            "issuer": crate::token::ISSUER,
            "audiences": [crate::token::AUDIENCE],
            "algorithms": ["HS256"],
            "keys": { "secret": { "env": JWT_VARIABLE } }
        }]}
    })
}

/// Whether a policy is checked before it is handed to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// A mistake stops it here.
    Checked,
    /// The gateway is to judge it.
    Unchecked,
}

/// Renders a policy file and moves the result to `out`, with the sidecar's own command.
///
/// # Errors
/// The command says that the policy is wrong, or cannot be run.
pub fn render(
    executable: &Path,
    policy: &Path,
    module: &Path,
    out: &Path,
    check: Check,
) -> Result<()> {
    let text = |p: &Path| p.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let (policy, module, out) = (text(policy)?, text(module)?, text(out)?);
    let mut arguments = vec!["render", &policy, "--module", &module, "--out", &out];
    if check == Check::Unchecked {
        arguments.push("--unchecked");
    }
    let said = sidecar::run(executable, &arguments)?;
    if !said.ok {
        bail!("gateway-sidecar {}:\n{}{}", arguments.join(" "), said.stdout, said.stderr);
    }
    Ok(())
}
