//! From a disk to a stream: raw or qcow2, in order, read and decoded on several threads.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use dvcr_core::disk::{CLUSTER_BYTES, CanonicalQcow2};

use crate::{
    format::{DiskImage, ExtentKind, FormatError},
    image::DiskStream,
    populate::{PopulateError, Progress, WINDOW_BYTES, fill, parts},
};

/// Zeros that are written at a time where they cannot be left out.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where a stream goes.
pub enum Output<'a> {
    /// Somewhere that takes all bytes.
    Stream(&'a mut dyn Write),
    /// A file at whose end we are: zeros become holes.
    Sparse(File),
}

impl Output<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(out) => out.write_all(bytes),
            Self::Sparse(file) => file.write_all(bytes),
        }
    }

    fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        match self {
            Self::Stream(out) => {
                while len > 0 {
                    let part = len.min(ZEROS.len() as u64);
                    out.write_all(&ZEROS[..part as usize])?;
                    len -= part;
                }
                Ok(())
            }
            Self::Sparse(file) => {
                let end = file.stream_position()?.checked_add(len);
                let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
                file.seek(SeekFrom::Start(end)).map(drop)
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(out) => out.flush(),
            Self::Sparse(file) => {
                let end = file.stream_position()?;
                // What was sought over is not there yet if nothing came behind it.
                file.set_len(end)
            }
        }
    }
}

/// A part of a disk, on its way out.
#[derive(Debug)]
enum Part {
    Data(Range<u64>),
    Zero(u64),
}

/// Writes the disk itself.
pub fn export_raw(
    image: &DiskImage,
    out: &mut Output<'_>,
    threads: usize,
    cancel: &AtomicBool,
    progress: &Progress,
) -> Result<(), PopulateError> {
    let mut data = 0;
    for extent in image.extents() {
        let extent = extent?;
        data += u64::from(extent.kind == ExtentKind::Data) * extent.len;
    }
    progress.expect(data);
    let parts = image.extents().flat_map(|extent| match extent {
        Ok(extent) if extent.kind == ExtentKind::Zero => {
            Pieces::One(Some(Ok(Part::Zero(extent.len))))
        }
        Ok(extent) => Pieces::Many(windows(extent.offset..extent.offset + extent.len)),
        Err(error) => Pieces::One(Some(Err(error))),
    });
    ordered(image, parts, out, threads, cancel, progress)?;
    out.finish()
        .map_err(|source| write_error(image.virtual_len(), source))
}

/// Writes a qcow2 file with the disk in these places.
pub fn export_qcow2(
    image: &DiskImage,
    qcow2: &CanonicalQcow2,
    out: &mut Output<'_>,
    threads: usize,
    cancel: &AtomicBool,
    progress: &Progress,
) -> Result<(), PopulateError> {
    const CLUSTER: u64 = CLUSTER_BYTES as u64;
    progress.expect(qcow2.file_len() - qcow2.meta_clusters() * CLUSTER);
    for number in 0..qcow2.meta_clusters() {
        out.data(&qcow2.meta_cluster(number))
            .map_err(|source| write_error(0, source))?;
    }
    let parts = qcow2
        .runs()
        .flat_map(|run| windows(run.start * CLUSTER..run.end * CLUSTER));
    ordered(image, parts, out, threads, cancel, progress)?;
    out.finish()
        .map_err(|source| write_error(image.virtual_len(), source))
}

fn write_error(offset: u64, source: io::Error) -> PopulateError {
    PopulateError::Write { offset, source }
}

/// One part or many.
enum Pieces<I> {
    One(Option<Result<Part, FormatError>>),
    Many(I),
}

impl<I: Iterator<Item = Result<Part, FormatError>>> Iterator for Pieces<I> {
    type Item = Result<Part, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(part) => part.take(),
            Self::Many(parts) => parts.next(),
        }
    }
}

