//! `dvcr-importer populate`: from anywhere onto a volume.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use dvcr_core::disk::CanonicalQcow2;
use dvcr_importer::{
    checksum::Checksum,
    format::{DiskImage, Format, FormatError},
    image::{Disk, DiskStream, Image},
    layout,
    populate::{
        Header, Options, PopulateError, Progress, State, data_bytes, extract, populate,
        populate_blank, populate_stream,
    },
    source::{
        Location,
        retry::{Verdict, verdict},
    },
    target::{
        FileId, Place, Qcow2Target, RawOptions, RawTarget, Sizing, Target, TargetError,
        stored_clusters,
    },
};
use serde::Serialize;

use super::{
    bar::Bar,
    disk::{DiskArgs, Wanted},
    keep::Keep,
    outcome::code,
    process::Process,
    size::{parse_size, show_size},
};

/// Standard input as a file.
const STDIN: &str = "/proc/self/fd/0";

/// Writes a disk to a file, a volume or a block device
#[derive(Args, Debug)]
pub(crate) struct PopulateArgs {
    /// HOST/REPOSITORY:TAG, a path, an address (https://, s3://, gs://, az://), oci:DIR[:TAG], - for standard input, or
    /// blank: for a disk of zeros
    pub(crate) source: Location,
    /// A block device, a directory (the disk becomes disk.img in it), or a file
    pub(crate) target: PathBuf,
    /// Format of a file
    #[arg(long, value_enum, default_value_t = OutputFormat::Raw)]
    format: OutputFormat,
    /// Size of the claim, such as 10Gi: the disk grows to it, and must not be larger
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Part of the file system that stays free for its own needs, from 0 to 1; CDI's default is 0.06
    #[arg(long, value_name = "PART", value_parser = parse_overhead, default_value = "0")]
    filesystem_overhead: f64,
    /// Take space for zeros, too
    #[arg(long)]
    preallocate: bool,
    /// The device is known to be zero throughout: nothing is zeroed
    #[arg(long)]
    zeroed: bool,
    /// The source is a tar archive, and its content goes into the directory
    #[arg(long, conflicts_with_all = ["format", "size", "preallocate", "zeroed", "state"])]
    archive: bool,
    /// What the source's bytes must hash to, like sha256:9f86...; also md5, sha1, sha512, streebog256, streebog512; may be given
    /// several times. The source is then read from start to end
    #[arg(long = "checksum", value_name = "ALGORITHM:HEX")]
    checksums: Vec<Checksum>,
    /// File that remembers what was written, so that the same command goes on after a failure. Beside the target if that is
    /// a file; a device has none unless it is said here
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Threads that read, decode and write
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Write past the page cache, or through it
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Direct::Auto)]
    direct: Direct,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    /// How far it is, for who watches.
    #[arg(skip)]
    progress: Arc<Progress>,
}

/// What is written.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum OutputFormat {
    /// The disk, byte for byte
    Raw,
    /// QEMU's format
    Qcow2,
}

/// Whether the page cache is used.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Direct {
    /// Past it where that works: several times as fast, and no memory is taken for what nobody reads
    Auto,
    /// Through it
    Off,
}

fn parse_overhead(text: &str) -> Result<f64, String> {
    let overhead: f64 = text.parse().map_err(|_| "a number from 0 to 1 is wanted")?;
    if (0.0..=1.0).contains(&overhead) {
        Ok(overhead)
    } else {
        Err("a number from 0 to 1 is wanted".to_owned())
    }
}

/// What a populate did.
#[derive(Serialize)]
struct Summary<'a> {
    target: &'a Path,
    virtual_size: u64,
    written_bytes: u64,
    zero_bytes: u64,
    kept_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spooled_bytes: Option<u64>,
    seconds: f64,
}

impl PopulateArgs {
    /// How far it is, to be asked while it runs.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Where is kept what cannot be read at random.
    fn keep(&self) -> Keep {
        match self.disk.work.keep_dir() {
            Some(parent) => {
                let (source, target) = (&self.source, self.target.display());
                let name = format!("{source} onto {target}");
                Keep::new(parent, name, self.disk.work.bytes_max())
            }
            None => Keep::default(),
        }
    }

