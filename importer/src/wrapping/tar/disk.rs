//! Finding the disk in an archive, and reading it.

use std::io::{self, Read};

use super::{
    BLOCK,
    entries::{Entries, EntryKind, broken, failed, normal},
};
use crate::{
    format::{Format, detect},
    wrapping::{Wrapping, WrappingError},
};

/// Most entries before the disk.
pub const ENTRIES_MAX: usize = 10_000;

/// Most disks that a message names.
const NAMED_MAX: usize = 16;

/// First bytes of a resource fork (AppleDouble), which macOS puts beside each file.
const APPLE_DOUBLE: [u8; 4] = [0, 5, 0x16, 7];

/// A file of an archive that may be a disk.
pub(super) struct Candidate {
    name: Vec<u8>,
    /// Length of the content, holes included.
    pub(super) len: u64,
    /// First bytes of the content, which were looked at.
    pub(super) head: Vec<u8>,
    /// Its first bytes are those of an image, or it has holes. Else it may as well be firmware's variables or a kernel.
    sure: bool,
}

/// Which file of an archive is wanted, and what was seen instead.
pub(super) struct Search {
    /// Its path, if somebody said.
    wanted: Option<Vec<u8>>,
    /// Files that may be disks: with [`Search::wanted`] those passed over, else the chosen one and its rivals.
    names: Vec<Vec<u8>>,
    /// Whether the chosen one is a disk for sure.
    sure: bool,
    entries: usize,
}

impl Search {
    pub(super) fn new(wanted: Option<&str>) -> Self {
        Self {
            wanted: wanted.map(|name| normal(name.as_bytes())),
            names: vec![],
            sure: false,
            entries: 0,
        }
    }

    /// Reads up to the next file that may be the disk.
    pub(super) fn next<R: Read>(
        &mut self,
        entries: &mut Entries<R>,
    ) -> Result<Option<Candidate>, WrappingError> {
        while let Some(entry) = entries.next()? {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(broken(format!(
                    "no disk among its first {ENTRIES_MAX} entries"
                )));
            }
            match entry.kind {
                EntryKind::Device => {
                    return Err(WrappingError::refused(
                        "the archive holds a device node or a FIFO",
                    ));
                }
                EntryKind::File => {}
                _ => continue,
            }
            let mut head = vec![];
            // What has holes is no text.
            if entries.is_plain() {
                entries
                    .by_ref()
                    .take(BLOCK as u64)
                    .read_to_end(&mut head)
                    .map_err(failed)?;
            }
            let candidate = Candidate {
                sure: !entries.is_plain() || is_image(&head),
                name: normal(&entry.name),
                len: entry.len,
                head,
            };
            match &self.wanted {
                Some(wanted) if *wanted == candidate.name => return Ok(Some(candidate)),
                None if candidate.may_be_disk() => return Ok(Some(candidate)),
                Some(_) if candidate.may_be_disk() && self.names.len() < NAMED_MAX => {
                    self.names.push(candidate.name);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Takes the first of the candidates.
    pub(super) fn choose(&mut self, chosen: &Candidate) {
        self.sure = chosen.sure;
        self.names = vec![chosen.name.clone()];
    }

    /// Whether the files behind the chosen one matter.
    pub(super) fn goes_on(&self) -> bool {
        self.wanted.is_none() && self.names.len() < NAMED_MAX
    }

    /// Looks at a candidate behind the chosen one. Beside an image, what is no image for sure is something else.
    pub(super) fn compare(&mut self, other: Candidate) {
        if other.sure || !self.sure && other.len.is_multiple_of(BLOCK as u64) {
            self.names.push(other.name);
        }
    }

    fn listed(&self) -> String {
        let names = self.names.iter().map(|name| String::from_utf8_lossy(name));
        let more = if self.names.len() == NAMED_MAX {
            ", ..."
        } else {
            ""
        };
        names.collect::<Vec<_>>().join(", ") + more
    }

    /// Why there is no disk.
    pub(super) fn absent(&self) -> WrappingError {
        let Some(wanted) = &self.wanted else {
            return WrappingError::refused(
                "the archive holds no disk, only text, links or directories",
            );
        };
        let wanted = String::from_utf8_lossy(wanted);
        WrappingError::refused(if self.names.is_empty() {
            format!("the archive has no file {wanted}, and no disk at all")
        } else {
            format!(
                "the archive has no file {wanted}; disks in it: {}",
                self.listed()
            )
        })
    }

    /// An error if there is more than one disk.
    pub(super) fn check(&self) -> Result<(), WrappingError> {
        if self.names.len() <= 1 {
            return Ok(());
        }
        Err(WrappingError::refused(format!(
            "the archive has several disks; choose one with --file: {}",
            self.listed()
        )))
    }
}

impl Candidate {
    /// By its first block or all of it. Only a compressed disk is shorter than a sector.
    fn may_be_disk(&self) -> bool {
        self.sure
            || self.head.len() == BLOCK
                && !is_text(&self.head)
                && !self.head.starts_with(&APPLE_DOUBLE)
    }
}

/// Whether a file begins like an image, or like what images are wrapped in.
fn is_image(head: &[u8]) -> bool {
    let image = detect(head, None).is_ok_and(|format| format != Format::Raw);
    image && head.len() == BLOCK || Wrapping::detect(head).is_some()
}

/// Whether these may be the first bytes of a text, in UTF-8 or an older encoding: no control characters but white space.
fn is_text(head: &[u8]) -> bool {
    head.iter()
        .all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C | 0x1B | 0x20..=0x7E | 0x80..))
}

/// The disk of an archive, as a stream. At its end the rest of the archive is read, too; a second disk there is an error.
pub struct Disk<R> {
    entries: Entries<R>,
    search: Search,
    /// First bytes of the content, which were looked at.
    head: io::Cursor<Vec<u8>>,
    done: bool,
}

impl<R: Read> Disk<R> {
    /// Reads up to the file of the name that is `wanted`, or to the first file that may be a disk.
    pub fn find(source: R, wanted: Option<&str>) -> Result<Self, WrappingError> {
        let mut entries = Entries::new(source);
        let mut search = Search::new(wanted);
        let Some(found) = search.next(&mut entries)? else {
            return Err(search.absent());
        };
        search.choose(&found);
        Ok(Self {
            entries,
            search,
            head: io::Cursor::new(found.head),
            done: false,
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.entries.may_end();
        while self.search.goes_on()
            && let Some(other) = self.search.next(&mut self.entries)?
        {
            self.search.compare(other);
        }
        self.search.check()?;
        self.entries.drain()
    }
}

impl<R: Read> Read for Disk<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut len = self.head.read(buf)?;
        if len == 0 && !self.done {
            len = self.entries.read(buf)?;
            if len == 0 {
                self.done = true;
                self.finish()?;
            }
        }
        Ok(len)
    }
}
