//! libFuzzer's entry to `fuzz::jwks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::jwks::run(bytes));
