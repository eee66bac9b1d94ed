//! Test support: packs in memory that lose power.
//!
//! After a crash a pack has all that was durable. Of what was appended later it has any length, in which each sector may
//! be what was written, zeros, or something else. A pack whose name was not durable may be gone, a deleted one may be
//! back, and one that was being sealed may or may not have been cut. That is as bad as file systems get.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    PackBackend, PackId, Room,
    memory::{MemoryPack, find},
};
use crate::simulation::{Dice, Power};

/// What a device writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Packs in memory of a machine that loses power. See the module's text.
#[derive(Debug)]
pub struct CrashBackend {
    power: Power,
    /// The boot that this handle is of; it is dead in any other.
    boot: u64,
    state: Mutex<State>,
    /// The device says that its reserve is all there is.
    is_short: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    packs: BTreeMap<PackId, CrashPack>,
    /// Deleted, but the removal of the name is never synced. The youngest of each number.
    deleted: BTreeMap<PackId, CrashPack>,
}

#[derive(Clone, Debug, Default)]
struct CrashPack {
    seen: MemoryPack,
    durable_len: usize,
    name_durable: bool,
    /// The length it was being sealed at when the power failed.
    cut: Option<u64>,
    /// Its footer has no room.
    is_full: bool,
}

impl CrashBackend {
    /// No packs, on a machine.
    pub fn new(power: &Power) -> CrashBackend {
        CrashBackend {
            power: power.clone(),
            boot: power.boot(),
            state: Mutex::default(),
            is_short: AtomicBool::new(false),
        }
    }

    /// Says from now on that there is no room, though appends succeed, but for the footers of half of the packs: whoever asks
    /// releases what it can.
    pub fn say_short(&self) {
        self.is_short.store(true, Relaxed);
    }

    /// What is found after a crash; equal seeds find the same. Cuts the power if it is on; what is found can be used once it
    /// is restored, while this backend stays dead.
    pub fn reopen(&self, seed: u64) -> CrashBackend {
        self.power.cut();
        let mut dice = Dice::new(seed);
        let state = self.state();
        let mut packs = BTreeMap::new();
        for (id, pack) in &state.deleted {
            if dice.one_in(2) {
                packs.insert(*id, pack.after_crash(&mut dice));
            }
        }
        for (id, pack) in &state.packs {
            if pack.name_durable || dice.one_in(2) {
                packs.insert(*id, pack.after_crash(&mut dice));
            }
        }
        CrashBackend {
            power: self.power.clone(),
            boot: self.power.boot() + 1,
            state: Mutex::new(State {
                packs,
                deleted: BTreeMap::new(),
            }),
            is_short: AtomicBool::new(self.is_short.load(Relaxed)),
        }
    }

    /// The machine's power.
    pub fn power(&self) -> &Power {
        &self.power
    }

    /// The byte at this offset of a pack changes on the device.
    pub fn damage(&self, pack: PackId, offset: u64) {
        let mut state = self.state();
        let pack = state.packs.get_mut(&pack);
        if let Some(byte) = pack.and_then(|pack| pack.seen.bytes.get_mut(offset as usize)) {
            *byte ^= 0x10;
        }
    }

    /// Whether a pack is sealed.
    pub fn is_sealed(&self, pack: PackId) -> bool {
        let state = self.state();
        state.packs.get(&pack).is_some_and(|pack| pack.seen.sealed)
    }

    /// Bytes of a pack that survive any crash.
    pub fn durable_len(&self, pack: PackId) -> Option<u64> {
        self.state()
            .packs
            .get(&pack)
            .filter(|pack| pack.name_durable)
            .map(|pack| pack.durable_len as u64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the machine has stopped.
    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        self.power.check(self.boot)?;
        Ok(state)
    }
}

impl CrashPack {
    /// One sync for the bytes, and one for the name if that is new.
    fn sync(&mut self, power: &Power, boot: u64) -> io::Result<()> {
        power.sync(boot)?;
        self.durable_len = self.seen.bytes.len();
        if !self.name_durable {
            power.sync(boot)?;
            self.name_durable = true;
        }
        Ok(())
    }

