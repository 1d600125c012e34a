//! `envoy/envoy.yaml`, adapted: other addresses, ports and paths, everything else as it is.
//!
//! Each change names the place that it expects. A place that is not there is an error, so that an
//! edit of the file cannot quietly leave the tests with something that users do not run.

mod cluster;

pub use cluster::Peer;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// The service whose route and cluster are copied for a service that the file does not have.
const MODEL_SERVICE: &str = "auth";
/// The name of the listener, of the filter and of the policy's resource.
const GATEWAY: &str = "gateway";
/// The cluster of the sidecar.
const SIDECAR: &str = "gateway-sidecar";
/// The monitor that bounds the connections from clients.
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";
/// Where a listener has its connection manager.
const CHAIN: &str = "/filter_chains/0/filters/0/typed_config";

/// A bootstrap in memory.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    document: Value,
}

impl Bootstrap {
    /// Reads a bootstrap.
    ///
    /// # Errors
    /// The file cannot be read or is no YAML.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Takes a bootstrap from text.
    ///
    /// # Errors
    /// It is no YAML.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self { document: serde_yaml_ng::from_str(text).context("no valid YAML")? })
    }

    /// Where the gateway listens; port 0 takes any free one.
    ///
    /// # Errors
    /// The listener is not where it is expected.
    pub fn listen(&mut self, address: IpAddr, port: u16) -> Result<()> {
        let listener = named(self.place("/static_resources/listeners")?, GATEWAY)?;
        set_socket(at(listener, "/address/socket_address")?, &address.to_string(), port)
    }

    /// Where Envoy's admin listens, always on loopback; port 0 takes any free one.
    ///
    /// # Errors
    /// The admin is not where it is expected.
    pub fn admin(&mut self, port: u16) -> Result<()> {
        set_socket(self.place("/admin/address/socket_address")?, "127.0.0.1", port)
    }

    /// The directory that is watched, and the policy's resource file in it.
    ///
    /// # Errors
    /// The filter's discovery is not where it is expected.
    pub fn policy(&mut self, file: &Path) -> Result<()> {
        let directory = file.parent().context("the policy file has no directory")?;
        let source = at(
            named(self.http("/http_filters")?, GATEWAY)?,
            "/config_discovery/config_source/path_config_source",
        )?;
        *at(source, "/path")? = text(file)?;
        *at(source, "/watched_directory/path")? = text(directory)?;
        Ok(())
    }

    /// The filter's module, for the service that pins shared data.
    ///
    /// # Errors
    /// That service is not where it is expected.
    pub fn module(&mut self, file: &Path) -> Result<()> {
        let service = named(self.place("/bootstrap_extensions")?, "envoy.bootstrap.wasm")?;
        *at(service, "/typed_config/config/vm_config/code/local/filename")? = text(file)?;
        Ok(())
    }

    /// Where the sidecar listens.
    ///
    /// # Errors
    /// Its cluster is not where it is expected.
    pub fn sidecar(&mut self, host: &str, port: u16) -> Result<()> {
        set_endpoint(named(self.place("/static_resources/clusters")?, SIDECAR)?, host, port)
    }

    /// The names of the services, in the order of the routes.
    ///
    /// # Errors
    /// The routes are not where they are expected.
    pub fn services(&mut self) -> Result<Vec<String>> {
        let routes = self.routes()?.as_array().context("routes: no list")?;
        let cluster = |r: &Value| r.pointer("/route/cluster")?.as_str().map(str::to_owned);
        Ok(routes.iter().filter_map(cluster).collect())
    }

    /// Where a service is. One that the file does not have gets a route `/api/NAME/**` and a
    /// cluster like those of the others.
    ///
    /// # Errors
    /// Routes or clusters are not where they are expected, or the name is no single path segment.
    pub fn service(&mut self, name: &str, host: &str, port: u16) -> Result<()> {
        if !self.services()?.iter().any(|s| s == name) {
            self.add_service(name)?;
        }
        set_endpoint(named(self.place("/static_resources/clusters")?, name)?, host, port)
    }

    /// A cluster that no route leads to, for whatever a policy asks by its name: the key set of an
    /// identity provider.
    ///
    /// # Errors
    /// The name is taken, or where TLS is wanted there are no authorities to trust.
    pub fn cluster(&mut self, name: &str, peer: &Peer) -> Result<()> {
        let clusters = self.place("/static_resources/clusters")?;
        if named(clusters, name).is_ok() {
            bail!("there is a cluster {name:?} already");
        }
        push(clusters, cluster::cluster(name, peer)?)
    }

    /// Whether there is a cluster of this name.
    ///
    /// # Errors
    /// The clusters are not where they are expected.
    pub fn has_cluster(&mut self, name: &str) -> Result<bool> {
        Ok(named(self.place("/static_resources/clusters")?, name).is_ok())
    }

    /// Lets a service's side speak HTTP/2, as the file's comment tells operators of gRPC services.
    ///
    /// # Errors
    /// The service has no cluster.
    pub fn http2(&mut self, name: &str) -> Result<()> {
        let cluster = named(self.place("/static_resources/clusters")?, name)?;
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let value = json!({ options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": { "http2_protocol_options": {} }
        }});
        insert(cluster, "typed_extension_protocol_options", value)
    }

    /// How many proxies in front are trusted, as an operator with a load balancer sets it: only
    /// then `X-Forwarded-For` and `X-Forwarded-Proto` of a test say who the client is.
    ///
    /// # Errors
    /// The connection manager is not where it is expected.
    pub fn trusted_hops(&mut self, hops: u32) -> Result<()> {
        *self.http("/xff_num_trusted_hops")? = json!(hops);
        Ok(())
    }

    /// How many connections from clients there may be, as an operator of a small machine sets it.
    ///
    /// # Errors
    /// The monitor is not where it is expected.
    pub fn connections(&mut self, most: u32) -> Result<()> {
        let monitors = self.place("/overload_manager/resource_monitors")?;
        let monitor = named(monitors, CONNECTIONS)?;
        *at(monitor, "/typed_config/max_active_downstream_connections")? = json!(most);
        Ok(())
    }

    /// Writes no access log, for measurements of millions of requests.
    ///
    /// # Errors
    /// The connection manager is not where it is expected.
    pub fn without_access_log(&mut self) -> Result<()> {
        *self.http("/access_log")? = json!([]);
        Ok(())
    }

    /// The document, for changes that a measurement needs beyond addresses and paths.
    pub fn document_mut(&mut self) -> &mut Value {
        &mut self.document
    }

    /// Writes it. The result is JSON, which is YAML too.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.document)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn add_service(&mut self, name: &str) -> Result<()> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(fits) {
            bail!("service name {name:?}: letters, digits, '-', '_' and '.' only");
        }
        let clusters = self.place("/static_resources/clusters")?;
        let mut cluster = named(clusters, MODEL_SERVICE)?.clone();
        *at(&mut cluster, "/name")? = json!(name);
        push(clusters, cluster)?;
        let routes = self.routes()?;
        let mut route = named(routes, MODEL_SERVICE)?.clone();
        *at(&mut route, "/name")? = json!(name);
        *at(&mut route, "/match/path_separated_prefix")? = json!(format!("/api/{name}"));
        *at(&mut route, "/route/cluster")? = json!(name);
        push(routes, route)
    }

    fn routes(&mut self) -> Result<&mut Value> {
        self.http("/route_config/virtual_hosts/0/routes")
    }

    fn http(&mut self, pointer: &str) -> Result<&mut Value> {
        let listener = named(self.place("/static_resources/listeners")?, GATEWAY)?;
        at(at(listener, CHAIN)?, pointer)
    }

    fn place(&mut self, pointer: &str) -> Result<&mut Value> {
        at(&mut self.document, pointer)
    }
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value.pointer_mut(pointer).with_context(|| format!("the bootstrap has nothing at {pointer}"))
}

