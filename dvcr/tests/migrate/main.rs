//! `dvcr migrate` with registries that real clients have filled: every digest and tag comes over, whatever happens on the way.
//!
//! Programs come from `tools/install.sh clients`; a missing one fails its test with that advice. No network but loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "what is shared with other tests is used in part")]

#[path = "../clients/image.rs"]
mod image;
#[path = "../../../client/tests/support/mod.rs"]
mod reply;
#[path = "../clients/site.rs"]
mod site;
#[path = "../support/mod.rs"]
mod support;
#[path = "../oci_client/tokens.rs"]
mod tokens;

mod compare;
mod damaged;
mod fill;
mod front;
mod hostile;
mod interrupted;
mod login;
mod migration;
mod whole;
