//! The wasm shell: does inside Envoy what the core decides.
//!
//! `wasm.rs` is the ABI, `host.rs` what the rest asks of it; `vm.rs` finds the plugin and the stream
//! that a callback is for; `plugin.rs` reads a policy, `request.rs` follows one request; the other
//! files are one service each. Everything but `wasm.rs` also compiles natively, for its tests.

pub mod host;
pub mod vm;

mod document;
mod generation;
mod limits;
mod load;
mod log;
mod metrics;
mod plugin;
mod protobuf;
mod replica;
mod reports;
mod request;
mod secrets;
mod seed;
mod signatures;
mod store;
mod sweep;
mod sync;
mod tokens;
mod waiting;

#[cfg(test)]
mod testing;

#[cfg(target_family = "wasm")]
#[expect(unsafe_code, reason = "the ABI of the host is raw pointers; it is spoken here only")]
mod wasm;
