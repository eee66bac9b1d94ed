//! Disks in and out of a registry.
//!
//! Everything here blocks and keeps no state outside its values; callers choose the threads.
//!
//! | module | what it is |
//! |---|---|
//! | [`source`] | bytes that can be read at random: a file, memory, a part of either |
//! | [`format`] | disk image formats, told apart and read by content |
//! | [`export`] | from a disk to a stream |
//! | [`import`] | a source becomes an image in a registry, and goes on where it was |
//! | [`image`] | any image of a registry, opened as a disk |
//! | [`input`] | from a source to the disk in it |
//! | [`inspect`] | what is on a disk: partitions, file systems, what it shares with others |
//! | [`kept`] | what an interrupted command keeps for the next one |
//! | [`layout`] | the layer that a disk becomes, and reading it back |
//! | [`populate`] | from a disk to a target: parallel, resumable, holes kept |
//! | [`target`] | raw files, qcow2 files and block devices that are written |
//! | [`push`] | from pieces to an image in a registry |
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
pub mod export;
pub mod format;
pub mod image;
pub mod import;
pub mod input;
pub mod inspect;
pub mod kept;
pub mod layout;
pub mod populate;
pub mod push;
pub mod source;
pub mod target;
pub mod wrapping;
