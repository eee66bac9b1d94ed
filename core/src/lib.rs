//! Vocabulary and algorithms that every DVCR program shares. No I/O, no async, no clock, no randomness.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

pub mod chunk;
pub mod disk;
pub mod oci;
