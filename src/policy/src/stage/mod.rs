//! The stages: what each one needs to know, and what it proves. Their order is in `pipeline`.

pub mod authenticate;
pub mod breaker;
pub mod credential;
pub mod https;
pub mod ip;
pub mod limit;
