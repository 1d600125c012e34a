//! How a house is built.

use super::{Mesh, SOON};
use crate::artefacts::Artefacts;
use crate::bootstrap::{Bootstrap, Peer};
use crate::envoy::{self, Envoy};
use crate::policy::{self, Check};
use crate::port;
use crate::sidecar::{self, Sidecar};
use crate::upstream::Upstream;
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What a house is built from.
#[derive(Clone, Debug)]
pub struct Builder {
    policy: Value,
    concurrency: u32,
    with_sidecar: bool,
    sidecar_at: Option<SocketAddr>,
    trusted_hops: u32,
    http2: Vec<String>,
    connections: Option<u32>,
    access_log: bool,
    clusters: Vec<(String, SocketAddr)>,
    environment: Vec<(String, String)>,
    files: Option<PathBuf>,
}

impl Builder {
    pub(super) const fn new(policy: Value) -> Self {
        Self {
            policy,
            concurrency: 2,
            with_sidecar: true,
            sidecar_at: None,
            trusted_hops: 0,
            http2: Vec::new(),
            connections: None,
            access_log: true,
            clusters: Vec::new(),
            environment: Vec::new(),
            files: None,
        }
    }

    /// With one more cluster that no route leads to, such as an issuer's.
    #[must_use]
    pub fn cluster(mut self, name: &str, address: SocketAddr) -> Self {
        self.clusters.push((name.to_owned(), address));
        self
    }

    /// With one more variable in Envoy's environment, for a secret that the policy names.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The directory below which the sidecar reads the files that the policy names; one of the
    /// house's own, `files` in its place, unless set.
    #[must_use]
    pub fn files(mut self, dir: &Path) -> Self {
        self.files = Some(dir.to_owned());
        self
    }

    /// Envoy's worker threads; 2 unless set, so that what must hold across workers is tested.
    #[must_use]
    pub const fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Without a sidecar: the filter alone.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.with_sidecar = false;
        self
    }

    /// Without a sidecar of its own: what listens there is taken for one.
    #[must_use]
    pub const fn sidecar_at(mut self, address: SocketAddr) -> Self {
        self.with_sidecar = false;
        self.sidecar_at = Some(address);
        self
    }

    /// As behind one proxy that is trusted: `X-Forwarded-For` and `-Proto` of a request count.
    #[must_use]
    pub const fn behind_proxy(mut self) -> Self {
        self.trusted_hops = 1;
        self
    }

    /// This service is spoken to in HTTP/2.
    #[must_use]
    pub fn http2_service(mut self, name: &str) -> Self {
        self.http2.push(name.to_owned());
        self
    }

    /// With room for so many connections from clients.
    #[must_use]
    pub const fn connections(mut self, most: u32) -> Self {
        self.connections = Some(most);
        self
    }

    /// Without an access log, for more requests than a disk should keep.
    #[must_use]
    pub const fn without_access_log(mut self) -> Self {
        self.access_log = false;
        self
    }

    /// Builds the house, runs the test in it, and checks that no VM trapped. A failure shows what
    /// Envoy and sidecar said, and keeps the directory with everything.
    ///
    /// # Errors
    /// The house does not stand, the test's own error, or a VM trapped.
    pub fn run(self, test: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
        let mut mesh = Mesh::start(self)?;
        let result = test(&mut mesh).and_then(|()| mesh.must_not_have_trapped());
        if let Err(error) = result {
            let report = mesh.report();
            mesh.keep = true;
            return Err(error.context(report));
        }
        Ok(())
    }
}

impl Mesh {
    fn start(builder: Builder) -> Result<Self> {
        let artefacts = Artefacts::find()?;
        let dir = tempfile::Builder::new().prefix("gateway-test-").tempdir()?;
        let place = dir.path();
        std::fs::create_dir(place.join("ecds"))?;
        std::fs::create_dir(place.join("files"))?;
        write_policy(&artefacts, place, &builder.policy, Check::Checked)?;
        let mut bootstrap = Bootstrap::read(&artefacts.bootstrap)?;
        let mut upstreams = BTreeMap::new();
        for name in bootstrap.services()? {
            let upstream = Upstream::start(&name)?;
            bootstrap.service(&name, "127.0.0.1", upstream.address().port())?;
            upstreams.insert(name, upstream);
        }
        for name in &builder.http2 {
            bootstrap.http2(name)?;
        }
        let sidecar_at = match builder.sidecar_at {
            Some(address) => address,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, port::reserve()?)),
        };
        bootstrap.listen(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)?;
        bootstrap.admin(0)?;
        bootstrap.policy(&resource(place))?;
        bootstrap.module(&artefacts.module)?;
        bootstrap.sidecar(&sidecar_at.ip().to_string(), sidecar_at.port())?;
        bootstrap.trusted_hops(builder.trusted_hops)?;
        if let Some(most) = builder.connections {
            bootstrap.connections(most)?;
        }
        if !builder.access_log {
            bootstrap.without_access_log()?;
        }
        for (name, address) in &builder.clusters {
            let host = address.ip().to_string();
            bootstrap.cluster(name, &Peer { host, port: address.port(), tls: false })?;
        }
        let envoy = Envoy::start(envoy_options(&artefacts, place, &builder), bootstrap);
        let envoy = envoy.inspect_err(|_| eprintln!("--- policy\n{:#}", builder.policy))?;
        let mut options = sidecar_options(&artefacts, place, sidecar_at, envoy.admin());
        if let Some(files) = builder.files {
            options.files_dir = files;
        }
        let dir = Some(dir);
        let (sidecar, keep, offered_bad) = (None, false, false);
        let mut mesh = Self { artefacts, envoy, sidecar, upstreams, dir, keep, offered_bad };
        if builder.with_sidecar {
            mesh.sidecar = Some(Sidecar::start(options)?);
            mesh.until_synced(SOON)?;
            if builder.policy.get("revocation").is_some() {
                mesh.until_seeded(SOON)?;
            }
        }
        Ok(mesh)
    }
}

fn resource(place: &Path) -> PathBuf {
    place.join("ecds/policy.yaml")
}

pub(super) fn write_policy(
    artefacts: &Artefacts,
    place: &Path,
    policy: &Value,
    check: Check,
) -> Result<()> {
    let file = place.join("policy.yaml");
    std::fs::write(&file, serde_json::to_string_pretty(policy)?)?;
    policy::render(&artefacts.sidecar, &file, &artefacts.module, &resource(place), check)
}

fn envoy_options(artefacts: &Artefacts, place: &Path, builder: &Builder) -> envoy::Options {
    let mut environment = vec![
        (policy::JWT_VARIABLE.to_owned(), policy::JWT_SECRET.to_owned()),
        (policy::SYNC_VARIABLE.to_owned(), policy::SYNC_TOKEN.to_owned()),
    ];
    environment.extend(builder.environment.iter().cloned());
    envoy::Options {
        executable: artefacts.envoy.clone(),
        dir: place.to_owned(),
        concurrency: builder.concurrency,
        environment,
        arguments: Vec::new(),
    }
}

fn sidecar_options(
    artefacts: &Artefacts,
    place: &Path,
    listen: SocketAddr,
    envoy_admin: SocketAddr,
) -> sidecar::Options {
    sidecar::Options {
        executable: artefacts.sidecar.clone(),
        dir: place.to_owned(),
        listen,
        envoy_admin,
        admin_token_file: place.join("admin-token"),
        data_dir: place.join("data"),
        files_dir: place.join("files"),
        environment: vec![(policy::SYNC_VARIABLE.to_owned(), policy::SYNC_TOKEN.to_owned())],
        arguments: Vec::new(),
    }
}
