//! What libFuzzer tries on everything that reads bytes of strangers. Each module is one target: a
//! function that panics when something does not hold. They are run by `cargo xtask soak`.
//!
//! An input is no structure of ours but plain bytes, read from the front by [`input::Input`], so
//! that libFuzzer's own mutations stay small changes.

pub mod batch;
pub mod cookie;
mod corpus;
mod input;
pub mod jwks;
pub mod path;
pub mod token;
