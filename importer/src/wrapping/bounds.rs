//! How much may come out of how little.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Wrapping, WrappingError};

/// Bytes that may come out per byte of the source, once more than [`RATIO_FREE_BYTES`] came out.
///
/// An empty disk is the most that an honest source compresses: 1,032 to 1 in gzip, about 7,000 in xz, 32,768 in zstd (blocks
/// of 128 KiB in 4 bytes). Compressed twice it goes far beyond.
pub const RATIO_MAX: u64 = 40_000;

/// Bytes that may come out of anything: small disks of zeros are none of anybody's concern.
pub const RATIO_FREE_BYTES: u64 = 64 << 20;

/// Bytes read from the source so far.
pub(super) type Counter = Arc<AtomicU64>;

/// The source, counted. Its errors are marked, so that they are not taken for a decoder's.
pub(super) struct Source<R> {
    pub(super) inner: R,
    pub(super) count: Counter,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buf) {
            Ok(len) => {
                self.count.fetch_add(len as u64, Ordering::Relaxed);
                Ok(len)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::other(WrappingError::Source(error))),
        }
    }
}

/// What comes out of one layer, counted against the source and the limit. Its errors are [`WrappingError`]s.
pub(super) struct Bounded<R> {
    pub(super) inner: R,
    pub(super) wrapping: Wrapping,
    pub(super) source: Counter,
    pub(super) bytes_max: u64,
    pub(super) bytes: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(WrappingError::from_io(self.wrapping, error)),
        })?;
        self.bytes = self.bytes.saturating_add(len as u64);
        let broken =
            |reason: String| io::Error::other(WrappingError::broken(self.wrapping, reason));
        if self.bytes > self.bytes_max {
            return Err(broken(format!(
                "more than {} bytes come out",
                self.bytes_max
            )));
        }
        let source = self.source.load(Ordering::Relaxed);
        if self.bytes > RATIO_FREE_BYTES && self.bytes / RATIO_MAX > source {
            return Err(broken(format!(
                "{} bytes come out of {source}: no disk compresses so well",
                self.bytes
            )));
        }
        Ok(len)
    }
}
