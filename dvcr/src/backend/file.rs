//! Packs as files of one directory.
//!
//! Pack `0x1f` is `000000000000001f.pack`. The directory is flat: a TiB has 4,096 packs, which any file system looks up and
//! lists without noticing, and one directory is one fsync. Names are built from the number alone.
//!
//! A file is writable (0600) until it is sealed (0400). Only the [`FileBackend`] that created a pack appends to it; after a
//! restart a pack can be read, sealed and deleted. After a failed append or sync a pack can only be sealed: Linux may
//! have marked pages clean that it could not write, so a second fsync proves nothing about them.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, IoSlice},
    ops::Range,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use quick_cache::sync::Cache;
use rustix::{fs::FallocateFlags, io::Errno};

use super::{
    PackBackend, PackId, Room,
    space::{Purpose, Space},
};

/// Packs that stay open for reading. A pull of one image touches few packs; 512 are 128 GiB of them, and leave half of the
/// customary limit of 1,024 descriptors to connections.
const READ_HANDLES_MAX: usize = 512;

/// Write-back of a pack starts each time so many bytes were appended, so that the sync at the end finds most of them written:
/// 8 MiB is a few milliseconds of a fast device, and large enough for the device to work efficiently.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// Slices that one `pwritev` takes (`IOV_MAX` of Linux and of the BSDs).
const SLICES_MAX: usize = 1024;

/// Write-back begins and ends here, or a page would be written twice.
const PAGE_BYTES: u64 = 4096;

const EXTENSION: &str = ".pack";
const MODE_OPEN: u32 = 0o600;
const MODE_SEALED: u32 = 0o400;

/// Packs as files of one directory. See the module's text.
pub struct FileBackend {
    path: PathBuf,
    /// The directory itself, to sync names.
    dir: Arc<File>,
    /// Packs that this process created and has not sealed; also those whose seal failed, so that nobody believes a sync of them.
    open: Mutex<HashMap<PackId, Arc<OpenPack>>>,
    /// Packs that were read lately.
    readers: Cache<PackId, Arc<File>>,
    /// How many packs were deleted. Held while a handle is added to or removed from `readers`.
    deletions: Mutex<u64>,
    space: Space,
}

/// A pack that takes appends.
struct OpenPack {
    file: File,
    appends: Mutex<Appends>,
    /// Whether the name is durable. Held while anything of the pack is synced: all who wait for it wait, and of two syncs at
    /// once only one would hear of an error.
    name_durable: Mutex<bool>,
    /// A write or a sync failed.
    broken: AtomicBool,
    /// Appends may take from the reserve.
    uses_reserve: AtomicBool,
}

struct Appends {
    len: u64,
    /// Write-back was started up to here; a multiple of [`PAGE_BYTES`].
    written_back: u64,
    /// Sealed or deleted.
    closed: bool,
}

impl FileBackend {
    /// Packs in `dir`, which exists. An append fails if it would leave less than `reserve_bytes` free on the device.
    pub fn new(dir: &Path, reserve_bytes: u64) -> io::Result<FileBackend> {
        let path = dir.to_path_buf();
        let dir = Arc::new(File::open(dir)?);
        if !dir.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let probed = dir.clone();
        let probe = move || {
            let found = rustix::fs::fstatvfs(&*probed)?;
            Ok(found.f_bavail.saturating_mul(found.f_frsize))
        };
        Ok(FileBackend {
            path,
            dir,
            open: Mutex::default(),
            readers: Cache::new(READ_HANDLES_MAX),
            deletions: Mutex::new(0),
            space: Space::new(reserve_bytes, Box::new(probe)),
        })
    }

    fn file_path(&self, pack: PackId) -> PathBuf {
        self.path.join(format!("{pack}{EXTENSION}"))
    }

