//! Steps over the records of a pack that has no footer.

use std::io;

use bytes::Bytes;

use super::{
    Entry, LayoutError, PACK_BYTES_MAX, PACK_HEADER_LEN, RECORD_HEADER_LEN, RecordHeader, verify,
};

/// How much a walk asks for at once. Far above the longest record, so that most records cost no read of their own.
const WINDOW_BYTES: u64 = 4 << 20;

/// A record whose header is what was written.
#[derive(Clone, Debug)]
pub struct Walked {
    /// Where it lies, and its header.
    pub entry: Entry,
    /// Its payload, encoded, or what is wrong with it. Shares memory with the window it was read in: copy it to keep it for long.
    pub payload: Result<Bytes, LayoutError>,
}

/// Why a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// The last record ends where the pack ends.
    Complete,
    /// The pack ends within a record.
    Cut,
    /// What follows is no header of a record: a torn write, damage, or the footer.
    Invalid(LayoutError),
}

/// Iterates over the records of a pack up to the first whose header does not match its checksum. What looks wrong is read
/// twice: a bus or memory may have had a bad moment.
///
/// Meant for packs that were open when the server stopped. It steps over a payload that does not match its checksum, for the
/// header before it says where the next record begins. Behind a header that is wrong it looks for nothing: a payload may
/// contain anything, also bytes shaped like a record. Rows may know of records there; a walk does not.
///
/// The caller does the I/O: `read(offset, len)` returns exactly `len` bytes. An error of `read` is passed on and ends
/// the walk without an [`end`](Self::end).
pub struct RecordWalk<R> {
    read: R,
    pack_len: u64,
    at: u64,
    window: Bytes,
    window_at: u64,
    end: Option<WalkEnd>,
    failed: bool,
}

impl<R: FnMut(u64, usize) -> io::Result<Bytes>> RecordWalk<R> {
    /// A walk over a pack of `pack_len` bytes, from behind its header, which the caller has looked at.
    pub fn new(pack_len: u64, read: R) -> RecordWalk<R> {
        let (at, window) = (PACK_HEADER_LEN as u64, Bytes::new());
        RecordWalk {
            read,
            pack_len: pack_len.min(PACK_BYTES_MAX),
            at,
            window,
            window_at: at,
            end: None,
            failed: false,
        }
    }

    /// Where the last record so far ends.
    pub fn walked_to(&self) -> u64 {
        self.at
    }

    /// Why the walk ended; nothing while it goes on or if a read failed.
    pub fn end(&self) -> Option<&WalkEnd> {
        self.end.as_ref()
    }

    /// The `len` bytes after the last record, or nothing if the pack is shorter.
    fn peek(&mut self, len: usize) -> io::Result<Option<Bytes>> {
        let left = self.pack_len.saturating_sub(self.at);
        if left < len as u64 {
            return Ok(None);
        }
        let skip = (self.at - self.window_at) as usize;
        if self.window.len() < skip + len {
            let ask = left.min(WINDOW_BYTES.max(len as u64)) as usize;
            let window = (self.read)(self.at, ask)?;
            if window.len() < ask {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "pack is shorter than it was",
                ));
            }
            (self.window, self.window_at) = (window, self.at);
            return Ok(Some(self.window.slice(..len)));
        }
        Ok(Some(self.window.slice(skip..skip + len)))
    }

    fn step(&mut self) -> io::Result<Result<Walked, WalkEnd>> {
        if self.at >= self.pack_len {
            return Ok(Err(WalkEnd::Complete));
        }
        let mut looked = self.look()?;
        if !matches!(looked, Ok(Walked { payload: Ok(_), .. })) {
            (self.window, self.window_at) = (Bytes::new(), self.at);
            looked = self.look()?;
        }
        if let Ok(walked) = &looked {
            self.at = walked.entry.end();
        }
        Ok(looked)
    }

    /// The record after the last one.
    fn look(&mut self) -> io::Result<Result<Walked, WalkEnd>> {
        let Some(bytes) = self.peek(RECORD_HEADER_LEN)? else {
            return Ok(Err(WalkEnd::Cut));
        };
        let header = match RecordHeader::decode(&bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Err(WalkEnd::Invalid(error))),
        };
        let Some(bytes) = self.peek(header.record_len())? else {
            return Ok(Err(WalkEnd::Cut));
        };
        let payload = bytes.slice(RECORD_HEADER_LEN..);
        // `at` is below PACK_BYTES_MAX, hence below 4 GiB.
        let entry = Entry {
            offset: self.at as u32,
            header,
        };
        let payload = verify(&header, &payload).map(|()| payload);
        Ok(Ok(Walked { entry, payload }))
    }
}

impl<R: FnMut(u64, usize) -> io::Result<Bytes>> Iterator for RecordWalk<R> {
    type Item = io::Result<Walked>;

    fn next(&mut self) -> Option<io::Result<Walked>> {
        if self.failed || self.end.is_some() {
            return None;
        }
        match self.step() {
            Ok(Ok(walked)) => Some(Ok(walked)),
            Ok(Err(end)) => {
                self.end = Some(end);
                None
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}
