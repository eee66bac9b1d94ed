//! How many bytes nothing else shares with what is deleted.

use std::collections::{BTreeMap, BTreeSet};

use dvcr_core::oci::{Digest, Manifest, RepositoryName};

use super::{
    Deletion,
    plan::{Leaving, Whole},
};
use crate::{
    meta::{
        key,
        record::{BlobBody, BlobRecord, ManifestRecord},
    },
    registry::{Inner, RegistryError},
};

/// Most blobs whose bytes are counted: 64 MiB or so of memory.
const BLOBS_MAX: usize = 1 << 20;

/// Rows read at once.
const PAGE: usize = 1_000;

impl Inner {
    /// Adds the blobs that go with what leaves, and what they alone take.
    pub(super) async fn measure_deletion(
        &self,
        leaving: &[Leaving],
        deletion: &mut Deletion,
    ) -> Result<(), RegistryError> {
        let Ok(_turn) = self.walks.turn().await else {
            // What is to go goes; only its bytes are not told.
            tracing::debug!("too many walks to count the bytes of a deletion");
            return Ok(());
        };
        // Blobs that repositories lose, and how many of these do.
        let mut lost: BTreeMap<Digest, usize> = BTreeMap::new();
        for repository in leaving {
            for digest in self.lost_blobs(repository).await? {
                *lost.entry(digest).or_default() += 1;
            }
            if lost.len() > BLOBS_MAX {
                tracing::debug!("too many blobs to count their bytes");
                return Ok(());
            }
        }
        let (mut recipes, mut bytes) = (BTreeMap::new(), 0);
        for (digest, losing) in lost {
            let holders = self.meta.scan(&key::holders(&digest), losing + 1).await?;
            let blob = self.get_record::<BlobRecord>(&key::blob(&digest)).await?;
            let (Some(blob), true) = (blob, holders.len() <= losing) else {
                continue;
            };
            deletion.blobs += 1;
            deletion.logical_bytes += blob.len;
            match blob.body {
                BlobBody::Inline => bytes += blob.len,
                BlobBody::Recipe { id, parts } => drop(recipes.insert(id, parts)),
            }
        }
        if !recipes.is_empty() {
            bytes += self.gc.exclusive_bytes(&recipes).await?;
        }
        deletion.freed_bytes = Some(bytes);
        Ok(())
    }

    /// Blobs of the repository that nothing there refers to afterwards.
    async fn lost_blobs(&self, leaving: &Leaving) -> Result<BTreeSet<Digest>, RegistryError> {
        let mut lost = BTreeSet::new();
        if leaving.whole == Whole::Yes {
            self.each_hold(&leaving.name, |digest| {
                if lost.len() <= BLOBS_MAX {
                    lost.insert(digest);
                }
            })
            .await?;
            return Ok(lost);
        }
        let manifests = leaving.manifests.iter().chain(&leaving.root);
        let gone: BTreeSet<Digest> = manifests.copied().collect();
        for digest in &gone {
            let key = key::manifest(&leaving.name, digest);
            let Some(row) = self.get_record::<ManifestRecord>(&key).await? else {
                continue;
            };
            for blob in Manifest::parse(Some(&row.media_type), &row.bytes)?.blobs() {
                let lose = !lost.contains(&blob.digest)
                    && self
                        .only_referred_by(&leaving.name, &blob.digest, &gone)
                        .await?;
                if lose && lost.len() <= BLOBS_MAX {
                    lost.insert(blob.digest);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(lost)
    }

    /// Calls `visit` with every blob that a repository holds.
    pub(super) async fn each_hold(
        &self,
        name: &RepositoryName,
        mut visit: impl FnMut(Digest),
    ) -> Result<(), RegistryError> {
        let all = key::holds(name);
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            let digests = rows
                .iter()
                .filter_map(|(row, _)| Digest::from_key(key::last_field(&all, row)).ok());
            digests.for_each(&mut visit);
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
