//! Looking whether rows lead to where something lies: a pack knows only what is left of it.

use std::collections::{HashMap, hash_map::Entry};

use super::{ROWS, Scrubber};
use crate::{
    backend::PackId,
    meta::{
        Pages, key,
        record::{ChunkRecord, Record as _},
    },
    store::{StoreError, record_end},
};

impl Scrubber {
    /// Looks at the rows of all chunks: each leads to a pack that is there, and no further than that goes. What does not is a
    /// finding; its blobs are for [`settle`](Self::settle).
    pub(super) async fn check_rows(&self) -> Result<(), StoreError> {
        let mut ends: HashMap<PackId, u64> = HashMap::new();
        let mut pages = Pages::new(&*self.meta, key::chunks(), ROWS);
        let mut news = 0;
        let mut slice = self.store.pace().slice();
        while let Some(rows) = pages.next().await? {
            // Asked anew on this page.
            let mut fresh: HashMap<PackId, u64> = HashMap::new();
            for (row, value) in &rows {
                let at = ChunkRecord::decode(row, value)?;
                let end = record_end(&at);
                if ends.get(&at.pack).is_some_and(|known| end <= *known) {
                    continue;
                }
                // Since it was last asked, the pack may have come to be, or grown. One that went had lost its rows by then, so
                // whoever marks the chunk finds another row.
                let known = match fresh.entry(at.pack) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => *unknown.insert(self.store.pack_end(at.pack).await?),
                };
                ends.insert(at.pack, known);
                if end <= known {
                    continue;
                }
                let Some(id) = key::chunk_of(row) else {
                    continue;
                };
                let what = match known {
                    0 => "its pack is gone".to_owned(),
                    _ => format!("it ends at {end}, and its pack at {known}"),
                };
                news += u64::from(self.store.mark_chunk(&id, &at, &what).await?);
            }
            slice.rest().await;
            slice = self.store.pace().slice();
        }
        self.found(news);
        Ok(())
    }
}
