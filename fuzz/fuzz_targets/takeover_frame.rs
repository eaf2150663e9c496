#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| udispatch::fuzz::takeover_frame::run(bytes));
