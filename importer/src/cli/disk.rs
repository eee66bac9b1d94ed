//! Opening the disk of a source, for the commands that read one.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use dvcr_importer::{
    checksum::{Checked, Checksum},
    image::{Disk, DiskStream, Image, Source},
    import::Origin,
    input::{Input, Spool},
    kept::Received,
    populate::{Ahead, Progress},
    source::{FileSource, Location, ReadAt, Reader, Remote, fetch::Fetch},
    wrapping::{Unwrapped, Wrapping},
};

use super::{keep::Keep, process::Process, size::parse_size, source::SourceArgs, work::WorkArgs};

/// What is said about a disk beside its name.
#[derive(Args, Clone, Debug)]
// There is no other server here that these could be about.
#[command(
    mut_arg("source_user", |arg| arg.visible_alias("user")),
    mut_arg("source_password", |arg| arg.visible_alias("password")),
    mut_arg("source_password_file", |arg| arg.visible_alias("password-file")),
    mut_arg("source_authfile", |arg| arg.visible_alias("authfile")),
    mut_arg("source_ca", |arg| arg.visible_alias("ca")),
    mut_arg("source_insecure", |arg| arg.visible_alias("insecure")),
    mut_arg("source_header", |arg| arg.visible_alias("header")),
    mut_arg("source_header_file", |arg| arg.visible_alias("header-file"))
)]
pub(crate) struct DiskArgs {
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Most bytes that may come out of a compressed disk
    #[arg(long, value_name = "SIZE", default_value = "16Ti", value_parser = parse_size)]
    unpacked_max: u64,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// A disk that was opened.
pub(crate) struct Opened {
    /// The disk.
    pub(crate) disk: Disk,
    /// What identifies its content: only then can a populate go on where it was.
    pub(crate) identity: Option<String>,
    /// The image that it is in, and what that is called.
    pub(crate) image: Option<(Image, String)>,
    /// Bytes of data that went to a temporary file.
    pub(crate) spooled: Option<u64>,
}

impl From<Disk> for Opened {
    fn from(disk: Disk) -> Self {
        Self {
            disk,
            identity: None,
            image: None,
            spooled: None,
        }
    }
}

/// How a disk is wanted.
#[derive(Copy, Clone)]
pub(crate) struct Wanted<'a> {
    /// As a stream if it can be read once; else it goes to a temporary file.
    pub(crate) streams: bool,
    /// What the bytes of the source must hash to.
    pub(crate) checksums: &'a [Checksum],
    /// Where is kept what has to be received from start to end.
    pub(crate) keep: &'a Keep,
    /// Told how far the source was read.
    pub(crate) progress: &'a Arc<Progress>,
}

impl DiskArgs {
    /// Opens a disk.
    pub(crate) fn open(
        &self,
        location: &Location,
        wanted: Wanted<'_>,
        process: &Process,
    ) -> anyhow::Result<Opened> {
        let dir = self.work.dir();
        let opening = Opening {
            spool: Spool {
                dir: &dir,
                bytes_max: self.work.bytes_max(),
                unwrapped_bytes_max: self.unpacked_max,
            },
            wanted,
            file: self.source.file.as_deref(),
        };
        let origin = self.source.open(location, process)?;
        let opened = match origin {
            Origin::File(path) => opening.file(&path),
            Origin::Stream(stream) => opening.stream(stream, None, None),
            Origin::Server(fetch) => {
                let remote = Arc::new(self.remote(fetch, process)?);
                opening.remote(&remote, location)
            }
            Origin::Image {
                image,
                name,
                repository,
                file,
            } => {
                let kept = repository.map(|_| wanted.keep.image((*image).clone()));
                let kept = kept.unwrap_or_else(|| (*image).clone());
                let watched = wanted.progress.watch_image(kept);
                let source = opening.image(&watched, file.as_deref());
                source.map(|opened| Opened {
                    image: Some((*image, name)),
                    ..opened
                })
            }
        };
        let mut opened = opened.with_context(|| location.to_string())?;
        // Another file of the same archive is another disk.
        if let (Some(identity), Some(file)) = (&mut opened.identity, opening.file) {
            *identity += &format!(" {file}");
        }
        Ok(opened)
    }

    /// A source as a stream of bytes, unopened: an archive, for example.
    pub(crate) fn stream(
        &self,
        location: &Location,
        checksums: &[Checksum],
        process: &Process,
    ) -> anyhow::Result<Box<dyn Read + Send>> {
        let stream: Box<dyn Read + Send> = match self.source.open(location, process)? {
            Origin::Stream(stream) => stream,
            Origin::File(path) => {
                Box::new(File::open(&path).with_context(|| path.display().to_string())?)
            }
            Origin::Server(fetch) => {
                Box::new(self.remote(fetch, process)?.stream(0, Default::default()))
            }
            Origin::Image { .. } => bail!(
                "an archive comes from a file, a web server, an object store or standard input"
            ),
        };
        Ok(Box::new(Checked::new(stream, checksums)))
    }

