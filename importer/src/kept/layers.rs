//! A repository whose layers are kept as they are received.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dvcr_core::oci::{Descriptor, Reference};

use super::{Limit, Received, Supply, WorkDir};
use crate::{
    image::{Document, Image, Repository},
    source::{ReadAt, fetch::Version},
};

/// Streams of blobs come from a directory as far as they were received before, and go on from there. Digests name them, so
/// it does not matter which image they were received for.
pub struct KeptLayers {
    inner: Arc<dyn Repository>,
    dir: PathBuf,
    /// Bytes that may still be kept; blobs beyond that are received again.
    room: AtomicU64,
}

impl KeptLayers {
    /// The image, its blobs kept in `dir`, at most `bytes_max` bytes of them. What is there of another image is removed.
    pub fn of_image(image: Image, dir: &WorkDir, bytes_max: u64) -> io::Result<Image> {
        let version = Version {
            etag: Some(image.digest().to_string()),
            ..Version::default()
        };
        dir.keep_only("image", &version)?;
        Ok(image.through(|inner| Self::new(inner, dir.path().to_owned(), bytes_max)))
    }

    /// Keeps at most `bytes_max` bytes of the blobs of `inner` in `dir`, which exists.
    pub fn new(inner: Arc<dyn Repository>, dir: PathBuf, bytes_max: u64) -> Self {
        Self {
            inner,
            dir,
            room: AtomicU64::new(bytes_max),
        }
    }

    /// Takes room for a blob; false if there is not enough.
    fn take(&self, bytes: u64) -> bool {
        let left = |room: u64| room.checked_sub(bytes);
        let taken = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        taken.is_ok()
    }
}

impl Repository for KeptLayers {
    fn manifest(&self, reference: &Reference) -> io::Result<Document> {
        self.inner.manifest(reference)
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>> {
        self.inner.blob(blob)
    }

    fn stream_from(&self, blob: &Descriptor, start: u64) -> io::Result<Box<dyn Read + Send>> {
        if start > 0 || !self.take(blob.size) {
            return self.inner.stream_from(blob, start);
        }
        let path = self.dir.join(format!("layer-{}", blob.digest.hex()));
        let layer = Layer {
            repository: self.inner.clone(),
            blob: blob.clone(),
        };
        // Whoever reads compares the digest.
        let limit = Limit::Forget(blob.size);
        Ok(Box::new(Received::open(layer, &path, blob.size, limit)?))
    }
}

/// A blob, to be received.
struct Layer {
    repository: Arc<dyn Repository>,
    blob: Descriptor,
}

impl Supply for Layer {
    fn stream(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
        self.repository.stream_from(&self.blob, start)
    }
}