    fn open_packs(&self) -> MutexGuard<'_, HashMap<PackId, Arc<OpenPack>>> {
        lock(&self.open)
    }

    fn open_pack(&self, pack: PackId) -> Option<Arc<OpenPack>> {
        self.open_packs().get(&pack).cloned()
    }

    fn open_to_read(&self, pack: PackId) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.file_path(pack))
    }

    fn reader(&self, pack: PackId) -> io::Result<Arc<File>> {
        if let Some(file) = self.readers.get(&pack) {
            return Ok(file);
        }
        let deletions = *lock(&self.deletions);
        let file = Arc::new(self.open_to_read(pack)?);
        // A pack deleted since then may be this one, and its handle would keep the space for as long as it is cached.
        let now = lock(&self.deletions);
        if *now == deletions {
            self.readers.insert(pack, file.clone());
        }
        Ok(file)
    }
}

impl PackBackend for FileBackend {
    fn create(&self, pack: PackId) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(MODE_OPEN)
            .open(self.file_path(pack))
            .map_err(full)?;
        let appends = Mutex::new(Appends {
            len: 0,
            written_back: 0,
            closed: false,
        });
        let open = OpenPack {
            file,
            appends,
            name_durable: Mutex::new(false),
            broken: AtomicBool::new(false),
            uses_reserve: AtomicBool::new(false),
        };
        self.open_packs().insert(pack, Arc::new(open));
        Ok(())
    }

    fn append(&self, pack: PackId, offset: u64, data: &[Bytes]) -> io::Result<()> {
        let Some(open) = self.open_pack(pack) else {
            fs::symlink_metadata(self.file_path(pack))?;
            return Err(sealed());
        };
        let mut appends = lock(&open.appends);
        if appends.closed {
            return Err(sealed());
        }
        open.check()?;
        if offset != appends.len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "append is not at the end of the pack",
            ));
        }
        let bytes = data.iter().map(|slice| slice.len() as u64).sum();
        let purpose = match open.uses_reserve.load(Ordering::Relaxed) {
            true => Purpose::Upkeep,
            false => Purpose::Data,
        };
        let _grant = self.space.take(bytes, purpose)?;
        write_all(data, offset, |slices, at| {
            Ok(rustix::io::pwritev(&open.file, slices, at)?)
        })
        .map_err(|error| open.broke(error))?;
        appends.len += bytes;
        if appends.len - appends.written_back >= WRITE_BACK_BYTES {
            let end = appends.len / PAGE_BYTES * PAGE_BYTES;
            start_write_back(&open.file, appends.written_back, end - appends.written_back);
            appends.written_back = end;
        }
        Ok(())
    }

    fn use_reserve(&self, pack: PackId) {
        if let Some(open) = self.open_pack(pack) {
            open.uses_reserve.store(true, Ordering::Relaxed);
        }
    }

    fn room(&self) -> io::Result<Option<Room>> {
        self.space.room().map(Some)
    }

    /// By holes. A file system that has none keeps the bytes until the pack is deleted.
    fn release(&self, pack: PackId, ranges: &[Range<u64>]) -> io::Result<()> {
        let path = self.file_path(pack);
        // A sealed file may be written by nobody, its owner included.
        fs::set_permissions(&path, Permissions::from_mode(MODE_OPEN))?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        file.set_permissions(Permissions::from_mode(MODE_SEALED))?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for range in ranges {
            match rustix::fs::fallocate(&file, flags, range.start, range.end - range.start) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                done => done?,
            }
        }
        Ok(())
    }

    fn make_durable(&self, pack: PackId) -> io::Result<()> {
        let Some(open) = self.open_pack(pack) else {
            // Sealed meanwhile, or written before a restart, in which case its bytes may be in the page cache only.
            self.open_to_read(pack)?.sync_data().map_err(full)?;
            return self.dir.sync_all();
        };
        let mut name_durable = lock(&open.name_durable);
        open.check()?;
        open.file.sync_data().map_err(|error| open.broke(error))?;
        open.make_name_durable(&mut name_durable, &self.dir)
    }

    fn seal(&self, pack: PackId, len: u64) -> io::Result<()> {
        let Some(open) = self.open_pack(pack) else {
            return self.seal_found(pack, len);
        };
        let mut appends = lock(&open.appends);
        check_seal_len(len, open.file.metadata()?.len())?;
        appends.closed = true;
        let mut name_durable = lock(&open.name_durable);
        seal_file(&open.file, len).map_err(|error| open.broke(error))?;
        open.make_name_durable(&mut name_durable, &self.dir)?;
        // Not before: whoever opens the file anew does not hear of an error that was told already.
        self.open_packs().remove(&pack);
        Ok(())
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = self.reader(pack)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset
                .checked_add(bytes.len() as u64)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            match rustix::io::pread(&*file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // An offset that no file can have.
                Err(Errno::INVAL | Errno::OVERFLOW) if at > i64::MAX as u64 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        // An allocator may give more than was asked for.
        bytes.truncate(len);
        Ok(bytes.into())
    }

    fn len(&self, pack: PackId) -> io::Result<u64> {
        Ok(fs::symlink_metadata(self.file_path(pack))?.len())
    }

    /// The removal is not synced: a crash may bring the pack back, which no row names then.
    fn delete(&self, pack: PackId) -> io::Result<()> {
        // The guard is gone before the pack is locked: `seal` takes the two in the other order.
        let open = self.open_packs().remove(&pack);
        if let Some(open) = open {
            lock(&open.appends).closed = true;
        }
        match fs::remove_file(self.file_path(pack)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut deletions = lock(&self.deletions);
        *deletions += 1;
        self.readers.remove(&pack);
        drop(deletions);
        self.dir.sync_all()
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        let mut packs = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(pack) = entry.file_name().to_str().and_then(parse_name)
                && entry.file_type()?.is_file()
            {
                packs.push(pack);
            }
        }
        packs.sort_unstable();
        Ok(packs)
    }
}

