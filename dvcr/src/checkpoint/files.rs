//! The files: writing one, keeping the newest, finding the newest that is whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::sync::Mutex;

use super::format::{CheckpointError, CheckpointHeader, CheckpointReader, CheckpointWriter};
use crate::{
    blocking,
    clock::Clock,
    meta::{MetaError, MetaSnapshot, MetaStore, key},
};

const EXTENSION: &str = ".checkpoint";
/// A file of this name is left from a checkpoint that was cut short.
const NEW: &str = "checkpoint.new";

/// Buffer for writing and reading.
const BUFFER_BYTES: usize = 1 << 20;

/// Room on the device is looked at each time so many bytes were written.
const ROOM_BYTES: u64 = 16 << 20;

/// Beside the newest checkpoints one stays that is older than this, and the one that will take its place. A server that is started
/// again and again, on metadata that is not what it was, takes a checkpoint each time: there is a day to notice.
const PAST_MS: u64 = 24 * 3600 * 1000;

/// Why no checkpoint was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The file cannot be written.
    #[error("write checkpoint in {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The metadata cannot be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// A checkpoint that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Its number; the file has it as its name, in 16 hexadecimal digits.
    pub number: u64,
    /// As of when its rows are, milliseconds since 1970.
    pub created_ms: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What was done since the start, for metrics.
#[derive(Debug, Default)]
pub struct CheckpointStats {
    /// Checkpoints taken.
    pub taken: AtomicU64,
    /// Checkpoints that failed.
    pub failed: AtomicU64,
    /// As of when the newest one is, milliseconds since 1970; 0 while there is none.
    pub newest_ms: AtomicU64,
    /// Bytes of the newest one.
    pub newest_bytes: AtomicU64,
}

/// The checkpoints of one data directory.
pub struct Checkpoints {
    dir: PathBuf,
    meta: Arc<dyn MetaStore>,
    clock: Arc<dyn Clock>,
    keep: usize,
    reserve_bytes: u64,
    stats: Arc<CheckpointStats>,
    /// Held while one is written; two at once would take the same number.
    taking: Mutex<()>,
}

impl Checkpoints {
    /// Checkpoints in `dir`, of which the newest `keep` stay, and one or two of the past ([`PAST_MS`]). One that would leave less than half of `reserve_bytes` on the
    /// device is given up: that room is for the metadata, without which nothing can be deleted.
    #[must_use]
    pub fn new(
        dir: PathBuf,
        meta: Arc<dyn MetaStore>,
        clock: Arc<dyn Clock>,
        keep: usize,
        reserve_bytes: u64,
    ) -> Self {
        let stats = CheckpointStats::default();
        // A file that is not whole is found out by who uses it.
        if let Some((_, path)) = list(&dir).unwrap_or_default().pop()
            && let Ok(created_ms) = created_ms(&path)
        {
            stats.newest_ms.store(created_ms, Relaxed);
            let len = fs::metadata(&path).map_or(0, |found| found.len());
            stats.newest_bytes.store(len, Relaxed);
        }
        Self {
            dir,
            meta,
            clock,
            keep: keep.max(1),
            reserve_bytes,
            stats: Arc::new(stats),
            taking: Mutex::new(()),
        }
    }

    /// What was done since the start.
    #[must_use]
    pub fn stats(&self) -> &Arc<CheckpointStats> {
        &self.stats
    }

    /// How long until the next checkpoint is due where one is taken in each interval: not at each start.
    #[must_use]
    pub fn due_in(&self, interval: Duration) -> Duration {
        let newest_ms = self.stats.newest_ms.load(Relaxed);
        let age_ms = self.clock.now_ms().saturating_sub(newest_ms);
        interval.saturating_sub(Duration::from_millis(age_ms))
    }

    /// Writes a checkpoint of the rows as they are now, and removes those that are too many.
    ///
    /// The rows come from one read transaction, which holds back the pages of the metadata that are replaced meanwhile: about
    /// a second for each million rows, and pushes go on.
    pub async fn take(&self) -> Result<Checkpoint, TakeError> {
        let _one_at_a_time = self.taking.lock().await;
        let taken = self.write().await;
        match &taken {
            Ok(checkpoint) => {
                self.stats.taken.fetch_add(1, Relaxed);
                self.stats.newest_ms.store(checkpoint.created_ms, Relaxed);
                self.stats.newest_bytes.store(checkpoint.bytes, Relaxed);
            }
            Err(_) => {
                self.stats.failed.fetch_add(1, Relaxed);
            }
        }
        taken
    }

