//! Noticing a server that takes nothing, without mistaking a slow source for one.
//!
//! An HTTP client's own time limits count from the request's begin, or count the time that the sender needs to produce the body:
//! neither fits an upload that takes an hour from a slow source.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use crate::{BlobStream, BoxError};

/// What a request's body waits for.
#[derive(Copy, Clone, Debug)]
enum Waiting {
    /// Its source; that may take as long as it likes.
    Source,
    /// The network, since then.
    Network(Instant),
    /// The answer to all of it, since then.
    Answer(Instant),
}

#[derive(Debug)]
struct State {
    waiting: Waiting,
    sent: u64,
    len: Option<u64>,
    failed: Option<BoxError>,
}

/// What is known of a body that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<State>>);

impl Progress {
    /// Splits a stream in the body to send and what tells how it goes.
    pub(crate) fn watch(
        stream: BlobStream,
        len: Option<u64>,
    ) -> (Self, impl Stream<Item = Result<Bytes, BoxError>> + Send) {
        let progress = Self(Arc::new(Mutex::new(State {
            waiting: Waiting::Network(Instant::now()),
            sent: 0,
            len,
            failed: None,
        })));
        let watched = Watched {
            stream,
            progress: progress.clone(),
        };
        (progress, watched)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the source failed, if it did. Only once.
    pub(crate) fn failure(&self) -> Option<BoxError> {
        self.state().failed.take()
    }

    /// Returns once the server has been silent for too long: `stall` while it should take bytes, `answer` while it should answer.
    pub(crate) async fn stalled(&self, stall: Duration, answer: Duration) -> Duration {
        loop {
            let (since, limit) = match self.state().waiting {
                Waiting::Source => (Instant::now(), stall),
                Waiting::Network(since) => (since, stall),
                Waiting::Answer(since) => (since, answer),
            };
            if since.elapsed() >= limit {
                return limit;
            }
            tokio::time::sleep_until(since + limit).await;
        }
    }
}

struct Watched {
    stream: BlobStream,
    progress: Progress,
}

impl Stream for Watched {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.poll_next_unpin(context);
        let mut state = self.progress.state();
        state.waiting = match &polled {
            Poll::Pending => Waiting::Source,
            Poll::Ready(Some(_)) => Waiting::Network(Instant::now()),
            Poll::Ready(None) => Waiting::Answer(Instant::now()),
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(bytes))) => {
                state.sent += bytes.len() as u64;
                // A body of known length is not asked for its end.
                if state.len.is_some_and(|len| state.sent >= len) {
                    state.waiting = Waiting::Answer(Instant::now());
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The HTTP client would tell it as a failure of its own.
                let told = error.to_string();
                state.failed = Some(error);
                Poll::Ready(Some(Err(told.into())))
            }
        }
    }
}
