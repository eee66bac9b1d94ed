//! Reading a range page by page.

use super::{Key, KeyRange, MetaError, MetaStore, Value, key};

/// A page has no further row once it has so many bytes. Most pages are far below; documents, and what refers to them, have up to
/// 8 MiB a row, of which a thousand are not to be in memory.
const PAGE_BYTES: usize = 4 << 20;

/// The rows of a range in ascending key order, some at a time. Each page is a snapshot of its own: what is committed between two
/// of them may be seen or not.
pub(crate) struct Pages<'a> {
    meta: &'a dyn MetaStore,
    rest: KeyRange,
    rows: usize,
}

impl<'a> Pages<'a> {
    /// Pages of up to `rows` rows, fewer where these are long.
    pub(crate) fn new(meta: &'a dyn MetaStore, range: KeyRange, rows: usize) -> Self {
        let rest = range;
        Self { meta, rest, rows }
    }

    /// The next page, which has a row at least; none behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(Key, Value)>>, MetaError> {
        let rows = self
            .meta
            .scan_within(&self.rest, self.rows, PAGE_BYTES)
            .await?;
        let Some((last, _)) = rows.last() else {
            return Ok(None);
        };
        self.rest = key::after(self.rest.clone(), last);
        Ok(Some(rows))
    }
}
