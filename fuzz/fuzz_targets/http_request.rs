#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| udispatch::fuzz::http_request::run(bytes));
