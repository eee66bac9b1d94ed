//! Bytes that can be read at random, from several threads at once.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, FileTypeExt},
    sync::Arc,
};

use rustix::fs::SeekFrom;

/// A source whose length is known and whose bytes do not change while it is read.
#[expect(
    clippy::len_without_is_empty,
    reason = "an empty source is as good as any until somebody looks for an image in it"
)]
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset` on. An end before that is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// What is at `offset`, which lies before the end: a stretch of data, or of a hole that need not be read.
    /// Its length is at least 1; a source that knows of no holes answers with data up to the end.
    fn stretch_at(&self, offset: u64) -> io::Result<Stretch> {
        Ok(Stretch {
            len: self.len() - offset,
            hole: false,
        })
    }
}

/// A part of a source that is data or a hole throughout.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// Length in bytes, counted from where was asked.
    pub len: u64,
    /// Whether it reads as zeros without taking space.
    pub hole: bool,
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }

    fn stretch_at(&self, offset: u64) -> io::Result<Stretch> {
        (**self).stretch_at(offset)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

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

/// A part of a source, such as a file inside an uncompressed archive.
#[derive(Debug)]
pub struct Slice<S> {
    source: S,
    start: u64,
    len: u64,
}

impl<S: ReadAt> Slice<S> {
    /// The `len` bytes from `start` on; `None` if the source ends before.
    pub fn new(source: S, start: u64, len: u64) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= source.len()).then_some(Self { source, start, len })
    }
}

impl<S: ReadAt> ReadAt for Slice<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_at(self.start + offset, buf)
    }

    fn stretch_at(&self, offset: u64) -> io::Result<Stretch> {
        let stretch = self.source.stretch_at(self.start + offset)?;
        Ok(Stretch {
            len: stretch.len.min(self.len - offset),
            ..stretch
        })
    }
}

/// A source read from start to end.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    offset: u64,
}

impl<S: ReadAt> Reader<S> {
    /// Reads from the start.
    pub fn new(source: S) -> Self {
        Self { source, offset: 0 }
    }
}

impl<S: ReadAt> Read for Reader<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.source.len() - self.offset;
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        self.source.read_at(self.offset, &mut buf[..len])?;
        self.offset += len as u64;
        Ok(len)
    }
}
