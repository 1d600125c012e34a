//! Runs the tokens of `corpus.json`, which `corpus.py` has made without our code and without the
//! library that we verify with.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this is test code, also what is not marked as a test"
)]

mod changes;
mod handed_over;
mod host;
mod policies;
mod read;
mod verdicts;
