//! The core: what the gateway decides, and nothing else.
//!
//! No I/O, no clock, no randomness, no async, no logging, no globals. The same policy and the same
//! sequence of requests give the same decisions in the wasm filter, in the sidecar and on the
//! command line. Read [`pipeline`] first: it holds the order of the stages, once.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod config;
pub mod event;
pub mod facts;
pub mod fingerprint;
pub mod headers;
pub mod kernel;
pub mod model;
pub mod outcome;
pub mod path;
pub mod pattern;
pub mod permission;
pub mod pipeline;
pub mod reason;
pub mod render;
pub mod replica;
pub mod reply;
pub mod stage;
pub mod store;
pub mod sync;
pub mod table;
#[cfg(test)]
mod testing;
pub mod time;
pub mod verify;
