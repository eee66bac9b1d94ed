//! Entries of an archive, one after the other.

use std::io::{self, Read};

use super::{
    BLOCK,
    header::{Header, Kind, text},
    pax::{PAX_BYTES_MAX, Pax, PaxSparse},
    sparse::{Filled, Map, MapError},
};
use crate::wrapping::{Wrapping, WrappingError};

/// Longest name in an entry of its own, as Linux has it for paths.
const NAME_BYTES_MAX: u64 = 4096;

/// Most headers about one entry: name, link and extended header, and some to spare.
const HEADERS_MAX: usize = 16;

/// Reads an archive from its start. Reading gives the content of the entry that came last.
///
/// Names with `..` are refused, whatever they are wanted for: no archive of anything that is read here has them.
pub(crate) struct Entries<R> {
    /// Limited to what is stored of the current entry's content.
    source: io::Take<R>,
    content: Content,
    /// Bytes behind the content.
    padding: u64,
    /// Whether the archive may end without its end mark.
    may_end: bool,
}

/// One entry; its content comes out of [`Entries`].
#[derive(Debug)]
pub(crate) struct Entry {
    /// Name as it is spelled, in whatever encoding. Never a path until somebody checked it.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits, set-user-ID and the like included.
    pub(crate) mode: u32,
    /// Length of the content, holes included.
    pub(crate) len: u64,
}

/// What an entry is.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum EntryKind {
    File,
    Directory,
    /// With what it leads to.
    Symlink(Vec<u8>),
    /// With the name of an earlier entry.
    HardLink(Vec<u8>),
    /// A device node or a FIFO.
    Device,
    /// What has no place in a file system, such as global headers.
    Other,
}

