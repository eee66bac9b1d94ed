//! What a connection is doing, so that its owner can tell an idle or stalled one from one that works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::Version;
use tokio::time::Instant;

/// Shared by a connection's task, its socket and the requests on it. One per connection; a request that was not given one
/// (a test) uses its own.
#[derive(Debug)]
pub struct Activity {
    started: Instant,
    /// Milliseconds from `started` to the last sign of life of a request.
    last: AtomicU64,
    /// Milliseconds from `started`, plus one, to the first byte of a header that is not complete; zero if there is none.
    header: AtomicU64,
    /// Requests whose answer is not complete.
    requests: AtomicUsize,
    /// Answers of which a frame was handed over, while the client has no room for the next.
    blocked: AtomicUsize,
    /// HTTP/2 sends frames of its own between requests: bytes do not mean that a header began.
    http2: AtomicBool,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            header: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            http2: AtomicBool::new(false),
        }
    }
}

/// How patient a connection is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// With the header of a request, from its first byte.
    pub header: Duration,
    /// With a client that reads nothing of its answer.
    pub stall: Duration,
    /// With a connection that has no request.
    pub idle: Duration,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works, or waits for us.
    Keep,
    /// No request for too long: finish politely.
    Idle,
    /// The client is too slow with its header, or reads nothing of what it asked for: cut it.
    Stalled,
}

impl Activity {
    /// Judges by how long nothing moved.
    pub fn verdict(&self, patience: &Patience) -> Verdict {
        let since = |millis| {
            self.started
                .elapsed()
                .saturating_sub(Duration::from_millis(millis))
        };
        let quiet = since(self.last.load(Relaxed));
        if self.requests.load(Relaxed) == 0 {
            let header = self.header.load(Relaxed);
            return if header > 0 && since(header - 1) >= patience.header {
                Verdict::Stalled
            } else if quiet >= patience.idle {
                Verdict::Idle
            } else {
                Verdict::Keep
            };
        }
        // A request that waits for the disk or a lock is our affair, however long it takes; request bodies have a timer of
        // their own.
        if self.blocked.load(Relaxed) > 0 && quiet >= patience.stall {
            Verdict::Stalled
        } else {
            Verdict::Keep
        }
    }

    /// Bytes arrived. Between requests they begin a header.
    pub fn received(&self) {
        if self.requests.load(Relaxed) == 0
            && self.header.load(Relaxed) == 0
            && !self.http2.load(Relaxed)
        {
            self.header.store(self.now() + 1, Relaxed);
        }
    }

    fn touch(&self) {
        self.last.store(self.now(), Relaxed);
    }

    fn now(&self) -> u64 {
        // Half a billion years fit.
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// One request on a connection, until its answer is complete or dropped.
#[derive(Debug)]
pub(crate) struct Running {
    activity: Arc<Activity>,
    blocked: bool,
}

impl Running {
    /// Counts a request, whose header is complete.
    pub(crate) fn begin(activity: Arc<Activity>, version: Version) -> Self {
        activity.requests.fetch_add(1, Relaxed);
        activity.header.store(0, Relaxed);
        activity.http2.store(version == Version::HTTP_2, Relaxed);
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

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(20),
        stall: Duration::from_secs(30),
        idle: Duration::from_secs(75),
    };
    const SECOND: Duration = Duration::from_secs(1);

    fn check(activity: &Activity, expected: Verdict) {
        assert_eq!(activity.verdict(&PATIENCE), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_becomes_idle() {
        let activity = Activity::default();
        check(&activity, Verdict::Keep);
        tokio::time::advance(PATIENCE.idle).await;
        check(&activity, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_of_ours_is_not_the_clients_fault() {
        let activity = Arc::new(Activity::default());
        let running = Running::begin(Arc::clone(&activity), Version::HTTP_11);
        tokio::time::advance(PATIENCE.idle * 100).await;
        check(&activity, Verdict::Keep);
        drop(running);
        check(&activity, Verdict::Keep);
        tokio::time::advance(PATIENCE.idle).await;
        check(&activity, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_stalled() {
        let activity = Arc::new(Activity::default());
        let mut running = Running::begin(Arc::clone(&activity), Version::HTTP_11);
        for _ in 0..10 {
            running.asked_for_more();
            running.handed_over();
            tokio::time::advance(PATIENCE.stall - SECOND).await;
            check(&activity, Verdict::Keep);
        }
        tokio::time::advance(SECOND).await;
        check(&activity, Verdict::Stalled);
        running.asked_for_more();
        check(&activity, Verdict::Keep);
        tokio::time::advance(PATIENCE.stall * 2).await;
        check(&activity, Verdict::Keep);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_trickles_in_is_stalled() {
        let activity = Arc::new(Activity::default());
        for version in [Version::HTTP_11, Version::HTTP_2] {
            tokio::time::advance(SECOND).await;
            activity.received();
            tokio::time::advance(PATIENCE.header - SECOND).await;
            activity.received();
            check(&activity, Verdict::Keep);
            // The last byte arrives in time.
            drop(Running::begin(Arc::clone(&activity), version));
            tokio::time::advance(PATIENCE.header * 2).await;
            check(&activity, Verdict::Keep);
        }
        // Frames of HTTP/2 between requests are no header.
        activity.received();
        tokio::time::advance(PATIENCE.header).await;
        check(&activity, Verdict::Keep);

        let activity = Activity::default();
        activity.received();
        tokio::time::advance(PATIENCE.header).await;
        check(&activity, Verdict::Stalled);
    }
}
