//! Where a command keeps what a later try goes on with.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::source::fetch::Version;

/// A directory that nobody has touched for so long is of no use to anybody: whoever wanted its disk has long done without.
pub const ABANDONED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Held by whoever uses the directory.
const LOCK: &str = "lock";

/// What a registry was told is known there: see [`push`](crate::push). Another version of a source does not change that.
const UPLOAD: &str = "upload";

/// Beginning of the names of directories that nobody goes on with.
const ONCE: &str = "once-";

/// Length of a name without its beginning.
const NAME_BYTES: usize = 32;

/// What a directory is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A later try goes on with what is in it.
    Resume,
    /// It is of no use to another process: what a pipe brought does not come again.
    Once,
}

/// A directory of one command, held by one process.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    /// Held until the value is dropped, or the process ends in whatever way.
    lock: File,
}

/// What the kept bytes are of.
#[derive(Serialize, Deserialize)]
struct Noted {
    address: String,
    len: Option<u64>,
    etag: Option<String>,
    modified: Option<String>,
    host: String,
}

impl WorkDir {
    /// The directory in `parent` of what `name` tells from everything else. Both are made if they are not there.
    pub fn open(parent: &Path, name: &str, purpose: Purpose) -> io::Result<Self> {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let beginning = match purpose {
            Purpose::Resume => "",
            Purpose::Once => ONCE,
        };
        let path = parent.join(format!("{beginning}{}", &hash[..NAME_BYTES]));
        loop {
            fs::create_dir_all(&path)?;
            match Self::lock(&path) {
                Ok(Some(lock)) => return Ok(Self { path, lock }),
                // It was swept between two steps of ours.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Locks a directory that is there; `None` if it was removed meanwhile.
    fn lock(path: &Path) -> io::Result<Option<File>> {
        let name = path.join(LOCK);
        let mut options = File::options();
        let lock = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&name)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process does the same",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let named = fs::metadata(name).is_ok_and(|named| {
            let held = lock.metadata();
            held.is_ok_and(|held| (held.dev(), held.ino()) == (named.dev(), named.ino()))
        });
        Ok(named.then_some(lock))
    }

    /// Removes what other processes have left in `parent` and nobody goes on with: directories that nobody holds and that were
    /// not touched for [`ABANDONED`] before `now`, and those of pipes whatever their age. How many there were. What is not a
    /// directory of ours stays.
    pub fn sweep(parent: &Path, now: SystemTime) -> io::Result<usize> {
        let entries = match fs::read_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut swept = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (once, hash) = match name.strip_prefix(ONCE) {
                Some(hash) => (true, hash),
                None => (false, &*name),
            };
            let ours = hash.len() == NAME_BYTES && hash.bytes().all(|b| b.is_ascii_hexdigit());
            if !ours || !entry.file_type()?.is_dir() {
                continue;
            }
            let path = entry.path();
            // Looked at before it is locked, which touches it.
            let old = touched(&path).is_ok_and(|at| {
                let age = now.duration_since(at);
                age.is_ok_and(|age| age > ABANDONED)
            });
            // Whatever fails here is no reason to fail: the next one tries again.
            if (old || once)
                && let Ok(Some(lock)) = Self::lock(&path)
                && (Self { path, lock }).remove().is_ok()
            {
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is nothing in it that a later try could use.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.path).is_ok_and(|mut entries| {
            entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
        })
    }

    /// Keeps what is there if it is of this version of the source; else empties the directory.
    pub fn keep_only(&self, address: &str, version: &Version) -> io::Result<()> {
        let path = self.path.join("source");
        let noted = fs::read(&path).ok();
        let noted = noted.and_then(|bytes| serde_json::from_slice::<Noted>(&bytes).ok());
        // Without anything to tell versions apart, every one is another.
        let known = version.etag.is_some() || version.modified.is_some();
        let same = noted.is_some_and(|noted| {
            let before = Version {
                len: noted.len,
                etag: noted.etag,
                modified: noted.modified,
                host: noted.host,
            };
            known && noted.address == address && version.same(&before)
        });
        if same {
            return Ok(());
        }
        self.clear(|name| name == LOCK || name.starts_with(UPLOAD))?;
        let noted = Noted {
            address: address.to_owned(),
            len: version.len,
            etag: version.etag.clone(),
            modified: version.modified.clone(),
            host: version.host.clone(),
        };
        fs::write(path, serde_json::to_vec(&noted)?)
    }

