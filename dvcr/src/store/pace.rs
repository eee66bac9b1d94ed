//! How upkeep makes way for pushes: it works in slices, and while somebody pushes it rests after each.
//!
//! How long is found out rather than set. Of everything that a push commits it is noted how long that took, and whether a slice
//! was going on when it began. As long as those that met a slice took hardly longer than the others, upkeep takes a larger share
//! of the time; where they took clearly longer, a smaller one. Both kinds are measured at the same time and under the same
//! load, so no figure about the device has to be known. The larger the share, the larger are the slices: each has costs of its own
//! (an fdatasync, a commit).
//!
//! The smallest share grows as the room that is left gets small beside what upkeep would give back, and on a full device nobody
//! rests: there pushes wait for what upkeep frees.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::StoreStats;
use crate::backend::{PackBackend, Room};

/// The share of time that upkeep takes beside pushes at least, and at first; and at most. With up to half of the time the slowest of a
/// hundred pushes took 1.35 to 1.6 times as long as without a collection, so 1.33 to 1.37 times (`dvcr-bench gc`, 2026-11-21).
const SHARE_MIN: f64 = 0.25;
const SHARE_MAX: f64 = 0.35;

/// The same where room is short. More only on a full device: where upkeep never rested, nobody would know how long pushes take without it.
const SHARE_URGENT: f64 = 0.5;

/// By so much a share grows or shrinks at once.
const SHARE_GROWS: f64 = 1.15;
const SHARE_SHRINKS: f64 = 0.75;

/// Commits that met a slice may take so many times as long as others, on average: the budget for the slowest of a hundred pushes, on
/// which a part of an average commit tells less.
const SLOWER_MAX: f64 = 1.25;

/// Commits of either kind that are compared at once: fewer say little, more are late. A fifth of a second of many small pushes.
const COMPARED: u32 = 24;

/// Longest rest. A slice that waited for others, such as for a commit beside theirs, was not that much work.
const REST_MAX: Duration = Duration::from_millis(250);

/// Pushes that come at shorter intervals are one load.
const BUSY: Duration = Duration::from_secs(1);

/// Bytes moved in a slice: with one fdatasync and one commit for so much, those cost less than the bytes.
const SLICE_BYTES: u64 = 8 << 20;

/// The same beside pushes, whose fdatasync may have to wait for it. With up to 6 MiB the slowest of a hundred took 1.9 times as
/// long as without a collection (`dvcr-bench gc`, 2026-11-21).
const SLICE_BESIDE_PUSHES_BYTES: u64 = 1 << 20;

/// Watches pushes.
pub(crate) struct Pace {
    stats: Arc<StoreStats>,
    packs: Arc<dyn PackBackend>,
    /// Slices that are going on.
    slices: AtomicUsize,
    /// Bytes that a sweep which is going on may give back.
    dead_bytes: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Bytes that pushes had brought at the last look, and when that was.
    seen: (u64, Option<Instant>),
    busy_until: Option<Instant>,
    share: f64,
    calm: Mean,
    disturbed: Mean,
}

#[derive(Default)]
struct Mean {
    count: u32,
    sum: Duration,
}

impl Mean {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.sum += took;
    }

    fn seconds(&self) -> f64 {
        self.sum.as_secs_f64() / f64::from(self.count.max(1))
    }
}

/// A commit of a push that is going on.
pub(crate) struct Watched {
    begun: Instant,
    disturbed: bool,
}

/// A slice of upkeep that is going on.
pub(crate) struct Slice<'a> {
    pace: &'a Pace,
    begun: Instant,
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        self.pace.slices.fetch_sub(1, Relaxed);
    }
}

