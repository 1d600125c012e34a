//! The three ports, and who has them. Envoy shares a port silently with another Envoy, so this is
//! asked before anything is started.

use anyhow::{Result, bail};
use std::net::{Ipv4Addr, TcpListener};

/// The ports that were asked for; 0 is any free one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) sidecar: u16,
    pub(super) envoy_admin: u16,
}

impl Ports {
    /// Names every port that is taken or asked for twice, and the flag that changes it.
    pub(super) fn must_be_free(&self) -> Result<()> {
        let all = [
            (self.gateway, "the gateway", "--port"),
            (self.sidecar, "the sidecar", "--admin-port"),
            (self.envoy_admin, "Envoy's admin", "--envoy-admin-port"),
        ];
        let mut wrong = Vec::new();
        let mut seen: Vec<u16> = Vec::new();
        for (port, who, flag) in all.into_iter().filter(|(port, ..)| *port != 0) {
            let remedy = format!("choose another for {who} with {flag} (0 = any free one)");
            if seen.contains(&port) {
                wrong.push(format!("port {port} is asked for twice; {remedy}"));
            } else if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                wrong.push(format!("port {port} cannot be used ({error}); {remedy}"));
            }
            seen.push(port);
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("{}", wrong.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let ports = Ports { gateway: 0, sidecar: port, envoy_admin: port };
        let error = ports.must_be_free().unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} cannot be used")), "{error}");
        assert!(error.contains("--admin-port") && error.contains("asked for twice"), "{error}");
    }

    #[test]
    fn any_free_port_is_always_free() {
        Ports { gateway: 0, sidecar: 0, envoy_admin: 0 }.must_be_free().unwrap();
    }
}
