//! Making the metadata anew, from packs and the newest checkpoint: `dvcr repair`.
//!
//! Offline: the data directory is locked meanwhile. The new database is built beside the old one and takes its place in one
//! rename; the old one is kept under another name. So a repair that is broken off has changed nothing.
//!
//! **What comes from where.** Packs have chunks, recipes and blob heads. The newest whole checkpoint has the rest, as of when it
//! was taken. What the two do not agree on is decided so that nothing unreadable is promised: a blob is there only if its
//! whole recipe and all of its chunks are. [`rebuild`] has the rules.

mod hash;
mod rebuild;
mod report;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use rebuild::{Progress, Sources, rebuild};
pub use report::{
    BadCheckpoint, DamagedPack, FoundBlob, IncompleteManifest, LostBlob, RepairReport,
    UsedCheckpoint,
};

use crate::{
    backend::{PackId, file::FileBackend},
    checkpoint::{
        self,
        format::{CheckpointError, CheckpointReader},
    },
    clock::Clock,
    data_dir::{DataDir, DataDirError},
    meta::{
        MetaError,
        redb::{RedbMeta, RedbOptions},
    },
    store::StoreError,
};

/// The repository that holds blobs of which nobody knows whose they are.
pub const FOUND_REPOSITORY: &str = "lost-and-found";

/// How long blobs that no manifest refers to are protected after a repair: time for people to find out what is missing and to
/// push it again.
pub const GRACE_MS: u64 = 7 * 24 * 3600 * 1000;

/// Memory for pages of the database that is being built. Rows of chunks arrive in random order, so more is faster.
const CACHE_BYTES: usize = 512 << 20;

/// What an operator may say.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairOptions {
    /// Build the metadata, report, and throw it away.
    pub dry_run: bool,
    /// Also where the metadata that is there can be opened.
    pub force: bool,
}

/// Why there was no repair.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Nothing says that anything is wrong.
    #[error(
        "{} can be opened and may be sound: a repair would take back everything that is newer than the checkpoint. Say --force if \
         that is what you want",
        .0.display()
    )]
    NotNeeded(PathBuf),
    /// The file system says no.
    #[error("{what}")]
    Io {
        /// What was tried, in the present tense.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A checkpoint that was verified changed before it was read.
    #[error("read checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// Packs or metadata failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MetaError> for RepairError {
    fn from(error: MetaError) -> Self {
        Self::Store(error.into())
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RepairError {
    let what = what.into();
    move |source| RepairError::Io { what, source }
}

/// Makes the metadata of a data directory anew.
pub async fn repair(
    path: &Path,
    options: RepairOptions,
    clock: &dyn Clock,
    progress: &mut dyn Progress,
) -> Result<RepairReport, RepairError> {
    let data = DataDir::open_to_repair(path)?;
    let meta_path = data.meta_path();
    let there = fs::symlink_metadata(&meta_path).is_ok();
    if there && !options.force && !options.dry_run {
        match RedbMeta::open(&meta_path, &RedbOptions::default()) {
            Ok(meta) => {
                meta.close().await;
                return Err(RepairError::NotNeeded(meta_path));
            }
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the metadata cannot be opened"
            ),
        }
    }
    let new_path = meta_path.with_extension("redb.repaired");
    remove(&new_path)?;
    let packs = FileBackend::new(&data.packs_path(), 0).map_err(failed("open the packs"))?;
    let (checkpoint, bad_checkpoints) = newest_checkpoint(&data)?;
    let cache_bytes = CACHE_BYTES;
    let meta = Arc::new(RedbMeta::open(&new_path, &RedbOptions { cache_bytes })?);
    let packs_path = data.packs_path();
    let sources = Sources {
        packs: Arc::new(packs),
        // A file that may be written was not sealed: its end may be torn, and that is no damage.
        is_sealed: Box::new(move |pack: PackId| {
            fs::metadata(packs_path.join(format!("{pack}.pack")))
                .is_ok_and(|found| found.permissions().mode() & 0o222 == 0)
        }),
        checkpoint: checkpoint
            .map(|path| {
                let file = BufReader::with_capacity(1 << 20, File::open(path)?);
                CheckpointReader::new(Box::new(file) as Box<dyn Read + Send>)
            })
            .transpose()?,
    };
    let built = rebuild(sources, meta.clone(), clock.now_ms(), progress).await;
    meta.close().await;
    let mut report = match built {
        Ok(report) => report,
        Err(error) => {
            // The next repair would remove it in any case.
            let _ = fs::remove_file(&new_path);
            return Err(error);
        }
    };
    report.bad_checkpoints = bad_checkpoints;
    report.dry_run = options.dry_run;
    if options.dry_run {
        remove(&new_path)?;
        return Ok(report);
    }
    if there {
        let aside = meta_path.with_extension(format!("redb.damaged-{}", clock.now_ms()));
        // A second name rather than another one: at no time is there no metadata.
        fs::hard_link(&meta_path, &aside).map_err(failed("keep the old metadata aside"))?;
        report.kept_aside = Some(aside.display().to_string());
    }
    File::open(&new_path)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&new_path, &meta_path))
        .and_then(|()| File::open(data.path())?.sync_all())
        .map_err(failed("put the new metadata in its place"))?;
    Ok(report)
}

fn remove(path: &Path) -> Result<(), RepairError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// The newest checkpoint that is whole, and what is wrong with those that are newer.
fn newest_checkpoint(data: &DataDir) -> Result<(Option<PathBuf>, Vec<BadCheckpoint>), RepairError> {
    let mut bad = Vec::new();
    let all = checkpoint::list(&data.checkpoints_path()).map_err(failed("list checkpoints"))?;
    for (_, path) in all.into_iter().rev() {
        match checkpoint::open(&path).and_then(|reader| reader.verify()) {
            Ok(_) => return Ok((Some(path), bad)),
            Err(error) => bad.push(BadCheckpoint {
                file: path.display().to_string(),
                what: error.to_string(),
            }),
        }
    }
    Ok((None, bad))
}
