//! What a path stands for, whatever it is called: a target that is the source itself would be emptied before it is read.

use std::{
    fs::{self, Metadata},
    iter,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// How deep devices lie in one another, at most: a partition of a loop device on a file in the end.
const DEPTH_MAX: usize = 8;

/// What tells a file or block device from all others.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FileId {
    /// A file: its file system, and its number there.
    File {
        /// Device of the file system.
        dev: u64,
        /// Number of the inode.
        ino: u64,
    },
    /// A block device, by its number: there may be any number of names for it.
    Device(u64),
}

impl FileId {
    /// Of what is at a path; `None` if that is neither a file nor a block device.
    pub fn of_path(path: &Path) -> Option<Self> {
        Self::of(&fs::metadata(path).ok()?)
    }

    /// Of what was looked at; `None` for pipes and whatever else there is.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        if metadata.is_file() {
            let (dev, ino) = (metadata.dev(), metadata.ino());
            return Some(Self::File { dev, ino });
        }
        let is_device = metadata.file_type().is_block_device();
        is_device.then(|| Self::Device(metadata.rdev()))
    }

    /// Whether who writes one of them writes the other: they are the same, or one lies in the other.
    pub fn overlaps(self, other: Self) -> bool {
        self.inside_of().any(|outer| outer == other) || other.inside_of().any(|outer| outer == self)
    }

    /// This one, and what it lies in.
    fn inside_of(self) -> impl Iterator<Item = Self> {
        iter::successors(Some(self), |inner| inner.outer()).take(DEPTH_MAX)
    }

    /// The disk of a partition, the file behind a loop device.
    fn outer(self) -> Option<Self> {
        let Self::Device(number) = self else {
            return None;
        };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let dir = format!("/sys/dev/block/{major}:{minor}");
        let read = |name: &str| fs::read_to_string(format!("{dir}/{name}")).ok();
        if read("partition").is_some() {
            let disk = read("../dev")?;
            let (major, minor) = disk.trim().split_once(':')?;
            let number = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
            return Some(Self::Device(number));
        }
        let file = read("loop/backing_file")?;
        Self::of_path(Path::new(file.trim_end_matches('\n')))
    }
}
