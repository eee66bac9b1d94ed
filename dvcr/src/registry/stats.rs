//! What is stored, what it would cost alone, what is shared.
//!
//! Counted by walking recipes, never kept in hot counters. Memory is bounded by sampling: past [`SAMPLE_CHUNKS`] chunks
//! only those are counted whose id starts with enough zero bits, and the sums are scaled; ids are hashes, so that is a
//! fair sample.

use std::collections::HashMap;

use dvcr_core::{
    chunk::ChunkId,
    oci::{Digest, RepositoryName},
};

use super::{
    Inner, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::{
    meta::{
        key,
        record::{BlobBody, BlobRecord, PackRecord, Record as _},
    },
    store::recipe::{Piece, RecipePart},
};

/// Chunks kept in memory at once: 64 MiB or so. Above that the sample is halved.
const SAMPLE_CHUNKS: usize = 1 << 20;

/// Rows read at once.
const PAGE: usize = 1000;

/// Sizes of a repository or of the whole registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of blobs.
    pub blobs: u64,
    /// Number of different chunks.
    pub chunks: u64,
    /// Bytes of all blobs, as clients see them.
    pub logical_bytes: u64,
    /// Bytes that its chunks take: what it would cost if nothing else were stored.
    pub stored_bytes: u64,
    /// Of those, bytes of chunks that other repositories use as well. Only for a repository.
    pub shared_bytes: Option<u64>,
    /// Bytes of all packs, what is not referred to any more included. Only for the whole registry.
    pub pack_bytes: Option<u64>,
    /// Whether chunks were sampled, so that their number and bytes are estimates.
    pub estimated: bool,
}

/// Chunks seen, with a bound on memory.
struct Sample {
    /// Whether the repository in question and whether any other uses the chunk, and its length.
    seen: HashMap<ChunkId, (bool, bool, u32)>,
    /// Ids are counted whose first `bits` bits are zero.
    bits: u32,
}

impl Sample {
    fn counts(&self, id: &ChunkId) -> bool {
        self.bits == 0
            || u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]).leading_zeros() >= self.bits
    }

    fn add(&mut self, id: ChunkId, len: u32, ours: bool) {
        if !self.counts(&id) {
            return;
        }
        let entry = self.seen.entry(id).or_insert((false, false, len));
        if ours {
            entry.0 = true;
        } else {
            entry.1 = true;
        }
        while self.seen.len() > SAMPLE_CHUNKS && self.bits < 32 {
            self.bits += 1;
            let kept: HashMap<_, _> = std::mem::take(&mut self.seen).into_iter().collect();
            self.seen = kept.into_iter().filter(|(id, _)| self.counts(id)).collect();
        }
    }
}

impl Registry {
    /// Sizes of a repository, or of everything.
    pub async fn stats(
        &self,
        who: &Principal,
        repository: Option<&RepositoryName>,
    ) -> Result<Stats, RegistryError> {
        let action = if repository.is_some() {
            Action::Pull
        } else {
            Action::Admin
        };
        policy::authorize(who, repository, action)?;
        let inner = &self.0;
        let Some(name) = repository else {
            let mut stats = inner.measure(Scope::All).await?.stats;
            stats.pack_bytes = Some(inner.pack_bytes().await?);
            return Ok(stats);
        };
        if !inner.repository_exists(name).await? {
            return Err(RegistryError::NameUnknown(name.clone()));
        }
        let Measured {
            mut stats,
            shared_bytes,
        } = inner.measure(Scope::Repository(name)).await?;
        stats.shared_bytes = Some(shared_bytes);
        Ok(stats)
    }
}

