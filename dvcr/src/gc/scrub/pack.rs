//! Reading a pack, record by record.

use super::{Pace, ROWS, Scrubber};
use crate::{
    backend::PackId,
    gc::mark::each,
    meta::{
        key::{self, Finding},
        record::{ChunkRecord, PackRecord, PackState, Record as _},
    },
    store::{Bad, Expected, StoreError, pack::RecordId},
};

/// Stored bytes that are read and verified at once.
const BATCH_BYTES: u64 = 4 << 20;

impl Scrubber {
    /// Reads and verifies a pack; returns how many bytes. One that is gone meanwhile is none.
    pub(super) async fn scrub_pack(&self, pack: PackId, pace: Pace) -> Result<u64, StoreError> {
        let contents = self.store.contents(pack).await?;
        let Some(bytes) = self.sealed_bytes(pack).await? else {
            return Ok(0);
        };
        let (expected, damage): (Vec<Expected>, _) = match contents {
            Some(contents) => {
                let entries = contents.entries.iter();
                let expected = entries.map(|entry| Expected::listed(pack, entry));
                let damage = match contents.damage {
                    Some(damage) => Some(damage.to_string()),
                    // A file that was cut off between two records looks whole.
                    None if contents.len < bytes => {
                        Some(format!("it has {} bytes, and had {bytes}", contents.len))
                    }
                    None => None,
                };
                (expected.collect(), damage)
            }
            None => (Vec::new(), Some("its file is gone".to_owned())),
        };
        let expected = match &damage {
            None => expected,
            // What it says of itself is not all that there should be: rows know.
            Some(what) => {
                self.store.mark_pack(pack, what).await?;
                self.rows_of(pack).await?
            }
        };
        let mut read = 0;
        for batch in batches(&expected) {
            let Some(bad) = self.verified(pack, batch).await? else {
                return Ok(read);
            };
            self.note(bad).await?;
            let bytes = batch
                .iter()
                .map(|record| u64::from(record.at.stored_len))
                .sum();
            read += bytes;
            self.spend(bytes, pace).await;
        }
        Ok(read)
    }

    /// Which of some records are damaged. None if the pack went meanwhile because it was emptied.
    pub(super) async fn verified(
        &self,
        pack: PackId,
        batch: &[Expected],
    ) -> Result<Option<Vec<Bad>>, StoreError> {
        if let Some(bad) = self.store.verify_records(batch.to_vec()).await? {
            self.clear_good(batch, &bad).await?;
            return Ok(Some(bad));
        }
        if self.sealed_bytes(pack).await?.is_none() {
            return Ok(None);
        }
        let gone = |record: &Expected| Bad {
            id: record.id,
            at: record.at,
            what: "the pack's file is gone".to_owned(),
        };
        Ok(Some(batch.iter().map(gone).collect()))
    }

    /// What was found to be damaged and reads right now had a bad moment.
    async fn clear_good(&self, batch: &[Expected], bad: &[Bad]) -> Result<(), StoreError> {
        for record in batch {
            let RecordId::Chunk(id) = record.id else {
                continue;
            };
            let known = self.store.damaged().is_at(&id, &record.at);
            if !known || bad.iter().any(|bad| bad.id == record.id) {
                continue;
            }
            let finding = Finding::Chunk(id);
            if let Some((row, _)) = self.store.finding(&finding).await? {
                let about = Some(record.at.encode());
                if self.store.clear_finding(&finding, row, about).await? {
                    tracing::warn!(chunk = %id, "a chunk that was damaged reads right again");
                    self.store.damaged().note_healed();
                }
            }
        }
        Ok(())
    }

    pub(super) async fn note(&self, bad: Vec<Bad>) -> Result<(), StoreError> {
        let mut books = Vec::new();
        let mut news = 0;
        for Bad { id, at, what } in bad {
            match id {
                // A chunk that nothing leads to any more is no damage.
                RecordId::Chunk(id) => {
                    news += u64::from(self.store.mark_chunk(&id, &at, &what).await?);
                }
                book => books.push(book),
            }
        }
        let rewritten = self.store.rewrite_books(books).await?;
        if rewritten > 0 {
            tracing::warn!(
                records = rewritten,
                "damaged records of recipes were written anew"
            );
        }
        if news > 0 {
            self.found(news);
            self.settle().await?;
        }
        Ok(())
    }

    /// How long a pack is, if it is sealed.
    async fn sealed_bytes(&self, pack: PackId) -> Result<Option<u64>, StoreError> {
        let key = key::pack(pack);
        let row = self.meta.get_one(&key).await?;
        let row = row.map(|row| PackRecord::decode(&key, &row)).transpose()?;
        let sealed = row.filter(|row| row.state == PackState::Sealed);
        Ok(sealed.map(|row| row.bytes))
    }

    /// The chunks whose rows lead to a pack, ascending. Reads the rows of all chunks.
    async fn rows_of(&self, pack: PackId) -> Result<Vec<Expected>, StoreError> {
        let mut expected = Vec::new();
        each(self.source(), key::chunks(), ROWS, |row, value| {
            let at = ChunkRecord::decode(row, value)?;
            if at.pack == pack
                && let Some(id) = key::chunk_of(row)
            {
                let id = RecordId::Chunk(id);
                let header = None;
                expected.push(Expected { id, at, header });
            }
            Ok(())
        })
        .await?;
        expected.sort_unstable_by_key(|record| record.at.offset);
        Ok(expected)
    }
}

/// Records near each other, to be read at once.
fn batches(mut rest: &[Expected]) -> impl Iterator<Item = &[Expected]> {
    std::iter::from_fn(move || {
        let begin = u64::from(rest.first()?.at.offset);
        let near = |record: &&Expected| record.end() <= begin + BATCH_BYTES;
        let count = rest.iter().take_while(near).count().max(1);
        rest.split_off(..count)
    })
}
