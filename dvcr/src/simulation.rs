//! Test support: what a simulated machine's storage shares, its power supply and its dice; and a world in which the seed says
//! what happens in which order.
//!
//! One count of syncs covers packs *and* metadata, so that a test can stop the machine in each of them in turn.

#[cfg(test)]
use std::task::Poll;
use std::{
    cell::RefCell,
    io::{Error, Result},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A small seeded generator of random numbers (SplitMix64): the same figures on every machine and in every release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// Equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

thread_local! {
    /// Draws how many other tasks go first. None outside of a simulation.
    static TURNS: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// Runs a future and what it spawns on this thread alone: what would block runs in place, and before each such step and each
/// access to metadata in memory others get a turn, as the seed says. Timers go off when nothing else is left to do.
#[cfg(test)]
pub(crate) fn run<T>(seed: u64, future: impl Future<Output = T>) -> T {
    run_to_end(seed, future).0
}

/// The same; returns the dice, too, which are where every run with this seed leaves them.
#[cfg(test)]
pub(crate) fn run_to_end<T>(seed: u64, future: impl Future<Output = T>) -> (T, Dice) {
    TURNS.set(Some(Dice::new(seed)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime on this thread needs nothing");
    let value = runtime.block_on(future);
    drop(runtime);
    let dice = TURNS.take().expect("they were set above");
    (value, dice)
}

/// Runs these side by side until the first of them ends, each time in an order that the seed says.
#[cfg(test)]
pub(crate) async fn side_by_side(mut actors: Vec<futures::future::LocalBoxFuture<'_, ()>>) {
    let count = actors.len();
    std::future::poll_fn(|context| {
        let first =
            TURNS.with_borrow_mut(|dice| dice.as_mut().map(|dice| dice.below(count as u64)));
        for n in 0..count {
            let actor = &mut actors[(n + first.unwrap_or(0) as usize) % count];
            if actor.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

/// Lets others go first. False outside of a simulation.
pub(crate) async fn turn() -> bool {
    let others = TURNS.with_borrow_mut(|dice| dice.as_mut().map(|dice| dice.below(4)));
    for _ in 0..others.unwrap_or(0) {
        tokio::task::yield_now().await;
    }
    others.is_some()
}

/// Fills `bytes` as the seed says. False outside of a simulation.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    TURNS.with_borrow_mut(|dice| {
        let Some(dice) = dice else { return false };
        bytes.fill_with(|| dice.below(256) as u8);
        true
    })
}

/// The power supply of a simulated machine: counts syncs, and fails for good at a chosen one.
#[derive(Clone, Debug, Default)]
pub struct Power(Arc<Mutex<Supply>>);

#[derive(Debug, Default)]
struct Supply {
    syncs: u64,
    fails_at: Option<u64>,
    is_off: bool,
    /// Handles of an earlier boot stay dead after power is back.
    boot: u64,
}

impl Power {
    /// Power that stays on.
    pub fn new() -> Self {
        Self::default()
    }

    fn supply(&self) -> MutexGuard<'_, Supply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs that were asked for so far, over all storage and boots.
    pub fn syncs(&self) -> u64 {
        self.supply().syncs
    }

    /// Power fails during the `n`th sync from now (1 is the next); that sync does not end.
    pub fn fail_at_sync(&self, n: u64) {
        let mut supply = self.supply();
        supply.fails_at = Some(supply.syncs + n);
    }

    /// Power fails now. Everything but [`Power::restore`] is an error from here on.
    pub fn cut(&self) {
        self.supply().is_off = true;
    }

    /// Whether power has failed.
    pub fn is_off(&self) -> bool {
        self.supply().is_off
    }

    /// Boots the machine again. Storage is told to lose what it may lose while power is off.
    pub fn restore(&self) {
        let mut supply = self.supply();
        supply.is_off = false;
        supply.fails_at = None;
        supply.boot += 1;
    }

    /// The number of this boot; storage compares it to refuse handles of an earlier one.
    pub fn boot(&self) -> u64 {
        self.supply().boot
    }

    /// To be called by storage before each operation, with the boot that its handle is from.
    pub fn check(&self, boot: u64) -> Result<()> {
        let supply = self.supply();
        if supply.is_off || supply.boot != boot {
            Err(Error::other("power is off"))
        } else {
            Ok(())
        }
    }

    /// To be called by storage at each sync, before anything becomes durable.
    pub fn sync(&self, boot: u64) -> Result<()> {
        self.check(boot)?;
        let mut supply = self.supply();
        supply.syncs += 1;
        if supply.fails_at == Some(supply.syncs) {
            supply.is_off = true;
            return Err(Error::other("power failed in a sync"));
        }
        Ok(())
    }
}
