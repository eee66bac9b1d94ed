//! Disks out of a running registry: by the real program, onto files, volumes and devices, until a guest boots from them.
//!
//! Programs come from `tools/install.sh clients`; a missing one fails its test with that advice. Loop devices and the docker
//! engine need root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod boot;
mod engine;
mod guest;
mod importer;
mod kill;
mod readers;
mod registry;
#[path = "../../../dvcr/tests/clients/site.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod site;
#[path = "../../../dvcr/tests/support/mod.rs"]
mod support;
#[path = "../support/volume.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod volume;
#[path = "../support/site.rs"]
mod web;