    /// Runs the command. The image that the disk is from, if it is from one.
    pub(crate) fn run(&self, process: &Process) -> anyhow::Result<Option<Image>> {
        let begin = Instant::now();
        if self.archive {
            self.extract(process)?;
            return Ok(None);
        }
        let place = Place::of(&self.target)?;
        let progress = self.progress();
        let bar = Bar::follow(progress.clone(), self.json);
        let (virtual_size, spooled, image) = match &self.source {
            Location::Blank => (self.blank(&place, &process.cancel, &progress)?, None, None),
            _ => {
                let keep = self.keep();
                let result = self.bring(&place, &keep, process, &progress);
                let over = result
                    .as_ref()
                    .map_or_else(|error| code(error) == 1, |_| true);
                if over {
                    keep.remove();
                    process.kept.store(false, Ordering::Relaxed);
                } else if keep.is_used() {
                    process.kept.store(true, Ordering::Relaxed);
                }
                result?
            }
        };
        drop(bar);
        self.summarise(&place, virtual_size, spooled, &progress, begin.elapsed())?;
        Ok(image)
    }

    /// Writes what is in the source; the length that a guest sees, what went to a temporary file, and the image it was in.
    fn bring(
        &self,
        place: &Place,
        keep: &Keep,
        process: &Process,
        progress: &Progress,
    ) -> anyhow::Result<(u64, Option<u64>, Option<Image>)> {
        let wanted = Wanted {
            streams: self.format == OutputFormat::Raw,
            checksums: &self.checksums,
            keep,
            progress: &self.progress,
        };
        let opened = self.disk.open(&self.source, wanted, process)?;
        let identity = opened.identity;
        let len = match opened.disk {
            Disk::Image(image) => self.image(&image, identity, place, process, progress)?,
            Disk::Stream(stream) => self.stream(stream, identity, place, process, progress)?,
        };
        let image = opened.image.map(|(image, _)| image);
        Ok((len, opened.spooled, image))
    }

    /// Writes a disk as it comes; the length that a guest sees.
    fn stream(
        &self,
        stream: DiskStream,
        identity: Option<String>,
        place: &Place,
        process: &Process,
        progress: &Progress,
    ) -> anyhow::Result<u64> {
        let len = stream.virtual_len();
        let state = self.state(identity, len.unwrap_or(0), place, process)?;
        let keep = state.as_ref().is_some_and(State::is_resumed);
        let options = RawOptions {
            least_len: stream.least_len(),
            ..self.raw_options(keep)
        };
        let target = RawTarget::open(place, len, options);
        let target = target.or_else(|error| give_up(state.as_ref().filter(|_| !keep), error))?;
        let options = self.options(state.as_ref(), &process.cancel);
        let result = populate_stream(stream, &target, options, progress);
        drop(target);
        self.end(result, state, place, &process.cancel)
    }

    /// What is left of a populate, whose target was opened: a disk, or what the next run goes on with, but no part of a disk that looks
    /// like one.
    fn end(
        &self,
        result: Result<u64, PopulateError>,
        state: Option<State>,
        place: &Place,
        cancel: &AtomicBool,
    ) -> anyhow::Result<u64> {
        let wrong = result.as_ref().is_err_and(is_wrong);
        if wrong {
            self.discard(place, cancel)?;
        } else if let (Err(_), None, Place::File(path)) = (&result, &state, place) {
            // It did not get that far, or is gone: what counts is why.
            let _ = fs::remove_file(path);
        }
        if let Some(state) = state.filter(|_| wrong || result.is_ok()) {
            state.remove().context("remove the state file")?;
        }
        Ok(result?)
    }

    /// Content that turned out to be wrong does not stay where a good disk is expected: the file goes, a device becomes zeros.
    fn discard(&self, place: &Place, cancel: &AtomicBool) -> anyhow::Result<()> {
        let what = "remove the disk that turned out to be wrong";
        if let Place::File(path) = place {
            return fs::remove_file(path).context(what);
        }
        let options = RawOptions {
            known_zero: false,
            ..self.raw_options(false)
        };
        let target = RawTarget::open(place, Some(0), options).context(what)?;
        let progress = Progress::default();
        populate_blank(&target, self.options(None, cancel), &progress).context(what)?;
        Ok(())
    }

