//! An archive's content, into a directory.
//!
//! Nothing is ever written outside of it: parents are opened one by one and never through a link, absolute names and `..` are
//! refused, links may only lead to what is inside, and devices are refused. Owners, set-user-ID bits and extended attributes are
//! not taken over.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{engine::fill, pages::parts};
use crate::wrapping::{
    Unwrapped, Wrapping, WrappingError,
    tar::{Entries, Entry, EntryKind},
};

/// Bytes that are written at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// What came out of an archive.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Extracted {
    /// Files, links included.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
}

/// Why an archive was not unpacked, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive is broken or its source failed.
    #[error("{0}")]
    Archive(#[from] WrappingError),
    /// The source is something else. Final.
    #[error("the source is no tar archive; a disk image is written to a volume without --archive")]
    NoArchive,
    /// The archive has something that is not unpacked on purpose. Final.
    #[error("the archive has {name:?}: {reason}; make it without that entry")]
    Refused {
        /// Name of the entry.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The directory cannot be written.
    #[error("{what} {name:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Name of the entry.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("stopped")]
    Cancelled,
}

/// Unpacks a tar archive, compressed or not, of at most `bytes_max` bytes. Files that are there already are replaced.
pub fn extract(
    stream: impl Read + Send + 'static,
    directory: &Path,
    bytes_max: u64,
    cancel: &AtomicBool,
) -> Result<Extracted, ExtractError> {
    let stream = Unwrapped::decoded(stream, bytes_max)?;
    let head = stream.head();
    if Wrapping::detect(head) != Some(Wrapping::Tar) && head.iter().any(|byte| *byte != 0) {
        return Err(ExtractError::NoArchive);
    }
    let shown = directory.display().to_string();
    let root = File::options()
        .read(true)
        .open(directory)
        .map_err(failed("open", &shown))?;
    let mut tree = Tree {
        root: root.into(),
        done: Extracted::default(),
    };
    let mut entries = Entries::new(stream);
    while let Some(entry) = entries.next()? {
        if cancel.load(Ordering::Relaxed) {
            return Err(ExtractError::Cancelled);
        }
        tree.add(&entry, &mut entries)?;
    }
    entries.drain().map_err(WrappingError::from)?;
    rustix::fs::syncfs(&tree.root).map_err(|errno| failed("sync", &shown)(errno.into()))?;
    Ok(tree.done)
}

fn failed<'a>(what: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> ExtractError + 'a {
    move |source| ExtractError::Io {
        what,
        name: name.to_owned(),
        source,
    }
}

/// A directory that is being filled.
struct Tree {
    root: OwnedFd,
    done: Extracted,
}

impl Tree {
    fn add(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), ExtractError> {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let refused = |reason| ExtractError::Refused {
            name: name.clone(),
            reason,
        };
        let parts = components(&entry.name).ok_or_else(|| refused("its name is absolute"))?;
        let Some((last, parents)) = parts.split_last() else {
            // The directory itself.
            return Ok(());
        };
        match &entry.kind {
            EntryKind::Other => return Ok(()),
            EntryKind::Device => return Err(refused("a device node or a FIFO")),
            EntryKind::Directory => {
                let directory = self.open_parents(&parts, &name)?;
                let mode = Mode::from_raw_mode(entry.mode & 0o777 | 0o700);
                rustix::fs::fchmod(&directory, mode)
                    .map_err(|errno| failed("set the mode of", &name)(errno.into()))?;
                self.done.directories += 1;
                return Ok(());
            }
            _ => {}
        }
        let parent = self.open_parents(parents, &name)?;
        let io = |what| {
            let name = name.clone();
            move |errno: Errno| failed(what, &name)(errno.into())
        };
        match rustix::fs::unlinkat(&parent, *last, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => return Err(refused("there is a directory already")),
            Err(errno) => return Err(io("replace")(errno)),
        }
        self.done.files += 1;
        match &entry.kind {
            EntryKind::Symlink(link) => {
                if !stays_inside(link, parents.len()) {
                    return Err(refused("it leads out of the directory"));
                }
                rustix::fs::symlinkat(link.as_slice(), &parent, *last).map_err(io("make"))
            }
            EntryKind::HardLink(link) => {
                let parts = components(link).filter(|parts| !parts.contains(&&b".."[..]));
                let outside = || refused("it leads out of the directory");
                let parts = parts.ok_or_else(outside)?;
                let (file, directories) = parts.split_last().ok_or_else(outside)?;
                let directory = self.open_parents(directories, &name)?;
                let stat = rustix::fs::statat(&directory, *file, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io("find what is linked by"))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(refused("a hard link to what is no file"));
                }
                rustix::fs::linkat(&directory, *file, &parent, *last, AtFlags::empty())
                    .map_err(io("make"))
            }
            _ => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                let file = rustix::fs::openat(&parent, *last, flags, mode).map_err(io("make"))?;
                self.done.bytes += entry.len;
                write(&File::from(file), content, &name)
            }
        }
    }

    /// Opens directories from the root on, making those that are not there.
    fn open_parents(&self, parts: &[&[u8]], name: &str) -> Result<OwnedFd, ExtractError> {
        let io = |errno: Errno| failed("open the directory of", name)(errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = self
            .root
            .as_fd()
            .try_clone_to_owned()
            .map_err(failed("open", name))?;
        for part in parts {
            directory = match rustix::fs::openat(&directory, *part, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&directory, *part, Mode::from_raw_mode(0o755))
                        .map_err(io)?;
                    rustix::fs::openat(&directory, *part, flags, Mode::empty()).map_err(io)?
                }
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(ExtractError::Refused {
                        name: name.to_owned(),
                        reason: "its path leads through a link or a file",
                    });
                }
                Err(errno) => return Err(io(errno)),
            };
        }
        Ok(directory)
    }
}

