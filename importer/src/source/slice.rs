//! Parts of sources, and sources as streams.

use std::io::{self, Read};

use super::{ReadAt, Stretch, check_range};

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
        check_range(self.len, offset, buf.len())?;
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
        Self::starting_at(source, 0)
    }

    /// Reads from `offset` on, which is not beyond the end.
    pub fn starting_at(source: S, offset: u64) -> Self {
        Self { source, offset }
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
