//! Fixed tables of hashed sets in shared state.