impl FileBackend {
    /// Seals a pack that was found, not created: one that was open when the server stopped, or one that is sealed.
    fn seal_found(&self, pack: PackId, len: u64) -> io::Result<()> {
        let file = self.open_to_read(pack)?;
        let found = file.metadata()?;
        check_seal_len(len, found.len())?;
        if found.permissions().mode() & 0o222 == 0 {
            if found.len() != len {
                return Err(sealed());
            }
            // The server may have stopped before this was durable.
            file.sync_all()?;
        } else {
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(self.file_path(pack))?;
            seal_file(&file, len)?;
        }
        self.dir.sync_all()
    }
}

impl OpenPack {
    /// Fails if a write or a sync failed before.
    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Err(io::Error::other("a write to this pack failed before"));
        }
        Ok(())
    }

    /// Notes that this pack can no longer be trusted.
    fn broke(&self, error: io::Error) -> io::Error {
        self.broken.store(true, Ordering::Release);
        full(error)
    }

    fn make_name_durable(&self, durable: &mut bool, dir: &File) -> io::Result<()> {
        if !*durable {
            dir.sync_all().map_err(|error| self.broke(error))?;
            *durable = true;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No statement that can panic stands between two that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sealed() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "pack is sealed")
}

fn check_seal_len(len: u64, found: u64) -> io::Result<()> {
    if len > found {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "pack is shorter than it should be sealed at",
        ));
    }
    Ok(())
}

/// fsync rather than fdatasync, so that the mode is durable as well.
fn seal_file(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    file.set_permissions(Permissions::from_mode(MODE_SEALED))?;
    file.sync_all().map_err(full)
}

/// The caller tells a full device from a broken one by [`io::ErrorKind::StorageFull`]; a used-up quota is a full device.
fn full(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => error,
    }
}

/// The pack that a file of this name is.
fn parse_name(name: &str) -> Option<PackId> {
    let digits = name.strip_suffix(EXTENSION)?;
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 16 || !digits.bytes().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(PackId)
}

/// Calls `write(slices, offset)` until all of `data` is written.
fn write_all(
    data: &[Bytes],
    mut offset: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    for batch in data.chunks(SLICES_MAX) {
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = &mut slices[..];
        // Drops empty slices from the front.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match write(rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Asks the system to begin writing; does not wait for the device unless its queue is full, and promises nothing.
///
/// The result does not matter: with this flag alone the call neither waits for pages nor takes note of their errors, so the
/// next fdatasync reports what went wrong.
#[cfg(target_os = "linux")]
fn start_write_back(file: &File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;

    // Packs are far below 2^63 bytes.
    let (offset, len) = (offset.cast_signed(), len.cast_signed());
    // SAFETY: the call takes no pointers, and the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn start_write_back(_: &File, _: u64, _: u64) {}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
