//! Where disks come from: bytes that can be read at random, from several threads at once ([`ReadAt`]), or from start to end.
//!
//! | module | what it is |
//! |---|---|
//! | [`location`] | what a person writes: an address, a path, `-` |
//! | [`FileSource`], [`Slice`], [`Reader`] | what is at hand, and parts of it |
//! | [`fetch`] | one request to a server: what every kind of server has to offer |
//! | [`http`], [`object`] | the kinds of servers |
//! | [`Remote`] | a file on a server, whatever breaks on the way: retries, goes on where it was, notices changes |
//!
//! **Invariant:** bytes of two versions of a file are never mixed: what identifies a version ([`fetch::Version`]) is compared in
//! each answer.
//!
//! **Invariant:** credentials and headers go to the host that was named, and to no other.

mod content_range;
pub mod fetch;
mod file;
pub mod http;
pub mod location;
pub mod object;
mod pieces;
mod remote;
pub mod retry;
mod slice;

use std::{io, sync::Arc};

pub use file::FileSource;
pub use location::Location;
pub use pieces::{PieceSender, Pieces};
pub use remote::{CONNECTIONS, CONNECTIONS_MAX, Ranged, Remote, RemoteOptions, RemoteParts};
pub use slice::{Reader, Slice};

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

/// An error unless the `len` bytes from `offset` on lie in a source of `source_len` bytes.
pub(crate) fn check_range(source_len: u64, offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= source_len => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
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
