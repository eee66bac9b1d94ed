//! A directory in the OCI image layout, as `skopeo copy ... oci:DIR` and `podman save --format oci-dir` write it.
//! Source: OCI image-spec, image-layout.md.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use dvcr_core::oci::{Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, Reference};

use super::{Document, Repository};
use crate::source::{FileSource, ReadAt};

/// Annotation of an index entry: the tag.
const ANNOTATION_TAG: &str = "org.opencontainers.image.ref.name";

/// Images in a directory.
#[derive(Clone, Debug)]
pub struct LayoutDir {
    path: PathBuf,
}

impl LayoutDir {
    /// The layout in this directory; it is looked at when it is read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The digest of the only image in the directory.
    pub fn only(&self) -> io::Result<Digest> {
        let index = self.index()?;
        let [entry] = index.children.as_slice() else {
            let tags = index.children.iter().filter_map(tag);
            return Err(invalid(format!(
                "{} holds {} images; name one of their tags: {}",
                self.path.display(),
                index.children.len(),
                tags.collect::<Vec<_>>().join(", ")
            )));
        };
        Ok(entry.digest)
    }

    fn index(&self) -> io::Result<Manifest> {
        let bytes = read(&self.path.join("index.json"))?;
        Manifest::parse(None, &bytes).map_err(invalid)
    }

    /// The path holds digits of the digest only.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().as_str();
        self.path.join("blobs").join(algorithm).join(digest.hex())
    }
}

impl Repository for LayoutDir {
    fn manifest(&self, reference: &Reference) -> io::Result<Document> {
        let (digest, media_type) = match reference {
            Reference::Digest(digest) => (*digest, None),
            Reference::Tag(name) => {
                let index = self.index()?;
                let mut entries = index.children.into_iter();
                let entry = entries.find(|entry| tag(entry) == Some(name.as_str()));
                let missing = || {
                    let what = format!("no image {name} in {}", self.path.display());
                    io::Error::new(io::ErrorKind::NotFound, what)
                };
                let entry = entry.ok_or_else(missing)?;
                (entry.digest, Some(entry.media_type))
            }
        };
        Ok(Document {
            media_type,
            bytes: read(&self.blob_path(&digest))?,
        })
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>> {
        let file = File::open(self.blob_path(&blob.digest))?;
        let source = FileSource::new(file)?;
        if source.len() != blob.size {
            return Err(invalid(format!(
                "blob {} has {} bytes instead of {}",
                blob.digest,
                source.len(),
                blob.size
            )));
        }
        Ok(Arc::new(source))
    }
}

fn tag(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(ANNOTATION_TAG).map(String::as_str)
}

/// Reads a document, unless it is longer than any is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MANIFEST_BYTES_MAX as u64 {
        return Err(invalid(format!("{} is no manifest", path.display())));
    }
    fs::read(path)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
