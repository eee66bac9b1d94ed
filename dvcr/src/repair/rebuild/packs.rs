//! Rows for what lies in packs.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use dvcr_core::chunk::ChunkId;

use super::{Progress, Rebuild, recipe::WAYS_MAX};
use crate::{
    backend::{PackBackend, PackId},
    blocking,
    meta::{
        Key, key,
        record::{ChunkRecord, PackRecord, PackState, Record as _},
    },
    repair::{RepairError, failed, hash::read_chunk},
    store::{
        Expected, PackContents, PackDamage, header_behind,
        pack::{BlobHead, Entry, RECORD_HEADER_LEN, RecordId, open_record},
        read_contents,
        recipe::RecipePart,
    },
};

/// Records of a pack looked at once, and bytes of recipes and blob heads among them.
const BATCH_ENTRIES: usize = 8_192;
const BATCH_BYTES: usize = 8 << 20;

impl Rebuild {
    pub(super) async fn read_packs(
        &mut self,
        is_sealed: &(dyn Fn(PackId) -> bool + Sync),
        progress: &mut dyn Progress,
    ) -> Result<(), RepairError> {
        let packs = Arc::clone(&self.packs);
        let list = blocking::run(move || packs.list()).await;
        let list = list.map_err(failed("list packs"))?;
        let count = list.len() as u64;
        for (n, pack) in list.into_iter().enumerate() {
            progress.at("packs", n as u64, count);
            self.next_pack = self.next_pack.max(pack.0 + 1);
            let packs = Arc::clone(&self.packs);
            let content = match blocking::run(move || read_contents(&*packs, pack)).await {
                Ok(content) => content,
                Err(error) => {
                    self.damaged(pack, format!("it cannot be read: {error}"));
                    continue;
                }
            };
            self.report.packs += 1;
            self.report.pack_bytes += content.len;
            let PackContents {
                len,
                mut entries,
                bad,
                has_footer,
                damage,
            } = content;
            let sealed = is_sealed(pack);
            let mut open = !sealed && !has_footer;
            if let Some(damage) = damage.filter(|_| sealed) {
                self.damaged(pack, damage.to_string());
            } else if let Some(PackDamage::Records { from, .. }) = damage {
                let packs = Arc::clone(&self.packs);
                let header = blocking::run(move || header_behind(&*packs, pack, from)).await;
                if let Ok(Some(at)) = header {
                    let what = format!(
                        "nothing can be read at offset {from}, and there are records from offset {at} on: \
                         none of it is used, and all of it is kept"
                    );
                    self.damaged(pack, what);
                    open = false;
                }
            }
            for offset in bad.iter().filter(|_| sealed) {
                self.damaged(
                    pack,
                    format!("record at offset {offset}: its bytes changed"),
                );
            }
            entries.retain(|entry| !bad.contains(&entry.offset));
            for batch in entries.chunks(BATCH_ENTRIES) {
                self.take_records(pack, batch).await?;
            }
            // The next start closes a pack that was being written: it cuts off what is torn at its end.
            let row = if open {
                PackRecord {
                    state: PackState::Open,
                    bytes: 0,
                    entries: 0,
                }
            } else {
                PackRecord {
                    state: PackState::Sealed,
                    bytes: len,
                    entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
                }
            };
            self.put(key::pack(pack), row.encode()).await?;
        }
        progress.at("packs", count, count);
        self.flush().await
    }

