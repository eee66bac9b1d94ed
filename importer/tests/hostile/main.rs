//! Images, archives and layers that lie: each gets a clear error at once, and none is read as another disk than it was. What
//! that takes is counted, in bytes read and bytes allocated.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod corpora;
mod counting;
mod mutations;
mod qcow2;
mod sample;
mod sources;
mod truncated;
mod vhd;
mod vhdx;
mod vmdk;
