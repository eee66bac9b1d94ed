//! What scrubs do and have done, as operators see it.

use std::sync::atomic::AtomicU64;

use dvcr_core::oci::RepositoryName;

use crate::meta::record::ScrubRecord;

/// What was done and found, for metrics.
#[derive(Debug, Default)]
pub struct ScrubStats {
    /// Stored bytes read and verified since the start.
    pub bytes: AtomicU64,
    /// Blobs whose digest was compared since the start.
    pub blobs: AtomicU64,
    /// Damaged chunks, blobs and packs now.
    pub found_chunks: AtomicU64,
    /// See [`found_chunks`](Self::found_chunks).
    pub found_blobs: AtomicU64,
    /// See [`found_chunks`](Self::found_chunks).
    pub found_packs: AtomicU64,
    /// Findings that are gone since the start, because what was damaged was stored anew or removed.
    pub cleared: AtomicU64,
    /// When the last pass over all packs ended, milliseconds since 1970; 0 while there was none.
    pub full_pass_ms: AtomicU64,
}

/// Where a scrub that somebody asked for stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubState {
    /// It is reading.
    Running,
    /// It has read everything.
    Done,
    /// It ended with an error.
    Failed,
}

/// A scrub that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubRun {
    /// Its number, since the server started.
    pub id: u64,
    /// The repository whose blobs are read; none for all packs.
    pub repository: Option<RepositoryName>,
    /// Where it stands.
    pub state: ScrubState,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// Bytes read so far: stored ones of packs, or those of blobs.
    pub bytes: u64,
    /// Bytes that it has to read in all.
    pub of_bytes: u64,
    /// Damage that was not known before.
    pub found: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What scrubs are doing and have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes that the background reads in an hour; 0 if it is off.
    pub bytes_per_hour: u64,
    /// How far the background is.
    pub progress: ScrubRecord,
    /// The scrub that was asked for last.
    pub run: Option<ScrubRun>,
    /// Damaged chunks, blobs and packs.
    pub found: (u64, u64, u64),
}
