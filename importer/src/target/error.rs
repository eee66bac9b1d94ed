//! Why a disk cannot go where it should.

use std::{io, path::PathBuf};

/// What is wrong with a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The disk does not fit. Nothing was written.
    #[error("the disk has {needed} bytes, {} holds {available}: {advice}", path.display())]
    TooSmall {
        /// The target.
        path: PathBuf,
        /// Length of the disk.
        needed: u64,
        /// What the target can hold.
        available: u64,
        /// What helps.
        advice: &'static str,
    },
    /// Somebody else uses the target. Nothing was written.
    #[error("{} is in use, by another program or as a mounted file system", .0.display())]
    Busy(PathBuf),
    /// The disk would be written over what it is read from. Nothing was written.
    #[error(
        "{} is the source itself, or lies on the same device: write to another file; a disk grows where it is with \
         `qemu-img resize`, or with `truncate` if it is raw",
        .0.display()
    )]
    IsSource(PathBuf),
    /// It is nothing that a disk can be written to.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// The target.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The system failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, as in "open".
        what: &'static str,
        /// On which target.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}
