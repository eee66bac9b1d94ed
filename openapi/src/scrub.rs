//! Scrub: is what is stored still what was written?

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubRunRequest {
    /// Only the blobs of this repository, each as a whole. Otherwise every sealed pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "vi/debian")]
    pub repository: Option<String>,
}

/// Where a scrub stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScrubRunState {
    /// It is reading.
    Running,
    /// It has read everything.
    Done,
    /// It ended with an error.
    Failed,
}

/// A scrub that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubRun {
    /// Its number since the server started.
    pub id: u64,
    /// The repository whose blobs are read; null for all packs.
    pub repository: Option<String>,
    /// Where it stands.
    pub state: ScrubRunState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Bytes read so far: stored ones of packs, or those of blobs.
    pub read_bytes: u64,
    /// About so many bytes it has to read in all.
    pub of_bytes: u64,
    /// Damage found that was not known before.
    pub found: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What scrubs are doing and have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubStatus {
    /// Bytes that are read in an hour in the background; 0 if that is off.
    pub bytes_per_hour: u64,
    /// Whether the background is in the middle of a pass over all packs.
    pub pass_in_progress: bool,
    /// When the last pass in the background began.
    pub pass_began_at: Option<Timestamp>,
    /// Stored bytes that it has read.
    pub pass_read_bytes: u64,
    /// When the last pass over all packs ended, in the background or asked for.
    pub last_full_pass_at: Option<Timestamp>,
    /// Stored bytes read in all scrubs.
    pub read_bytes: u64,
    /// The scrub that was asked for last, since the server started.
    pub run: Option<ScrubRun>,
    /// Chunks that are known to be damaged.
    pub damaged_chunks: u64,
    /// Blobs that are known to be damaged.
    pub damaged_blobs: u64,
    /// Packs that cannot be listed.
    pub damaged_packs: u64,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DamageKind {
    /// A blob. Pushing it again, to any repository, heals it.
    Blob,
    /// A chunk of some of the damaged blobs.
    Chunk,
    /// A pack that cannot be listed. What it holds is served where it reads right; garbage collection leaves it.
    Pack,
}

/// Damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubFinding {
    /// What is damaged.
    pub kind: DamageKind,
    /// Digest of the blob, id of the chunk or name of the pack.
    pub name: String,
    /// What is wrong, for people.
    pub what: String,
    /// When it was found.
    pub found_at: Timestamp,
    /// Repositories that hold the blob, at most 100.
    pub repositories: Vec<String>,
    /// The pack in which the chunk's record lies.
    pub pack: Option<String>,
    /// Offset of the chunk's record in the pack.
    pub offset: Option<u32>,
}

impl Client {
    /// What scrubs are doing and have done.
    pub async fn scrub_status(&self) -> Result<ScrubStatus, Error> {
        self.call(Method::GET, "/api/v1/scrub").answer().await
    }

    /// Begins to read and verify now. Ask with [`Client::scrub_status`] until its run is over.
    pub async fn scrub_start(&self, what: &ScrubRunRequest) -> Result<ScrubRun, Error> {
        self.call(Method::POST, "/api/v1/scrub/runs")
            .json(what)
            .answer()
            .await
    }

    /// What is known to be damaged: blobs, then chunks, then packs.
    pub async fn scrub_findings(&self, page: &PageQuery) -> Result<Page<ScrubFinding>, Error> {
        self.call(Method::GET, "/api/v1/scrub/findings")
            .query(page)
            .answer()
            .await
    }
}
