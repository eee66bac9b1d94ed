//! Reading a CNCF Distribution data directory, whether its registry runs or not.
//!
//! Distribution writes a blob under a temporary name and renames it, and a link after what it points to: what is found is whole.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use dvcr_client::{BlobSource, BlobStream, BoxError, Hasher, RawManifest};
use dvcr_core::oci::{
    Algorithm, Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, NAME_BYTES_MAX, RepositoryName,
    Tag,
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};

use super::{
    layout::{self, Entry},
    source::{Contents, SourceError},
};
use crate::blocking;

/// Bytes read from a file at once: large enough that a disk streams, small enough that several uploads fit in memory.
const READ_BYTES: usize = 1 << 20;

/// The data directory of a CNCF Distribution registry.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<Path>,
}

impl Directory {
    /// Looks for the tree in what people name: the storage root, or what is below it.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let found = [path.join(layout::ROOT), path.join("v2"), path.to_owned()]
            .into_iter()
            .find(|root| root.join(layout::REPOSITORIES).is_dir() && root.join("blobs").is_dir());
        match found {
            Some(root) => Ok(Self { root: root.into() }),
            None => Err(SourceError::NoRegistry(path.display().to_string())),
        }
    }

    pub(super) async fn repositories(&self) -> Result<Vec<String>, SourceError> {
        let root = self.root.join(layout::REPOSITORIES);
        blocking::run(move || {
            let mut found = Vec::new();
            // Directories to look at, with the names that they stand for.
            let mut open = vec![(root, String::new())];
            while let Some((directory, name)) = open.pop() {
                for (entry, path) in subdirectories(&directory)? {
                    match layout::entry(&entry) {
                        Entry::Manifests => found.push(name.clone()),
                        Entry::Internal => {}
                        Entry::Segment => {
                            let name = match name.as_str() {
                                "" => entry,
                                parent => format!("{parent}/{entry}"),
                            };
                            // A name that is too long is none, and neither is what is below it.
                            if name.len() <= NAME_BYTES_MAX {
                                open.push((path, name));
                            }
                        }
                    }
                }
            }
            found.sort_unstable();
            Ok(found)
        })
        .await
    }

    pub(super) async fn contents(
        &self,
        repository: &RepositoryName,
    ) -> Result<Contents, SourceError> {
        let (root, repository) = (Arc::clone(&self.root), repository.clone());
        blocking::run(move || contents(&root, &repository)).await
    }

    pub(super) async fn manifest(&self, digest: &Digest) -> Result<RawManifest, SourceError> {
        let (path, digest) = (self.root.join(layout::blob(digest)), *digest);
        blocking::run(move || {
            let damaged = |reason: String| SourceError::Damaged {
                path: path.display().to_string(),
                reason,
            };
            let bytes = read(&path, MANIFEST_BYTES_MAX as u64)?;
            let found = Digest::of(digest.algorithm(), &bytes);
            if found != digest {
                return Err(damaged(format!("its content has the digest {found}")));
            }
            // The registry does not keep the type that a manifest was pushed with; the document tells.
            let media_type = match Manifest::parse(None, &bytes) {
                Ok(manifest) => manifest.media_type,
                Err(error) => return Err(damaged(error.to_string())),
            };
            Ok(RawManifest::new(digest.algorithm(), media_type, bytes))
        })
        .await
    }

    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<FileBlob, SourceError> {
        let path = self.root.join(layout::blob(&blob.digest));
        let (digest, len) = (blob.digest, blob.size);
        blocking::run(move || {
            let found = fs::metadata(&path).map_err(|source| file_error(&path, source))?;
            if found.len() != len {
                return Err(SourceError::Damaged {
                    path: path.display().to_string(),
                    reason: format!("it has {} bytes, not {len}", found.len()),
                });
            }
            Ok(FileBlob { path, digest, len })
        })
        .await
    }
}