/// A range in parts that fit a thread.
fn windows(range: Range<u64>) -> impl Iterator<Item = Result<Part, FormatError>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at;
        at = range.end.min(at + WINDOW_BYTES);
        (start < at).then_some(Ok(Part::Data(start..at)))
    })
}

type Bytes = Result<Vec<u8>, FormatError>;

/// What comes next in the stream.
enum Next {
    /// Bytes that somebody reads, and how many.
    Read(Receiver<Bytes>, u64),
    Zeros(u64),
    Failed(FormatError),
}

/// Reads parts on several threads and writes them in their order.
fn ordered(
    image: &DiskImage,
    parts: impl Iterator<Item = Result<Part, FormatError>> + Send,
    out: &mut Output<'_>,
    threads: usize,
    cancel: &AtomicBool,
    progress: &Progress,
) -> Result<(), PopulateError> {
    let threads = threads.max(1);
    let (job_sender, jobs) = sync_channel::<(Range<u64>, SyncSender<Bytes>)>(threads);
    let (next_sender, next) = sync_channel::<Next>(threads);
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for _ in 0..threads {
            let jobs = &jobs;
            scope.spawn(move || {
                loop {
                    let Ok(Ok((range, bytes))) = jobs.lock().map(|jobs| jobs.recv()) else {
                        return;
                    };
                    // Nobody wants it any more if writing failed.
                    let _ = bytes.send(read(image, range));
                }
            });
        }
        scope.spawn(move || {
            for part in parts {
                let sent = match part {
                    Ok(Part::Zero(len)) => next_sender.send(Next::Zeros(len)).is_ok(),
                    Ok(Part::Data(range)) => {
                        let (sender, receiver) = sync_channel(1);
                        let len = range.end - range.start;
                        next_sender.send(Next::Read(receiver, len)).is_ok()
                            && job_sender.send((range, sender)).is_ok()
                    }
                    Err(error) => next_sender.send(Next::Failed(error)).is_ok(),
                };
                if !sent {
                    return;
                }
            }
        });
        let mut at = 0;
        // Taken by value: when this ends early, the threads notice.
        for next in next {
            if cancel.load(Ordering::Relaxed) {
                return Err(PopulateError::Cancelled);
            }
            let written = match next {
                Next::Zeros(len) => {
                    at += len;
                    out.zeros(len)
                }
                Next::Read(bytes, len) => {
                    let lost = || FormatError::from(io::Error::other("a reading thread ended"));
                    let bytes = bytes.recv().map_err(|_| lost())??;
                    at += len;
                    progress.moved(len);
                    out.data(&bytes)
                }
                Next::Failed(error) => return Err(error.into()),
            };
            written.map_err(|source| write_error(at, source))?;
        }
        Ok(())
    })
}

/// Reads a part; what lies behind the disk's end, in its last cluster, is zeros.
fn read(image: &DiskImage, range: Range<u64>) -> Bytes {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let len = image.virtual_len().min(range.end) - range.start;
    image.read_at(range.start, &mut bytes[..len as usize])?;
    Ok(bytes)
}

/// Writes a disk as it comes.
pub fn export_stream(
    mut stream: DiskStream,
    out: &mut Output<'_>,
    cancel: &AtomicBool,
    progress: &Progress,
) -> Result<(), PopulateError> {
    progress.expect(stream.virtual_len().unwrap_or(0));
    let mut buf = vec![0; WINDOW_BYTES as usize];
    let mut at = 0;
    loop {
        let len = fill(&mut stream, &mut buf).map_err(PopulateError::Stream)?;
        if len == 0 {
            break;
        }
        if cancel.load(Ordering::Relaxed) {
            return Err(PopulateError::Cancelled);
        }
        for (range, zeros) in parts(&buf[..len]) {
            let result = if zeros {
                out.zeros(range.len() as u64)
            } else {
                out.data(&buf[range])
            };
            result.map_err(|source| write_error(at, source))?;
        }
        at += len as u64;
        progress.moved(len as u64);
    }
    stream.finish().map_err(PopulateError::Stream)?;
    out.finish().map_err(|source| write_error(at, source))
}
