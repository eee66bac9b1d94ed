//! Files and block devices.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, FileTypeExt},
};

use rustix::fs::SeekFrom;

use super::{ReadAt, Stretch};

/// A regular file or a block device, with the length that it had when it was opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
    /// Whether the system can say where holes are; devices have none.
    has_holes: bool,
}

impl FileSource {
    /// Takes a file that was opened for reading. What has no length (pipes, sockets, terminals) is refused.
    pub fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let regular = metadata.is_file();
        if !regular && !metadata.file_type().is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a regular file nor a block device",
            ));
        }
        // A device's metadata says 0, its end does not.
        let len = if regular {
            metadata.len()
        } else {
            rustix::fs::seek(&file, SeekFrom::End(0))?
        };
        Ok(Self {
            file,
            len,
            has_holes: regular,
        })
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn stretch_at(&self, offset: u64) -> io::Result<Stretch> {
        let rest = self.len - offset;
        let data = Stretch {
            len: rest,
            hole: false,
        };
        if !self.has_holes {
            return Ok(data);
        }
        // The file's position moves, which nobody uses.
        let (next, hole) = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(next) if next > offset => (next, true),
            Ok(_) => (
                rustix::fs::seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(self.len),
                false,
            ),
            // No more data.
            Err(rustix::io::Errno::NXIO) => (self.len, true),
            // A file system that cannot tell.
            Err(_) => return Ok(data),
        };
        Ok(Stretch {
            len: next.saturating_sub(offset).clamp(1, rest),
            hole,
        })
    }
}
