//! Finding the disk in an archive, and reading it.

use std::io::{self, Read};

use super::{
    BLOCK,
    header::{Header, Kind, text},
    pax::{PAX_BYTES_MAX, Pax},
    sparse::{Filled, Map, MapError},
};
use crate::wrapping::{Wrapping, WrappingError};

/// Most entries before the disk.
pub const ENTRIES_MAX: usize = 10_000;

/// Longest name in an entry of its own, as Linux has it for paths.
const NAME_BYTES_MAX: u64 = 4096;

/// First bytes of a resource fork (AppleDouble), which macOS puts beside each file.
const APPLE_DOUBLE: [u8; 4] = [0, 5, 0x16, 7];

/// The first disk of an archive, as a stream. At its end the rest of the archive is read, too.
pub struct Disk<R> {
    source: R,
    /// First bytes of the content, which were looked at.
    head: io::Cursor<Vec<u8>>,
    content: Content,
    done: bool,
}

enum Content {
    /// So many bytes after the head.
    Plain(u64),
    /// With holes; the head is empty.
    Sparse(Box<Filled>),
}

impl<R: Read> Disk<R> {
    /// Reads up to the first file that may be a disk.
    pub fn find(source: R) -> Result<Self, WrappingError> {
        let mut archive = Archive {
            source,
            pax: Pax::default(),
            long_name: None,
        };
        for _ in 0..ENTRIES_MAX {
            if let Some((head, content)) = archive.next()? {
                return Ok(Self {
                    source: archive.source,
                    head: io::Cursor::new(head),
                    content,
                    done: false,
                });
            }
        }
        Err(broken(format!(
            "no disk among its first {ENTRIES_MAX} entries"
        )))
    }

    /// Where the disk lies in the archive: offset and length; `None` if it has holes. `read` is how many bytes of the
    /// source were read, all by [`Disk::find`].
    pub(super) fn place(&self, read: u64) -> Option<(u64, u64)> {
        let head_len = self.head.get_ref().len() as u64;
        match self.content {
            Content::Plain(rest) => Some((read - head_len, head_len + rest)),
            Content::Sparse(_) => None,
        }
    }
}

fn broken(reason: impl std::fmt::Display) -> WrappingError {
    WrappingError::broken(Wrapping::Tar, reason)
}

fn failed(error: io::Error) -> WrappingError {
    WrappingError::from_io(Wrapping::Tar, error)
}

/// An archive at the start of an entry.
struct Archive<R> {
    source: R,
    /// What was said about the next entry.
    pax: Pax,
    long_name: Option<Vec<u8>>,
}

