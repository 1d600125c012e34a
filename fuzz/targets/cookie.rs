//! libFuzzer's entry to `fuzz::cookie`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::cookie::run(bytes));