    /// Removes all files but those whose names are to stay.
    fn clear(&self, stays: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if !stays(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the directory.
    pub fn remove(self) -> io::Result<()> {
        self.clear(|name| name == LOCK)?;
        fs::remove_file(self.path.join(LOCK))?;
        drop(self.lock);
        fs::remove_dir(&self.path)
    }
}

/// When anything in a directory was changed last.
fn touched(path: &Path) -> io::Result<SystemTime> {
    let mut latest = fs::metadata(path)?.modified()?;
    for entry in fs::read_dir(path)? {
        latest = latest.max(entry?.metadata()?.modified()?);
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let version = |etag: Option<&str>| Version {
            len: Some(5),
            etag: etag.map(str::to_owned),
            ..Version::default()
        };
        let dir = WorkDir::open(parent.path(), "a", Purpose::Resume).unwrap();
        let busy = WorkDir::open(parent.path(), "a", Purpose::Resume).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert!(WorkDir::open(parent.path(), "b", Purpose::Resume).is_ok());
        let file = dir.path().join("frames");
        for (address, etag, kept) in [
            ("x", Some("\"1\""), false),
            ("x", Some("\"1\""), true),
            ("y", Some("\"1\""), false),
            ("y", Some("\"2\""), false),
            ("y", None, false),
            ("y", None, false),
        ] {
            fs::write(&file, "frames").unwrap();
            dir.keep_only(address, &version(etag)).unwrap();
            assert_eq!(file.exists(), kept, "{address} {etag:?}");
        }
        let path = dir.path().to_owned();
        dir.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_nobody_goes_on_with_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let open = |name, purpose| WorkDir::open(parent.path(), name, purpose).unwrap();
        let held = open("held", Purpose::Resume);
        let left = open("left", Purpose::Resume);
        fs::write(left.path().join("frames"), "frames").unwrap();
        fs::write(parent.path().join("notes.txt"), "somebody's own").unwrap();
        fs::create_dir(parent.path().join("photos")).unwrap();
        let (abandoned, piped) = (left.path().to_owned(), open("pipe", Purpose::Once));
        drop(left);
        let sweep = |now| WorkDir::sweep(parent.path(), now).unwrap();
        let now = SystemTime::now();
        assert_eq!(sweep(now), 0, "it is in use");
        drop(piped);
        assert_eq!(sweep(now), 1, "a pipe does not come again");
        assert_eq!(sweep(now + ABANDONED - Duration::from_secs(60)), 0);
        assert!(abandoned.exists());
        // A clock that was wrong when the file was written does no harm.
        assert_eq!(sweep(now - Duration::from_secs(60)), 0);
        assert_eq!(sweep(now + ABANDONED + Duration::from_secs(60)), 1);
        assert!(!abandoned.exists() && held.path().exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3);
        drop(held);
        assert_eq!(sweep(now + ABANDONED + Duration::from_secs(60)), 1);
        assert_eq!(
            WorkDir::sweep(&parent.path().join("absent"), now).unwrap(),
            0
        );
    }

    #[test]
    fn another_version_does_not_forget_an_upload() {
        let parent = tempfile::tempdir().unwrap();
        let dir = WorkDir::open(parent.path(), "a", Purpose::Resume).unwrap();
        assert!(dir.is_empty());
        let upload = dir.path().join("upload");
        fs::write(&upload, "somewhere").unwrap();
        dir.keep_only("x", &Version::default()).unwrap();
        assert!(upload.exists() && !dir.is_empty());
        dir.remove().unwrap();
    }
}
