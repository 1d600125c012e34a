//! The outside of the gateway, for end-to-end tests and for `cargo xtask up`: it starts a real
//! Envoy, a real sidecar and scripted services, talks to them, and takes them down again.
//!
//! It knows the built artefacts and the network, never the project's other crates: what it sees is
//! what a user sees. Tests start at [`Mesh`]; `up` uses the parts that [`Mesh`] is made of.

pub mod access_log;
pub mod artefacts;
pub mod bootstrap;
pub mod client;
pub mod envoy;
pub mod exact;
pub mod issuer;
pub mod load;
pub mod mesh;
pub mod policy;
pub mod port;
pub mod pour;
pub mod process;
pub mod raw;
pub mod runtime;
pub mod sidecar;
pub mod stats;
pub mod token;
pub mod upstream;
pub mod wait;

pub use artefacts::Artefacts;
pub use bootstrap::Bootstrap;
pub use client::{Request, Response};
pub use envoy::Envoy;
pub use issuer::Issuer;
pub use mesh::Mesh;
pub use sidecar::Sidecar;
pub use upstream::{Rule, Upstream};
