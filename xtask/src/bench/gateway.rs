//! One running case: an Envoy set up as its variant says, and the sidecar where the variant has one.

use super::sample::{Case, Variant};
use super::variants::{self, Secrets};
use super::{http, process};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(super) struct Gateway {
    case: Case,
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    stat_prefix: String,
    headers: Vec<(String, String)>,
    request: String,
}

pub(super) fn artefacts(
    _ctx: &Workspace,
    _v: Option<&str>,
    _variants: &[Variant],
) -> Result<PathBuf> {
    Ok(PathBuf::from("/tmp/pre/envoy140/envoy/_bin/envoy"))
}

fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Gateway {
    pub(super) fn start(
        case: Case,
        _ctx: &Workspace,
        envoy: &Path,
        upstream: SocketAddr,
        work: &Path,
    ) -> Result<Self> {
        let mut b: Value =
            serde_json::from_str(&std::fs::read_to_string("/tmp/benchdev/envoy.json")?)?;
        let demo: Value =
            serde_json::from_str(&std::fs::read_to_string("/tmp/benchdev/policy.json")?)?;
        let (address, admin) = (free()?, free()?);
        let set = |v: &mut Value, a: SocketAddr| {
            v["address"] = a.ip().to_string().into();
            v["port_value"] = a.port().into();
        };
        set(&mut b["admin"]["address"]["socket_address"], admin);
        set(&mut b["static_resources"]["listeners"][0]["address"]["socket_address"], address);
        for c in b["static_resources"]["clusters"].as_array_mut().unwrap() {
            c["type"] = "STATIC".into();
            c.as_object_mut().unwrap().remove("dns_lookup_family");
            set(
                &mut c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
                    ["socket_address"],
                upstream,
            );
        }
        let stat_prefix = variants::stat_prefix(&mut b)?;
        variants::set_up(
            &mut b,
            case.variant,
            &demo,
            &Secrets { jwk: "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA" },
        )?;
        let name = format!("{}-{}", case.variant.slug(), case.concurrency);
        let file = work.join(format!("{name}.json"));
        std::fs::write(&file, b.to_string())?;
        let log = std::fs::File::create(format!("/tmp/benchdev/{name}.log"))?;
        let child = Command::new(envoy)
            .arg("-c")
            .arg(&file)
            .args([
                "--disable-hot-restart",
                "--log-level",
                "warn",
                "--concurrency",
                &case.concurrency.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let token = std::fs::read_to_string("/tmp/benchdev/token")?;
        let headers = vec![("authorization".to_owned(), format!("Bearer {}", token.trim()))];
        let request = http::request(address, variants::PATH, &headers);
        let g = Self { case, child, address, admin, stat_prefix, headers, request };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while g.check().is_err() {
            if std::time::Instant::now() > end {
                g.check().context(name.clone())?;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        Ok(g)
    }
    pub(super) fn check(&self) -> Result<()> {
        let mut c = http::Connection::open(self.address)?;
        let (status, _) = c.call(self.request.as_bytes())?;
        if status != 200 {
            bail!("answered {status}");
        }
        Ok(())
    }
    pub(super) const fn case(&self) -> Case {
        self.case
    }
    pub(super) fn title(&self) -> String {
        format!("{} --concurrency {}", self.case.variant.name(), self.case.concurrency)
    }
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }
    pub(super) fn request(&self) -> &str {
        &self.request
    }
    pub(super) fn url(&self) -> String {
        format!("http://{}{}", self.address, variants::PATH)
    }
    pub(super) fn served(&self) -> Result<process::Served> {
        process::served(self.admin, &self.stat_prefix)
    }
}
impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
