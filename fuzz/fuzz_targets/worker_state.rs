#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| udispatch::fuzz::worker_state::run(bytes));
