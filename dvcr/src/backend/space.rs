//! Keeps the device from filling up: some bytes stay free for the database and for whoever has to repair things.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Room;

/// The file system is asked how much is free once for so many bytes written. Others write to it as well; 4 MiB a thread is
/// far below any sensible reserve, and asking costs a microsecond in the four milliseconds that writing as much takes.
const TRUST_BYTES: u64 = 4 << 20;

type Probe = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// What is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Data of uploads: the whole reserve stays free.
    Data,
    /// What frees more than it takes, such as copies out of packs that are emptied. Half of the reserve stays free: the
    /// metadata has to grow before it shrinks.
    Upkeep,
}

/// Grants bytes to write as long as a reserve remains free.
pub(super) struct Space {
    reserve_bytes: u64,
    /// Bytes that are free now.
    probe: Probe,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// At most as many bytes are free: what the probe said less what was granted since.
    free: u64,
    /// Bytes that may be granted before the next probe.
    trusted: u64,
    /// Bytes granted and perhaps not written yet, which a probe may therefore still call free.
    pending: u64,
}

/// Bytes that may be written while this lives.
#[must_use]
pub(super) struct Grant<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Space {
    pub(super) fn new(reserve_bytes: u64, probe: Probe) -> Space {
        Space {
            reserve_bytes,
            probe,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The numbers are right between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is free now, and what of it is not for data.
    pub(super) fn room(&self) -> io::Result<Room> {
        Ok(Room {
            free_bytes: (self.probe)()?,
            reserve_bytes: self.reserve_bytes,
        })
    }

    /// Takes `bytes` of what is free, or fails with [`io::ErrorKind::StorageFull`].
    pub(super) fn take(&self, bytes: u64, purpose: Purpose) -> io::Result<Grant<'_>> {
        let mut state = self.state();
        let stays = match purpose {
            Purpose::Data => self.reserve_bytes,
            Purpose::Upkeep => self.reserve_bytes / 2,
        };
        let need = bytes.saturating_add(stays);
        if bytes > state.trusted || need > state.free {
            state.free = (self.probe)()?.saturating_sub(state.pending);
            state.trusted = TRUST_BYTES;
        }
        if need > state.free {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the reserve of free space is reached",
            ));
        }
        state.free -= bytes;
        state.trusted = state.trusted.saturating_sub(bytes);
        state.pending += bytes;
        Ok(Grant { space: self, bytes })
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.space.state().pending -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    };

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A space, what its probe says, and how often that was asked.
    fn space(reserve_bytes: u64, free: u64) -> (Space, Arc<AtomicU64>, Arc<AtomicU64>) {
        let (free, probes) = (Arc::new(AtomicU64::new(free)), Arc::new(AtomicU64::new(0)));
        let (says, counts) = (free.clone(), probes.clone());
        let probe = move || {
            counts.fetch_add(1, SeqCst);
            Ok(says.load(SeqCst))
        };
        (Space::new(reserve_bytes, Box::new(probe)), free, probes)
    }

    #[test]
    fn one_probe_serves_many_appends() {
        let (space, _, probes) = space(10 * MIB, 1000 * MIB);
        for _ in 0..64 {
            drop(space.take(MIB / 4, Purpose::Data).unwrap());
        }
        assert_eq!(probes.load(SeqCst), 4);
        drop(space.take(100 * MIB, Purpose::Data).unwrap());
        assert_eq!(probes.load(SeqCst), 5);
    }

    #[test]
    fn the_reserve_stays_free() {
        let (space, free, _) = space(10 * MIB, 12 * MIB);
        assert!(space.take(2 * MIB + 1, Purpose::Data).is_err());
        drop(space.take(2 * MIB, Purpose::Data).unwrap());
        free.store(10 * MIB, SeqCst);
        assert_eq!(
            space.take(1, Purpose::Data).err().unwrap().kind(),
            io::ErrorKind::StorageFull
        );
        // Room is noticed at once.
        free.store(11 * MIB, SeqCst);
        drop(space.take(1, Purpose::Data).unwrap());
        assert!(space.take(u64::MAX, Purpose::Data).is_err());
    }

    #[test]
    fn half_of_the_reserve_is_for_making_room() {
        let (space, free, _) = space(10 * MIB, 8 * MIB);
        assert!(space.take(1, Purpose::Data).is_err());
        drop(space.take(3 * MIB, Purpose::Upkeep).unwrap());
        free.store(5 * MIB, SeqCst);
        assert!(space.take(1, Purpose::Upkeep).is_err());
    }

    #[test]
    fn bytes_on_their_way_are_not_free() {
        let (space, _, _) = space(10 * MIB, 12 * MIB);
        let first = space.take(MIB, Purpose::Data).unwrap();
        let second = space.take(MIB, Purpose::Data).unwrap();
        // The probe still says 12 MiB, for nothing was written yet.
        assert!(space.take(1, Purpose::Data).is_err());
        drop((first, second));
        drop(space.take(1, Purpose::Data).unwrap());
    }

    #[test]
    fn a_failed_probe_grants_nothing() {
        let space = Space::new(0, Box::new(|| Err(io::ErrorKind::TimedOut.into())));
        assert_eq!(
            space.take(1, Purpose::Data).err().unwrap().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
