//! A source becomes an image in a registry.
//!
//! | source | how |
//! |---|---|
//! | a file or a device | read twice: where the data is, then the layer, streamed to the registry |
//! | a server that knows ranges, an image that lies there as it is | read once, at random; frames wait in the work directory |
//! | a server, something compressed, or checksums to compare | received from start to end; what is received is kept in the work directory, too |
//! | an image of our layout in a registry | copied; mounted where it is the same registry |
//! | any other image of a registry | the disk in it, received from start to end |
//! | standard input | received from start to end |
//!
//! **Invariant:** nothing is sent before all of a source was received and its checksums compared; and nothing has a tag before all
//! of it is there.

mod error;
mod frames;
mod image;
mod local;
mod once;
mod plan;
mod progress;
mod server;
mod watch;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::plan::{Nature, Way, Wish};
use crate::{
    checksum::Checksum,
    format::{DiskImage, Format},
    image::Image,
    input::Spool,
    kept::{Purpose, WorkDir},
    push::{Compression, Destination, LayerFacts, Sent, SourceFacts},
    source::{FileSource, ReadAt, RemoteOptions, fetch::Fetch, retry::Verdict},
};

pub use error::{ImportError, find, in_one_line};
pub use progress::{Phase, Progress, State};

/// Most bytes in the work directory, unless the options say otherwise.
pub const WORK_BYTES_MAX: u64 = 256 << 30;

/// Where a disk comes from.
pub enum Origin {
    /// A file on a server.
    Server(Arc<dyn Fetch>),
    /// A file or a block device.
    File(PathBuf),
    /// A stream: standard input.
    Stream(Box<dyn Read + Send>),
    /// An image in a registry.
    Image {
        /// What a message calls it.
        name: String,
        /// The image.
        image: Box<Image>,
        /// Where it is, if it is in a registry: what is there need not be sent.
        repository: Option<dvcr_client::Repository>,
        /// Which file of it, if it is not the usual one.
        file: Option<String>,
    },
}

/// What is asked for.
#[derive(Clone)]
pub struct Options {
    /// What the source's bytes must hash to, as they are received.
    pub checksums: Vec<Checksum>,
    /// How the layer is stored.
    pub compression: Compression,
    /// Keep the source as it is, whatever it is.
    pub verbatim: bool,
    /// Name of the disk in an archive of several. Images have that of [`Origin::Image`].
    pub file: Option<String>,
    /// Parent of the directories where imports keep what later tries go on with.
    pub work_dir: PathBuf,
    /// Most bytes in such a directory, and of temporary files.
    pub work_bytes_max: u64,
    /// Threads that compress.
    pub threads: usize,
    /// How servers are read.
    pub remote: RemoteOptions,
}

/// An image that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// What the registry got.
    pub image: Sent,
    /// What the source was.
    pub source: SourceFacts,
}

/// One import. Its methods block.
pub struct Import<'a> {
    /// What is asked for.
    pub options: &'a Options,
    /// Where it goes.
    pub destination: &'a Destination,
    /// Network and timers.
    pub runtime: &'a Handle,
    /// Told how far it is.
    pub progress: &'a Progress,
}

