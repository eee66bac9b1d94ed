//! How upkeep makes way for pushes: it works in slices, and while somebody pushes it rests after each for a multiple of what that took.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::StoreStats;
use crate::backend::PackBackend;

/// A rest is so many times as long as the slice before it: a quarter of one core, and of the device, is left to upkeep.
const REST: u32 = 3;

/// Longest rest. A slice that waited for others, such as for a commit beside theirs, was not that much work.
const REST_MAX: Duration = Duration::from_millis(250);

/// Pushes that come at shorter intervals are one load.
const BUSY: Duration = Duration::from_secs(1);

/// Watches pushes.
pub(crate) struct Pace {
    stats: Arc<StoreStats>,
    packs: Arc<dyn PackBackend>,
    /// Bytes that pushes had brought at the last look.
    seen: AtomicU64,
    busy_until: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(stats: Arc<StoreStats>, packs: Arc<dyn PackBackend>) -> Self {
        Self {
            stats,
            packs,
            seen: AtomicU64::new(0),
            busy_until: Mutex::default(),
        }
    }

    /// Whether somebody pushes, or did a moment ago. Not on a full device: there pushes wait for what upkeep frees.
    pub(crate) fn is_busy(&self) -> bool {
        let bytes = self.stats.ingested_bytes.load(Relaxed);
        let now = Instant::now();
        let mut until = self
            .busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.seen.swap(bytes, Relaxed) != bytes {
            *until = Some(now + BUSY);
        }
        until.is_some_and(|until| now < until)
            && !matches!(self.packs.room(), Ok(Some(room)) if room.free_bytes <= room.reserve_bytes)
    }

    /// To be called after a slice of work that began at `begun`.
    pub(crate) async fn rest(&self, begun: Instant) {
        if self.is_busy() {
            sleep((begun.elapsed() * REST).min(REST_MAX)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;

    #[tokio::test(start_paused = true)]
    async fn upkeep_rests_while_somebody_pushes() {
        let stats = Arc::new(StoreStats::default());
        let pace = Pace::new(Arc::clone(&stats), Arc::new(MemoryBackend::new()));
        let slice = async |pace: &Pace| {
            let begun = Instant::now();
            tokio::time::advance(Duration::from_millis(10)).await;
            pace.rest(begun).await;
            begun.elapsed()
        };
        assert_eq!(slice(&pace).await, Duration::from_millis(10));
        stats.ingested_bytes.fetch_add(1, Relaxed);
        assert!(slice(&pace).await >= Duration::from_millis(40));
        // Still, though nothing came meanwhile.
        assert!(slice(&pace).await >= Duration::from_millis(40));
        tokio::time::advance(BUSY).await;
        assert_eq!(slice(&pace).await, Duration::from_millis(10));
    }
}
