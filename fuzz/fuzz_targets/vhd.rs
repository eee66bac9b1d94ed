#![no_main]

#[path = "../importer_targets.rs"]
#[allow(dead_code, reason = "each target runs one of the bodies")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::vhd(data));
