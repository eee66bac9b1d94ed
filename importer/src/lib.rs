//! Disks in and out of a registry.
//!
//! Everything here blocks and keeps no state outside its values; callers choose the threads.
//!
//! | module | what it is |
//! |---|---|
//! | [`source`] | bytes that can be read at random: a file, memory, a part of either |
//! | [`format`] | disk image formats, told apart and read by content |
//! | [`input`] | from a source to the disk in it |
//! | [`layout`] | the layer that a disk becomes, and reading it back |
//! | [`wrapping`] | compressed streams and archives around them |
//!
//! **Invariant:** nothing that an image says opens a file or a connection. Images that refer to others are refused.
//!
//! **Invariant:** memory is bounded by constants of this crate, never by a number that an image holds.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

pub mod checksum;
pub mod cli;
pub mod format;
pub mod import;
pub mod input;
pub mod layout;
pub mod push;
pub mod source;
pub mod wrapping;
