//! What a repair brought back, and what it could not.

use std::fmt;

use dvcr_core::oci::{Digest, RepositoryName};
use serde::Serialize;

use super::FOUND_REPOSITORY;

/// Entries of a list that are printed for people; JSON has all of them.
const PRINTED_MAX: usize = 20;

/// The outcome of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The checkpoint that was used; none if there is no whole one.
    pub checkpoint: Option<UsedCheckpoint>,
    /// Newer checkpoints that could not be used.
    pub bad_checkpoints: Vec<BadCheckpoint>,
    /// Packs that were read.
    pub packs: u64,
    /// Bytes of their files.
    pub pack_bytes: u64,
    /// Different chunks in them.
    pub chunks: u64,
    /// Packs that could not be read, or only up to some point.
    pub damaged_packs: Vec<DamagedPack>,
    /// Repositories that are there again.
    pub repositories: u64,
    /// Manifests that are there again.
    pub manifests: u64,
    /// Tags that are there again.
    pub tags: u64,
    /// Blobs that are there again, small ones included.
    pub blobs: u64,
    /// Blobs that the checkpoint knows and that are not whole: deleted since then, or damaged.
    pub lost_blobs: Vec<LostBlob>,
    /// Whole blobs that the checkpoint does not know: pushed since then, or deleted before. They are in the repository
    /// `lost-and-found` for a while.
    pub found_blobs: Vec<FoundBlob>,
    /// Recipes without a whole blob: uploads that were going on and have to be begun anew, and deleted blobs.
    pub dropped_recipes: u64,
    /// Where the metadata that was there before is now.
    pub kept_aside: Option<String>,
}

/// A checkpoint that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UsedCheckpoint {
    /// Its number.
    pub number: u64,
    /// As of when it is, milliseconds since 1970: manifests, tags and deletions that are newer are unknown.
    pub created_ms: u64,
    /// Its rows.
    pub rows: u64,
}

/// A checkpoint that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadCheckpoint {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
}

/// A pack that could not be read in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedPack {
    /// The pack, as its file is called.
    pub pack: String,
    /// What is wrong with it.
    pub what: String,
}

/// A blob that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length, bytes.
    pub len: u64,
    /// What is missing of it.
    pub what: String,
    /// Repositories that held it.
    pub repositories: Vec<RepositoryName>,
    /// Manifests that refer to it. They are there, and cannot be pulled in full until the blob is pushed again.
    pub manifests: Vec<IncompleteManifest>,
}

/// A manifest that lacks a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncompleteManifest {
    /// Its repository.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A blob that no repository is known to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length, bytes.
    pub len: u64,
    /// When it was pushed, milliseconds since 1970.
    pub created_ms: u64,
}

impl RepairReport {
    /// Whether everything that is known of is there again.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.checkpoint.is_some() && self.lost_blobs.is_empty() && self.damaged_packs.is_empty()
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bad in &self.bad_checkpoints {
            writeln!(f, "checkpoint {} is not used: {}", bad.file, bad.what)?;
        }
        match &self.checkpoint {
            Some(used) => writeln!(
                f,
                "checkpoint {:016x}, taken {}: manifests, tags and deletions that are newer are not known",
                used.number,
                dvcr_openapi::Timestamp(used.created_ms),
            )?,
            None => writeln!(
                f,
                "no whole checkpoint: manifests, tags, small blobs and what repositories hold are lost"
            )?,
        }
        let verb = if self.dry_run { "would be" } else { "are" };
        writeln!(
            f,
            "{} repositories, {} manifests, {} tags and {} blobs {verb} there again, from {} chunks in {} packs",
            self.repositories, self.manifests, self.tags, self.blobs, self.chunks, self.packs
        )?;
        some(f, "packs are damaged", &self.damaged_packs, |f, pack| {
            writeln!(f, "  pack {}: {}", pack.pack, pack.what)
        })?;
        some(f, "blobs are lost", &self.lost_blobs, |f, blob| {
            writeln!(f, "  {} of {} bytes: {}", blob.digest, blob.len, blob.what)?;
            for manifest in blob.manifests.iter().take(PRINTED_MAX) {
                let IncompleteManifest {
                    repository,
                    digest,
                    tags,
                } = manifest;
                let tags = tags.join(", ");
                writeln!(f, "    {repository}@{digest} lacks it (tags: {tags})")?;
            }
            Ok(())
        })?;
        let title = format!(
            "blobs belong to no repository (pushed after the checkpoint, or deleted before); they are in {FOUND_REPOSITORY} for 7 days, where pushes of the same images find them"
        );
        some(f, &title, &self.found_blobs, |f, blob| {
            writeln!(f, "  {} of {} bytes", blob.digest, blob.len)
        })?;
        if self.dropped_recipes > 0 {
            writeln!(
                f,
                "{} uploads that were not finished, or deleted blobs, {verb} given up",
                self.dropped_recipes
            )?;
        }
        if let Some(path) = &self.kept_aside {
            writeln!(f, "the metadata that was there before is now {path}")?;
        }
        Ok(())
    }
}

/// Prints the first entries of a list that is not empty.
fn some<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: &[T],
    mut print: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "{} {title}:", items.len())?;
    for item in items.iter().take(PRINTED_MAX) {
        print(f, item)?;
    }
    if items.len() > PRINTED_MAX {
        writeln!(f, "  and {} more: see --json", items.len() - PRINTED_MAX)?;
    }
    Ok(())
}