    fn extract(&self, process: &Process) -> anyhow::Result<()> {
        if !self.target.is_dir() {
            bail!(
                "{} is no directory to unpack an archive into",
                self.target.display()
            );
        }
        let stream = self.disk.stream(&self.source, &self.checksums, process)?;
        let unpacked_max = self.disk.unpacked_max();
        let done = extract(stream, &self.target, unpacked_max, &process.cancel)?;
        eprintln!(
            "{} files and {} directories, {}",
            done.files,
            done.directories,
            show_size(done.bytes)
        );
        Ok(())
    }

    fn blank(
        &self,
        place: &Place,
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> anyhow::Result<u64> {
        let is_file = matches!(place, Place::File(_));
        if is_file && self.size.is_none() {
            bail!("a blank disk in a file needs a --size");
        }
        let target: Box<dyn Target> = match (self.format, place) {
            (OutputFormat::Qcow2, Place::File(path)) => {
                let len = self.size.unwrap_or_default();
                let qcow2 = canonical(len, Default::default())?;
                let options = self.raw_options(false);
                Box::new(Qcow2Target::open(path, len, &qcow2, options)?)
            }
            _ => Box::new(RawTarget::open(place, Some(0), self.raw_options(false))?),
        };
        Ok(populate_blank(
            &*target,
            self.options(None, cancel),
            progress,
        )?)
    }

    /// Writes a disk that can be read at random; the length that a guest sees.
    fn image(
        &self,
        image: &DiskImage,
        identity: Option<String>,
        place: &Place,
        process: &Process,
        progress: &Progress,
    ) -> anyhow::Result<u64> {
        // A broken image must not cost what is on the target.
        let data_bytes = Some(data_bytes(image)?);
        let state = self.state(identity, image.virtual_len(), place, process)?;
        let keep = state.as_ref().is_some_and(State::is_resumed);
        let target = self.open_target(image, place, keep);
        let target = target.or_else(|error| give_up(state.as_ref().filter(|_| !keep), error))?;
        let options = Options {
            data_bytes,
            ..self.options(state.as_ref(), &process.cancel)
        };
        let result = populate(image, &*target, options, progress);
        drop(target);
        self.end(result, state, place, &process.cancel)
    }

    /// What earlier runs wrote of the disk that `identity` tells from others; `None` if nothing does, or nobody says where to note it.
    fn state(
        &self,
        identity: Option<String>,
        virtual_len: u64,
        place: &Place,
        process: &Process,
    ) -> anyhow::Result<Option<State>> {
        let Some((path, image)) = self.state_path(place).zip(identity) else {
            return Ok(None);
        };
        let other = |id: Option<FileId>, what: &str| match id {
            Some(id) if FileId::of_path(&path) == Some(id) => {
                bail!(
                    "{} is the {what}: name another file with --state",
                    path.display()
                )
            }
            _ => Ok(()),
        };
        other(self.source_id(), "source")?;
        other(FileId::of_path(place.path()), "target")?;
        let header = Header {
            image,
            virtual_len,
            target: format!("{:?} {:?} {}", self.format, self.size, self.preallocate),
        };
        let state = State::open(&path, &header);
        if let Ok(state) = &state
            && let Err(error) = other(FileId::of_path(place.path()), "target")
        {
            // It was made just now.
            state.remove().context("remove the state file")?;
            return Err(error);
        }
        process.kept.store(state.is_ok(), Ordering::Relaxed);
        Ok(Some(state.map_err(|error| match error.kind() {
            // Another populate has it, and writes the same target.
            ErrorKind::WouldBlock => TargetError::Busy(place.path().to_owned()).into(),
            _ => {
                anyhow::Error::new(error).context(format!("open the state file {}", path.display()))
            }
        })?))
    }

    fn open_target(
        &self,
        image: &DiskImage,
        place: &Place,
        keep: bool,
    ) -> anyhow::Result<Box<dyn Target>> {
        let len = image.virtual_len();
        let path = match (self.format, place) {
            (OutputFormat::Raw, _) => {
                let options = self.raw_options(keep);
                return Ok(Box::new(RawTarget::open(place, Some(len), options)?));
            }
            (OutputFormat::Qcow2, Place::Device(path)) => {
                let reason = "a device takes raw disks only";
                let path = path.clone();
                return Err(TargetError::Unfit { path, reason }.into());
            }
            (OutputFormat::Qcow2, Place::File(path)) => path,
        };
        let grown = len.max(self.size.unwrap_or(0));
        if let Some(size) = self.size.filter(|size| *size < len) {
            bail!("the disk has {len} bytes, more than the --size of {size}");
        }
        let qcow2 = canonical(grown, clusters(image)?)?;
        let target = Qcow2Target::open(path, grown, &qcow2, self.raw_options(keep))?;
        Ok(Box::new(target))
    }

    fn raw_options(&self, keep: bool) -> RawOptions {
        RawOptions {
            sizing: Sizing {
                claim: self.size,
                overhead: self.filesystem_overhead,
            },
            preallocate: self.preallocate,
            known_zero: self.zeroed,
            keep,
            direct: self.direct == Direct::Auto,
            source: self.source_id(),
            ..RawOptions::default()
        }
    }

    /// The file or device that the disk is read from, also as standard input.
    fn source_id(&self) -> Option<FileId> {
        match &self.source {
            Location::File(path) => FileId::of_path(path),
            Location::Stdin => FileId::of_path(Path::new(STDIN)),
            _ => None,
        }
    }

    fn options<'a>(&self, state: Option<&'a State>, cancel: &'a AtomicBool) -> Options<'a> {
        let mut options = Options::new(cancel);
        options.state = state;
        if let Some(threads) = self.threads {
            options.threads = threads.into();
        }
        options
    }

    fn state_path(&self, place: &Place) -> Option<PathBuf> {
        match (&self.state, place) {
            (Some(path), _) => Some(path.clone()),
            (None, Place::File(path)) => {
                let name = path.file_name()?.to_string_lossy();
                Some(path.with_file_name(format!(".{name}.populate")))
            }
            (None, Place::Device(_)) => None,
        }
    }

    fn summarise(
        &self,
        place: &Place,
        virtual_size: u64,
        spooled_bytes: Option<u64>,
        progress: &Progress,
        time: Duration,
    ) -> anyhow::Result<()> {
        let summary = Summary {
            target: place.path(),
            virtual_size,
            written_bytes: progress.written(),
            zero_bytes: progress.zeroed(),
            kept_bytes: progress.kept(),
            spooled_bytes,
            seconds: time.as_secs_f64(),
        };
        if self.json {
            println!("{}", serde_json::to_string(&summary)?);
            return Ok(());
        }
        let speed = (progress.done() as f64 / summary.seconds.max(0.001)) as u64;
        let mut text = format!(
            "{}: disk of {}, {} written in {:.1} s ({}/s)",
            place.path().display(),
            show_size(virtual_size),
            show_size(summary.written_bytes),
            summary.seconds,
            show_size(speed)
        );
        if summary.kept_bytes > 0 {
            text += &format!(", {} were there", show_size(summary.kept_bytes));
        }
        if let Some(spooled) = spooled_bytes {
            text += &format!(", {} by way of a temporary file", show_size(spooled));
        }
        eprintln!("{text}");
        Ok(())
    }
}

/// Which clusters a disk needs in a qcow2: what its image stores, unless that is everything and says nothing.
pub(crate) fn clusters(image: &DiskImage) -> anyhow::Result<dvcr_core::disk::ClusterMap> {
    Ok(match image.format() {
        Format::Raw | Format::Iso => layout::scan(image)?,
        _ => stored_clusters(image)?,
    })
}

/// The places of a qcow2.
pub(crate) fn canonical(
    len: u64,
    map: dvcr_core::disk::ClusterMap,
) -> anyhow::Result<CanonicalQcow2> {
    let why = || {
        format!("a qcow2 disk of {len} bytes: whole sectors of 512 bytes are wanted, up to 64 TiB")
    };
    CanonicalQcow2::new(len, map).with_context(why)
}

/// Nothing was written, and nothing that could be gone on with.
fn give_up<T>(state: Option<&State>, error: impl Into<anyhow::Error>) -> anyhow::Result<T> {
    if let Some(state) = state {
        state.remove().context("remove the state file")?;
    }
    Err(error.into())
}

/// Whether a disk turned out not to be what it should be, or longer than the target: no other run would do better with it.
fn is_wrong(error: &PopulateError) -> bool {
    match error {
        PopulateError::Stream(cause) | PopulateError::Disk(FormatError::Source(cause)) => {
            cause.kind() == ErrorKind::InvalidData || verdict(cause) == Some(Verdict::Final)
        }
        PopulateError::Disk(FormatError::Broken { .. } | FormatError::Refused { .. }) => true,
        PopulateError::TooSmall(_) => true,
        _ => false,
    }
}
