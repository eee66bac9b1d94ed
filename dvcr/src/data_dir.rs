//! The directory that a server keeps everything in.
//!
//! ```text
//! FORMAT      what this is, and the version of its layout
//! LOCK        locked by the process that uses the directory; holds its process id
//! meta.redb   metadata
//! packs/      packs
//! checkpoints/  snapshots of the metadata that packs do not have
//! ```
//!
//! `FORMAT` is written last and atomically: where it is, the rest was set up. One process uses a directory at a time; the
//! lock is the kernel's and goes away with the process, however that ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The layout that this version writes, and the newest that it reads.
pub const DATA_FORMAT: u32 = 1;

const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
const META: &str = "meta.redb";
const PACKS: &str = "packs";
const CHECKPOINTS: &str = "checkpoints";
/// What `mkfs.ext4` leaves in the root of a volume.
const LOST_AND_FOUND: &str = "lost+found";

const FORMAT_PREFIX: &str = "dvcr data directory, format ";

/// More than any `FORMAT` or `LOCK` file of ours has.
const SMALL_FILE_BYTES_MAX: u64 = 128;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("data directory {} is in use by {}: stop it first, or choose another directory", path.display(), holder(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, unless it is just starting, or on another machine or in another container, where the number
        /// means something else.
        pid: Option<u32>,
    },
    /// It has files in it, and they are not ours.
    #[error(
        "{} is neither empty nor a data directory of dvcr (it contains {found:?} and no FORMAT file): choose another \
         directory, or restore the FORMAT file if this is a damaged copy",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A file that should not be there.
        found: String,
    },
    /// A newer version of dvcr wrote it.
    #[error(
        "data directory {} has format {found}, and this version of dvcr knows formats up to {DATA_FORMAT}: run the version \
         that wrote it or a later one, or restore a backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It was set up, but something is missing or makes no sense.
    #[error("data directory {} is damaged: {what}; mount or restore what is missing", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file system says no.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, in the present tense.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// A data directory that no other process uses for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Its lock ends when it is closed.
    _lock: File,
}

impl DataDir {
    /// Takes a directory, and sets it up if it is empty or absent.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let path = path.to_path_buf();
        create_dir(&path)?;
        // Nothing is written, not even a lock, to a directory that is not ours.
        if read_format(&path)?.is_none()
            && let Err(error) = check_empty(&path)
            // Unless another process has just set it up and begun to fill it.
            && read_format(&path)?.is_none()
        {
            return Err(error);
        }
        let lock = lock(&path)?;
        // Another process may have set it up in between, perhaps another version of dvcr.
        match read_format(&path)? {
            Some(_) => check_complete(&path)?,
            None => set_up(&path)?,
        }
        Ok(DataDir { path, _lock: lock })
    }

    /// Takes a directory that was set up and has packs, whether or not it has metadata.
    pub fn open_to_repair(path: &Path) -> Result<DataDir, DataDirError> {
        let path = path.to_path_buf();
        let damaged = |what: &str| DataDirError::Damaged {
            path: path.clone(),
            what: what.to_owned(),
        };
        // Nothing is written, not even a lock, to a directory that is not ours.
        if read_format(&path)?.is_none() {
            return Err(damaged("it has no FORMAT file"));
        }
        if !path.join(PACKS).is_dir() {
            return Err(damaged("it has no directory packs"));
        }
        let lock = lock(&path)?;
        Ok(DataDir { path, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file for metadata. It may not exist yet.
    pub fn meta_path(&self) -> PathBuf {
        self.path.join(META)
    }

    /// The directory for checkpoints. It may not exist yet.
    pub fn checkpoints_path(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// The directory for packs. It exists.
    pub fn packs_path(&self) -> PathBuf {
        self.path.join(PACKS)
    }
}

/// Describes a failure of the file system.
fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io {
        what,
        path: path.to_path_buf(),
        source,
    }
}

fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync directory", path))
}

/// Creates a directory that only its owner can enter, and those above it, durably.
fn create_dir(path: &Path) -> Result<(), DataDirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            create_dir(parent(path))?;
            return create_dir(path);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            return Ok(());
        }
        Err(error) => return Err(failed("create directory", path)(error)),
    }
    sync_dir(parent(path))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The start of a file, as text; nothing if there is no such file.