    /// Rows for some records of a pack.
    async fn take_records(&mut self, pack: PackId, entries: &[Entry]) -> Result<(), RepairError> {
        // What was put before may be looked up.
        self.flush().await?;
        let (packs, listed) = (Arc::clone(&self.packs), entries.to_vec());
        let chunks: Vec<(ChunkId, ChunkRecord)> = blocking::run(move || {
            let there = listed
                .iter()
                .filter(|entry| !is_released(&*packs, pack, entry));
            there
                .filter_map(|entry| match entry.header.id() {
                    RecordId::Chunk(id) => Some((id, Expected::listed(pack, entry).at)),
                    _ => None,
                })
                .collect()
        })
        .await;
        let keys: Vec<Key> = chunks.iter().map(|(id, _)| key::chunk(id)).collect();
        let known = self.meta.get(&keys).await?;
        let mut seen = HashSet::new();
        for (((id, at), key), row) in chunks.into_iter().zip(keys).zip(known) {
            let again = row.is_some() || seen.contains(&id);
            if again {
                let packs = Arc::clone(&self.packs);
                let good = blocking::run(move || read_chunk(&*packs, &id, &at).is_some()).await;
                if !good {
                    continue;
                }
            }
            if row.is_none() && seen.insert(id) {
                self.report.chunks += 1;
            }
            self.put(key, at.encode()).await?;
        }
        let mut books: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            if matches!(entry.header.id(), RecordId::Chunk(_)) {
                continue;
            }
            bytes += entry.header.record_len();
            books.push(*entry);
            if bytes >= BATCH_BYTES {
                self.take_books(pack, std::mem::take(&mut books)).await?;
                bytes = 0;
            }
        }
        self.take_books(pack, books).await
    }

    /// Recipe parts and blob heads.
    async fn take_books(&mut self, pack: PackId, entries: Vec<Entry>) -> Result<(), RepairError> {
        let packs = Arc::clone(&self.packs);
        let read = blocking::run(move || {
            let read = |entry: &Entry| -> Result<Option<Bytes>, String> {
                let bytes = packs
                    .read(pack, u64::from(entry.offset), entry.header.record_len())
                    .map_err(|e| e.to_string())?;
                // Moved, and its room given back, by garbage collection on a full device.
                if bytes.iter().all(|byte| *byte == 0) {
                    return Ok(None);
                }
                let (header, payload) = open_record(&bytes).map_err(|e| e.to_string())?;
                if header != entry.header {
                    return Err("another record than the footer says".to_owned());
                }
                Ok(Some(payload))
            };
            entries
                .into_iter()
                .map(|entry| (entry, read(&entry)))
                .collect::<Vec<_>>()
        })
        .await;
        for (entry, payload) in read {
            let id = entry.header.id();
            let done = match payload {
                Ok(Some(payload)) => self.take_book(id, payload).await?,
                Ok(None) => Ok(()),
                Err(what) => Err(what),
            };
            if let Err(what) = done {
                self.damaged(pack, format!("record at offset {}: {what}", entry.offset));
            }
        }
        Ok(())
    }

    async fn take_book(
        &mut self,
        id: RecordId,
        payload: Bytes,
    ) -> Result<Result<(), String>, RepairError> {
        match id {
            RecordId::Chunk(_) => {}
            RecordId::RecipePart { recipe, part } => {
                self.next_recipe = self.next_recipe.max(recipe.saturating_add(1));
                if let Err(what) = RecipePart::parse(&payload) {
                    return Ok(Err(format!("no recipe part: {what} expected")));
                }
                let key = key::recipe(recipe, part);
                self.flush().await?;
                match self.meta.get_one(&key).await? {
                    Some(known) if known == payload => {}
                    Some(_) => {
                        let others = self.other_parts.entry((recipe, part)).or_default();
                        if !others.contains(&payload) && others.len() < WAYS_MAX {
                            others.push(Bytes::copy_from_slice(&payload));
                        }
                    }
                    None => self.put(key, payload).await?,
                }
            }
            RecordId::BlobHead { recipe } => {
                self.next_recipe = self.next_recipe.max(recipe.saturating_add(1));
                match BlobHead::decode(&payload) {
                    Ok(head) if head.recipe == recipe => self.heads.push(head),
                    Ok(_) => return Ok(Err("a blob head of another recipe".to_owned())),
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
        }
        Ok(Ok(()))
    }
}

/// Whether garbage collection on a full device has given back the room of a record that nobody needed. No row may lead there:
/// the next push of its content would rely on it.
fn is_released(packs: &dyn PackBackend, pack: PackId, entry: &Entry) -> bool {
    let header = packs.read(pack, u64::from(entry.offset), RECORD_HEADER_LEN);
    header.is_ok_and(|header| header.iter().all(|byte| *byte == 0))
}
