//! Garbage collection: what would it do, do it now, how far is it, why is this still here?

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// How to collect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GcRunRequest {
    /// Instead of `gc.grace` of the settings, for this run: how long ago something must have been deleted. 0 takes what was
    /// deleted just now. What a lease protects (a blob pushed, mounted or asked about within `lease`) and uploads in progress stay in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0)]
    pub grace_seconds: Option<u64>,
    /// Also where that removes more at once than `gc.removed_percent` of the settings allows, and most tags of a repository where
    /// retention rules keep none of these.
    pub force: bool,
}

/// Where a collection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GcRunState {
    /// Another one is going on.
    Waiting,
    /// It looks at blobs that nothing may refer to any more.
    Reviewing,
    /// It empties packs of which little is alive.
    Sweeping,
    /// It is over.
    Done,
    /// It is over, and packs were not emptied, because that would have removed more at once than is allowed.
    Refused,
    /// It ended with an error. The next one goes on.
    Failed,
}

impl GcRunState {
    /// Whether nothing more happens.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Refused | Self::Failed)
    }
}

/// What began a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GcTrigger {
    /// `gc.interval` of the settings.
    Interval,
    /// Somebody asked for it.
    Request,
    /// The device was full.
    Full,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcRun {
    /// Its number. Later ones have larger numbers.
    pub id: u64,
    /// What began it.
    pub trigger: GcTrigger,
    /// `grace_seconds` of the request.
    pub grace_seconds: Option<u64>,
    /// `force` of the request.
    pub force: bool,
    /// Where it stands.
    pub state: GcRunState,
    /// When it began; before that, when it was asked for.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What became of blobs.
    pub reviewed: GcReviewed,
    /// What became of packs. While it sweeps, so far.
    pub swept: GcSwept,
    /// Packs that it has chosen to empty so far; more may follow. It is done with `swept.packs` and `swept.damaged` of them.
    pub chosen_packs: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What reviews of blobs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcReviewed {
    /// Reviews that were due.
    pub reviews: u64,
    /// Blobs that a repository lost.
    pub unlinked: u64,
    /// Blobs that no repository held any more and that are gone.
    pub removed: u64,
    /// Length of those.
    pub removed_bytes: u64,
}

/// What a sweep of packs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcSwept {
    /// Packs emptied and removed.
    pub packs: u64,
    /// Bytes given back to the device, less what was copied.
    pub freed_bytes: u64,
    /// Bytes copied for that.
    pub moved_bytes: u64,
    /// Packs that stay because of damage: pushing the same content again heals them.
    pub damaged: u64,
}

/// What garbage collection is doing and has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcStatus {
    /// The collection that is going on.
    pub running: Option<GcRun>,
    /// Collections that wait for it.
    pub waiting: u64,
    /// The collection that ended last, since the server started.
    pub last: Option<GcRun>,
    /// Time between two collections.
    pub interval_seconds: u64,
    /// How long what was deleted stays.
    pub grace_seconds: u64,
    /// When the first of the reviews to come is or was due. Far in the past: collections do not keep up, or fail.
    pub next_review_at: Option<Timestamp>,
    /// Packs that are being emptied.
    pub condemned_packs: u64,
    /// What was done since the server started.
    pub since_start: GcTotals,
}

/// What was done in all collections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcTotals {
    /// Reviews looked at.
    pub reviews: u64,
    /// Blobs removed.
    pub removed_blobs: u64,
    /// Bytes given back to the device, less what was copied.
    pub freed_bytes: u64,
    /// Bytes copied for that.
    pub moved_bytes: u64,
    /// Packs that could not be emptied because of damage.
    pub damaged_packs: u64,
    /// Sweeps that were not done because they would have removed too much at once.
    pub refused: u64,
}

/// What a sweep of packs would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcPlan {
    /// Packs to empty, those first that free most for what must be copied; at most 64.
    pub victims: Vec<GcVictim>,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Of those, bytes of chunks that something refers to.
    pub live_bytes: u64,
    /// Bytes that the device gets back.
    pub freed_bytes: u64,
    /// Bytes that are copied for that.
    pub moved_bytes: u64,
    /// Whether this, and what is left for the next plan, removes more at once than is allowed: then nothing is done without
    /// `force`.
    pub too_much: bool,
}

/// A pack that would be emptied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcVictim {
    /// Name of the pack.
    pub pack: String,
    /// Length of its file.
    pub bytes: u64,
    /// Bytes of its chunks that something refers to.
    pub live_bytes: u64,
    /// An earlier collection began to empty it.
    pub condemned: bool,
}

/// Why something is still stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What was asked about.
    pub digest: String,
    /// Length of the blob; null if there is no such blob (any more).
    pub len: Option<u64>,
    /// Repositories that keep it, at most 20. None: it goes with the next collection.
    pub kept_by: Vec<Keeper>,
}

/// A repository that keeps a blob or manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keeper {
    /// The repository.
    pub repository: String,
    /// Until when it is protected though nothing may refer to it. Blobs only.
    pub lease_until: Option<Timestamp>,
    /// Manifests that refer to it, or the manifest itself; at most 20.
    pub manifests: Vec<Holder>,
}

/// A manifest that keeps something, and its tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// The manifest.
    pub digest: String,
    /// Its tags, at most 20.
    pub tags: Vec<String>,
}

impl Client {
    /// What garbage collection is doing and has done.
    pub async fn gc_status(&self) -> Result<GcStatus, Error> {
        self.call(Method::GET, "/api/v1/gc").answer().await
    }

    /// Begins a collection. Ask for it with [`Client::gc_run`] until it is over.
    pub async fn gc_start(&self, how: &GcRunRequest) -> Result<GcRun, Error> {
        self.call(Method::POST, "/api/v1/gc/runs")
            .json(how)
            .answer()
            .await
    }

    /// A collection: one that waits or goes on, or one of the history.
    pub async fn gc_run(&self, id: u64) -> Result<GcRun, Error> {
        self.call(Method::GET, &format!("/api/v1/gc/runs/{id}"))
            .answer()
            .await
    }

    /// Collections of the past that did something, failed or were asked for; the last first.
    pub async fn gc_runs(&self, page: &PageQuery) -> Result<Page<GcRun>, Error> {
        self.call(Method::GET, "/api/v1/gc/runs")
            .query(page)
            .answer()
            .await
    }

    /// What a sweep would do now.
    pub async fn gc_plan(&self) -> Result<GcPlan, Error> {
        self.call(Method::GET, "/api/v1/gc/plan").answer().await
    }

    /// Why a blob or manifest is still here.
    pub async fn gc_explain(&self, digest: &str) -> Result<Explanation, Error> {
        self.call(Method::GET, &format!("/api/v1/gc/explain/{digest}"))
            .answer()
            .await
    }
}
