//! Finding the disk in an archive, and reading it.

use std::io::{self, Read};

use super::{
    BLOCK,
    entries::{Entries, EntryKind, broken, failed},
};
use crate::wrapping::{Wrapping, WrappingError};

/// Most entries before the disk.
pub const ENTRIES_MAX: usize = 10_000;

/// First bytes of a resource fork (AppleDouble), which macOS puts beside each file.
const APPLE_DOUBLE: [u8; 4] = [0, 5, 0x16, 7];

/// The first disk of an archive, as a stream. At its end the rest of the archive is read, too.
pub struct Disk<R> {
    entries: Entries<R>,
    /// First bytes of the content, which were looked at.
    head: io::Cursor<Vec<u8>>,
    /// Length of the content.
    len: u64,
    done: bool,
}

impl<R: Read> Disk<R> {
    /// Reads up to the first file that may be a disk.
    pub fn find(source: R) -> Result<Self, WrappingError> {
        let mut entries = Entries::new(source);
        for _ in 0..ENTRIES_MAX {
            let Some(entry) = entries.next()? else {
                return Err(WrappingError::refused(
                    "the archive holds no disk, only text, links or directories",
                ));
            };
            match entry.kind {
                EntryKind::Device => {
                    return Err(WrappingError::refused(
                        "the archive holds a device node or a FIFO",
                    ));
                }
                EntryKind::File => {}
                _ => continue,
            }
            // What has holes is no text.
            let head_len = if entries.is_plain() { BLOCK } else { 0 };
            let mut head = vec![];
            entries
                .by_ref()
                .take(head_len as u64)
                .read_to_end(&mut head)
                .map_err(failed)?;
            if !entries.is_plain() || may_be_disk(&head) {
                return Ok(Self {
                    entries,
                    head: io::Cursor::new(head),
                    len: entry.len,
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
        self.entries
            .is_plain()
            .then_some((read - head_len, self.len))
    }
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
            len = self.entries.read(buf)?;
        }
        if len == 0 && !self.done {
            self.done = true;
            self.entries.drain()?;
        }
        Ok(len)
    }
}
