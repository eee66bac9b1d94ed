//! Turns of the walks over all recipes that somebody asks for: each takes about a second for a million chunks, and up to 64 MiB of
//! memory. Garbage collection has its own turn.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::RegistryError;

/// Walks at once: 128 MiB of memory together. A second one, so that a walk over a large store does not keep everybody waiting.
const WALKS_MAX: usize = 2;

/// Walks that wait for their turn. They count among `limits.requests`, of which they shall take a small part.
const WAITING_MAX: usize = 32;

/// Longest wait: programs that ask have a time limit of their own, often of 30 s.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// When to ask again, seconds.
const RETRY_SECONDS: u32 = 10;

/// Who walks, and who waits.
pub(super) struct Walks {
    going: Semaphore,
    /// Of those that go on and those that wait.
    places: Semaphore,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a> {
    _going: SemaphorePermit<'a>,
    _place: SemaphorePermit<'a>,
}

impl Walks {
    pub(super) fn new() -> Self {
        Self {
            going: Semaphore::new(WALKS_MAX),
            places: Semaphore::new(WALKS_MAX + WAITING_MAX),
        }
    }

    /// Waits for a turn, in the order of asking. [`RegistryError::TooMany`] where too many wait, or for too long.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, RegistryError> {
        let too_many = || RegistryError::TooMany {
            what: "requests that walk over everything stored",
            retry_after_seconds: RETRY_SECONDS,
        };
        // Nobody closes the semaphores.
        let place = self.places.try_acquire().map_err(|_| too_many())?;
        let going = tokio::time::timeout(WAIT_MAX, self.going.acquire()).await;
        Ok(Turn {
            _going: going.ok().and_then(Result::ok).ok_or_else(too_many)?,
            _place: place,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::join_all};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_hundred_requests_for_statistics_do_not_walk_at_once() {
        let walks = Walks::new();
        let begun = Instant::now();
        let asked: Vec<_> = (0..200).map(|_| walks.turn()).collect();
        // Those that get a turn keep it.
        let turns = join_all(asked).await;
        let refused = |turn: &Result<Turn<'_>, _>| matches!(turn, Err(RegistryError::TooMany { retry_after_seconds, .. }) if *retry_after_seconds > 0);
        assert_eq!(turns.iter().filter(|turn| turn.is_ok()).count(), WALKS_MAX);
        assert_eq!(turns.iter().filter(|turn| refused(turn)).count(), 198);
        assert_eq!(begun.elapsed(), WAIT_MAX, "each waits for a bounded time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_that_waits_goes_when_another_ends_and_too_many_are_refused_at_once() {
        let walks = Walks::new();
        let mut going: Vec<_> = join_all((0..WALKS_MAX).map(|_| walks.turn())).await;
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(walks.turn())).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert!(walks.turn().now_or_never().unwrap().is_err());
        drop(going.pop());
        assert!(waiting.remove(0).await.is_ok());
        // A client that goes away while it waits leaves its place.
        drop(waiting);
        assert!(walks.turn().await.is_ok());
    }
}
