//! What came of keys that were handed over while the gateway runs.

use alloc::vec::Vec;
use core::fmt;
use policy::config::Mistake;

/// Keys that are in use now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Entries that verify tokens; 1 for a secret.
    pub used: usize,
    /// Good entries for something else: encryption, or an algorithm that is not on the list.
    pub for_others: usize,
    /// Entries that were left out because something is wrong with them; paths begin with `keys`.
    pub left_out: Vec<Mistake>,
}

/// Why keys were not taken. Those that were there before stay in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no such provider, or its keys are in the policy and nowhere else.
    NotLoadable,
    /// An HMAC secret below the length of its hash.
    SecretTooShort {
        /// How many bytes there are.
        bytes: usize,
        /// How many there must be.
        least: usize,
    },
    /// More than [`SET_BYTES_MAX`](crate::SET_BYTES_MAX).
    TooLarge {
        /// How many bytes there are.
        bytes: usize,
    },
    /// Not a JSON object, or one with a member twice.
    NotAnObject,
    /// No list `keys`.
    NoList,
    /// More than [`SET_KEYS_MAX`](crate::SET_KEYS_MAX).
    TooMany {
        /// How many entries there are.
        keys: usize,
    },
    /// Not one entry verifies tokens of this provider: an empty answer must not replace good keys.
    NoneUsable(Loaded),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoadable => f.write_str("this provider's keys are in the policy"),
            Self::SecretTooShort { bytes, least } => {
                write!(f, "the secret has {bytes} bytes; at least {least} are needed")
            }
            Self::TooLarge { bytes } => {
                write!(f, "{bytes} bytes are too many; at most {}", crate::SET_BYTES_MAX)
            }
            Self::NotAnObject => f.write_str("not a JSON object with each member once"),
            Self::NoList => f.write_str("no list of keys (RFC 7517 section 5)"),
            Self::TooMany { keys } => {
                write!(f, "{keys} keys are too many; at most {}", crate::SET_KEYS_MAX)
            }
            Self::NoneUsable(loaded) => {
                let (others, bad) = (loaded.for_others, loaded.left_out.len());
                write!(f, "no usable key: {others} are for something else, {bad} are wrong")?;
                match loaded.left_out.first() {
                    Some(first) => write!(f, ", the first: {first}"),
                    None => Ok(()),
                }
            }
        }
    }
}
