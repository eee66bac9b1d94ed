//! What a connection is doing, so that its owner can tell an idle or stalled one from one that works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Shared by a connection's task and the requests on it. One per connection; a request that was not given one (a test)
/// uses its own.
#[derive(Debug)]
pub struct Activity {
    started: Instant,
    /// Milliseconds from `started` to the last sign of life.
    last: AtomicU64,
    /// Requests whose answer is not complete.
    requests: AtomicUsize,
    /// Answers of which a frame was handed over, while the client has no room for the next.
    blocked: AtomicUsize,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
        }
    }
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works, or waits for us.
    Keep,
    /// No request for too long: finish politely.
    Idle,
    /// The client reads nothing of what it asked for: cut it.
    Stalled,
}

impl Activity {
    /// Judges by how long nothing moved.
    pub fn verdict(&self, idle: Duration, stall: Duration) -> Verdict {
        let quiet = self
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Relaxed)));
        if self.requests.load(Relaxed) == 0 {
            return if quiet >= idle {
                Verdict::Idle
            } else {
                Verdict::Keep
            };
        }
        // A request that waits for the disk or a lock is our affair, however long it takes; request bodies have a timer of
        // their own.
        if self.blocked.load(Relaxed) > 0 && quiet >= stall {
            Verdict::Stalled
        } else {
            Verdict::Keep
        }
    }

    fn touch(&self) {
        let now = self.started.elapsed().as_millis();
        self.last
            .store(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
    }
}

/// One request on a connection, until its answer is complete or dropped.
#[derive(Debug)]
pub(crate) struct Running {
    activity: Arc<Activity>,
    blocked: bool,
}

impl Running {
    /// Counts a request.
    pub(crate) fn begin(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Relaxed);
        activity.touch();
        Self {
            activity,
            blocked: false,
        }
    }

    /// A frame of the answer was handed over: what comes next is the client's turn.
    pub(crate) fn handed_over(&mut self) {
        if !self.blocked {
            self.blocked = true;
            self.activity.blocked.fetch_add(1, Relaxed);
        }
        self.activity.touch();
    }

    /// The client has room for more: what comes next is our turn.
    pub(crate) fn asked_for_more(&mut self) {
        if self.blocked {
            self.blocked = false;
            self.activity.blocked.fetch_sub(1, Relaxed);
            self.activity.touch();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.asked_for_more();
        self.activity.requests.fetch_sub(1, Relaxed);
        self.activity.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);
    const STALL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_becomes_idle() {
        let activity = Activity::default();
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Keep);
        tokio::time::advance(IDLE).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_of_ours_is_not_the_clients_fault() {
        let activity = Arc::new(Activity::default());
        let running = Running::begin(Arc::clone(&activity));
        tokio::time::advance(IDLE * 100).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Keep);
        drop(running);
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Keep);
        tokio::time::advance(IDLE).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_stalled() {
        let activity = Arc::new(Activity::default());
        let mut running = Running::begin(Arc::clone(&activity));
        for _ in 0..10 {
            running.asked_for_more();
            running.handed_over();
            tokio::time::advance(STALL - Duration::from_secs(1)).await;
            assert_eq!(activity.verdict(IDLE, STALL), Verdict::Keep);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Stalled);
        running.asked_for_more();
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Keep);
        tokio::time::advance(STALL * 2).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Keep);
    }
}
