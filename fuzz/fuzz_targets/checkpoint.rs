#![no_main]

#[path = "../dvcr_targets.rs"]
#[allow(dead_code, reason = "each target runs one of the bodies")]
mod dvcr_targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dvcr_targets::checkpoint(data));