/// Which blobs are measured; all others are those that they share with.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    All,
    Repository(&'a RepositoryName),
    Blob(&'a Digest),
}

/// What blobs take and share.
pub(super) struct Measured {
    pub(super) stats: Stats,
    /// Of the stored bytes, those of chunks (and small blobs) that others use as well.
    pub(super) shared_bytes: u64,
}

impl Registry {
    /// Number of blobs, the sum of their lengths, and the bytes of all packs: what monitoring asks for every minute.
    /// Reads one row a blob and one a pack, never recipes.
    pub async fn sizes(&self) -> Result<(u64, u64, u64), RegistryError> {
        let inner = &self.0;
        let (mut blobs, mut bytes) = (0, 0);
        let mut pages = inner.pages(key::blobs(), PAGE);
        while let Some(rows) = pages.next().await? {
            blobs += rows.len() as u64;
            for (key, value) in &rows {
                bytes += BlobRecord::decode(key, value)?.len;
            }
        }
        Ok((blobs, bytes, inner.pack_bytes().await?))
    }
}

impl Inner {
    /// Measures blobs by a walk over all of them, when its turn comes.
    pub(super) async fn measure(&self, scope: Scope<'_>) -> Result<Measured, RegistryError> {
        let _turn = self.walks.turn().await?;
        let mut stats = Stats::default();
        let mut shared = 0;
        let mut sample = Sample {
            seen: HashMap::new(),
            bits: 0,
        };
        let all = key::blobs();
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, value) in &rows {
                let blob = BlobRecord::decode(key, value)?;
                let Ok(digest) = Digest::from_key(key::last_field(&all, key)) else {
                    continue;
                };
                let (ours, others) = self.users(&digest, scope).await?;
                if ours {
                    stats.blobs += 1;
                    stats.logical_bytes += blob.len;
                }
                match blob.body {
                    BlobBody::Inline if ours => {
                        stats.stored_bytes += blob.len;
                        shared += if others { blob.len } else { 0 };
                    }
                    BlobBody::Inline => {}
                    BlobBody::Recipe { id, parts } => {
                        for part in 0..parts {
                            self.sample_part(id, part, ours, others, &mut sample)
                                .await?;
                        }
                    }
                }
            }
        }
        shared += self.sum(&sample, &mut stats).await?;
        Ok(Measured {
            stats,
            shared_bytes: shared,
        })
    }

    /// Whether a blob is among the measured ones, and whether others use it.
    async fn users(
        &self,
        digest: &Digest,
        scope: Scope<'_>,
    ) -> Result<(bool, bool), RegistryError> {
        let name = match scope {
            Scope::All => return Ok((true, false)),
            Scope::Blob(wanted) => return Ok((digest == wanted, digest != wanted)),
            Scope::Repository(name) => name,
        };
        let holders = self.meta.scan(&key::holders(digest), 2).await?;
        let ours = self.get(&key::hold(name, digest)).await?.is_some();
        Ok((ours, holders.len() > usize::from(ours)))
    }

    async fn sample_part(
        &self,
        recipe: u64,
        part: u32,
        ours: bool,
        others: bool,
        sample: &mut Sample,
    ) -> Result<(), RegistryError> {
        let key = key::recipe(recipe, part);
        let Some(row) = self.get(&key).await? else {
            return Ok(());
        };
        for piece in RecipePart::decode(&key, &row)?.pieces {
            if let Piece::Chunk { id, len } = piece {
                if ours {
                    sample.add(id, len, true);
                }
                if others {
                    sample.add(id, len, false);
                }
            }
        }
        Ok(())
    }

    /// Adds up the chunks of a sample, scaled. Returns the bytes of those that are shared.
    async fn sum(&self, sample: &Sample, stats: &mut Stats) -> Result<u64, RegistryError> {
        let ours: Vec<_> = sample
            .seen
            .iter()
            .filter(|(_, (ours, _, _))| *ours)
            .collect();
        let (mut stored, mut shared) = (0, 0);
        for page in ours.chunks(PAGE) {
            let ids: Vec<_> = page.iter().map(|(id, _)| **id).collect();
            for (at, (_, (_, others, _))) in self.store.locations(&ids).await?.iter().zip(page) {
                stored += u64::from(at.stored_len);
                shared += if *others { u64::from(at.stored_len) } else { 0 };
            }
        }
        stats.chunks = (ours.len() as u64) << sample.bits;
        stats.stored_bytes += stored << sample.bits;
        stats.estimated = sample.bits > 0;
        Ok(shared << sample.bits)
    }

    async fn pack_bytes(&self) -> Result<u64, RegistryError> {
        // The row of an open pack does not know how long it is.
        let mut bytes = self.store.open_pack_bytes().await;
        let mut pages = self.pages(key::packs(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, value) in &rows {
                bytes += PackRecord::decode(key, value)?.bytes;
            }
        }
        Ok(bytes)
    }
}
