//! Where a command without a registry keeps what it receives and cannot ask for again in parts it has use for.

use std::{cell::OnceCell, path::PathBuf, sync::Arc, time::SystemTime};

use dvcr_importer::{
    image::{Image, Kind},
    kept::{KeptLayers, Limit, Purpose, Received, WorkDir},
    source::Remote,
};

/// A directory that is made when somebody wants to keep something, and removed with [`Keep::remove`].
#[derive(Debug, Default)]
pub(crate) struct Keep {
    parent: Option<PathBuf>,
    name: String,
    bytes_max: u64,
    dir: OnceCell<Option<WorkDir>>,
}

impl Keep {
    /// Keeps at most `bytes_max` bytes in a directory in `parent`. `name` says what is brought where.
    pub(crate) fn new(parent: PathBuf, name: String, bytes_max: u64) -> Self {
        Self {
            parent: Some(parent),
            name,
            bytes_max,
            dir: OnceCell::new(),
        }
    }

    /// `None` if nothing is to be kept, or cannot be: then a later try begins at the start, which is no reason not to begin.
    fn dir(&self) -> Option<&WorkDir> {
        let dir = self.dir.get_or_init(|| {
            let parent = self.parent.as_deref()?;
            let swept = WorkDir::sweep(parent, SystemTime::now());
            swept
                .and_then(|_| WorkDir::open(parent, &self.name, Purpose::Resume))
                .ok()
        });
        dir.as_ref()
    }

    /// The image, its layers kept as they are received. One of our layout is read where it lies.
    pub(crate) fn image(&self, image: Image) -> Image {
        if image.kind() == Kind::Indexed {
            return image;
        }
        match self.dir() {
            Some(dir) => KeptLayers::of_image(image.clone(), dir, self.bytes_max).unwrap_or(image),
            None => image,
        }
    }

    /// A file on a server that knows ranges, kept as it is received.
    pub(crate) fn remote(&self, remote: &Arc<Remote>) -> Option<Received> {
        let dir = self.dir()?;
        dir.keep_only(&self.name, remote.version()).ok()?;
        let path = dir.path().join("received");
        Received::of_remote(remote.clone(), &path, Limit::Forget(self.bytes_max)).ok()
    }

    /// Whether something was to be kept.
    pub(crate) fn is_used(&self) -> bool {
        matches!(self.dir.get(), Some(Some(_)))
    }

    /// It is over: nobody goes on with what is there.
    pub(crate) fn remove(self) {
        if let Some(Some(dir)) = self.dir.into_inner() {
            // It holds nothing that anybody wants.
            let _ = dir.remove();
        }
    }
}