impl<R: Read> Archive<R> {
    /// Reads one entry: the head and the content of one that may be a disk, nothing of another.
    fn next(&mut self) -> Result<Option<(Vec<u8>, Content)>, WrappingError> {
        let mut block = [0; BLOCK];
        self.source.read_exact(&mut block).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() {
                return broken("it ends without a disk");
            }
            failed(error)
        })?;
        if block == [0; BLOCK] {
            return Err(WrappingError::refused(
                "the archive holds no disk, only text, links or directories",
            ));
        }
        let header = Header::parse(&block).ok_or_else(|| broken("an entry's header is invalid"))?;
        match header.kind {
            Kind::Pax => {
                let body = self.body(header.len, PAX_BYTES_MAX)?;
                self.pax =
                    Pax::parse(&body).ok_or_else(|| broken("an extended header is garbled"))?;
                return Ok(None);
            }
            Kind::LongName => {
                let body = self.body(header.len, NAME_BYTES_MAX)?;
                self.long_name = Some(text(&body).to_vec());
                return Ok(None);
            }
            Kind::File | Kind::SparseFile | Kind::Device | Kind::Other => {}
        }
        let pax = std::mem::take(&mut self.pax);
        let name = self.long_name.take().or_else(|| pax.name.clone());
        check_name(&name.unwrap_or_else(|| header.name()))?;
        let len = pax.len.unwrap_or(header.len);
        match header.kind {
            Kind::Device => Err(WrappingError::refused(
                "the archive holds a device node or a FIFO",
            )),
            Kind::SparseFile => {
                let (map, more, real_len) = header
                    .sparse()
                    .ok_or_else(|| broken("a map of holes is garbled"))?;
                let (map, _) = Map::read_old(map, more, &mut self.source).map_err(map_failed)?;
                filled(map, real_len, len).map(Some)
            }
            Kind::File if pax.sparse => self.pax_sparse(&pax, len).map(Some),
            Kind::File => self.file(len),
            _ => self.skip(padded(len)?).map(|()| None),
        }
    }

    fn pax_sparse(&mut self, pax: &Pax, len: u64) -> Result<(Vec<u8>, Content), WrappingError> {
        let (Some(1), Some(real_len)) = (pax.sparse_major, pax.sparse_len) else {
            return Err(WrappingError::refused(
                "the archive uses an old format for files with holes; make it with a newer tar",
            ));
        };
        let (map, read) = Map::read_pax(&mut self.source).map_err(map_failed)?;
        let stored = len
            .checked_sub(read)
            .ok_or_else(|| broken("a map of holes is too long"))?;
        filled(map, real_len, stored)
    }

    /// A regular file, if it may be a disk.
    fn file(&mut self, len: u64) -> Result<Option<(Vec<u8>, Content)>, WrappingError> {
        let mut head = vec![0; len.min(BLOCK as u64) as usize];
        self.source.read_exact(&mut head).map_err(failed)?;
        let rest = len - head.len() as u64;
        if may_be_disk(&head) {
            return Ok(Some((head, Content::Plain(rest))));
        }
        let padding = padded(len)? - len;
        self.skip(rest + padding).map(|()| None)
    }

    /// The content of a header-like entry.
    fn body(&mut self, len: u64, max: u64) -> Result<Vec<u8>, WrappingError> {
        if len > max {
            return Err(broken(format!("an extended header of {len} bytes")));
        }
        let mut body = vec![0; padded(len)? as usize];
        self.source.read_exact(&mut body).map_err(failed)?;
        body.truncate(len as usize);
        Ok(body)
    }

    fn skip(&mut self, len: u64) -> Result<(), WrappingError> {
        let skipped =
            io::copy(&mut self.source.by_ref().take(len), &mut io::sink()).map_err(failed)?;
        if skipped < len {
            return Err(broken("it ends without a disk"));
        }
        Ok(())
    }
}

fn map_failed(error: MapError) -> WrappingError {
    match error {
        MapError::Read(error) => failed(error),
        MapError::Broken(reason) => broken(reason),
    }
}

fn filled(map: Map, len: u64, stored: u64) -> Result<(Vec<u8>, Content), WrappingError> {
    if !map.fits(len, stored) {
        return Err(broken("a map of holes does not fit its file"));
    }
    Ok((vec![], Content::Sparse(Box::new(Filled::new(map, len)))))
}

/// Content and padding.
fn padded(len: u64) -> Result<u64, WrappingError> {
    len.checked_next_multiple_of(BLOCK as u64)
        .ok_or_else(|| broken(format!("an entry of {len} bytes")))
}

/// Names are never used as paths; but one that would leave the directory tells what kind of archive this is.
fn check_name(name: &[u8]) -> Result<(), WrappingError> {
    if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        let name = String::from_utf8_lossy(name);
        return Err(WrappingError::refused(format!(
            "the archive holds {name:?}, outside of itself"
        )));
    }
    Ok(())
}

/// Whether a file may be a disk, by its first block or all of it. Only a compressed disk is shorter than a sector.
fn may_be_disk(head: &[u8]) -> bool {
    let other = head.len() < BLOCK || is_text(head) || head.starts_with(&APPLE_DOUBLE);
    !other || Wrapping::detect(head).is_some()
}

/// Whether these may be the first bytes of a text, in UTF-8 or an older encoding: no control characters but white space.
fn is_text(head: &[u8]) -> bool {
    head.iter()
        .all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C | 0x1B | 0x20..=0x7E | 0x80..))
}

impl<R: Read> Read for Disk<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut len = self.head.read(buf)?;
        if len == 0 {
            len = match &mut self.content {
                Content::Plain(0) => 0,
                Content::Plain(rest) => {
                    let room = usize::try_from(*rest).unwrap_or(usize::MAX).min(buf.len());
                    let len = self.source.read(&mut buf[..room])?;
                    if len == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *rest -= len as u64;
                    len
                }
                Content::Sparse(filled) => filled.read(&mut self.source, buf)?,
            };
        }
        if len == 0 && !self.done {
            self.done = true;
            io::copy(&mut self.source, &mut io::sink())?;
        }
        Ok(len)
    }
}
