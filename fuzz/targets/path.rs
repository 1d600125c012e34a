//! libFuzzer's entry to `fuzz::path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::path::run(bytes));
