//! Scrubs as operators see them: start one, what is it doing, what is damaged and whose is it?

use std::sync::Arc;

use dvcr_core::{
    chunk::ChunkId,
    oci::{Digest, RepositoryName},
};

use super::{
    Page, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::{
    backend::PackId,
    gc::scrub::{ScrubRun, ScrubStatus, Scrubber},
    meta::{
        key::{self, Finding},
        record::{FindingRecord, Record as _},
    },
};

/// Most repositories that are named for a damaged blob.
const NAMED_MAX: usize = 100;

/// When a client that wants a scrub while another is going on should ask again.
const RETRY_SECONDS: u32 = 60;

/// Something damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDamage {
    /// What.
    pub damage: Damage,
    /// When it was found, milliseconds since 1970.
    pub found_ms: u64,
    /// What is wrong, for people.
    pub what: String,
}

/// What is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A blob: pushing it to any of its repositories heals it.
    Blob {
        /// Its digest.
        digest: Digest,
        /// Repositories that hold it, at most 100.
        repositories: Vec<RepositoryName>,
    },
    /// A chunk of some of the damaged blobs.
    Chunk {
        /// The chunk.
        id: ChunkId,
        /// The pack in which its record lies.
        pack: PackId,
        /// Offset of its record in the pack.
        offset: u32,
    },
    /// A pack that cannot be listed: what it holds that still reads right is served, but it is not emptied.
    Pack(PackId),
}

impl FoundDamage {
    /// Its place in the order of the list.
    #[must_use]
    pub fn position(&self) -> Vec<u8> {
        key::finding(&match &self.damage {
            Damage::Blob { digest, .. } => Finding::Blob(*digest),
            Damage::Chunk { id, .. } => Finding::Chunk(*id),
            Damage::Pack(pack) => Finding::Pack(*pack),
        })
    }
}

impl Registry {
    /// What looks for damage in this registry's storage.
    #[must_use]
    pub fn scrubber(&self) -> &Arc<Scrubber> {
        &self.0.scrubber
    }

    /// Begins to read and verify everything that is stored, or what a repository holds, at once and without a budget.
    pub async fn scrub_start(
        &self,
        who: &Principal,
        repository: Option<RepositoryName>,
    ) -> Result<ScrubRun, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        if let Some(name) = &repository
            && !self.0.repository_exists(name).await?
        {
            return Err(RegistryError::NameUnknown(name.clone()));
        }
        if repository.is_none() {
            // What is being written now is read, too.
            self.0.store.rotate_packs().await?;
        }
        let run = self.0.scrubber.start(repository).await?;
        let run = run.ok_or(RegistryError::TooMany {
            what: "scrubs at once",
            retry_after_seconds: RETRY_SECONDS,
        })?;
        let (scrubber, begun) = (Arc::clone(&self.0.scrubber), run.clone());
        tokio::spawn(async move {
            if let Err(error) = scrubber.finish(&begun).await {
                tracing::error!(error = &error as &dyn std::error::Error, "scrub");
            }
        });
        Ok(run)
    }

    /// What scrubs are doing and have done.
    pub async fn scrub_status(&self, who: &Principal) -> Result<ScrubStatus, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        Ok(self.0.scrubber.status().await?)
    }

    /// What is known to be damaged: blobs, then chunks, then packs. `after` is the position of the last one of the page before.
    pub async fn scrub_findings(
        &self,
        who: &Principal,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page<FoundDamage>, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let inner = &self.0;
        let mut range = key::findings();
        if let Some(after) = after {
            range = key::after(range, after);
        }
        let mut rows = inner.meta.scan(&range, limit + 1).await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let mut items = Vec::with_capacity(rows.len());
        for (row, value) in &rows {
            let found = FindingRecord::decode(row, value)?;
            let damage = match (key::finding_of(row), found.at) {
                (Some(Finding::Blob(digest)), _) => {
                    let holders = key::holders(&digest);
                    let rows = inner.meta.scan(&holders, NAMED_MAX).await?;
                    let name = |row: &[u8]| {
                        std::str::from_utf8(key::last_field(&holders, row))
                            .ok()?
                            .parse()
                            .ok()
                    };
                    Damage::Blob {
                        digest,
                        repositories: rows.iter().filter_map(|(row, _)| name(row)).collect(),
                    }
                }
                (Some(Finding::Chunk(id)), Some(at)) => Damage::Chunk {
                    id,
                    pack: at.pack,
                    offset: at.offset,
                },
                (Some(Finding::Pack(pack)), _) => Damage::Pack(pack),
                _ => continue,
            };
            items.push(FoundDamage {
                damage,
                found_ms: found.found_ms,
                what: found.what,
            });
        }
        Ok(Page { items, more })
    }
}
