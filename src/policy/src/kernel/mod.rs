//! The kernels: small pure state machines over numbers. Each knows nothing of requests or stores.

pub mod breaker;
pub mod key_set;
pub mod token_bucket;
