//! Reading a range page by page.

use super::{Key, KeyRange, MetaError, MetaStore, Value, key};

/// The rows of a range in ascending key order, some at a time. Each page is a snapshot of its own: what is committed between two
/// of them may be seen or not.
pub(crate) struct Pages<'a> {
    meta: &'a dyn MetaStore,
    rest: KeyRange,
    rows: usize,
}

impl<'a> Pages<'a> {
    /// Pages of up to `rows` rows.
    pub(crate) fn new(meta: &'a dyn MetaStore, range: KeyRange, rows: usize) -> Self {
        let rest = range;
        Self { meta, rest, rows }
    }

    /// The next page, which has a row at least; none behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(Key, Value)>>, MetaError> {
        let rows = self.meta.scan(&self.rest, self.rows).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(None);
        };
        self.rest = key::after(self.rest.clone(), last);
        Ok(Some(rows))
    }
}
