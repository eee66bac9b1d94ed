//! Whether a blob's recipe and all of its chunks are there, and which recipe is its where packs have several.

use std::{collections::HashMap, sync::Arc};

use dvcr_core::{chunk::ChunkId, oci::Digest};

use super::Rebuild;
use crate::{
    blocking,
    meta::{
        Key, key,
        record::{ChunkRecord, Record as _},
    },
    repair::{RepairError, hash::digest_of},
    store::recipe::RecipePart,
};

/// Ways to put an ambiguous recipe together that are tried, each by reading the whole blob.
pub(super) const WAYS_MAX: usize = 64;

/// Why a blob does not come back.
enum Unfit {
    /// What is missing of it.
    Incomplete(String),
    /// Nobody knows.
    Unknown(RepairError),
}

impl<E: Into<RepairError>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Unknown(error.into())
    }
}

impl Rebuild {
    /// Where the parts of a recipe start, if all of them are there, follow one another to the blob's length, and all their
    /// chunks are there; otherwise what is missing. Which of several contents of a part is meant is decided by the digest.
    pub(super) async fn whole(
        &mut self,
        id: u64,
        parts: u32,
        len: u64,
        digest: &Digest,
    ) -> Result<Result<Vec<u64>, String>, RepairError> {
        let ambiguous = self.other_parts.range((id, 0)..=(id, u32::MAX)).count() > 0;
        let starts = match ambiguous {
            false => self.follow(id, parts, len).await,
            true => self.choose(id, parts, len, digest).await,
        };
        match starts {
            Ok(starts) => Ok(Ok(starts)),
            Err(Unfit::Incomplete(what)) => Ok(Err(what)),
            Err(Unfit::Unknown(error)) => Err(error),
        }
    }

    /// A part of a recipe, as it was found first.
    async fn part(&self, id: u64, n: u32) -> Result<RecipePart, Unfit> {
        let key = key::recipe(id, n);
        let row = self.meta.get_one(&key).await?;
        let row =
            row.ok_or_else(|| Unfit::Incomplete(format!("part {n} of its recipe is missing")))?;
        Ok(RecipePart::decode(&key, &row)?)
    }

    /// The starts of parts of which there is one content each.
    async fn follow(&self, id: u64, parts: u32, len: u64) -> Result<Vec<u64>, Unfit> {
        let lacks = |what: String| Err(Unfit::Incomplete(what));
        let mut starts = Vec::new();
        let mut end = 0;
        for n in 0..parts {
            let part = self.part(id, n).await?;
            if part.start != end {
                return lacks(format!("part {n} of its recipe starts elsewhere"));
            }
            if let Some(id) = self.missing_chunk(&part).await? {
                return lacks(format!("chunk {id} is missing"));
            }
            starts.push(part.start);
            end = part.end();
        }
        if end != len {
            return lacks("its recipe has another length".to_owned());
        }
        Ok(starts)
    }

    async fn missing_chunk(&self, part: &RecipePart) -> Result<Option<ChunkId>, RepairError> {
        let ids: Vec<ChunkId> = part.chunks().collect();
        let keys: Vec<Key> = ids.iter().map(key::chunk).collect();
        let rows = self.meta.get(&keys).await?;
        let missing = ids.iter().zip(rows).find(|(_, row)| row.is_none());
        Ok(missing.map(|(id, _)| *id))
    }

    /// Tries the contents of a recipe's parts until the blob has its digest, and keeps those.
    async fn choose(
        &mut self,
        id: u64,
        parts: u32,
        len: u64,
        digest: &Digest,
    ) -> Result<Vec<u64>, Unfit> {
        for way in self.ways(id, parts, len).await? {
            let mut at = HashMap::new();
            for chunk in way.iter().flat_map(RecipePart::chunks) {
                let key = key::chunk(&chunk);
                if let Some(row) = self.meta.get_one(&key).await? {
                    at.insert(chunk, ChunkRecord::decode(&key, &row)?);
                }
            }
            let (packs, algorithm) = (Arc::clone(&self.packs), digest.algorithm());
            let (way, found) = blocking::run(move || {
                let found = digest_of(&*packs, &way, algorithm, |id| at.get(id).copied());
                (way, found)
            })
            .await;
            if found != Some(*digest) {
                continue;
            }
            for (n, part) in (0..).zip(&way) {
                self.put(key::recipe(id, n), part.encode()).await?;
                self.other_parts.remove(&(id, n));
            }
            self.flush().await?;
            return Ok(way.iter().map(|part| part.start).collect());
        }
        let what = "no version of its recipe has its digest";
        Err(Unfit::Incomplete(what.to_owned()))
    }

    /// The ways to put a recipe of this length together whose chunks are all there.
    async fn ways(&self, id: u64, parts: u32, len: u64) -> Result<Vec<Vec<RecipePart>>, Unfit> {
        let mut ways: Vec<Vec<RecipePart>> = vec![Vec::new()];
        let end = |way: &[RecipePart]| way.last().map_or(0, RecipePart::end);
        for n in 0..parts {
            let mut contents = vec![self.part(id, n).await?];
            for other in self.other_parts.get(&(id, n)).into_iter().flatten() {
                contents.push(RecipePart::decode(&key::recipe(id, n), other)?);
            }
            let mut longer = Vec::new();
            for part in contents {
                if self.missing_chunk(&part).await?.is_some() {
                    continue;
                }
                for way in ways.iter().filter(|way| end(way) == part.start) {
                    if longer.len() < WAYS_MAX {
                        longer.push([&way[..], std::slice::from_ref(&part)].concat());
                    }
                }
            }
            ways = longer;
        }
        ways.retain(|way| end(way) == len);
        Ok(ways)
    }
}
