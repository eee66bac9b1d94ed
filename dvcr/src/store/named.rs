//! What rows say of packs, whatever the packs say of themselves.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use super::{Store, StoreError, pack::RECORD_HEADER_LEN};
use crate::{
    backend::PackId,
    blocking,
    meta::{
        MetaError, Pages, key,
        record::{ChunkRecord, PackRecord, PackState, Record as _},
    },
};

/// Rows read at once, some 60 bytes each.
const ROWS: usize = 4096;

/// The first offset behind a record.
pub(crate) fn record_end(at: &ChunkRecord) -> u64 {
    u64::from(at.offset) + RECORD_HEADER_LEN as u64 + u64::from(at.stored_len)
}

impl Store {
    /// Where the last record ends to which a chunk's row leads, for those of these packs to which one does. Reads the rows of
    /// all chunks.
    pub(crate) async fn named_ends(
        &self,
        packs: &HashSet<PackId>,
    ) -> Result<HashMap<PackId, u64>, MetaError> {
        let mut ends = HashMap::new();
        if packs.is_empty() {
            return Ok(ends);
        }
        let mut pages = Pages::new(&*self.meta, key::chunks(), ROWS);
        let mut slice = self.pace.slice();
        while let Some(rows) = pages.next().await? {
            for (row, value) in &rows {
                let at = ChunkRecord::decode(row, value)?;
                if packs.contains(&at.pack) {
                    let end = ends.entry(at.pack).or_default();
                    *end = record_end(&at).max(*end);
                }
            }
            slice.rest().await;
            slice = self.pace.slice();
        }
        Ok(ends)
    }

    /// How far a pack goes that may hold what rows name, by its row and by its file; 0 if one of them is not there.
    pub(crate) async fn pack_end(&self, pack: PackId) -> Result<u64, StoreError> {
        let packs = Arc::clone(&self.packs);
        let len = match blocking::run(move || packs.len(pack)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            len => len.map_err(|e| StoreError::io(format!("look at pack {pack}"), e))?,
        };
        let key = key::pack(pack);
        let Some(row) = self.meta.get_one(&key).await? else {
            return Ok(0);
        };
        let row = PackRecord::decode(&key, &row)?;
        Ok(match row.state {
            PackState::Open => len,
            PackState::Sealed | PackState::Condemned => len.min(row.bytes),
        })
    }
}
