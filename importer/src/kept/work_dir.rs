//! Where an import keeps what a later try goes on with.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::source::fetch::Version;

/// A directory of one import, held by one process.
#[derive(Debug)]
pub(super) struct WorkDir {
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
    /// The directory in `parent` of the import that `name` tells from others. Both are made if they are not there.
    pub(super) fn open(parent: &Path, name: &str) -> io::Result<Self> {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let path = parent.join(&hash[..32]);
        fs::create_dir_all(&path)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process imports the same source to the same place",
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what is there if it is of this version of the source; else empties the directory.
    pub(super) fn keep_only(&self, address: &str, version: &Version) -> io::Result<()> {
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
        self.clear()?;
        let noted = Noted {
            address: address.to_owned(),
            len: version.len,
            etag: version.etag.clone(),
            modified: version.modified.clone(),
            host: version.host.clone(),
        };
        fs::write(path, serde_json::to_vec(&noted)?)
    }

    /// Removes everything but the directory.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() != "lock" {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the directory.
    pub(super) fn remove(self) -> io::Result<()> {
        self.clear()?;
        fs::remove_file(self.path.join("lock"))?;
        drop(self.lock);
        fs::remove_dir(&self.path)
    }
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
        let dir = WorkDir::open(parent.path(), "a").unwrap();
        let busy = WorkDir::open(parent.path(), "a").unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert!(WorkDir::open(parent.path(), "b").is_ok());
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
}