    async fn write(&self) -> Result<Checkpoint, TakeError> {
        // Before the snapshot: what is in it is as of then or later.
        let created_ms = self.clock.now_ms();
        let snapshot = self.meta.snapshot().await?;
        let (dir, keep, reserve) = (self.dir.clone(), self.keep, self.reserve_bytes);
        blocking::run(move || {
            create_dir(&dir).map_err(failed(&dir))?;
            let numbers = list(&dir).map_err(failed(&dir))?;
            let number = numbers.last().map_or(1, |(number, _)| number + 1);
            let header = CheckpointHeader { number, created_ms };
            let written = write(&dir, &header, &*snapshot, reserve);
            if written.is_err() {
                // What is left of it would only take room; the next one overwrites it in any case.
                let _ = fs::remove_file(dir.join(NEW));
            }
            let checkpoint = written?;
            if let Err(error) = prune(&dir, keep, created_ms) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "remove old checkpoints"
                );
            }
            Ok(checkpoint)
        })
        .await
    }
}

fn failed(dir: &Path) -> impl Fn(io::Error) -> TakeError {
    let path = dir.to_owned();
    move |source| TakeError::Io {
        path: path.clone(),
        source,
    }
}

fn write(
    dir: &Path,
    header: &CheckpointHeader,
    snapshot: &dyn MetaSnapshot,
    reserve_bytes: u64,
) -> Result<Checkpoint, TakeError> {
    let failed = failed(dir);
    let new = dir.join(NEW);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // Like the metadata: whoever else may enter the directory shall not read names of images.
        .mode(0o600)
        .open(&new)
        .map_err(&failed)?;
    let out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut writer = CheckpointWriter::new(out, header).map_err(&failed)?;
    let mut broken: Option<io::Error> = None;
    let mut looked_at = 0;
    check_room(dir, reserve_bytes).map_err(&failed)?;
    for range in key::checkpointed() {
        snapshot.each(&range, &mut |key, value| {
            let mut put = writer.row(key, value);
            if put.is_ok() && writer.bytes() - looked_at >= ROOM_BYTES {
                looked_at = writer.bytes();
                put = check_room(dir, reserve_bytes);
            }
            match put {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    broken = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = broken {
            return Err(failed(error));
        }
    }
    let (out, sums) = writer.finish().map_err(&failed)?;
    let name = dir.join(format!("{:016x}{EXTENSION}", header.number));
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&new, name))
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(&failed)?;
    Ok(Checkpoint {
        number: header.number,
        created_ms: header.created_ms,
        rows: sums.rows,
        bytes: sums.bytes,
    })
}

fn check_room(dir: &Path, reserve_bytes: u64) -> io::Result<()> {
    let found = rustix::fs::statvfs(dir)?;
    if found.f_bavail.saturating_mul(found.f_frsize) < reserve_bytes / 2 {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "no room beside the reserve for metadata",
        ));
    }
    Ok(())
}

