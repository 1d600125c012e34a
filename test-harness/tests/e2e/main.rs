//! The gateway as its users meet it: real Envoy, the built filter, the built sidecar, scripted
//! services. One file per promise of the contract; every test has a house of its own.

#[cfg(test)]
mod adaptive;
#[cfg(test)]
mod algorithms;
#[cfg(test)]
mod api_keys;
#[cfg(test)]
mod authorization;
#[cfg(test)]
mod bans;
#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod breakers;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod csrf;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod files;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod key_sets;
#[cfg(test)]
mod limit_admin;
#[cfg(test)]
mod limit_headers;
#[cfg(test)]
mod limit_keys;
#[cfg(test)]
mod limit_state;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod queues;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod revocations;
#[cfg(test)]
mod security_headers;
#[cfg(test)]
mod sidecar_gone;
#[cfg(test)]
mod token_cache;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod windows;
#[cfg(test)]
mod workers;
