//! Uploads that the next run goes on with.
//!
//! A small JSON file: which upload session of which server is for which blob. Without it, or with a broken one, nothing is lost but
//! the bytes of blobs that were under way.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use dvcr_core::oci::{Digest, RepositoryName};

/// The unfinished uploads.
#[derive(Debug)]
pub(super) struct Sessions {
    path: Option<PathBuf>,
    server: String,
    entries: Mutex<BTreeMap<String, String>>,
}

impl Sessions {
    /// Reads the file, if there is one.
    pub(super) fn load(path: Option<&Path>, server: &str) -> Self {
        let entries = path
            .and_then(|path| fs::read(path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            path: path.map(Path::to_owned),
            server: server.to_owned(),
            entries: Mutex::new(entries),
        }
    }

    fn key(&self, repository: &RepositoryName, digest: &Digest) -> String {
        format!("{}{repository}@{digest}", self.server)
    }

    /// Where an upload was begun.
    pub(super) fn get(&self, repository: &RepositoryName, digest: &Digest) -> Option<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&self.key(repository, digest)).cloned()
    }

    /// Notes an upload, or that it is over.
    pub(super) fn set(&self, repository: &RepositoryName, digest: &Digest, at: Option<&str>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key(repository, digest);
        let changed = match at {
            Some(at) => entries.insert(key, at.to_owned()).as_deref() != Some(at),
            None => entries.remove(&key).is_some(),
        };
        // Under the lock: a later state must not be overwritten by an earlier one.
        if changed
            && let Some(path) = &self.path
            && let Err(error) = write(path, &entries)
        {
            tracing::warn!(
                path = %path.display(),
                %error,
                "cannot note uploads that are under way: after an interruption they begin anew"
            );
        }
    }
}

/// Writes beside the file and renames, so that there is always a whole one. Some hundred bytes an entry, as many as blobs are under way.
fn write(path: &Path, entries: &BTreeMap<String, String>) -> io::Result<()> {
    if entries.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec_pretty(entries)?)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_outlive_the_process_and_end_with_the_upload() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/sessions.json");
        let (repository, digest) = ("a/b".parse().unwrap(), Digest::sha256(b""));
        let sessions = Sessions::load(Some(&path), "http://s/");
        sessions.set(&repository, &digest, Some("http://s/v2/1"));
        let again = Sessions::load(Some(&path), "http://s/");
        assert_eq!(
            again.get(&repository, &digest).as_deref(),
            Some("http://s/v2/1")
        );
        let other = Sessions::load(Some(&path), "http://t/");
        assert_eq!(other.get(&repository, &digest), None);
        again.set(&repository, &digest, None);
        assert!(!path.exists());
        fs::write(&path, "broken").unwrap();
        assert_eq!(
            Sessions::load(Some(&path), "http://s/").get(&repository, &digest),
            None
        );
    }
}