/// The parts of a relative name; `None` if it is absolute.
fn components(name: &[u8]) -> Option<Vec<&[u8]>> {
    if name.starts_with(b"/") {
        return None;
    }
    let parts = name.split(|byte| *byte == b'/');
    Some(
        parts
            .filter(|part| !part.is_empty() && *part != b".")
            .collect(),
    )
}

/// Whether a link in a directory `depth` below the root leads to something inside, whatever links there are on the way: it may
/// begin with as many `..` as there are directories, and have none behind a name.
fn stays_inside(link: &[u8], depth: usize) -> bool {
    let Some(parts) = components(link) else {
        return false;
    };
    let up = parts.iter().take_while(|part| **part == b"..").count();
    up <= depth && !parts[up..].contains(&&b".."[..])
}

/// Writes a file's content, zeros as holes.
fn write(file: &File, content: &mut impl Read, name: &str) -> Result<(), ExtractError> {
    let mut buf = vec![0; BLOCK_BYTES];
    let mut at = 0;
    loop {
        let len = fill(content, &mut buf).map_err(WrappingError::from)?;
        if len == 0 {
            return file.set_len(at).map_err(failed("write", name));
        }
        for (range, zeros) in parts(&buf[..len]) {
            if !zeros {
                let start = at + range.start as u64;
                file.write_all_at(&buf[range], start)
                    .map_err(failed("write", name))?;
            }
        }
        at += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        for (link, depth, expected) in [
            ("a", 0, true),
            ("a/b", 0, true),
            ("./a", 0, true),
            ("..", 0, false),
            ("..", 1, true),
            ("../a", 1, true),
            ("../../a", 1, false),
            ("a/..", 1, false),
            ("a/../../b", 5, false),
            ("/etc/passwd", 3, false),
            ("", 0, true),
        ] {
            assert_eq!(
                stays_inside(link.as_bytes(), depth),
                expected,
                "{link} {depth}"
            );
        }
    }
}
