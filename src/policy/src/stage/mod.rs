//! The stages: what each one needs to know, and what it proves. Their order is in `pipeline`.
