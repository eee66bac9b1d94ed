//! Trying again.

use std::time::Duration;

use crate::Error;

/// Most attempts to reach what most likely is not there: within a second.
const ABSENT_ATTEMPTS: u32 = 3;

/// How patient a client is with a registry that is away, busy or breaks connections.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Attempts in a row without progress, the first one included; a byte that arrives starts the count anew. At least 1.
    pub attempts: u32,
    /// Pause after the first failure; each further one is twice as long.
    pub pause: Duration,
    /// Longest pause. A server's `Retry-After` counts instead where it is longer.
    pub pause_max: Duration,
}

impl Default for Retry {
    /// Ten attempts within about two minutes: a registry that restarts or moves to another node is back by then.
    fn default() -> Self {
        Self {
            attempts: 10,
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// One attempt.
    pub fn never() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    pub(crate) fn start(self) -> Backoff {
        Backoff {
            retry: self,
            failures: 0,
            first: false,
        }
    }

    /// For a first question, which somebody waits for: a server that is not there then is far more often a mistyped address than
    /// one that restarts.
    pub(crate) fn start_first(self) -> Backoff {
        Backoff {
            first: true,
            ..self.start()
        }
    }
}

/// The attempts of one undertaking.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    failures: u32,
    first: bool,
}

impl Backoff {
    /// There was progress.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits until another attempt is due; gives the error back if it is final or the attempts are used up.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        if error.is_retryable() {
            self.wait_anyway(error).await
        } else {
            Err(error)
        }
    }

    /// The same for an error that is final elsewhere.
    pub(crate) async fn wait_anyway(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if self.failures >= self.attempts_for(&error) {
            return Err(error);
        }
        let pause = self.pause().max(error.retry_after().unwrap_or_default());
        // A single break is mended before anybody asks; one that lasts is minutes of silence otherwise.
        if self.failures == 2 {
            tracing::warn!("{error}: trying again");
        } else {
            tracing::debug!(%error, ?pause, attempt = self.failures, "trying again");
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// A name that does not resolve is far more often mistyped than away.
    fn attempts_for(&self, error: &Error) -> u32 {
        if error.is_name_unknown() || self.first && error.is_absent() {
            self.retry.attempts.min(ABSENT_ATTEMPTS)
        } else {
            self.retry.attempts
        }
    }

    fn pause(&self) -> Duration {
        let doublings = (self.failures - 1).min(16);
        let pause = self
            .retry
            .pause
            .saturating_mul(1 << doublings)
            .min(self.retry.pause_max);
        // Half of it is random: clients that lost the same server do not come back at the same instant.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut backoff = Retry::default().start();
        for (failures, at_most) in [(1, 250), (2, 500), (3, 1_000), (8, 30_000), (40, 30_000)] {
            backoff.failures = failures;
            let (pause, most) = (backoff.pause(), Duration::from_millis(at_most));
            assert!(pause <= most && pause >= most / 2, "{failures}: {pause:?}");
        }
    }
}
