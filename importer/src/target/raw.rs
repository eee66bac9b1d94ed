//! Raw disks: a file, or a block device.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
};

use rustix::{
    fs::{Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom},
    io::Errno,
};

use super::{ALIGNMENT, FileId, Place, Sizing, Target, TargetError, space::free_bytes};

/// Mode of a file that is made: CDI's, for the group that virtual machines run as.
const FILE_MODE: u32 = 0o660;

/// Zeros that are written at a time where nothing better works.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// How a raw target is opened.
#[derive(Copy, Clone, Debug, Default)]
pub struct RawOptions {
    /// How large the disk may become.
    pub sizing: Sizing,
    /// Whether space is taken for zeros, too.
    pub preallocate: bool,
    /// Whether a device is known to be zero throughout: nothing is zeroed then.
    pub known_zero: bool,
    /// Whether what is in a file counts, because an earlier run wrote it.
    pub keep: bool,
    /// Whether to write past the page cache, where that works.
    pub direct: bool,
    /// Bytes that a disk of unknown length has at least.
    pub least_len: u64,
    /// What the disk is read from, if that is a file or device: it must not be written.
    pub source: Option<FileId>,
}

/// A raw file or a block device, locked against a second writer.
#[derive(Debug)]
pub struct RawTarget {
    path: PathBuf,
    file: File,
    /// The same file, written past the page cache.
    direct: Option<File>,
    refused_direct: AtomicBool,
    len: Option<u64>,
    room: u64,
    /// What a file of unknown length grows to.
    least_len: u64,
    device: bool,
    preallocate: bool,
    /// Whether what was not written reads as zeros.
    known_zero: bool,
    /// The first of [`ZEROINGS`] that was not found to fail.
    zeroing: AtomicU8,
}

/// Ways to make zeros, the best first. On a device the first two are `blkdev_issue_zeroout`, with and without giving space
/// back; both leave zeros or fail.
const ZEROINGS: [FallocateFlags; 2] = [
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
    FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
];

impl RawTarget {
    /// Opens a target for a disk of `virtual_len` bytes, or of as many as will come. Whether it fits is checked before
    /// anything is changed.
    pub fn open(
        place: &Place,
        virtual_len: Option<u64>,
        options: RawOptions,
    ) -> Result<Self, TargetError> {
        match place {
            Place::File(path) => Self::open_file(path, virtual_len, options),
            Place::Device(path) => Self::open_device(path, virtual_len, options),
        }
    }

    fn open_file(
        path: &Path,
        virtual_len: Option<u64>,
        options: RawOptions,
    ) -> Result<Self, TargetError> {
        let failed = |what| io_error(what, path);
        let free = free_bytes(path).map_err(failed("look at the file system of"))?;
        let fits = |virtual_len| {
            let len = options.sizing.file_len(virtual_len, free);
            len.map_err(|available| TargetError::TooSmall {
                path: path.to_owned(),
                needed: virtual_len,
                available,
                advice: "a larger volume, or a larger --size, is needed",
            })
        };
        fits(options.least_len)?;
        let len = virtual_len.map(fits).transpose()?;
        let file = open_file(path, len, options)?;
        if options.keep {
            forget_cached(&file);
        }
        Ok(Self {
            direct: options.direct.then(|| reopen_direct(&file)).flatten(),
            refused_direct: AtomicBool::new(false),
            path: path.to_owned(),
            file,
            len,
            room: len.unwrap_or_else(|| options.sizing.usable(free)),
            least_len: options.sizing.least_len(free),
            device: false,
            preallocate: options.preallocate,
            // Space for the zeros of a disk whose length is not known yet is taken as they come.
            known_zero: !options.keep && (len.is_some() || !options.preallocate),
            zeroing: AtomicU8::new(u8::from(options.preallocate)),
        })
    }

    fn open_device(
        path: &Path,
        virtual_len: Option<u64>,
        options: RawOptions,
    ) -> Result<Self, TargetError> {
        let failed = |what| io_error(what, path);
        // Exclusive: a device with a mounted file system is refused by the kernel.
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::EXCL.bits() as i32)
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy => TargetError::Busy(path.to_owned()),
                _ => failed("open")(error),
            })?;
        lock(&file, path)?;
        refuse_source(&file, path, options.source)?;
        if options.keep {
            forget_cached(&file);
        }
        let len = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|errno| failed("find the length of")(errno.into()))?;
        let available = options.sizing.claim.map_or(len, |claim| claim.min(len));
        let needed = virtual_len.unwrap_or(options.least_len);
        if needed > available {
            return Err(TargetError::TooSmall {
                path: path.to_owned(),
                needed,
                available,
                advice: "a larger device, or a larger --size, is needed",
            });
        }
        Ok(Self {
            direct: options.direct.then(|| reopen_direct(&file)).flatten(),
            refused_direct: AtomicBool::new(false),
            path: path.to_owned(),
            file,
            len: Some(len),
            room: available,
            least_len: 0,
            device: true,
            preallocate: options.preallocate,
            known_zero: options.known_zero,
            zeroing: AtomicU8::new(u8::from(options.preallocate)),
        })
    }
}

