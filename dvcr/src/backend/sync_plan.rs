//! Test support: decides at which sync a simulated machine stops.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

/// The machine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine has stopped")]
pub struct Crashed;

impl From<Crashed> for io::Error {
    fn from(crashed: Crashed) -> io::Error {
        io::Error::other(crashed)
    }
}

/// One run of a simulated machine, from start to crash. All its storage shares the plan, so that one count of syncs covers
/// packs *and* metadata: run a test once to count, then once for each sync.
#[derive(Debug)]
pub struct SyncPlan {
    syncs: AtomicU64,
    crash_at: u64,
    crashed: AtomicBool,
}

impl SyncPlan {
    /// A machine that runs until [`crash`](Self::crash).
    pub fn never() -> Arc<SyncPlan> {
        SyncPlan::crash_at(u64::MAX)
    }

    /// A machine that stops in the `n`-th sync, 1 being the first. That sync does not end.
    pub fn crash_at(n: u64) -> Arc<SyncPlan> {
        Arc::new(SyncPlan {
            syncs: AtomicU64::new(0),
            crash_at: n,
            crashed: AtomicBool::new(false),
        })
    }

    /// To be called by storage at each sync, before anything is durable.
    pub fn on_sync(&self) -> Result<(), Crashed> {
        self.check()?;
        if self.syncs.fetch_add(1, SeqCst) + 1 >= self.crash_at {
            self.crash();
        }
        self.check()
    }

    /// To be called by storage at each other operation.
    pub fn check(&self) -> Result<(), Crashed> {
        if self.crashed.load(SeqCst) {
            Err(Crashed)
        } else {
            Ok(())
        }
    }

    /// Stops the machine now.
    pub fn crash(&self) {
        self.crashed.store(true, SeqCst);
    }

    /// Syncs so far, the one that crashed included.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_sync_and_all_that_follows_fails() {
        let plan = SyncPlan::crash_at(3);
        assert_eq!([plan.on_sync(), plan.on_sync(), plan.check()], [Ok(()); 3]);
        assert_eq!(
            [plan.on_sync(), plan.on_sync(), plan.check()],
            [Err(Crashed); 3]
        );
        assert_eq!(plan.syncs(), 3);

        let plan = SyncPlan::never();
        assert_eq!(plan.on_sync(), Ok(()));
        plan.crash();
        assert_eq!((plan.on_sync(), plan.syncs()), (Err(Crashed), 1));
    }
}