/// Removes all but the newest, and those of the past that stay.
fn prune(dir: &Path, keep: usize, now_ms: u64) -> io::Result<()> {
    let all = list(dir)?;
    let old = &all[..all.len().saturating_sub(keep)];
    // One whose age cannot be read is none to go back to.
    let aged = all.iter().filter_map(|(number, path)| {
        let age_ms = now_ms.saturating_sub(created_ms(path).ok()?);
        Some((*number, age_ms >= PAST_MS))
    });
    let (past, recent): (Vec<_>, Vec<_>) = aged.partition(|(_, is_past)| *is_past);
    let stays = [past.last(), recent.first()].map(|kept| kept.map(|(number, _)| *number));
    for (number, path) in old {
        if !stays.contains(&Some(*number)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// As of when a checkpoint is, milliseconds since 1970.
fn created_ms(path: &Path) -> Result<u64, CheckpointError> {
    Ok(CheckpointReader::new(File::open(path)?)?
        .header()
        .created_ms)
}

fn create_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => Ok(()),
        Ok(()) => match dir.parent() {
            Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
            _ => Ok(()),
        },
    }
}

/// The checkpoints in a directory, oldest first; none if it is absent. Other files are left alone.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(parse_name) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == 16 && digits.bytes().all(lower_hex))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Opens a checkpoint to be read.
pub(crate) fn open(path: &Path) -> Result<CheckpointReader<BufReader<File>>, CheckpointError> {
    let file = File::open(path)?;
    CheckpointReader::new(BufReader::with_capacity(BUFFER_BYTES, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        meta::{Txn, Value, memory::MemoryMeta},
    };

    const HOUR_MS: u64 = 3600 * 1000;

    fn checkpoints(dir: &Path, meta: &Arc<MemoryMeta>, keep: usize) -> Checkpoints {
        at(5, dir, meta, keep)
    }

    fn at(now_ms: u64, dir: &Path, meta: &Arc<MemoryMeta>, keep: usize) -> Checkpoints {
        let clock = Arc::new(ManualClock::new(now_ms));
        Checkpoints::new(dir.join("checkpoints"), meta.clone(), clock, keep, 0)
    }

    fn numbers(files: &Checkpoints) -> Vec<u64> {
        let left = list(&files.dir).unwrap();
        left.into_iter().map(|(number, _)| number).collect()
    }

    fn put(meta: &MemoryMeta, key: Vec<u8>) {
        let txn = Txn {
            puts: vec![(key, Value::from_static(b"v"))],
            ..Txn::default()
        };
        let _ = meta.commit_now(txn).unwrap();
    }

    #[tokio::test]
    async fn the_newest_stay_and_hold_what_packs_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMeta::new());
        // A row of each keyspace, those of later versions included.
        for space in 1..=40 {
            put(&meta, vec![space, 1]);
        }
        let files = checkpoints(dir.path(), &meta, 2);
        for number in 1..=4 {
            assert_eq!(files.take().await.unwrap().number, number);
        }
        assert_eq!(files.stats().newest_ms.load(Relaxed), 5);
        let left = list(&dir.path().join("checkpoints")).unwrap();
        assert_eq!(numbers(&files), [1, 3, 4]);
        let mut reader = open(&left[2].1).unwrap();
        let mut spaces = Vec::new();
        while let Some((key, _)) = reader.next_row().unwrap() {
            spaces.push(key[0]);
        }
        // Without recipes, chunks, packs, uploads and the state of a scrub.
        let expected: Vec<u8> = (1..=40)
            .filter(|space| ![5, 6, 7, 13, 18].contains(space))
            .collect();
        assert_eq!(spaces, expected);
        // Numbers go on after a restart.
        let files = checkpoints(dir.path(), &meta, 2);
        assert_eq!(files.stats().newest_ms.load(Relaxed), 5);
        assert_eq!(files.take().await.unwrap().number, 5);
    }

    #[tokio::test]
    async fn one_of_the_past_stays_however_often_a_server_starts() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMeta::new());
        let take = async |now_ms| {
            let files = at(now_ms, dir.path(), &meta, 4);
            files.take().await.unwrap();
            numbers(&files)
        };
        // Every hour for three days. One is more than a day old, and one becomes it.
        for hour in 0..72 {
            take(hour * HOUR_MS).await;
        }
        assert_eq!(take(72 * HOUR_MS).await, [41, 61, 70, 71, 72, 73]);
        // Then a hundred starts within a quarter of an hour.
        let mut left = Vec::new();
        for start in 1..=100 {
            left = take(72 * HOUR_MS + start * 9_000).await;
        }
        assert_eq!(left, [41, 61, 170, 171, 172, 173]);
    }

    #[tokio::test]
    async fn a_start_takes_no_checkpoint_before_one_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMeta::new());
        let interval = Duration::from_secs(3600);
        let due = |now_ms| at(now_ms, dir.path(), &meta, 4).due_in(interval);
        let begin = 1000 * HOUR_MS;
        assert_eq!(due(begin), Duration::ZERO, "there is none");
        at(begin, dir.path(), &meta, 4).take().await.unwrap();
        assert_eq!(due(begin), interval);
        assert_eq!(due(begin + HOUR_MS / 4), interval * 3 / 4);
        assert_eq!(due(begin + 2 * HOUR_MS), Duration::ZERO);
    }

    #[tokio::test]
    async fn one_that_is_cut_short_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMeta::new());
        let files = checkpoints(dir.path(), &meta, 2);
        files.take().await.unwrap();
        fs::write(dir.path().join("checkpoints").join(NEW), b"cut").unwrap();
        assert_eq!(list(&files.dir).unwrap().len(), 1);
        assert_eq!(files.take().await.unwrap().number, 2);
        assert!(!files.dir.join(NEW).exists());
    }

    #[tokio::test]
    async fn room_for_the_metadata_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMeta::new());
        let mut files = checkpoints(dir.path(), &meta, 2);
        files.reserve_bytes = u64::MAX;
        assert!(files.take().await.is_err());
        assert_eq!(files.stats().failed.load(Relaxed), 1);
        assert!(!files.dir.join(NEW).exists());
    }
}
