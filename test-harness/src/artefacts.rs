//! Where the built artefacts are.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The directory with the artefacts; `target/dist` of the workspace unless set.
pub const DIST_VARIABLE: &str = "GATEWAY_DIST";
/// The Envoy executable; the one in the artefacts' directory unless set.
pub const ENVOY_VARIABLE: &str = "GATEWAY_ENVOY";

/// What `cargo xtask build` makes, and the files of the project that go with it.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// The Envoy executable.
    pub envoy: PathBuf,
    /// The filter.
    pub module: PathBuf,
    /// The sidecar.
    pub sidecar: PathBuf,
    /// `envoy/envoy.yaml`.
    pub bootstrap: PathBuf,
    /// `envoy/policy.yaml`.
    pub policy: PathBuf,
}

impl Artefacts {
    /// Finds them, as the environment says.
    ///
    /// # Errors
    /// Names every file that is missing and how to make it.
    pub fn find() -> Result<Self> {
        let dist = std::env::var_os(DIST_VARIABLE)
            .map_or_else(|| workspace().join("target/dist"), PathBuf::from);
        let envoy = std::env::var_os(ENVOY_VARIABLE).map(PathBuf::from);
        Self::in_directory(&dist, envoy)
    }

    /// Those in `dist`, with another Envoy where one is given.
    ///
    /// # Errors
    /// Names every file that is missing and how to make it.
    pub fn in_directory(dist: &Path, envoy: Option<PathBuf>) -> Result<Self> {
        let found = Self {
            envoy: envoy.unwrap_or_else(|| dist.join("envoy")),
            module: dist.join("gateway_filter.wasm"),
            sidecar: dist.join("gateway-sidecar"),
            bootstrap: workspace().join("envoy/envoy.yaml"),
            policy: workspace().join("envoy/policy.yaml"),
        };
        let all = [&found.envoy, &found.module, &found.sidecar, &found.bootstrap, &found.policy];
        let missing: Vec<_> =
            all.iter().filter(|p| !p.is_file()).map(|p| p.display().to_string()).collect();
        if !missing.is_empty() {
            bail!(
                "missing: {}\nrun `cargo xtask build` first, or set {DIST_VARIABLE} to the \
                 directory that it filled ({ENVOY_VARIABLE} to another Envoy)",
                missing.join(", ")
            );
        }
        Ok(found)
    }
}

/// The workspace that this crate was compiled in.
#[must_use]
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
