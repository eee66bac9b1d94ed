//! Emptying packs of which little is alive.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use dvcr_core::chunk::ChunkId;

use super::{GarbageCollector, mark, plan, plan::PackFacts};
use crate::{
    backend::PackId,
    meta::key,
    store::{
        PackContents, StoreError,
        pack::{Entry, RecordId},
    },
};

/// What sweeps came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Packs emptied and removed.
    pub packs: u64,
    /// Bytes given back to the device, less what was copied.
    pub freed_bytes: u64,
    /// Bytes copied for that.
    pub moved_bytes: u64,
    /// Packs that stay because of damage: pushing the same content again heals them.
    pub damaged: u64,
    /// Whether a sweep was not done because it would have removed more at once than is allowed.
    pub refused: bool,
    /// Packs that stay for want of room to move what is alive in them.
    pub full: u64,
}

/// What was said to be dead, and is said again unless a sweep ends well: also where it fails, or is cancelled.
struct LookedFor<'a> {
    hint: &'a AtomicU64,
    bytes: u64,
}

impl Drop for LookedFor<'_> {
    fn drop(&mut self) {
        self.hint.fetch_add(self.bytes, Relaxed);
    }
}

/// Bytes of the chunks among the entries that something refers to.
fn live_bytes(entries: &[Entry], alive: &HashSet<ChunkId>) -> u64 {
    let chunks = entries
        .iter()
        .filter(|entry| matches!(entry.header.id(), RecordId::Chunk(id) if alive.contains(&id)));
    chunks.map(|entry| entry.header.record_len() as u64).sum()
}

impl GarbageCollector {
    /// Empties packs until few dead bytes are left. With `force` also where that removes more at once than is allowed.
    pub async fn sweep(&self, force: bool) -> Result<Swept, StoreError> {
        let _one_at_a_time = self.sweeping.lock().await;
        if self.held_until_ms().await?.is_some() {
            tracing::info!("packs are held for a backup: not sweeping");
            return Ok(Swept::default());
        }
        let hint = &self.store.stats().maybe_dead_bytes;
        let mut looked_for = LookedFor {
            hint,
            bytes: hint.swap(0, Relaxed).max(1),
        };
        let swept = self.sweep_all(force).await?;
        if !swept.refused && swept.full == 0 {
            looked_for.bytes = 0;
        }
        Ok(swept)
    }

    async fn sweep_all(&self, force: bool) -> Result<Swept, StoreError> {
        self.store.rotate_packs().await?;
        let mut total = Swept::default();
        // What stays although it was chosen, so that it is not chosen for ever.
        let mut stuck: HashSet<PackId> = HashSet::new();
        loop {
            let mut facts = mark::facts(self.source()).await?;
            let dead = facts.iter().map(PackFacts::dead_bytes).sum();
            self.stats.dead_bytes.store(dead, Relaxed);
            self.store.pace().note_dead(dead);
            facts.retain(|pack| !stuck.contains(&pack.pack));
            let plan = plan::plan(facts, &self.options.limits);
            if plan.too_much && !force {
                self.stats.refused.fetch_add(1, Relaxed);
                tracing::warn!(
                    freed_bytes = plan.freed_bytes,
                    of_bytes = plan.bytes,
                    "garbage collection would remove more at once than is allowed; look at `dvcr gc plan`, and run `dvcr gc run --force` if that is what you want"
                );
                total.refused = true;
                return Ok(total);
            }
            if plan.victims.is_empty() {
                return Ok(total);
            }
            if self.held_until_ms().await?.is_some() {
                // What is left is for the first sweep after that.
                self.store.note_dead(1);
                return Ok(total);
            }
            let victims: Vec<_> = plan.victims.iter().map(|victim| victim.pack).collect();
            self.runs.sweeping(total, victims.len());
            total.full = 0;
            let emptied = self.empty(&victims, &mut total).await?;
            // What had no room may have it when others are gone.
            if total.full == 0 || emptied.is_empty() {
                stuck.extend(victims.iter().filter(|pack| !emptied.contains(pack)));
            }
        }
    }