    /// Most bytes that may come out of a compressed source.
    pub(crate) fn unpacked_max(&self) -> u64 {
        self.unpacked_max
    }

    fn remote(&self, fetch: Arc<dyn Fetch>, process: &Process) -> anyhow::Result<Remote> {
        let address = fetch.address();
        let options = self.source.remote(process.stop.clone());
        Remote::open(fetch, process.runtime().clone(), options).context(address)
    }
}

/// One disk while it is opened.
struct Opening<'a> {
    spool: Spool<'a>,
    wanted: Wanted<'a>,
    /// The disk's name in an archive of several.
    file: Option<&'a str>,
}

impl Opening<'_> {
    fn file(&self, path: &Path) -> anyhow::Result<Opened> {
        let file = File::open(path)?;
        let identity = identity(&file.metadata()?);
        let Ok(source) = FileSource::new(file) else {
            // A pipe, such as /dev/stdin or what a shell substitutes.
            return self.stream(File::open(path)?, None, None);
        };
        let source: Arc<dyn ReadAt> = Arc::new(source);
        if !self.wanted.checksums.is_empty() {
            let mut all = Checked::new(Reader::new(source.clone()), self.wanted.checksums);
            io::copy(&mut all, &mut io::sink())?;
        }
        self.source(source, identity, || None)
    }

    fn remote(&self, remote: &Arc<Remote>, location: &Location) -> anyhow::Result<Opened> {
        let version = remote.version();
        let told = version.etag.as_ref().or(version.modified.as_ref());
        let identity = told.map(|told| format!("{location} {told}"));
        let ranged = remote.ranged();
        let kept = || self.wanted.keep.remote(remote);
        match ranged {
            Some(ranged) if self.wanted.checksums.is_empty() => {
                self.source(Arc::new(ranged), identity, kept)
            }
            Some(_) if let Some(received) = kept() => {
                self.stream(received, identity, remote.length())
            }
            _ => {
                let stream = remote.stream(0, Default::default());
                self.stream(stream, identity, remote.length())
            }
        }
    }

    /// A source that can be read at random, and whose checksums were compared. `kept` is the same from start to end.
    fn source(
        &self,
        source: Arc<dyn ReadAt>,
        identity: Option<String>,
        kept: impl FnOnce() -> Option<Received>,
    ) -> anyhow::Result<Opened> {
        // What is compressed is a stream, and needs no temporary file if the disk in it can be read once.
        let mut head = vec![0; source.len().min(512) as usize];
        source.read_at(0, &mut head)?;
        let wrapping = Wrapping::detect(&head);
        if wrapping.is_some_and(|wrapping| wrapping != Wrapping::Tar) {
            let len = Some(source.len());
            if let Some(received) = kept() {
                return self.unchecked(received, identity, len);
            }
            if self.wanted.streams {
                return self.unchecked(Reader::new(source), identity, len);
            }
        }
        let input = Input::open(source, self.file, self.spool)?;
        Ok(Opened {
            identity,
            spooled: input.spooled,
            ..Disk::Image(input.image).into()
        })
    }

    /// What comes from start to end, of so many bytes if somebody knows.
    fn stream(
        &self,
        stream: impl Read + Send + 'static,
        identity: Option<String>,
        len: Option<u64>,
    ) -> anyhow::Result<Opened> {
        self.unchecked(Checked::new(stream, self.wanted.checksums), identity, len)
    }

    fn unchecked(
        &self,
        stream: impl Read + Send + 'static,
        identity: Option<String>,
        len: Option<u64>,
    ) -> anyhow::Result<Opened> {
        let stream = self.wanted.progress.watch(stream, len);
        let bytes_max = self.spool.unwrapped_bytes_max;
        let mut stream = Unwrapped::choose(Ahead::new(stream), bytes_max, self.file)?;
        if self.wanted.streams {
            stream = match DiskStream::unverified(stream)? {
                Ok(stream) => {
                    return Ok(Opened {
                        identity,
                        ..Disk::Stream(stream).into()
                    });
                }
                Err(stream) => stream,
            };
        }
        let input = Input::spool(stream, self.spool)?;
        Ok(Opened {
            identity,
            spooled: input.spooled,
            ..Disk::Image(input.image).into()
        })
    }

    fn image(&self, image: &Image, file: Option<&str>) -> anyhow::Result<Opened> {
        if !self.wanted.checksums.is_empty() {
            bail!(
                "checksums are for files; those of an image are in its manifest: name it by its digest"
            );
        }
        let Source {
            disk,
            file,
            layer,
            spooled,
        } = image.open(file, self.spool, self.wanted.streams)?;
        Ok(Opened {
            disk,
            identity: Some(format!("{} {file}", layer.digest)),
            image: None,
            spooled,
        })
    }
}

/// A file that is not changed keeps all of these.
fn identity(metadata: &fs::Metadata) -> Option<String> {
    metadata.is_file().then(|| {
        format!(
            "file {}:{} {} {}.{:09}",
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )
    })
}