impl Pace {
    pub(super) fn new(stats: Arc<StoreStats>, packs: Arc<dyn PackBackend>) -> Self {
        Self {
            stats,
            packs,
            slices: AtomicUsize::new(0),
            dead_bytes: AtomicU64::new(0),
            state: Mutex::new(State {
                seen: (0, None),
                busy_until: None,
                share: SHARE_MIN,
                calm: Mean::default(),
                disturbed: Mean::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A push begins to make something durable.
    pub(crate) fn watch(&self) -> Watched {
        Watched {
            begun: Instant::now(),
            disturbed: self.slices.load(Relaxed) > 0,
        }
    }

    /// It is durable.
    pub(crate) fn done(&self, Watched { begun, disturbed }: Watched) {
        let now = Instant::now();
        let mut state = self.state();
        state.busy_until = Some(now + BUSY);
        match disturbed {
            true => state.disturbed.add(now - begun),
            false => state.calm.add(now - begun),
        }
        if state.calm.count.min(state.disturbed.count) >= COMPARED {
            let (calm, disturbed) = (
                std::mem::take(&mut state.calm).seconds(),
                std::mem::take(&mut state.disturbed).seconds(),
            );
            let change = match disturbed > calm * SLOWER_MAX {
                true => SHARE_SHRINKS,
                false => SHARE_GROWS,
            };
            state.share = (state.share * change).clamp(SHARE_MIN, SHARE_MAX);
        }
    }

    /// So much could be given back.
    pub(crate) fn note_dead(&self, bytes: u64) {
        self.dead_bytes.store(bytes, Relaxed);
    }

    /// Whether somebody pushes, or did a moment ago. Not on a full device: there pushes wait for what upkeep frees.
    pub(crate) fn is_busy(&self) -> bool {
        self.share() < 1.0
    }

    /// The share of time that upkeep may take now.
    fn share(&self) -> f64 {
        let bytes = self.stats.ingested_bytes.load(Relaxed);
        let now = Instant::now();
        let share = {
            let mut state = self.state();
            let (seen, looked) = std::mem::replace(&mut state.seen, (bytes, Some(now)));
            // Nobody knows how long ago they came that came since a look long ago.
            if seen != bytes && looked.is_some_and(|looked| now - looked < BUSY) {
                state.busy_until = Some(now + BUSY);
            }
            match state.busy_until {
                Some(until) if now < until => state.share,
                _ => return 1.0,
            }
        };
        match self.packs.room() {
            Ok(Some(room)) => share.max(urgency(room, self.dead_bytes.load(Relaxed))),
            _ => share,
        }
    }

    /// Bytes to move in the next slice.
    pub(crate) fn slice_bytes(&self) -> u64 {
        // Far below 2^53.
        match self.is_busy() {
            true => SLICE_BESIDE_PUSHES_BYTES,
            false => SLICE_BYTES,
        }
    }

    /// A slice of work begins.
    pub(crate) fn slice(&self) -> Slice<'_> {
        self.slices.fetch_add(1, Relaxed);
        Slice {
            pace: self,
            begun: Instant::now(),
        }
    }
}

impl Slice<'_> {
    /// Ends the slice, and lets others go first.
    pub(crate) async fn rest(self) {
        let (pace, took) = (self.pace, self.begun.elapsed());
        drop(self);
        let share = pace.share();
        if share < 1.0 {
            sleep(took.mul_f64(1.0 / share - 1.0).min(REST_MAX)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// The least share where so many bytes could be given back: all of it on a full device.
fn urgency(room: Room, dead_bytes: u64) -> f64 {
    match room.free_bytes.saturating_sub(room.reserve_bytes) {
        0 => 1.0,
        free => (dead_bytes as f64 / free as f64).min(SHARE_URGENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;

    const WORK: Duration = Duration::from_millis(10);

    fn pace() -> (Pace, Arc<StoreStats>) {
        let stats = Arc::new(StoreStats::default());
        let pace = Pace::new(Arc::clone(&stats), Arc::new(MemoryBackend::new()));
        (pace, stats)
    }

    /// How long a slice of some work takes with its rest.
    async fn slice(pace: &Pace) -> Duration {
        let begun = Instant::now();
        let slice = pace.slice();
        tokio::time::advance(WORK).await;
        slice.rest().await;
        begun.elapsed()
    }

    async fn commit(pace: &Pace, took: Duration) {
        let watched = pace.watch();
        tokio::time::advance(took).await;
        pace.done(watched);
    }

    #[tokio::test(start_paused = true)]
    async fn upkeep_rests_while_somebody_pushes() {
        let (pace, stats) = pace();
        assert_eq!(slice(&pace).await, WORK);
        stats.ingested_bytes.fetch_add(1, Relaxed);
        assert!(slice(&pace).await >= 4 * WORK);
        // Still, though nothing came meanwhile.
        assert!(slice(&pace).await >= 4 * WORK);
        tokio::time::advance(BUSY).await;
        assert_eq!(slice(&pace).await, WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_that_ended_long_ago_disturb_nobody() {
        let (pace, stats) = pace();
        assert!(!pace.is_busy());
        stats.ingested_bytes.fetch_add(1 << 30, Relaxed);
        tokio::time::advance(2 * BUSY).await;
        assert_eq!(slice(&pace).await, WORK);
        assert_eq!(pace.slice_bytes(), SLICE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_follows_what_slices_do_to_pushes() {
        let (pace, _) = pace();
        let rounds = async |slowed: Duration| {
            for _ in 0..20 * COMPARED {
                commit(&pace, WORK).await;
                let slice = pace.slice();
                commit(&pace, slowed).await;
                drop(slice);
            }
            pace.share()
        };
        assert_eq!(rounds(WORK).await, SHARE_MAX);
        assert_eq!(pace.slice_bytes(), SLICE_BESIDE_PUSHES_BYTES);
        assert_eq!(rounds(2 * WORK).await, SHARE_MIN);
    }

    #[test]
    fn what_could_be_given_back_is_urgent_where_little_is_free() {
        let check = |free_bytes, dead_bytes| {
            let room = Room {
                free_bytes,
                reserve_bytes: 100,
            };
            urgency(room, dead_bytes)
        };
        assert_eq!(check(1100, 0), 0.0);
        assert_eq!(check(1100, 500), 0.5);
        assert_eq!(check(200, 500), SHARE_URGENT);
        assert_eq!(check(100, 0), 1.0);
        assert_eq!(check(0, 0), 1.0);
    }
}