enum Content {
    Plain,
    /// With holes.
    Sparse(Box<Filled>),
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source: source.take(0),
            content: Content::Plain,
            padding: 0,
            may_end: false,
        }
    }

    /// From here on the end mark may be missing, if nothing of an entry is.
    pub(super) fn may_end(&mut self) {
        self.may_end = true;
    }

    /// Bytes to the end of the content, and to the next header behind it.
    pub(super) fn rest(&self) -> (u64, u64) {
        (self.source.limit(), self.padding)
    }

    /// The next entry; `None` at the archive's end mark. An archive that ends without one is broken.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, WrappingError> {
        let (content, padding) = self.rest();
        self.content = Content::Plain;
        self.padding = 0;
        let whole = self.skip(content)? && (self.skip(padding)? || self.may_end);
        if !whole {
            return Err(broken("it ends early"));
        }
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        for i in 0..HEADERS_MAX {
            let mut block = [0; BLOCK];
            self.source.set_limit(BLOCK as u64);
            let read = self.source.read_exact(&mut block);
            if i == 0 && self.may_end && self.source.limit() == BLOCK as u64 && is_end(&read) {
                return Ok(None);
            }
            read.map_err(failed)?;
            if block == [0; BLOCK] {
                return Ok(None);
            }
            let header =
                Header::parse(&block).ok_or_else(|| broken("an entry's header is invalid"))?;
            match header.kind {
                Kind::Pax => {
                    let body = self.body(header.len, PAX_BYTES_MAX)?;
                    pax =
                        Pax::parse(&body).ok_or_else(|| broken("an extended header is garbled"))?;
                }
                Kind::LongName => {
                    let body = self.body(header.len, NAME_BYTES_MAX)?;
                    long_name = Some(text(&body).to_vec());
                }
                Kind::LongLink => {
                    let body = self.body(header.len, NAME_BYTES_MAX)?;
                    long_link = Some(text(&body).to_vec());
                }
                _ => {
                    let name = long_name.or_else(|| pax.name.clone());
                    let name = name.unwrap_or_else(|| header.name());
                    let link = long_link.or_else(|| pax.link.clone());
                    let link = link.unwrap_or_else(|| header.link());
                    return self.begin(&header, &pax, name, link).map(Some);
                }
            }
        }
        Err(broken("an entry has too many headers"))
    }

    /// Takes the stored content of what `header` describes into view.
    fn begin(
        &mut self,
        header: &Header<'_>,
        pax: &Pax,
        name: Vec<u8>,
        link: Vec<u8>,
    ) -> Result<Entry, WrappingError> {
        check_name(&name)?;
        let stored = match header.kind {
            // Whatever their length field says.
            Kind::Directory | Kind::Symlink | Kind::HardLink | Kind::Device => 0,
            _ => pax.len.unwrap_or(header.len),
        };
        self.padding = padded(stored)? - stored;
        self.source.set_limit(stored);
        let mut len = stored;
        let kind = match header.kind {
            Kind::SparseFile => {
                let (map, more, real_len) = header
                    .sparse()
                    .ok_or_else(|| broken("a map of holes is garbled"))?;
                // The rest of the map lies before what the header counts as content.
                self.source.set_limit(u64::MAX);
                let map = Map::read_old(map, more, &mut self.source).map_err(map_failed)?;
                self.source.set_limit(stored);
                len = self.with_holes(map, real_len, stored)?;
                EntryKind::File
            }
            Kind::File => {
                if let Some(sparse) = &pax.sparse {
                    len = self.pax_holes(sparse)?;
                }
                EntryKind::File
            }
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink => EntryKind::Symlink(link),
            Kind::HardLink => EntryKind::HardLink(link),
            Kind::Device => EntryKind::Device,
            _ => EntryKind::Other,
        };
        Ok(Entry {
            name,
            kind,
            mode: header.mode(),
            len,
        })
    }

    /// The same for a file whose extended header says that it has holes. Its length.
    fn pax_holes(&mut self, sparse: &PaxSparse) -> Result<u64, WrappingError> {
        let garbled = || broken("a map of holes is garbled");
        let map = match sparse.major {
            None | Some(0) => Map::of_parts(sparse.parts().ok_or_else(garbled)?),
            Some(1) => Map::read_pax(&mut self.source),
            Some(major) => {
                return Err(WrappingError::refused(format!(
                    "the archive has a file with holes in version {major} of that format; make it with `tar --sparse-version=1.0`",
                )));
            }
        };
        let len = sparse.len.ok_or_else(garbled)?;
        self.with_holes(map.map_err(map_failed)?, len, self.source.limit())
    }

    fn with_holes(&mut self, map: Map, len: u64, stored: u64) -> Result<u64, WrappingError> {
        if !map.fits(len, stored) {
            return Err(broken("a map of holes does not fit its file"));
        }
        self.content = Content::Sparse(Box::new(Filled::new(map, len)));
        Ok(len)
    }

    /// Whether the current entry's content lies in the archive as it is.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.content, Content::Plain)
    }

    /// Reads what is behind the current entry, so that whatever is around the archive was seen whole.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.source.set_limit(u64::MAX);
        io::copy(&mut self.source, &mut io::sink())?;
        self.source.set_limit(0);
        Ok(())
    }

    /// The content of a header-like entry.
    fn body(&mut self, len: u64, max: u64) -> Result<Vec<u8>, WrappingError> {
        if len > max {
            return Err(broken(format!("an extended header of {len} bytes")));
        }
        let padded = padded(len)?;
        let mut body = vec![0; padded as usize];
        self.source.set_limit(padded);
        self.source.read_exact(&mut body).map_err(failed)?;
        body.truncate(len as usize);
        Ok(body)
    }

    /// Whether there was so much.
    fn skip(&mut self, len: u64) -> Result<bool, WrappingError> {
        self.source.set_limit(len);
        let skipped = io::copy(&mut self.source, &mut io::sink()).map_err(failed)?;
        Ok(skipped == len)
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Sparse(filled) => filled.read(&mut self.source, buf),
            Content::Plain => {
                let len = self.source.read(buf)?;
                if len == 0 && self.source.limit() > 0 && !buf.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(len)
            }
        }
    }
}

pub(super) fn broken(reason: impl std::fmt::Display) -> WrappingError {
    WrappingError::broken(Wrapping::Tar, reason)
}

pub(super) fn failed(error: io::Error) -> WrappingError {
    WrappingError::from_io(Wrapping::Tar, error)
}

fn map_failed(error: MapError) -> WrappingError {
    match error {
        MapError::Read(error) => failed(error),
        MapError::Broken(reason) => broken(reason),
    }
}

fn is_end(read: &io::Result<()>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}

/// Content and padding.
fn padded(len: u64) -> Result<u64, WrappingError> {
    len.checked_next_multiple_of(BLOCK as u64)
        .ok_or_else(|| broken(format!("an entry of {len} bytes")))
}

/// A path without leading slashes, and without parts that mean nothing.
pub(crate) fn normal(name: &[u8]) -> Vec<u8> {
    let parts = name.split(|byte| *byte == b'/');
    let parts: Vec<_> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

/// Names that would leave the directory tell what kind of archive this is.
fn check_name(name: &[u8]) -> Result<(), WrappingError> {
    if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        let name = String::from_utf8_lossy(name);
        return Err(WrappingError::refused(format!(
            "the archive holds {name:?}, outside of itself"
        )));
    }
    Ok(())
}
