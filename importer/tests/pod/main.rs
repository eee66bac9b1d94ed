//! The program as a pod runs it: told by the environment, at the paths that controllers mount, watched over metrics, judged by its exit
//! code and termination message; against servers with TLS and logins, and through proxies.
//!
//! Needs root, for namespaces and loop devices. Programs come from `tools/install.sh clients`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cdi;
mod container;
mod deckhouse;
#[path = "../../../dvcr/tests/migrate/front.rs"]
mod front;
mod images;
mod mistakes;
mod proxies;
mod registries;
#[path = "../../../client/tests/support/mod.rs"]
mod reply;
#[path = "../support/site.rs"]
mod site;
#[path = "../../../dvcr/tests/support/mod.rs"]
mod support;
mod tls;
#[path = "../../../dvcr/tests/oci_client/tokens.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod tokens;
#[path = "../support/volume.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod volume;