fn read_small(path: &Path) -> Result<Option<String>, DataDirError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// The format of the directory, which is one that we know; nothing if it was not set up.
fn read_format(path: &Path) -> Result<Option<u32>, DataDirError> {
    let Some(text) = read_small(&path.join(FORMAT))? else {
        return Ok(None);
    };
    let number = text
        .strip_prefix(FORMAT_PREFIX)
        .and_then(|rest| rest.strip_suffix('\n'));
    let found = number
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|n| n.parse().ok());
    match found {
        Some(found) if found > DATA_FORMAT => Err(DataDirError::Newer {
            path: path.to_path_buf(),
            found,
        }),
        Some(found) if found > 0 => Ok(Some(found)),
        _ => {
            let what = format!("its FORMAT file says {text:?}");
            Err(DataDirError::Damaged {
                path: path.to_path_buf(),
                what,
            })
        }
    }
}

/// Fails if there is anything that setting up does not leave behind when it is interrupted.
fn check_empty(path: &Path) -> Result<(), DataDirError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let name = entry.file_name();
        let ours = match name.to_str() {
            Some(FORMAT | FORMAT_NEW | LOCK | LOST_AND_FOUND) => true,
            Some(PACKS) => fs::read_dir(entry.path()).is_ok_and(|mut packs| packs.next().is_none()),
            _ => false,
        };
        if !ours {
            let found = name.to_string_lossy().into_owned();
            return Err(DataDirError::Foreign {
                path: path.to_path_buf(),
                found,
            });
        }
    }
    Ok(())
}

/// A missing pack directory, say of a volume that was not mounted, must not look like an empty registry; nor must packs or
/// checkpoints whose metadata was lost. Metadata is durable before the first of these is created.
fn check_complete(path: &Path) -> Result<(), DataDirError> {
    let damaged = |what| {
        Err(DataDirError::Damaged {
            path: path.to_path_buf(),
            what,
        })
    };
    let packs = path.join(PACKS);
    if !packs.is_dir() {
        return damaged(format!("it has no directory {PACKS}"));
    }
    let meta = path.join(META);
    if meta.try_exists().map_err(failed("look for", &meta))? {
        return Ok(());
    }
    // A registry of small artifacts has no packs: all of it is in the metadata and in checkpoints.
    for name in [PACKS, CHECKPOINTS] {
        let dir = path.join(name);
        let has_some = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            found => found.map_err(failed("list", &dir))?.next().is_some(),
        };
        if has_some {
            return damaged(format!(
                "it has {name} and no {META}, which `dvcr repair --data {}` makes anew",
                path.display()
            ));
        }
    }
    Ok(())
}

fn set_up(path: &Path) -> Result<(), DataDirError> {
    create_dir(&path.join(PACKS))?;
    let (new, format) = (path.join(FORMAT_NEW), path.join(FORMAT));
    // A file of this name is left from a setup that was interrupted.
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            writeln!(file, "{FORMAT_PREFIX}{DATA_FORMAT}")?;
            file.sync_all()
        });
    written.map_err(failed("write", &new))?;
    fs::rename(&new, &format).map_err(failed("create", &format))?;
    sync_dir(path)
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    // Neither truncated, for it may belong to somebody, nor ever removed, for two could then lock two files of that name.
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = opened.map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = read_small(&path)?.and_then(|text| text.trim_end().parse().ok());
            return Err(DataDirError::InUse {
                path: dir.to_path_buf(),
                pid,
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(failed("write", &path))?;
    Ok(file)
}

#[cfg(test)]
#[path = "data_dir_tests.rs"]
mod tests;
