//! Test support: storage in memory that loses power and breaks on command.
//!
//! A [`CrashDisk`] has two images: what the process sees, and what a sync made durable. At a crash the durable image takes
//! an arbitrary subset of the writes since the last sync, torn at sector borders, and the first few of the length changes: what
//! file systems allow. [`Power`] is shared by all storage of one simulated machine, so that one counter of syncs covers
//! metadata *and* whatever else (packs) asks it at its own syncs.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::StorageBackend;

pub use crate::simulation::{Dice, Power};

/// What a device writes as a whole or not at all.
const SECTOR: u64 = 512;

/// The unit of [`CrashDisk::set_room`], as file systems allocate.
const BLOCK: u64 = 4096;

/// A change since the last sync.
#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Resize(u64),
}

#[derive(Debug, Default)]
struct Disk {
    seen: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Blocks that have been written once, and so have their place on the device.
    allocated: Vec<bool>,
    room: Option<usize>,
    /// Syncs that succeed before the failing ones.
    good_syncs: u64,
    failing_syncs: u64,
    failing_reads: u64,
}

/// A simulated file. Clones are the same file.
#[derive(Clone, Debug)]
pub struct CrashDisk {
    power: Power,
    disk: Arc<Mutex<Disk>>,
}

/// A [`CrashDisk`] as opened by one process; dead after a crash.
#[derive(Debug)]
pub struct CrashBackend {
    disk: CrashDisk,
    boot: u64,
}

impl CrashDisk {
    /// An empty file on a machine.
    pub fn new(power: &Power) -> Self {
        Self {
            power: power.clone(),
            disk: Arc::default(),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file, for [`RedbMeta::open_with`](super::RedbMeta::open_with).
    pub fn open(&self) -> CrashBackend {
        CrashBackend {
            disk: self.clone(),
            boot: self.power.boot(),
        }
    }

    /// The file as it is found after a crash: synced bytes and an arbitrary subset of later changes. Cuts the power if it is on.
    pub fn crash(&self, seed: u64) {
        self.power.cut();
        let mut dice = Dice::new(seed);
        let mut disk = self.disk();
        disk.lose_changes(&mut dice, true);
        disk.seen = disk.durable.clone();
    }

    /// The device takes `blocks` more blocks of 4 KiB (`None`: any number); then writes to new places end with
    /// [`ErrorKind::StorageFull`], while blocks that were written before can be written again.
    pub fn set_room(&self, blocks: Option<usize>) {
        self.disk().room = blocks;
    }

    /// The next `n` syncs fail with an I/O error. As on Linux, what they should have made durable is lost in part, and no later
    /// sync makes up for it, although reads still show it.
    pub fn fail_syncs(&self, n: u64) {
        let mut disk = self.disk();
        disk.good_syncs = 0;
        disk.failing_syncs = n;
    }

    /// The next `good` syncs succeed and the one after them fails, as with [`CrashDisk::fail_syncs`].
    pub fn fail_sync_after(&self, good: u64) {
        let mut disk = self.disk();
        disk.good_syncs = good;
        disk.failing_syncs = 1;
    }

    /// The next `n` reads fail with an I/O error.
    pub fn fail_reads(&self, n: u64) {
        self.disk().failing_reads = n;
    }

    /// Length of the file, in bytes.
    pub fn len(&self) -> u64 {
        self.disk().seen.len() as u64
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Disk {
    /// Ends the changes since the last sync: some become durable, the others never do. Without `loses_lengths` all length
    /// changes become durable.
    fn lose_changes(&mut self, dice: &mut Dice, loses_lengths: bool) {
        let resizes = self
            .changes
            .iter()
            .filter(|change| matches!(change, Change::Resize(_)))
            .count() as u64;
        // Lengths are journalled, so they survive in order; writes survive in any.
        let mut resizes_left = if loses_lengths {
            dice.below(resizes + 1)
        } else {
            resizes
        };
        // Most writes, few writes, or about half: each finds other faults.
        let survive_in_8 = [1, 4, 7][usize::try_from(dice.below(3)).unwrap_or_default()];
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Resize(len) if resizes_left > 0 => {
                    resizes_left -= 1;
                    self.durable.resize(to_index(len), 0);
                }
                Change::Resize(_) => {}
                Change::Write { offset, data } => {
                    for (start, sector) in sectors(offset, &data) {
                        if dice.below(8) < survive_in_8 {
                            put(&mut self.durable, start, sector);
                        }
                    }
                }
            }
        }
    }

    fn allocate(&mut self, offset: u64, len: usize) -> Result<()> {
        let blocks = to_index(offset / BLOCK)..to_index((offset + len as u64).div_ceil(BLOCK));
        if self.allocated.len() < blocks.end {
            self.allocated.resize(blocks.end, false);
        }
        for block in blocks {
            if self.allocated[block] {
                continue;
            }
            match &mut self.room {
                Some(0) => return Err(ErrorKind::StorageFull.into()),
                Some(room) => *room -= 1,
                None => {}
            }
            self.allocated[block] = true;
        }
        Ok(())
    }
}

/// The pieces of a write between sector borders, with their offsets.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = offset + at as u64;
        let len = to_index(SECTOR - start % SECTOR).min(data.len() - at);
        let piece = &data[at..at + len];
        at += len;
        (len > 0).then_some((start, piece))
    })
}

/// Writes what lies inside the image.
fn put(image: &mut [u8], offset: u64, data: &[u8]) {
    let start = to_index(offset).min(image.len());
    let end = (start + data.len()).min(image.len());
    image[start..end].copy_from_slice(&data[..end - start]);
}

fn to_index(offset: u64) -> usize {
    usize::try_from(offset).expect("images are in memory, so offsets are addresses")
}

impl StorageBackend for CrashBackend {
    fn len(&self) -> Result<u64> {
        self.disk.power.check(self.boot)?;
        Ok(self.disk.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.disk.power.check(self.boot)?;
        let mut disk = self.disk.disk();
        if disk.failing_reads > 0 {
            disk.failing_reads -= 1;
            return Err(Error::other("injected read error"));
        }
        let start = to_index(offset);
        let found = disk
            .seen
            .get(start..start + out.len())
            .ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.power.check(self.boot)?;
        let mut disk = self.disk.disk();
        disk.seen.resize(to_index(len), 0);
        disk.allocated.truncate(to_index(len.div_ceil(BLOCK)));
        disk.changes.push(Change::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.disk.power.sync(self.boot)?;
        let mut disk = self.disk.disk();
        if disk.good_syncs > 0 {
            disk.good_syncs -= 1;
        } else if disk.failing_syncs > 0 {
            disk.failing_syncs -= 1;
            let mut dice = Dice::new(disk.changes.len() as u64);
            disk.lose_changes(&mut dice, false);
            return Err(Error::other("injected sync error"));
        }
        for change in std::mem::take(&mut disk.changes) {
            match change {
                Change::Resize(len) => disk.durable.resize(to_index(len), 0),
                Change::Write { offset, data } => put(&mut disk.durable, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.disk.power.check(self.boot)?;
        let mut disk = self.disk.disk();
        disk.allocate(offset, data.len())?;
        let end = to_index(offset) + data.len();
        if disk.seen.len() < end {
            // Writing past the end makes a file longer.
            disk.seen.resize(end, 0);
            disk.changes.push(Change::Resize(end as u64));
        }
        put(&mut disk.seen, offset, data);
        disk.changes.push(Change::Write {
            offset,
            data: data.to_vec(),
        });
        Ok(())
    }
}
