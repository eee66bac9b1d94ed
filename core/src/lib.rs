//! Vocabulary and algorithms that every DVCR program shares. No I/O, no async, no clock, no randomness.

pub mod chunk;
pub mod oci;
