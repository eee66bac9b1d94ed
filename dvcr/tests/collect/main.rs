//! Garbage collection under load, over HTTP, on the real program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod content;
mod figures;
mod recreate;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod visitor;
