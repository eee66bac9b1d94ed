//! Real clients against a running server: what each of them pushed comes back byte for byte, to it and to a client of our own.
//!
//! Programs come from `tools/install.sh clients`; a missing one fails its test with that advice. The engines (docker,
//! containerd, podman, buildah) need root. Every test has a server, a home directory and a store of its own, so nothing
//! leaks into or from the machine's own engines. No network but loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod buildah;
mod containerd;
mod crane;
mod docker;
mod image;
mod oras;
mod podman;
mod regctl;
mod site;
mod skopeo;