fn file_error(path: &Path, source: io::Error) -> SourceError {
    SourceError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Directories in a directory, sorted, with their names; what is not text is nobody's. None if there is no such directory.
fn subdirectories(directory: &Path) -> Result<Vec<(String, PathBuf)>, SourceError> {
    let failed = |source| file_error(directory, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // Links to elsewhere are not followed: no registry makes any.
        if entry.file_type().map_err(failed)?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A file of at most `max` bytes.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(|source| file_error(path, source))?;
    if bytes.len() as u64 > max {
        return Err(SourceError::Damaged {
            path: path.display().to_string(),
            reason: format!("it has more than {max} bytes"),
        });
    }
    Ok(bytes)
}

fn contents(root: &Path, repository: &RepositoryName) -> Result<Contents, SourceError> {
    let mut contents = Contents::default();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for (name, path) in subdirectories(&root.join(layout::revisions(repository, algorithm)))? {
            // Deleting a manifest removes the link and leaves the directory.
            if let Some(digest) = layout::revision(algorithm, &name)
                && path.join("link").is_file()
            {
                contents.revisions.insert(digest);
            }
        }
    }
    for (name, _) in subdirectories(&root.join(layout::tags(repository)))? {
        let Ok(tag) = name.parse::<Tag>() else {
            let reason = "is no tag by the specification".to_owned();
            contents.broken.push((name, reason));
            continue;
        };
        let path = root.join(layout::current(repository, &tag));
        let digest = match read(&path, layout::LINK_BYTES_MAX) {
            Ok(bytes) => layout::link(&bytes),
            // A tag that was deleted, or is being pushed.
            Err(SourceError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => {
                contents.broken.push((name, error.to_string()));
                continue;
            }
        };
        match digest {
            Some(digest) if contents.revisions.contains(&digest) => {
                contents.tags.insert(tag, digest);
            }
            Some(digest) => {
                let reason = format!("points to {digest}, which is deleted there");
                contents.broken.push((name, reason));
            }
            None => {
                let reason = format!("{} is damaged: it holds no digest", path.display());
                contents.broken.push((name, reason));
            }
        }
    }
    Ok(contents)
}

/// A blob in a file.
#[derive(Debug)]
pub(super) struct FileBlob {
    path: PathBuf,
    digest: Digest,
    len: u64,
}

/// How far a file has been read.
struct Reading {
    file: File,
    path: PathBuf,
    digest: Digest,
    /// Bytes that are still to come.
    left: u64,
    /// Only where it is read from the begin.
    hasher: Option<Hasher>,
}

impl Reading {
    /// The next bytes. The last ones are given out only if all of them were what they should be: without them nobody can take
    /// the blob for whole.
    fn step(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.left == 0 {
            return Ok(None);
        }
        let len = self.left.min(READ_BYTES as u64) as usize;
        let mut bytes = vec![0; len];
        self.file
            .read_exact(&mut bytes)
            .map_err(|source| file_error(&self.path, source))?;
        self.left -= len as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        if self.left == 0
            && let Some(hasher) = self.hasher.take()
        {
            let found = hasher.finish();
            if found != self.digest {
                return Err(SourceError::Damaged {
                    path: self.path.display().to_string(),
                    reason: format!("its content has the digest {found}"),
                });
            }
        }
        Ok(Some(bytes.into()))
    }
}

impl BlobSource for FileBlob {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        let (path, digest, len) = (self.path.clone(), self.digest, self.len);
        async move {
            let reading = blocking::run(move || {
                let mut file = File::open(&path).map_err(|source| file_error(&path, source))?;
                file.seek(SeekFrom::Start(offset))
                    .map_err(|source| file_error(&path, source))?;
                Ok::<_, SourceError>(Reading {
                    file,
                    path,
                    digest,
                    left: len.saturating_sub(offset),
                    // What is sent from the middle is verified by the server.
                    hasher: (offset == 0).then(|| Hasher::new(digest.algorithm())),
                })
            })
            .await?;
            let stream = stream::try_unfold(reading, |mut reading| async {
                let (reading, next) = blocking::run(move || {
                    let next = reading.step();
                    (reading, next)
                })
                .await;
                Ok(next?.map(|bytes| (bytes, reading)))
            });
            Ok(stream.boxed())
        }
        .boxed()
    }
}
