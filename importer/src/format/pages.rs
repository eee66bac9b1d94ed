//! Metadata of an image, read through a bounded cache.

use std::{io, ops::Range, sync::Arc};

use quick_cache::sync::Cache;

use super::{
    Format, FormatError,
    limits::{PAGE_BYTES, PAGES},
};
use crate::source::ReadAt;

/// A source seen as pages of [`PAGE_BYTES`], of which the last used [`PAGES`] are kept.
pub(super) struct Pages {
    format: Format,
    source: Arc<dyn ReadAt>,
    cache: Cache<u64, Arc<[u8]>>,
}

impl Pages {
    pub(super) fn new(format: Format, source: Arc<dyn ReadAt>) -> Self {
        Self {
            format,
            source,
            cache: Cache::new(PAGES),
        }
    }

    pub(super) fn source(&self) -> &Arc<dyn ReadAt> {
        &self.source
    }

    /// An error about this image.
    pub(super) fn broken(&self, reason: impl Into<String>) -> FormatError {
        FormatError::broken(self.format, reason)
    }

    /// Checks that the source holds `what`, `len` bytes from `at` on.
    pub(super) fn check(&self, what: &str, at: u64, len: u64) -> Result<Range<u64>, FormatError> {
        match at.checked_add(len) {
            Some(end) if end <= self.source.len() => Ok(at..end),
            _ => Err(self.broken(format!(
                "{what} ({len} bytes at {at}) lies beyond the end ({} bytes)",
                self.source.len()
            ))),
        }
    }

    /// A structure of fixed length.
    pub(super) fn read<const N: usize>(&self, what: &str, at: u64) -> Result<[u8; N], FormatError> {
        self.check(what, at, N as u64)?;
        let mut bytes = [0; N];
        self.source.read_at(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Entries of `N` bytes of a table in the source, from `at` on: the first, and those after it in the same page, at most
    /// `count` of them. The table was checked to lie inside the source, and `count` is at least 1.
    ///
    /// `read` gets whole entries only, at least one.
    pub(super) fn entries<const N: usize, T>(
        &self,
        at: u64,
        count: u64,
        read: impl FnOnce(&[[u8; N]]) -> T,
    ) -> Result<T, FormatError> {
        let page = at / PAGE_BYTES as u64;
        let start = (at % PAGE_BYTES as u64) as usize;
        if start + N > PAGE_BYTES {
            // Astride two pages: no format aligns its tables so, but nothing forbids it either.
            return Ok(read(&[self.read("table entry", at)?]));
        }
        let bytes = self.page(page)?;
        let (entries, _) = bytes.get(start..).unwrap_or_default().as_chunks::<N>();
        let count = entries
            .len()
            .min(usize::try_from(count).unwrap_or(usize::MAX));
        if count == 0 {
            return Err(self.broken("a table ends early"));
        }
        Ok(read(&entries[..count]))
    }

    /// Checks that the source has room for all tables of `table_len` bytes that a directory names: one that names the same
    /// again and again would make a disk out of nothing. `count` entries of `N` bytes lie inside the source, from `at` on.
    pub(super) fn check_tables<const N: usize>(
        &self,
        at: u64,
        count: u64,
        table_len: u64,
        is_used: impl Fn(&[u8; N]) -> bool,
    ) -> Result<(), FormatError> {
        let room = self.source.len() / table_len;
        let (mut seen, mut used) = (0, 0);
        while seen < count {
            let (more, more_used) =
                self.entries(at + seen * N as u64, count - seen, |entries| {
                    let used = entries.iter().filter(|entry| is_used(entry));
                    (entries.len() as u64, used.count() as u64)
                })?;
            seen += more;
            used += more_used;
            if used > room {
                return Err(
                    self.broken("its directory names more tables than the file has room for")
                );
            }
        }
        Ok(())
    }

    fn page(&self, page: u64) -> Result<Arc<[u8]>, io::Error> {
        self.cache.get_or_insert_with(&page, || {
            let at = page * PAGE_BYTES as u64;
            let len = self.source.len().saturating_sub(at).min(PAGE_BYTES as u64);
            let mut bytes = vec![0; len as usize];
            self.source.read_at(at, &mut bytes)?;
            Ok(bytes.into())
        })
    }
}
