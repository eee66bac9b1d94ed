//! Epochs: when is nobody left who looked something up before a certain moment?
//!
//! An ingest looks a chunk up, and relies on it only when it commits, seconds later. It holds an [`EpochGuard`] from before the
//! look-up until after the commit. Garbage collection condemns a pack, which hides its chunks from look-ups, and waits for
//! the epoch to [`turn`](Epochs::turn): from then on nothing new can refer to the pack.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::sync::Notify;

use crate::backend::PackId;

/// Counts who entered in which epoch.
#[derive(Default)]
pub(crate) struct Epochs {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Default)]
struct State {
    current: u64,
    inside: BTreeMap<u64, usize>,
}

/// Whoever holds this entered in some epoch and has not left it.
pub(crate) struct EpochGuard {
    epochs: Arc<Epochs>,
    epoch: u64,
}

impl Epochs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(self: &Arc<Self>) -> EpochGuard {
        let mut state = self.state();
        let epoch = state.current;
        *state.inside.entry(epoch).or_default() += 1;
        EpochGuard {
            epochs: Arc::clone(self),
            epoch,
        }
    }

    /// Begins a new epoch and returns once everybody has left who entered before.
    pub(crate) async fn turn(&self) {
        let past = {
            let mut state = self.state();
            state.current += 1;
            state.current - 1
        };
        loop {
            let left = self.left.notified();
            let mut left = std::pin::pin!(left);
            // Before the look, so that whoever leaves after it is noticed.
            left.as_mut().enable();
            if self.state().inside.range(..=past).next().is_none() {
                return;
            }
            left.await;
        }
    }
}

impl EpochGuard {
    /// The one of two that entered first; the other leaves.
    pub(crate) fn older(self, other: Self) -> Self {
        if self.epoch <= other.epoch {
            self
        } else {
            other
        }
    }
}

impl Drop for EpochGuard {
    fn drop(&mut self) {
        let mut state = self.epochs.state();
        if let Some(count) = state.inside.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                state.inside.remove(&self.epoch);
                drop(state);
                self.epochs.left.notify_waiters();
            }
        }
    }
}

/// The packs that are being emptied. Their chunks can be read; to a look-up they are absent.
#[derive(Default)]
pub(crate) struct Condemned(RwLock<HashSet<PackId>>);

impl Condemned {
    pub(crate) fn contains(&self, pack: PackId) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&pack)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn insert(&self, packs: impl IntoIterator<Item = PackId>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(packs);
    }

    pub(crate) fn remove(&self, pack: PackId) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pack);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn an_epoch_turns_when_all_who_entered_before_have_left() {
        let epochs = Arc::new(Epochs::default());
        assert!(epochs.turn().now_or_never().is_some(), "nobody is inside");
        let (a, b) = (epochs.enter(), epochs.enter());
        let mut turn = Box::pin(epochs.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        let late = epochs.enter();
        drop(a);
        assert!(turn.as_mut().now_or_never().is_none());
        drop(b);
        assert!(turn.as_mut().now_or_never().is_some());
        drop(late);
    }

    #[test]
    fn the_older_of_two_guards_stays() {
        let epochs = Arc::new(Epochs::default());
        let old = epochs.enter();
        let mut turn = Box::pin(epochs.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        let guard = epochs.enter().older(old);
        assert!(turn.as_mut().now_or_never().is_none());
        drop(guard);
        assert!(turn.as_mut().now_or_never().is_some());
    }
}
