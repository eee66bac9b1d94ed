//! Bringing another registry's content into a running server.
//!
//! First a plan, by reading the source: repositories, their manifests with children before parents, their blobs, their tags. Then
//! the plan is carried out, with a bounded number of blobs at once: what the server has is skipped, a blob that it has in
//! another repository is mounted, the rest is sent, hashed on the way out and verified by the server. At the end every tag is
//! compared. So a run that was interrupted is simply run again, and a second run brings what changed since.
//!
//! The source is never written to. What is damaged there is named in the report and does not stop the rest. What is gone from
//! the source is not removed from the server.
//!
//! It reaches the server over HTTP only, like any other client.

mod blobs;
mod directory;
mod execute;
mod layout;
mod plan;
mod remote;
mod report;
mod sessions;
mod source;

use std::{path::PathBuf, sync::Arc};

use dvcr_client::Client;

use crate::registry::glob::RepositoryGlob;

pub use directory::Directory;
pub use plan::{ManifestPlan, Plan, RepositoryPlan};
pub use remote::Remote;
pub use report::{Counters, Failure, Report};
pub use source::{Source, SourceError};

/// What to bring over, and how.
#[derive(Debug)]
pub struct Options {
    /// Which repositories; all if there are none.
    pub repositories: Vec<RepositoryGlob>,
    /// Blobs under way at once, and manifests. At least 1.
    pub parallel: usize,
    /// Only make the plan.
    pub dry_run: bool,
    /// Where unfinished uploads are remembered for the next run; nowhere if there is none.
    pub sessions: Option<PathBuf>,
}

/// Why a migration ended early. What was brought over until then stays, and the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The source as a whole cannot be read.
    #[error("read the source")]
    Source(#[source] SourceError),
    /// The server is away, full, or does not permit it.
    #[error("what was brought over stays, run the same command again to go on")]
    Server(#[source] dvcr_client::Error),
}

/// Brings everything over. `counters` tell how it goes while it does.
pub async fn migrate(
    source: Source,
    server: &Client,
    options: &Options,
    counters: &Arc<Counters>,
) -> Result<Report, MigrateError> {
    let source = Arc::new(source);
    // Before hours of reading.
    if !options.dry_run {
        server.ping().await.map_err(MigrateError::Server)?;
    }
    source.ping().await.map_err(MigrateError::Source)?;
    let plan = plan::make(&source, &options.repositories, options.parallel, counters)
        .await
        .map_err(MigrateError::Source)?;
    if !options.dry_run {
        execute::run(&source, server, &plan, options, counters).await?;
    }
    Ok(report::make(&plan, counters, options.dry_run))
}
