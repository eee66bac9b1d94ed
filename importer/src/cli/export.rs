//! `dvcr-importer export`: a disk as a file or a stream, for other programs.

use std::{
    fs::File,
    io::{self, Seek as _},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use dvcr_importer::{
    export::{Output, export_qcow2, export_raw},
    image::Disk,
    populate::Progress,
    source::Location,
};
use rustix::fs::OFlags;

use super::{
    bar::Bar,
    disk::{DiskArgs, Wanted},
    keep::Keep,
    populate::{OutputFormat, canonical, clusters},
    process::Process,
};

/// Threads that read and decode.
const THREADS: usize = 8;

/// Writes a disk to a file or to standard output
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// HOST/REPOSITORY:TAG, a path, an address (https://, s3://, gs://, az://), oci:DIR[:TAG], or - for standard input
    source: Location,
    /// A file that is not there yet, or - for standard output
    output: PathBuf,
    /// Format of what is written
    #[arg(long, value_enum, default_value_t = OutputFormat::Raw)]
    format: OutputFormat,
    #[command(flatten)]
    disk: DiskArgs,
}

impl ExportArgs {
    /// Runs the command.
    pub(crate) fn run(&self, process: &Process) -> anyhow::Result<()> {
        let cancel = &process.cancel;
        let wanted = Wanted {
            streams: self.format == OutputFormat::Raw,
            checksums: &[],
            keep: &Keep::default(),
            progress: &Arc::default(),
        };
        let opened = self.disk.open(&self.source, wanted, process)?;
        // What is wrong with the disk is found before there is a file.
        let qcow2 = match (&opened.disk, self.format) {
            (Disk::Image(image), OutputFormat::Qcow2) => {
                Some(canonical(image.virtual_len(), clusters(image)?)?)
            }
            _ => None,
        };
        let stdout = self.output.as_os_str() == "-";
        let mut lock = io::stdout().lock();
        let mut output = if stdout {
            match sparse_stdout()? {
                Some(file) => Output::Sparse(file),
                None => Output::Stream(&mut lock),
            }
        } else {
            let file = File::options()
                .write(true)
                .create_new(true)
                .open(&self.output)
                .with_context(|| format!("make {}", self.output.display()))?;
            Output::Sparse(file)
        };
        let progress = Arc::new(Progress::default());
        let bar = Bar::follow(progress.clone(), false);
        let result = match opened.disk {
            Disk::Image(image) => match qcow2 {
                None => export_raw(&image, &mut output, THREADS, cancel, &progress),
                Some(qcow2) => {
                    export_qcow2(&image, &qcow2, &mut output, THREADS, cancel, &progress)
                }
            },
            Disk::Stream(stream) => {
                dvcr_importer::export::export_stream(stream, &mut output, cancel, &progress)
            }
        };
        drop(bar);
        if result.is_err() && !stdout {
            // A part of a disk looks like a disk.
            std::fs::remove_file(&self.output)?;
        }
        if let Output::Sparse(file) = &output {
            file.sync_all().context("sync the output")?;
        }
        Ok(result?)
    }
}

/// Standard output, if it is a file at whose end we are and that is written where we seek to.
fn sparse_stdout() -> anyhow::Result<Option<File>> {
    let stdout = io::stdout();
    let fd = stdout.as_fd();
    let mut file = File::from(fd.try_clone_to_owned()?);
    if !file.metadata()?.is_file() || rustix::fs::fcntl_getfl(fd)?.contains(OFlags::APPEND) {
        return Ok(None);
    }
    let at_end = file.stream_position()? == file.metadata()?.len();
    Ok(at_end.then_some(file))
}
