//! When to try again, and when to give up.

use std::{io, time::Duration};

/// Why a request, or the rest of its answer, failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    /// Trying again cannot help. The text says what to do.
    #[error("{0}")]
    Final(String),
    /// A break, a busy server: trying again may help.
    #[error("{reason}")]
    Again {
        /// What happened.
        reason: String,
        /// How long the server asks to be left alone.
        after: Option<Duration>,
    },
}

impl FetchError {
    /// A break without a wish of the server's.
    pub fn again(reason: impl Into<String>) -> Self {
        Self::Again {
            reason: reason.into(),
            after: None,
        }
    }
}

/// Why a source on the network has no more bytes for us. It travels inside of [`io::Error`]s: [`verdict`] finds it there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// Trying again cannot help, now or later. The text says what to do.
    #[error("{0}")]
    Final(String),
    /// It was tried often enough. Later it may go well.
    #[error("{reason} (gave up after {tries} tries)")]
    GaveUp {
        /// What happened at last.
        reason: String,
        /// How often it was tried without a byte in between.
        tries: u32,
    },
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
}

impl From<SourceError> for io::Error {
    fn from(error: SourceError) -> Self {
        Self::other(error)
    }
}

/// What an error says about trying again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Never.
    Final,
    /// Later, perhaps.
    Later,
    /// We were told to stop.
    Stopped,
}

/// Looks through an error and what caused it for a [`SourceError`]; `None` if there is none.
pub fn verdict(error: &(dyn std::error::Error + 'static)) -> Option<Verdict> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error.downcast_ref::<SourceError>().or_else(|| {
            let io = error.downcast_ref::<io::Error>()?;
            io.get_ref()?.downcast_ref()
        });
        if let Some(found) = found {
            return Some(match found {
                SourceError::Final(_) => Verdict::Final,
                SourceError::GaveUp { .. } => Verdict::Later,
                SourceError::Stopped => Verdict::Stopped,
            });
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            // An io::Error gives what it wraps as that one's source, not as its own.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// How long to wait between tries, and for how long in all.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// The first wait; each one after it is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Waiting in all, without a byte in between, once something was received.
    pub budget: Duration,
    /// The same before anything was received: a wrong address should be told soon.
    pub budget_at_start: Duration,
}

impl Default for RetryPolicy {
    /// Ten minutes, the time of a server's restart or of a change of network; half a minute at the start.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            budget: Duration::from_secs(600),
            budget_at_start: Duration::from_secs(30),
        }
    }
}

/// Counts failures since the last byte. A value, not a clock: what counts is the waiting that it asked for.
#[derive(Clone, Debug)]
pub struct Tries {
    policy: RetryPolicy,
    started: bool,
    failures: u32,
    waited: Duration,
}

impl Tries {
    /// None so far. `started` says that bytes were received before.
    pub fn new(policy: RetryPolicy, started: bool) -> Self {
        Self {
            policy,
            started,
            failures: 0,
            waited: Duration::ZERO,
        }
    }

    /// Bytes came.
    pub fn progress(&mut self) {
        self.started = true;
        self.failures = 0;
        self.waited = Duration::ZERO;
    }

    /// It failed: how long to wait before the next try, or that there is none.
    pub fn failed(&mut self, error: FetchError) -> Result<Duration, SourceError> {
        let (reason, after) = match error {
            FetchError::Final(reason) => return Err(SourceError::Final(reason)),
            FetchError::Again { reason, after } => (reason, after),
        };
        let doubled = 1u32 << self.failures.min(16);
        let wait = self.policy.first.saturating_mul(doubled);
        let wait = wait
            .min(self.policy.longest)
            .max(after.unwrap_or_default().min(self.policy.budget));
        self.failures = self.failures.saturating_add(1);
        let budget = if self.started {
            self.policy.budget
        } else {
            self.policy.budget_at_start
        };
        if self.waited + wait > budget {
            return Err(SourceError::GaveUp {
                reason,
                tries: self.failures,
            });
        }
        self.waited += wait;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(4),
            budget: Duration::from_secs(20),
            budget_at_start: Duration::from_secs(3),
        }
    }

    fn waits(tries: &mut Tries) -> (Vec<u64>, SourceError) {
        let mut waits = vec![];
        loop {
            match tries.failed(FetchError::again("broken")) {
                Ok(wait) => waits.push(wait.as_secs()),
                Err(error) => return (waits, error),
            }
        }
    }

    #[test]
    fn waits_grow_and_end() {
        let mut tries = Tries::new(policy(), true);
        let (seconds, error) = waits(&mut tries);
        assert_eq!(seconds, [1, 2, 4, 4, 4, 4]);
        assert!(matches!(error, SourceError::GaveUp { tries: 7, .. }));
        tries.progress();
        assert_eq!(waits(&mut tries).0, [1, 2, 4, 4, 4, 4]);
        assert_eq!(waits(&mut Tries::new(policy(), false)).0, [1, 2]);
    }

    #[test]
    fn servers_may_ask_for_more_time() {
        let mut tries = Tries::new(policy(), true);
        let busy = |seconds| FetchError::Again {
            reason: "busy".to_owned(),
            after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(tries.failed(busy(10)), Ok(Duration::from_secs(10)));
        assert!(tries.failed(busy(1000)).is_err());
        let wrong = FetchError::Final("no such file".to_owned());
        let error = Tries::new(policy(), true).failed(wrong);
        assert_eq!(error, Err(SourceError::Final("no such file".to_owned())));
    }

    #[test]
    fn verdicts_are_found_inside() {
        let wrapped = io::Error::from(SourceError::Final("gone".to_owned()));
        assert_eq!(verdict(&wrapped), Some(Verdict::Final));
        let wrapped = crate::format::FormatError::Source(wrapped);
        assert_eq!(verdict(&wrapped), Some(Verdict::Final));
        let twice = io::Error::other(io::Error::from(SourceError::Stopped));
        assert_eq!(verdict(&twice), Some(Verdict::Stopped));
        assert_eq!(verdict(&io::Error::other("something")), None);
    }
}