/// The element of a list whose `name` is `name`.
fn named<'a>(list: &'a mut Value, name: &str) -> Result<&'a mut Value> {
    let list = list.as_array_mut().context("the bootstrap has no list where one is expected")?;
    list.iter_mut()
        .find(|e| e.get("name").and_then(Value::as_str) == Some(name))
        .with_context(|| format!("the bootstrap has nothing named {name:?}"))
}

fn push(list: &mut Value, element: Value) -> Result<()> {
    list.as_array_mut().context("the bootstrap has no list where one is expected")?.push(element);
    Ok(())
}

fn insert(object: &mut Value, key: &str, value: Value) -> Result<()> {
    let object = object.as_object_mut().context("the bootstrap has no object here")?;
    object.insert(key.to_owned(), value);
    Ok(())
}

fn set_socket(socket: &mut Value, address: &str, port: u16) -> Result<()> {
    *at(socket, "/address")? = json!(address);
    *at(socket, "/port_value")? = json!(port);
    Ok(())
}

/// A name needs DNS; for an address DNS would only be one more thing that can fail.
fn set_endpoint(cluster: &mut Value, host: &str, port: u16) -> Result<()> {
    let kind = if host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    *at(cluster, "/type")? = json!(kind);
    let name = cluster.get("name").cloned().unwrap_or_default();
    *at(cluster, "/load_assignment/cluster_name")? = name;
    let socket = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    set_socket(at(cluster, socket)?, host, port)
}