    fn after_crash(&self, dice: &mut Dice) -> CrashPack {
        let mut bytes = self.seen.bytes.clone();
        let later = bytes.len() - self.durable_len;
        bytes.truncate(self.durable_len + dice.below(later as u64 + 1) as usize);
        // Most sectors, about half, or few: each finds other faults.
        let kept_in_8 = [7, 4, 1][dice.below(3) as usize];
        let mut start = self.durable_len;
        while start < bytes.len() {
            let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(bytes.len());
            if dice.below(8) >= kept_in_8 {
                let zeros = dice.one_in(2);
                bytes[start..end].fill_with(|| if zeros { 0 } else { dice.below(256) as u8 });
            }
            start = end;
        }
        if let Some(cut) = self.cut
            && dice.one_in(2)
        {
            bytes.truncate(cut as usize);
        }
        let durable_len = bytes.len();
        // A found pack takes no appends, as with files.
        CrashPack {
            seen: MemoryPack {
                bytes,
                sealed: self.seen.sealed,
            },
            durable_len,
            name_durable: true,
            cut: None,
            is_full: false,
        }
    }
}

impl PackBackend for CrashBackend {
    fn create(&self, pack: PackId) -> io::Result<()> {
        let mut state = self.running()?;
        if state.packs.contains_key(&pack) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.packs.insert(pack, CrashPack::default());
        Ok(())
    }

    fn append(&self, pack: PackId, offset: u64, data: &[Bytes]) -> io::Result<()> {
        let mut state = self.running()?;
        let pack = find(&mut state.packs, pack)?;
        if pack.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        pack.seen.append(offset, data)
    }

    fn use_reserve(&self, pack: PackId) {
        if let Some(found) = self.state().packs.get_mut(&pack) {
            let wants_footer = !found.seen.bytes.is_empty();
            found.is_full = wants_footer && self.is_short.load(Relaxed) && pack.0.is_multiple_of(2);
        }
    }

    fn room(&self) -> io::Result<Option<Room>> {
        Ok(self.is_short.load(Relaxed).then_some(Room {
            free_bytes: 1,
            reserve_bytes: 1,
        }))
    }

    fn release(&self, pack: PackId, ranges: &[Range<u64>]) -> io::Result<()> {
        let mut state = self.running()?;
        let pack = find(&mut state.packs, pack)?;
        for range in ranges {
            pack.seen.bytes[range.start as usize..range.end as usize].fill(0);
        }
        Ok(())
    }

    fn make_durable(&self, pack: PackId) -> io::Result<()> {
        find(&mut self.running()?.packs, pack)?.sync(&self.power, self.boot)
    }

    fn seal(&self, pack: PackId, len: u64) -> io::Result<()> {
        let mut state = self.running()?;
        let pack = find(&mut state.packs, pack)?;
        pack.seen.check_seal(len)?;
        pack.cut = Some(len);
        self.power.sync(self.boot)?;
        pack.cut = None;
        pack.seen.seal(len)?;
        pack.durable_len = len as usize;
        if !pack.name_durable {
            self.power.sync(self.boot)?;
            pack.name_durable = true;
        }
        Ok(())
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> io::Result<Bytes> {
        find(&mut self.running()?.packs, pack)?
            .seen
            .read(offset, len)
    }

    fn len(&self, pack: PackId) -> io::Result<u64> {
        Ok(find(&mut self.running()?.packs, pack)?.seen.bytes.len() as u64)
    }

    fn delete(&self, pack: PackId) -> io::Result<()> {
        let mut state = self.running()?;
        if let Some(deleted) = state.packs.remove(&pack) {
            state.deleted.insert(pack, deleted);
        }
        self.power.sync(self.boot)?;
        state.deleted.remove(&pack);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        Ok(self.running()?.packs.keys().copied().collect())
    }
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod tests;