    /// What lies in condemned packs. Those of which that cannot be told are counted, and named in the log.
    async fn list(
        &self,
        victims: &[PackId],
        total: &mut Swept,
    ) -> Result<Vec<(PackId, PackContents)>, StoreError> {
        let mut packs: Vec<(PackId, PackContents, String)> = Vec::with_capacity(victims.len());
        for pack in victims {
            let (contents, why) = match self.store.listed(*pack).await {
                Ok(contents) => {
                    let why = match contents.damage {
                        Some(damage) => damage.to_string(),
                        None => "rows lead beyond its end".to_owned(),
                    };
                    (contents, why)
                }
                Err(error) => {
                    tracing::warn!(%pack, error = &error as &dyn std::error::Error, "list a pack");
                    (PackContents::default(), "it cannot be read".to_owned())
                }
            };
            packs.push((*pack, contents, why));
        }
        // A footer knows all records; a walk knows those that are left. A crash may have torn the pack, or come when some of its room
        // or all of it had been given back. Then no row leads there.
        let walked = packs.iter().filter(|(_, contents, _)| !contents.has_footer);
        let walked: HashSet<PackId> = walked.map(|(pack, ..)| *pack).collect();
        let named = self.store.named_ends(&walked).await?;
        let mut listed = Vec::with_capacity(packs.len());
        for (pack, contents, why) in packs {
            if named
                .get(&pack)
                .is_none_or(|end| *end <= contents.listed_to())
            {
                listed.push((pack, contents));
                continue;
            }
            total.damaged += 1;
            self.stats.damaged_packs.fetch_add(1, Relaxed);
            tracing::error!(%pack, why, "a pack cannot be emptied");
        }
        Ok(listed)
    }

    /// Empties packs; returns those that are gone.
    async fn empty(
        &self,
        victims: &[PackId],
        total: &mut Swept,
    ) -> Result<HashSet<PackId>, StoreError> {
        let mut gone = HashSet::new();
        if !self.store.condemn(victims).await? {
            // One of them has changed since the plan; the next one knows.
            return Ok(gone);
        }
        // From here on nothing new refers to what lies in the victims: what is found now is all there is.
        let mut packs = self.list(victims, total).await?;
        let ids = packs.iter().flat_map(|(_, contents)| &contents.entries);
        let chunks: HashSet<ChunkId> = ids
            .filter_map(|entry| match entry.header.id() {
                RecordId::Chunk(id) => Some(id),
                _ => None,
            })
            .collect();
        let alive = mark::referenced(self.source(), &chunks).await?;
        // Those first that need the least room: what they give back is room for the others.
        packs.sort_by_cached_key(|(_, contents)| live_bytes(&contents.entries, &alive));
        for (pack, contents) in packs {
            let books = self.live_books(&contents.entries).await?;
            let emptied = self.store.empty(pack, &contents, |record| match record {
                RecordId::Chunk(id) => alive.contains(id),
                book => books.contains(book),
            });
            let emptied = match emptied.await {
                Err(StoreError::Full) => {
                    total.full += 1;
                    tracing::warn!(%pack, "no room to move what is alive in a pack; it is emptied when there is some");
                    continue;
                }
                emptied => emptied?,
            };
            total.moved_bytes += emptied.moved_bytes;
            self.stats
                .moved_bytes
                .fetch_add(emptied.moved_bytes, Relaxed);
            if emptied.damaged > 0 {
                total.damaged += 1;
                self.stats.damaged_packs.fetch_add(1, Relaxed);
                self.runs.sweeping(*total, 0);
                continue;
            }
            total.packs += 1;
            let freed = emptied.freed_bytes.saturating_sub(emptied.moved_bytes);
            total.freed_bytes += freed;
            self.stats.freed_bytes.fetch_add(freed, Relaxed);
            self.runs.sweeping(*total, 0);
            gone.insert(pack);
        }
        Ok(gone)
    }

    /// Which recipe parts and blob heads among the entries belong to recipes that still are.
    async fn live_books(&self, entries: &[Entry]) -> Result<HashSet<RecordId>, StoreError> {
        let books: Vec<(RecordId, _)> = entries
            .iter()
            .filter_map(|entry| match entry.header.id() {
                RecordId::Chunk(_) => None,
                id @ RecordId::RecipePart { recipe, part } => Some((id, key::recipe(recipe, part))),
                id @ RecordId::BlobHead { recipe } => Some((id, key::recipe(recipe, 0))),
            })
            .collect();
        let keys: Vec<_> = books.iter().map(|(_, key)| key.clone()).collect();
        let rows = self.meta.get(&keys).await?;
        let alive = books.into_iter().zip(rows).filter(|(_, row)| row.is_some());
        Ok(alive.map(|((id, _), _)| id).collect())
    }
}