fn text(path: &Path) -> Result<Value> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(json!(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artefacts::workspace;

    fn shipped() -> Bootstrap {
        Bootstrap::read(&workspace().join("envoy/envoy.yaml")).unwrap()
    }

    #[test]
    fn everything_that_is_adapted_is_where_it_is_expected() {
        let mut bootstrap = shipped();
        bootstrap.listen("127.0.0.1".parse().unwrap(), 0).unwrap();
        bootstrap.admin(0).unwrap();
        bootstrap.policy(Path::new("/work/ecds/policy.yaml")).unwrap();
        bootstrap.module(Path::new("/dist/filter.wasm")).unwrap();
        bootstrap.sidecar("127.0.0.1", 1).unwrap();
        bootstrap.trusted_hops(1).unwrap();
        bootstrap.connections(3).unwrap();
        bootstrap.without_access_log().unwrap();
        for service in bootstrap.services().unwrap() {
            bootstrap.service(&service, "127.0.0.1", 2).unwrap();
        }
        let text = bootstrap.document.to_string();
        assert!(!text.contains("/etc/envoy"), "a path of the container is left: {text}");
        assert!(!text.contains("STRICT_DNS") && !text.contains("0.0.0.0"), "{text}");
    }

    #[test]
    fn the_demo_services_are_the_contracts() {
        let services = shipped().services().unwrap();
        assert_eq!(services, ["auth", "samples", "storage", "templates", "sequencing"]);
    }

    #[test]
    fn a_new_service_gets_a_route_and_a_cluster() {
        let mut bootstrap = shipped();
        bootstrap.service("billing", "billing.example", 81).unwrap();
        assert!(bootstrap.services().unwrap().contains(&"billing".to_owned()));
        let text = bootstrap.document.to_string();
        assert!(text.contains("/api/billing") && text.contains("billing.example"), "{text}");
        assert!(bootstrap.service("a/b", "h", 1).is_err());
    }

    #[test]
    fn a_new_cluster_gets_no_route_and_takes_nobodys_name() {
        let mut bootstrap = shipped();
        let peer = Peer::from_url("http://127.0.0.1:81").unwrap();
        bootstrap.cluster("idp", &peer).unwrap();
        assert!(bootstrap.has_cluster("idp").unwrap() && !bootstrap.has_cluster("idq").unwrap());
        assert!(!bootstrap.services().unwrap().contains(&"idp".to_owned()));
        for taken in ["idp", "auth", SIDECAR] {
            bootstrap.cluster(taken, &peer).unwrap_err();
        }
    }

    #[test]
    fn a_missing_place_is_named() {
        let mut bootstrap = Bootstrap::parse("static_resources: {listeners: []}").unwrap();
        let error = bootstrap.listen("127.0.0.1".parse().unwrap(), 0).unwrap_err();
        assert!(error.to_string().contains("gateway"), "{error}");
        let error = bootstrap.admin(0).unwrap_err();
        assert!(error.to_string().contains("/admin/address/socket_address"), "{error}");
    }
}
