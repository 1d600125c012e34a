//! The clusters of an Envoy document must be those that the policy names: keys come through them,
//! and the sidecar is behind one. A key set that comes in clear text is no key set.

use crate::document::{Finding, Kind, Node, join};
use policy::model::{Keys, Policy};

/// Where Envoy has its clusters.
const AT: &str = "static_resources.clusters";
/// The type of TLS towards a cluster.
const TLS: &str = "transport_sockets.tls.v3.UpstreamTlsContext";

/// A cluster that a policy names.
struct Named<'a> {
    cluster: &'a str,
    /// The place in the policy.
    by: String,
    use_: Use,
}

/// What the policy does with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Fetches keys from it.
    Keys,
    /// Finds its sidecar there.
    Sidecar,
    /// Has settings for it as a service.
    Service,
}

/// What is said of one file.
#[derive(Debug)]
pub(super) struct Said {
    /// The index of the file.
    pub(super) file: usize,
    /// What.
    pub(super) what: What,
}

/// Whether it must be mended.
#[derive(Debug)]
pub(super) enum What {
    /// It must.
    Finding(Finding),
    /// It deserves a word.
    Warning(String),
}

/// A document of Envoy, and the index of its file.
type Document<'a> = (usize, &'a Node);

/// Checks the clusters of all documents together: any of them may define what a policy names. What
/// is missing is said of the first one.
pub(super) fn check(documents: &[Document<'_>], policies: &[Policy]) -> Vec<Said> {
    let hosts: Vec<Document<'_>> = documents
        .iter()
        .filter(|(_, node)| node.get("static_resources").is_some())
        .copied()
        .collect();
    let Some(first) = hosts.first() else { return Vec::new() };
    if hosts.iter().any(|(_, node)| may_have_more(node)) {
        return Vec::new();
    }
    let mut said = Vec::new();
    for named in policies.iter().flat_map(named) {
        let mut clusters = hosts.iter().flat_map(|(file, node)| {
            list(node).iter().enumerate().map(|(index, cluster)| (*file, index, cluster))
        });
        let found =
            clusters.find(|(.., cluster)| cluster.text_of(&["name"]) == Some(named.cluster));
        match found {
            None => said.push(Said { file: first.0, what: missing(&named, first.1) }),
            Some((file, index, cluster)) if named.use_ == Use::Keys => {
                if let Some(wrong) = untrusted(cluster) {
                    let Named { cluster, by, .. } = named;
                    let text =
                        format!("{AT}[{index}]: `{cluster}` {wrong}; {by} fetches keys from it");
                    said.push(Said { file, what: What::Warning(text) });
                }
            }
            Some(_) => {}
        }
    }
    said
}

/// Whether clusters may come that do not stand in the document.
fn may_have_more(node: &Node) -> bool {
    node.get_any(&["dynamic_resources", "dynamicResources"]).is_some_and(|dynamic| {
        dynamic.get_any(&["cds_config", "cdsConfig", "cds_resources_locator"]).is_some()
    })
}

fn list(node: &Node) -> &[Node] {
    let clusters = node.get("static_resources").and_then(|resources| resources.get("clusters"));
    match clusters.map(|clusters| &clusters.kind) {
        Some(Kind::List(clusters)) => clusters,
        _ => &[],
    }
}

fn named(policy: &Policy) -> Vec<Named<'_>> {
    let mut all = Vec::new();
    let providers =
        policy.authentication.iter().flat_map(|authentication| &authentication.providers);
    for (index, provider) in providers.enumerate() {
        if let Keys::Remote(remote) = &provider.keys {
            let by = format!("authentication.jwt.providers[{index}].keys.jwks.cluster");
            all.push(Named { cluster: &remote.cluster, by, use_: Use::Keys });
        }
    }
    if let Some(sidecar) = &policy.sidecar {
        let (cluster, by) = (sidecar.cluster.as_str(), "sidecar.cluster".to_owned());
        all.push(Named { cluster, by, use_: Use::Sidecar });
    }
    for (service, _) in &policy.circuit_breakers.services {
        let by = join("circuit_breakers.services", service);
        all.push(Named { cluster: service, by, use_: Use::Service });
    }
    for (index, limit) in policy.rate_limits.iter().enumerate() {
        for service in &limit.matches.services {
            let by = format!("rate_limits[{index}].match.services");
            all.push(Named { cluster: service, by, use_: Use::Service });
        }
    }
    all
}

fn missing(named: &Named<'_>, node: &Node) -> What {
    let Named { cluster, by, use_ } = named;
    let wrong = format!("there is no `{cluster}`, which the policy's {by} names");
    if *use_ == Use::Service {
        return What::Warning(format!("{AT}: {wrong}"));
    }
    let allowed = "a cluster of that name".to_owned();
    What::Finding(Finding { line: node.line_of(AT), path: AT.to_owned(), wrong, allowed })
}

/// Why keys that come through a cluster may be anybody's.
fn untrusted(cluster: &Node) -> Option<&'static str> {
    if cluster.get_any(&["transport_socket_matches", "transportSocketMatches"]).is_some() {
        return None;
    }
    let tls = cluster
        .get_any(&["transport_socket", "transportSocket"])
        .and_then(|socket| socket.get_any(&["typed_config", "typedConfig"]))
        .filter(|config| config.text_of(&["@type"]).is_some_and(|name| name.ends_with(TLS)));
    let Some(tls) = tls else {
        return Some(
            "has no TLS transport_socket, so that whoever stands between can put keys of his own",
        );
    };
    let validation = tls.get_any(&["common_tls_context", "commonTlsContext"]).and_then(|common| {
        common.get_any(&[
            "validation_context",
            "validationContext",
            "combined_validation_context",
            "combinedValidationContext",
            "validation_context_sds_secret_config",
            "validationContextSdsSecretConfig",
        ])
    });
    validation
        .is_none()
        .then_some("has TLS without a validation_context, so that Envoy takes every certificate")
}