impl Import<'_> {
    /// Imports. What an interrupted try has kept is used, and kept again if this one is interrupted; it is removed when the import
    /// succeeds, or failed because of its source in a way that another try would not mend. `now` tells which directories of
    /// other imports are so old that nobody goes on with them: they are removed.
    pub fn run(&self, from: Origin, now: SystemTime) -> Result<Imported, ImportError> {
        let parent = &self.options.work_dir;
        let failed = |error| ImportError::WorkDir {
            path: parent.clone(),
            error,
        };
        let (place, purpose) = match &from {
            Origin::Server(fetch) => (fetch.address(), Purpose::Resume),
            Origin::File(path) => (format!("file {}", path.display()), Purpose::Resume),
            Origin::Image { name, file, .. } => (format!("image {name} {file:?}"), Purpose::Resume),
            Origin::Stream(_) => {
                let place = format!("stream of process {}", std::process::id());
                (place, Purpose::Once)
            }
        };
        let place = match self.member() {
            Some(file) => format!("{place}, {file}"),
            None => place,
        };
        let destination = &self.destination.repository;
        let name = format!(
            "{place}\n{}\n{}\n{}",
            destination.client().url(),
            destination.name(),
            self.options.verbatim
        );
        WorkDir::sweep(parent, now).map_err(failed)?;
        let dir = WorkDir::open(parent, &name, purpose).map_err(failed)?;
        let checked = self
            .destination
            .check(self.runtime, self.stop(), dir.path())
            .map_err(ImportError::from);
        let result = match checked.and_then(|()| self.bring(from, &dir)) {
            // Whatever failed, that is why.
            Err(_) if self.stop().is_cancelled() => Err(ImportError::Stopped),
            result => result,
        };
        let over = match &result {
            Ok(_) => true,
            Err(_) if dir.is_empty() || purpose == Purpose::Once => true,
            // Whoever mends what the registry does not like need not fetch everything again.
            Err(ImportError::Push(_)) => false,
            Err(error) => error.verdict() == Verdict::Final,
        };
        if over {
            self.destination.abandon(self.runtime, dir.path());
            // It was made by us and holds nothing that anybody wants: no reason to fail.
            let _ = dir.remove();
        }
        self.progress.keeps(!over);
        if result.is_ok() {
            self.progress.begin(Phase::Done, None);
        }
        result
    }

    /// Goes the way that is right for the source.
    fn bring(&self, from: Origin, dir: &WorkDir) -> Result<Imported, ImportError> {
        match from {
            Origin::Server(fetch) => self.server(fetch, dir),
            Origin::File(path) => self.file(&path, dir.path()),
            Origin::Stream(stream) => self.stream(stream, None, dir.path(), None),
            Origin::Image {
                image,
                repository,
                file,
                ..
            } => self.image(*image, repository.as_ref(), file.as_deref(), dir),
        }
    }

    fn wish(&self) -> Wish {
        Wish {
            checksums: !self.options.checksums.is_empty(),
            verbatim: self.options.verbatim,
            plain: self.options.compression == Compression::None,
            file: false,
        }
    }

    fn stop(&self) -> &CancellationToken {
        &self.options.remote.stop
    }

    fn member(&self) -> Option<&str> {
        self.options.file.as_deref()
    }

    fn spool<'b>(&self, dir: &'b Path) -> Spool<'b> {
        Spool {
            dir,
            bytes_max: self.options.work_bytes_max,
            unwrapped_bytes_max: crate::format::limits::VIRTUAL_BYTES_MAX,
        }
    }

    /// What is known of a source of `len` bytes.
    fn facts(&self, format: Format, len: u64, virtual_len: u64) -> SourceFacts {
        let stored = match self.options.verbatim || format == Format::Iso {
            true => format,
            false => Format::Qcow2,
        };
        SourceFacts {
            len,
            virtual_len,
            format: format.name(),
            stored: stored.name(),
        }
    }

    fn facts_of(&self, image: &DiskImage, len: u64) -> SourceFacts {
        self.facts(image.format(), len, image.virtual_len())
    }

    fn finish(
        &self,
        layer: LayerFacts,
        sent: u64,
        source: SourceFacts,
    ) -> Result<Imported, ImportError> {
        let manifest = self.destination.tag(self.runtime, &layer, &source)?;
        Ok(Imported {
            image: Sent {
                manifest,
                layer,
                sent,
            },
            source,
        })
    }
}

fn open(path: &Path) -> Result<Arc<dyn ReadAt>, ImportError> {
    let source = File::open(path).and_then(FileSource::new);
    let source = source.map_err(|error| ImportError::File {
        path: path.to_owned(),
        error,
    })?;
    Ok(Arc::new(source))
}
