//! A cluster that the file does not have, in clear text or by TLS.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A connection across the internet may take longer than one to a service beside us.
const CONNECT_TIMEOUT: &str = "5s";
/// A key set is fetched seldom: this bounds what a peer that hangs can hold.
const IN_FLIGHT_MAX: u32 = 16;
/// Names another bundle of certificate authorities, as OpenSSL has it.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";
/// Where distributions keep the bundle: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where somebody listens who is no service of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// By TLS, with the system's certificate authorities, and only for this host.
    pub tls: bool,
}

impl Peer {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`; there is no path.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_url(url: &str) -> Result<Self> {
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => bail!("{url:?} does not begin with http:// or https://"),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((v6, "")) => (v6, None),
            Some((v6, port)) => (v6, Some(port.strip_prefix(':').unwrap_or_default())),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(port) => port.parse().ok().filter(|p| *p != 0).with_context(|| {
                format!("{url:?}: the port is {port:?}, which is no number from 1 to 65535")
            })?,
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || (host.parse::<IpAddr>().is_err() && !host.chars().all(fits)) {
            bail!(
                "{url:?} names no host; expected for example https://idp.example (without a path)"
            );
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

/// The cluster as Envoy reads it.
pub(super) fn cluster(name: &str, peer: &Peer) -> Result<Value> {
    let kind = if peer.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let socket = json!({ "address": peer.host, "port_value": peer.port });
    let endpoint = json!({ "endpoint": { "address": { "socket_address": socket } } });
    let mut cluster = json!({
        "name": name,
        "type": kind,
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": CONNECT_TIMEOUT,
        "circuit_breakers": { "thresholds": [{
            "max_connections": IN_FLIGHT_MAX, "max_pending_requests": IN_FLIGHT_MAX,
            "max_requests": IN_FLIGHT_MAX
        }]},
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] }
    });
    if peer.tls
        && let Some(object) = cluster.as_object_mut()
    {
        object.insert("transport_socket".to_owned(), tls(&peer.host, &authorities()?));
    }
    Ok(cluster)
}

/// Only a certificate of a trusted authority, and only for this host.
fn tls(host: &str, authorities: &Path) -> Value {
    let is_address = host.parse::<IpAddr>().is_ok();
    let kind = if is_address { "IP_ADDRESS" } else { "DNS" };
    // A name indication must not be an address (RFC 6066 section 3).
    let sni = if is_address { "" } else { host };
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": sni,
            "common_tls_context": {
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
                "validation_context": {
                    "trusted_ca": { "filename": authorities },
                    "match_typed_subject_alt_names": [
                        { "san_type": kind, "matcher": { "exact": host } }
                    ]
                }
            }
        }
    })
}

/// The bundle of certificate authorities that this machine trusts.
fn authorities() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os(BUNDLE_VARIABLE).filter(|file| !file.is_empty()) {
        let file = PathBuf::from(file);
        if !file.is_file() {
            bail!("{BUNDLE_VARIABLE} names {}, which is no file", file.display());
        }
        return Ok(file);
    }
    BUNDLES.iter().map(PathBuf::from).find(|file| file.is_file()).with_context(|| {
        format!(
            "no certificate authorities are installed (looked for {}): install the package \
             `ca-certificates`, or set {BUNDLE_VARIABLE} to a bundle",
            BUNDLES.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: &str, port: u16, tls: bool) -> Peer {
        Peer { host: host.to_owned(), port, tls }
    }

    #[test]
    fn a_peer_is_a_scheme_a_host_and_perhaps_a_port() {
        let read = |url: &str| Peer::from_url(url).unwrap();
        assert_eq!(read("https://idp.example"), peer("idp.example", 443, true));
        assert_eq!(read("https://idp.example/"), peer("idp.example", 443, true));
        assert_eq!(read("http://idp.example"), peer("idp.example", 80, false));
        assert_eq!(read("http://127.0.0.1:8081"), peer("127.0.0.1", 8081, false));
        assert_eq!(read("https://[::1]:8443"), peer("::1", 8443, true));
        assert_eq!(read("https://[::1]"), peer("::1", 443, true));
        for wrong in [
            "idp.example",
            "ftp://a",
            "https://",
            "https://:443",
            "https://a:0",
            "https://a:x",
            "https://a/realms/x",
            "https://me@a",
            "https://[::1]443",
            "https://a:",
            "https://a b",
        ] {
            assert!(Peer::from_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tls_trusts_only_the_host_that_was_named() {
        let socket = tls("idp.example", Path::new("/bundle.pem")).to_string();
        for part in [r#""sni":"idp.example""#, "/bundle.pem", r#""exact":"idp.example""#, "DNS"] {
            assert!(socket.contains(part), "{part} in {socket}");
        }
        let address = tls("192.0.2.1", Path::new("/bundle.pem")).to_string();
        assert!(address.contains("IP_ADDRESS") && address.contains(r#""sni":"""#), "{address}");
    }

    #[test]
    fn a_name_needs_dns_and_an_address_does_not() {
        let made = cluster("idp", &peer("idp.example", 80, false)).unwrap();
        assert_eq!(made["type"], "STRICT_DNS");
        assert_eq!(made["load_assignment"]["cluster_name"], "idp");
        assert!(made.get("transport_socket").is_none());
        assert_eq!(cluster("idp", &peer("127.0.0.1", 80, false)).unwrap()["type"], "STATIC");
    }
}
