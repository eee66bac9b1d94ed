//! How it goes, and what came of it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use dvcr_client::printable;
use serde::Serialize;

use super::Plan;

/// Most failures that are told one by one; all are counted.
const FAILURES_MAX: usize = 10_000;

/// Longest name that is told: every name that may be is shorter. A source may list anything.
const NAME_CHARS_MAX: usize = 300;

/// Longest reason that is told: paths may have 4,096 bytes.
const REASON_CHARS_MAX: usize = 5_000;

/// Something that did not come over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Failure {
    /// The repository, or the glob.
    pub repository: String,
    /// `blob DIGEST`, `manifest DIGEST`, `tag TAG`, `repository`, or `glob`: one that fits no repository.
    pub item: String,
    /// Why.
    pub reason: String,
}

impl Failure {
    pub(super) fn new(repository: &str, item: &str, reason: String) -> Self {
        Self {
            repository: printable(repository, NAME_CHARS_MAX),
            item: printable(item, NAME_CHARS_MAX),
            reason: printable(&reason, REASON_CHARS_MAX),
        }
    }
}

/// What has been done so far. Written by the migration, read by whoever shows it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of all blobs of the plan, each once. 0 while the plan is made.
    pub planned_bytes: AtomicU64,
    /// Blobs of the plan.
    pub planned_blobs: AtomicU64,
    /// Manifests found so far.
    pub planned_manifests: AtomicU64,
    /// Of the planned bytes, those of which the server has, or is getting, the blob.
    pub done_bytes: AtomicU64,
    /// Of the planned blobs, those that the server has.
    pub done_blobs: AtomicU64,
    /// Bytes of blobs read from the source.
    pub bytes_read: AtomicU64,
    /// Bytes of blobs that the server took.
    pub bytes_sent: AtomicU64,
    /// Blobs sent.
    pub blobs_sent: AtomicU64,
    /// Blobs that the server had elsewhere.
    pub blobs_mounted: AtomicU64,
    /// Blobs that the repository had.
    pub blobs_present: AtomicU64,
    /// Manifests sent.
    pub manifests_sent: AtomicU64,
    /// Manifests that the repository had, with all that they refer to.
    pub manifests_present: AtomicU64,
    /// Tags set.
    pub tags_set: AtomicU64,
    /// Tags found at the end to be what they are in the source.
    pub tags_verified: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(super) fn fail(&self, failure: Failure) {
        tracing::warn!(
            repository = failure.repository,
            item = failure.item,
            reason = failure.reason,
            "not brought over"
        );
        count(&self.failed, 1);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_MAX {
            failures.push(failure);
        }
    }
}

/// What came of a migration.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether only the plan was made.
    pub dry_run: bool,
    /// Repositories with manifests.
    pub repositories: u64,
    /// Manifests in them.
    pub manifests: u64,
    /// Tags in them.
    pub tags: u64,
    /// Blobs, each counted once.
    pub blobs: u64,
    /// Bytes of these blobs: what the source stores.
    pub source_bytes: u64,
    /// Bytes of blobs read from the source in this run.
    pub bytes_read: u64,
    /// Bytes of blobs that the server took in this run.
    pub bytes_sent: u64,
    /// Blobs sent in this run.
    pub blobs_sent: u64,
    /// Blobs that the server took over from another of its repositories in this run.
    pub blobs_mounted: u64,
    /// Blobs that the repository had before this run. Blobs of manifests that were there are not looked at.
    pub blobs_present: u64,
    /// Manifests sent in this run.
    pub manifests_sent: u64,
    /// Manifests that were there before this run.
    pub manifests_present: u64,
    /// Tags set in this run.
    pub tags_set: u64,
    /// Tags that have the source's digest at the end.
    pub tags_verified: u64,
    /// Number of failures.
    pub failed: u64,
    /// The failures, sorted, at most 10,000.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && (self.dry_run || self.tags_verified == self.tags)
    }
}

pub(super) fn make(plan: &Plan, counters: &Counters, dry_run: bool) -> Report {
    let manifests = || {
        plan.repositories
            .iter()
            .flat_map(|repository| &repository.manifests)
    };
    let mut failures = counters
        .failures
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    failures.sort_unstable();
    Report {
        dry_run,
        repositories: plan.repositories.len() as u64,
        manifests: manifests().count() as u64,
        tags: manifests().map(|manifest| manifest.tags.len() as u64).sum(),
        blobs: plan.blobs.len() as u64,
        source_bytes: plan.blob_bytes(),
        bytes_read: read(&counters.bytes_read),
        bytes_sent: read(&counters.bytes_sent),
        blobs_sent: read(&counters.blobs_sent),
        blobs_mounted: read(&counters.blobs_mounted),
        blobs_present: read(&counters.blobs_present),
        manifests_sent: read(&counters.manifests_sent),
        manifests_present: read(&counters.manifests_present),
        tags_set: read(&counters.tags_set),
        tags_verified: read(&counters.tags_verified),
        failed: read(&counters.failed),
        failures,
    }
}
