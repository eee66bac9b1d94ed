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
mod progress;
mod received;
mod stream;
mod work_dir;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use dvcr_core::disk::CanonicalQcow2;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::{
    received::Received,
    stream::{Stoppable, Watch, Watched, WithoutFooter},
    work_dir::WorkDir,
};
use crate::{
    checksum::Checksum,
    format::{DiskImage, Format, detect, limits::SECTOR_BYTES},
    image::{Disk, Image, Kind},
    input::{Input, InputError, Located, Spool},
    layout::{
        Clusters, Content, DataPieces, ImageClusters, LayoutError, StreamClusters, Surrounding,
        encode,
    },
    push::{
        Assembled, Compression, Destination, FrameSpool, LABEL_FORMAT, LABEL_SOURCE_SIZE,
        LABEL_VIRTUAL_SIZE, LayerFacts, Sent, SourceFacts,
    },
    source::{
        FileSource, ReadAt, Reader, Remote, RemoteOptions,
        fetch::Fetch,
        retry::{SourceError, Verdict},
    },
    wrapping::Unwrapped,
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
    /// succeeds, or failed because of its source in a way that another try would not mend.
    pub fn run(&self, from: Origin) -> Result<Imported, ImportError> {
        let place = match &from {
            Origin::Server(fetch) => fetch.address(),
            Origin::File(path) => format!("file {}", path.display()),
            Origin::Stream(_) => format!("stream of process {}", std::process::id()),
            Origin::Image { name, file, .. } => format!("image {name} {file:?}"),
        };
        let destination = &self.destination.repository;
        let name = format!(
            "{place}\n{}\n{}\n{}",
            destination.client().url(),
            destination.name(),
            self.options.verbatim
        );
        let parent = &self.options.work_dir;
        let failed = |error| ImportError::WorkDir {
            path: parent.clone(),
            error,
        };
        self.destination.check(self.runtime, self.stop())?;
        let dir = WorkDir::open(parent, &name).map_err(failed)?;
        let result = match from {
            Origin::Server(fetch) => self.server(fetch, &dir),
            Origin::File(path) => self.file(&path, dir.path()),
            Origin::Stream(stream) => self.stream(stream, None, dir.path(), None),
            Origin::Image {
                image,
                repository,
                file,
                ..
            } => self.image(&image, repository.as_ref(), file.as_deref(), dir.path()),
        };
        let result = match result {
            // Whatever failed, that is why.
            Err(_) if self.stop().is_cancelled() => Err(ImportError::Stopped),
            result => result,
        };
        let over = match &result {
            Ok(_) => true,
            // Whoever mends what the registry does not like need not fetch everything again.
            Err(ImportError::Push(_)) => false,
            Err(error) => error.verdict() == Verdict::Final,
        };
        if over {
            // It was made by us and holds nothing that anybody wants: no reason to fail.
            let _ = dir.remove();
        }
        if result.is_ok() {
            self.progress.begin(Phase::Done, None);
        }
        result
    }

    fn stop(&self) -> &CancellationToken {
        &self.options.remote.stop
    }

    fn spool<'b>(&self, dir: &'b Path) -> Spool<'b> {
        Spool {
            dir,
            bytes_max: self.options.work_bytes_max,
            unwrapped_bytes_max: crate::format::limits::VIRTUAL_BYTES_MAX,
        }
    }

    fn server(&self, fetch: Arc<dyn Fetch>, dir: &WorkDir) -> Result<Imported, ImportError> {
        self.progress.begin(Phase::Open, None);
        let address = fetch.address();
        let failed = |error| ImportError::source(&address, error);
        let options = RemoteOptions {
            received: self.progress.received.clone(),
            ..self.options.remote.clone()
        };
        let remote = Remote::open(fetch, self.runtime.clone(), options).map_err(failed)?;
        let in_dir = |error| ImportError::WorkDir {
            path: dir.path().to_owned(),
            error,
        };
        dir.keep_only(&address, remote.version()).map_err(in_dir)?;
        let remote = Arc::new(remote);
        let ranged = remote.ranged();
        let resumable = ranged.is_some();
        self.progress.keeps(resumable);
        if let Some(ranged) = ranged
            && self.options.checksums.is_empty()
            && !self.options.verbatim
        {
            let len = ranged.len();
            if let Located::Disk(input) = Input::at_random(Arc::new(ranged))? {
                return self.at_random(&input.image, len, dir.path());
            }
        }
        let len = remote.length();
        if resumable {
            let kept = Received::open(remote, dir.path(), self.options.work_bytes_max);
            let kept = kept.map_err(in_dir)?;
            self.stream(kept, len, dir.path(), Some(&Received::path(dir.path())))
        } else {
            let stream = remote.stream(0, blake3::Hasher::new());
            self.stream(stream, len, dir.path(), None)
        }
    }

    fn file(&self, path: &Path, dir: &Path) -> Result<Imported, ImportError> {
        let failed = |error| ImportError::File {
            path: path.to_owned(),
            error,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let source = FileSource::new(file);
        let Ok(source) = source else {
            // A pipe has a name, too.
            let pipe = File::open(path).map_err(failed)?;
            return self.stream(pipe, None, dir, None);
        };
        let source: Arc<dyn ReadAt> = Arc::new(source);
        self.local(source, &self.options.checksums, dir)
    }

    /// A source that can be read again.
    fn local(
        &self,
        source: Arc<dyn ReadAt>,
        checksums: &[Checksum],
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let len = source.len();
        if !checksums.is_empty() {
            self.progress.begin(Phase::Check, Some(len));
            let watch = Watch::new(checksums);
            let mut stream = self.watched(Reader::new(source.clone()), &watch);
            io::copy(&mut stream, &mut io::sink()).map_err(LayoutError::from)?;
            watch.verify()?;
        }
        self.progress.begin(Phase::Unpack, Some(len));
        let source: Arc<dyn ReadAt> = Arc::new(Stoppable {
            inner: source,
            stop: self.stop().clone(),
            progress: self.progress.clone(),
        });
        let input = Input::open(source.clone(), self.spool(dir))?;
        let facts = facts(&input.image, len);
        let verbatim = self.options.verbatim.then_some(source);
        self.send_twice_read(&input.image, verbatim, facts)
    }

    /// An image that is read twice, or the `verbatim` file that it is in.
    fn send_twice_read(
        &self,
        image: &DiskImage,
        verbatim: Option<Arc<dyn ReadAt>>,
        facts: SourceFacts,
    ) -> Result<Imported, ImportError> {
        let len = image.source().len();
        let content = match verbatim {
            Some(source) => Content::Verbatim(source),
            None if image.format() == Format::Iso => Content::Verbatim(image.source().clone()),
            None => {
                self.progress.begin(Phase::Scan, Some(len));
                Content::disk(image)?
            }
        };
        self.progress.begin(Phase::Send, Some(len));
        let (layer, sent) = self.destination.stream(
            self.runtime,
            &content,
            self.options.compression,
            self.options.threads,
            // What a later try reads may be something else.
            None,
        )?;
        self.finish(layer, sent, facts)
    }

    fn watched<R: Read>(&self, stream: R, watch: &Watch) -> Watched<R> {
        let (stop, progress) = (self.stop().clone(), self.progress.clone());
        Watched::new(stream, watch.clone(), stop, progress)
    }

    /// An image on a server, which is read once.
    fn at_random(&self, image: &DiskImage, len: u64, dir: &Path) -> Result<Imported, ImportError> {
        let verbatim = image.format() == Format::Iso;
        let identity = format!("{} {}", image.format(), image.virtual_len());
        let spool = FrameSpool::open(dir, &identity, self.options.work_bytes_max);
        let mut spool = spool.map_err(|error| LayoutError::Io(error.into()))?;
        let from = spool.end();
        self.progress
            .begin(Phase::Receive, Some(image.virtual_len()));
        self.progress.reached(from);
        let file_len = if verbatim {
            let stream = Reader::starting_at(image.source().clone(), from);
            let mut pieces = DataPieces::verbatim(StreamClusters::verbatim(stream, from), from);
            self.keep(&mut pieces, &mut spool, true)?;
            image.source().len()
        } else {
            let clusters = ImageClusters::new(image, from);
            let mut pieces = DataPieces::resume(clusters, spool.map().clone(), from);
            self.keep(&mut pieces, &mut spool, true)?;
            image.virtual_len()
        };
        self.send_kept(&spool, verbatim, file_len, dir, facts(image, len))
    }

    /// A source that comes by once. `kept` is the file that has it as it was received.
    fn stream(
        &self,
        stream: impl Read + Send + 'static,
        len: Option<u64>,
        dir: &Path,
        kept: Option<&Path>,
    ) -> Result<Imported, ImportError> {
        self.progress.begin(Phase::Receive, len);
        let watch = Watch::new(&self.options.checksums);
        let stream = self.watched(stream, &watch);
        if self.options.verbatim {
            return self.received(stream, &watch, dir, kept);
        }
        let mut stream = Unwrapped::new(stream, self.spool(dir).unwrapped_bytes_max)?;
        let format = detect(stream.head(), None)?;
        if format.is_sequential() {
            return self.sequential(stream, format, &watch, dir);
        }
        if let (Some(kept), []) = (kept, stream.wrappings()) {
            io::copy(&mut stream, &mut io::sink()).map_err(LayoutError::from)?;
            drop(stream);
            watch.verify()?;
            return self.local(open(kept)?, &[], dir);
        }
        let input = Input::spool(stream, self.spool(dir))?;
        let len = watch.verify()?;
        let facts = facts(&input.image, len);
        self.send_twice_read(&input.image, None, facts)
    }

    /// An image of a registry: as it is if it is one of ours, else the disk in it.
    fn image(
        &self,
        image: &Image,
        repository: Option<&dvcr_client::Repository>,
        file: Option<&str>,
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let plain = self.options.compression == Compression::None;
        if let Some(repository) = repository
            && image.kind() == Kind::Indexed
            && file.is_none()
            && !plain
        {
            return self.copy(image, repository);
        }
        self.progress.begin(Phase::Receive, None);
        let opened = image.open(file, self.spool(dir), true)?;
        let len = opened.layer.size;
        match opened.disk {
            Disk::Image(image) => {
                let facts = facts(&image, len);
                self.send_twice_read(&image, None, facts)
            }
            Disk::Stream(stream) => {
                let format = stream.format();
                let (spool, disk_len, format, stream) = self.keep_stream(stream, format, dir)?;
                // Only now is it known that the registry gave the right bytes.
                stream.finish().map_err(LayoutError::from)?;
                let facts = SourceFacts {
                    len,
                    virtual_len: disk_len.next_multiple_of(SECTOR_BYTES),
                    format: format.name(),
                };
                self.send_kept(&spool, format == Format::Iso, disk_len, dir, facts)
            }
        }
    }

    /// Copies an image of our layout; what the registry has, or can mount, is not sent.
    fn copy(
        &self,
        image: &Image,
        repository: &dvcr_client::Repository,
    ) -> Result<Imported, ImportError> {
        let layer = image.manifest().layers.first();
        let layer = layer.cloned().ok_or(LayoutError::Other)?;
        self.progress.begin(Phase::Send, Some(layer.size));
        let (manifest, sent) =
            self.destination
                .copy(self.runtime, self.stop(), image, repository)?;
        let labels = image.labels()?;
        let number = |label| labels.get(label).and_then(|text| text.parse().ok());
        let formats = [
            Format::Raw,
            Format::Iso,
            Format::Qcow2,
            Format::Vmdk,
            Format::Vdi,
            Format::Vhd,
            Format::Vhdx,
        ];
        let named = |name: &String| formats.into_iter().find(|format| format.name() == name);
        let format = labels.get(LABEL_FORMAT).and_then(named);
        Ok(Imported {
            image: Sent {
                manifest,
                layer: LayerFacts {
                    compression: Compression::Zstd,
                    digest: layer.digest,
                    len: layer.size,
                    // Whoever made the image has compared it.
                    diff_id: layer.digest,
                    annotations: layer.annotations,
                },
                sent,
            },
            source: SourceFacts {
                len: number(LABEL_SOURCE_SIZE).unwrap_or(layer.size),
                virtual_len: number(LABEL_VIRTUAL_SIZE).unwrap_or(0),
                format: format.unwrap_or(Format::Qcow2).name(),
            },
        })
    }

    /// A stream that is to be kept as it is.
    fn received(
        &self,
        mut stream: impl Read,
        watch: &Watch,
        dir: &Path,
        kept: Option<&Path>,
    ) -> Result<Imported, ImportError> {
        let source = match kept {
            Some(kept) => {
                io::copy(&mut stream, &mut io::sink()).map_err(LayoutError::from)?;
                open(kept)?
            }
            None => {
                let mut file = tempfile::tempfile_in(dir).map_err(InputError::Spool)?;
                let mut stream = stream.take(self.options.work_bytes_max + 1);
                let len = io::copy(&mut stream, &mut file).map_err(LayoutError::from)?;
                if len > self.options.work_bytes_max {
                    return Err(InputError::SpoolFull(self.options.work_bytes_max).into());
                }
                Arc::new(FileSource::new(file).map_err(InputError::Spool)?)
            }
        };
        watch.verify()?;
        self.local(source, &[], dir)
    }

    /// A raw disk or an optical disc that comes by once.
    fn sequential(
        &self,
        stream: Unwrapped,
        format: Format,
        watch: &Watch,
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let (spool, len, format, _) = self.keep_stream(stream, format, dir)?;
        if len == 0 {
            let error = crate::format::FormatError::Broken {
                format,
                reason: "the disk in it has no bytes".to_owned(),
            };
            return Err(error.into());
        }
        let facts = SourceFacts {
            len: watch.verify()?,
            virtual_len: len.next_multiple_of(SECTOR_BYTES),
            format: format.name(),
        };
        self.send_kept(&spool, format == Format::Iso, len, dir, facts)
    }

    /// Keeps the frames of a stream; also how long it was, what it turned out to be, and the stream itself, at its end.
    fn keep_stream<R: Read + Send>(
        &self,
        stream: R,
        format: Format,
        dir: &Path,
    ) -> Result<(FrameSpool, u64, Format, R), ImportError> {
        let spool = FrameSpool::create(dir, self.options.work_bytes_max);
        let mut spool = spool.map_err(|error| LayoutError::Io(error.into()))?;
        if format == Format::Iso {
            let mut pieces = DataPieces::verbatim(StreamClusters::verbatim(stream, 0), 0);
            self.keep(&mut pieces, &mut spool, false)?;
            let clusters = pieces.into_parts().1;
            return Ok((spool, clusters.len(), format, clusters.into_stream()));
        }
        let mut pieces = DataPieces::disk(StreamClusters::disk(WithoutFooter::new(stream)));
        self.keep(&mut pieces, &mut spool, false)?;
        let clusters = pieces.into_parts().1;
        let len = clusters.len();
        let stream = clusters.into_stream();
        let format = if stream.was_vhd() {
            Format::Vhd
        } else {
            format
        };
        Ok((spool, len, format, stream.into_inner()))
    }

    /// Compresses all pieces into the spool. What was made before an error stays there.
    fn keep<C: Clusters>(
        &self,
        pieces: &mut DataPieces<C>,
        spool: &mut FrameSpool,
        report: bool,
    ) -> Result<(), ImportError> {
        let named = pieces.map(|piece| piece.map(|piece| (piece.offset, piece.bytes)));
        let result = encode(named, self.options.threads, |offset, raw_len, frame| {
            if self.stop().is_cancelled() {
                return Err(io::Error::from(SourceError::Stopped).into());
            }
            if report {
                self.progress.reached(offset + raw_len as u64);
            }
            let kept = spool.push(offset, raw_len, frame);
            kept.map_err(|error| LayoutError::Io(error.into()))
        });
        let flushed = spool.flush();
        result?;
        flushed.map_err(|error| LayoutError::Io(error.into()))?;
        Ok(())
    }

    /// Sends what is in the spool: of a disk of `len` bytes, or a file.
    fn send_kept(
        &self,
        spool: &FrameSpool,
        verbatim: bool,
        len: u64,
        dir: &Path,
        facts: SourceFacts,
    ) -> Result<Imported, ImportError> {
        let qcow2;
        let surrounding = if verbatim {
            Surrounding::Verbatim(len)
        } else {
            let map = spool.map().clone();
            qcow2 = CanonicalQcow2::new(facts.virtual_len, map).ok_or(LayoutError::TooLarge)?;
            Surrounding::Disk(&qcow2)
        };
        self.progress.begin(Phase::Scan, None);
        let layer = Assembled::new(dir, spool, surrounding, self.options.threads)?;
        let total = match self.options.compression {
            Compression::Zstd => layer.layer.len,
            Compression::None => layer.plain_len,
        };
        self.progress.begin(Phase::Send, Some(total));
        let (layer, sent) = self.destination.send(
            self.runtime,
            self.stop(),
            &layer,
            self.options.compression,
            dir,
            self.report(),
        )?;
        self.finish(layer, sent, facts)
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

    fn report(&self) -> crate::push::Report {
        let progress = self.progress.clone();
        Arc::new(move |offset| progress.reached(offset))
    }
}

fn facts(image: &DiskImage, len: u64) -> SourceFacts {
    SourceFacts {
        len,
        virtual_len: image.virtual_len(),
        format: image.format().name(),
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
