//! The client library against real registries: the program under test, and CNCF Distribution with logins of both kinds.
//!
//! What it does about servers that misbehave is tested where it lives, in `client/tests`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../client/tests/support/mod.rs"]
mod reply;
#[path = "../support/mod.rs"]
mod support;

mod content;
mod distribution;
mod dvcr;
mod relay;
mod tls;
mod tokens;