impl Target for RawTarget {
    fn guest_len(&self) -> Option<u64> {
        self.len
    }

    fn room(&self) -> u64 {
        self.room
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let aligned = |number: u64| number.is_multiple_of(ALIGNMENT as u64);
        let mut done = 0;
        if let Some(direct) = &self.direct
            && aligned(offset)
            && aligned(data.as_ptr() as u64)
            && !self.refused_direct.load(Ordering::Relaxed)
        {
            let len = data.len() / ALIGNMENT * ALIGNMENT;
            match direct.write_all_at(&data[..len], offset) {
                Ok(()) => done = len,
                // Some file systems take the flag and then refuse writes.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refused_direct.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        self.file.write_all_at(&data[done..], offset + done as u64)
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.known_zero || len == 0 {
            return Ok(());
        }
        let first = self.zeroing.load(Ordering::Relaxed);
        for (flags, number) in ZEROINGS.into_iter().zip(0..).skip(usize::from(first)) {
            match rustix::fs::fallocate(&self.file, flags, offset, len) {
                Ok(()) => return Ok(()),
                // Not whole blocks of the device: another part may be.
                Err(Errno::INVAL) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) => {
                    self.zeroing.fetch_max(number + 1, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        write_zeros(&self.file, offset..offset + len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn finish(&self, len: u64) -> io::Result<u64> {
        if self.device {
            self.file.sync_all()?;
            return Ok(self.len.unwrap_or(len));
        }
        let grown = len.max(self.least_len);
        if self.len.is_none() {
            // What an earlier run may have left behind the disk becomes zeros.
            self.file.set_len(len)?;
        }
        self.file.set_len(grown)?;
        if self.preallocate && self.len.is_none() {
            allocate(&self.file, len..grown)?;
        }
        self.file.sync_all()?;
        sync_parent(&self.path)?;
        Ok(grown)
    }
}

/// Makes a file, or opens one that is there, and locks it. Unless it is kept, whatever was in it becomes a hole. It gets its length, if
/// that is known, and space for all of it if that is wanted.
pub(super) fn open_file(
    path: &Path,
    len: Option<u64>,
    options: RawOptions,
) -> Result<File, TargetError> {
    let failed = |what| io_error(what, path);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(failed("open"))?;
    lock(&file, path)?;
    refuse_source(&file, path, options.source)?;
    if !options.keep {
        file.set_len(0).map_err(failed("empty"))?;
    }
    if let Some(len) = len {
        file.set_len(len).map_err(failed("set the length of"))?;
        if options.preallocate {
            allocate(&file, 0..len).map_err(failed("take space for"))?;
        }
    }
    Ok(file)
}

/// What is read back must be what the device has: after a sync that failed the page cache may have more.
fn forget_cached(file: &File) {
    // Best effort: such a failure is rare, and some file systems cache nothing.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}

/// Only one writer at a time.
fn lock(file: &File, path: &Path) -> Result<(), TargetError> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => TargetError::Busy(path.to_owned()),
        errno => io_error("lock", path)(errno.into()),
    })
}

/// An error if what was opened is what the disk is read from.
fn refuse_source(file: &File, path: &Path, source: Option<FileId>) -> Result<(), TargetError> {
    let metadata = file.metadata().map_err(io_error("look at", path))?;
    let same = FileId::of(&metadata).zip(source);
    match same.is_some_and(|(target, source)| target.overlaps(source)) {
        true => Err(TargetError::IsSource(path.to_owned())),
        false => Ok(()),
    }
}

/// Takes space for a part of a file in which there is nothing yet, and which lies within the file's length.
fn allocate(file: &File, Range { start, end }: Range<u64>) -> io::Result<()> {
    if start == end {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), start, end - start) {
        Err(Errno::OPNOTSUPP) => write_zeros(file, start..end),
        result => Ok(result?),
    }
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let part = (range.end - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..part as usize], at)?;
        at += part;
    }
    Ok(())
}

/// The name of a new file is durable, too.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// `None` where the file system does not offer it.
fn reopen_direct(file: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .ok()
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TargetError {
    let path = path.to_owned();
    move |source| TargetError::Io { what, path, source }
}
