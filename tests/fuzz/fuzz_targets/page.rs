#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outlierd_fuzz::page(bytes));
