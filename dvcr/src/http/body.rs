//! Request bodies: bounded, timed, counted, and drained when they are refused.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body::Body as _;
use tokio::time::{Instant, Sleep};

use super::error::RequestError;
use crate::registry::{self, BodyError};

/// Most bytes of a refused body that are read and thrown away, so that a client which only reads after it wrote gets to see
/// the answer instead of a reset. Enough for chunks as conformance suites send them; the rest of a disk is not worth it.
const DRAIN_BYTES_MAX: u64 = 1 << 20;

/// Longest time that draining may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// A request's body, shared by the use case that reads it and the handler that may have to drain the rest.
#[derive(Clone)]
pub(crate) struct RequestBody(Arc<Mutex<Source>>);

struct Source {
    body: Body,
    /// Bytes that may still come.
    allowed: u64,
    stall: Duration,
    /// Runs while a read waits for the client.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    /// The client sends nothing before it is told to (`Expect: 100-continue`), which the first read does.
    asks_first: bool,
    ended: bool,
    counter: Arc<AtomicU64>,
}

impl RequestBody {
    /// Takes a body. It fails with [`BodyError::TooLarge`] past `bytes_max` and with [`BodyError::Timeout`] when nothing
    /// arrives for `stall`. `counter` counts what arrives.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        bytes_max: u64,
        stall: Duration,
        counter: Arc<AtomicU64>,
    ) -> Self {
        Self(Arc::new(Mutex::new(Source {
            ended: body.is_end_stream(),
            body,
            allowed: bytes_max,
            stall,
            timer: Box::pin(tokio::time::sleep(stall)),
            waiting: false,
            asks_first: headers.contains_key(header::EXPECT),
            counter,
        })))
    }

    /// The body as the use cases take it.
    pub(crate) fn stream(&self) -> registry::Body {
        Box::pin(Frames(self.clone()))
    }

    /// Reads it whole, if it has at most `bytes_max` bytes. `announced` is its `Content-Length`, which saves reading what
    /// would be refused but sizes nothing.
    pub(crate) async fn collect(
        &self,
        announced: Option<u64>,
        bytes_max: usize,
    ) -> Result<Bytes, RequestError> {
        if announced.is_some_and(|len| len > bytes_max as u64) {
            return Err(RequestError::ManifestTooLarge(bytes_max));
        }
        let mut frames = self.stream();
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| match error {
                BodyError::Broken(what) => RequestError::BodyBroken(what),
                BodyError::Timeout => RequestError::BodyTimeout,
                BodyError::TooLarge => RequestError::ManifestTooLarge(bytes_max),
            })?;
            if first.len() + rest.len() + frame.len() > bytes_max {
                return Err(RequestError::ManifestTooLarge(bytes_max));
            }
            if first.is_empty() && rest.is_empty() {
                // Nearly every manifest comes in one piece, which needs no copy.
                first = frame;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&frame);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    }

    /// Throws away what is left, within limits. Call it before answering a request whose body was not read to its end.
    pub(crate) async fn drain(&self) {
        {
            let mut source = self.lock();
            if source.asks_first || source.ended {
                return;
            }
            source.allowed = DRAIN_BYTES_MAX;
        }
        let frames = self.stream();
        // How it ends does not matter: the answer is on its way.
        let _ = tokio::time::timeout(
            DRAIN_TIME_MAX,
            frames
                .take_while(|frame| std::future::ready(frame.is_ok()))
                .for_each(|_| std::future::ready(())),
        )
        .await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads from the shared body. Dropping it leaves the body to whoever else holds it.
struct Frames(RequestBody);

impl Stream for Frames {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().poll(cx)
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.asks_first = false;
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.poll_timer(cx).map(|error| Some(Err(error))),
            };
            self.waiting = false;
            let Some(frame) = frame else {
                self.ended = true;
                return Poll::Ready(None);
            };
            let data = match frame {
                Ok(frame) => frame.into_data(),
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BodyError::Broken(super::error::chain(&error)))));
                }
            };
            // Trailers carry nothing that we use.
            let Ok(data) = data else { continue };
            if data.is_empty() {
                continue;
            }
            let len = data.len() as u64;
            self.counter.fetch_add(len, Relaxed);
            let Some(allowed) = self.allowed.checked_sub(len) else {
                self.allowed = 0;
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            self.allowed = allowed;
            return Poll::Ready(Some(Ok(data)));
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if !self.waiting {
            self.waiting = true;
            let deadline = Instant::now() + self.stall;
            self.timer.as_mut().reset(deadline);
        }
        std::task::ready!(self.timer.as_mut().poll(cx));
        self.ended = true;
        Poll::Ready(BodyError::Timeout)
    }
}

/// An answer's body that must have exactly the announced length: too little or too much breaks the connection, so that a
/// client never takes a part for the whole.
pub(crate) struct Exact<S> {
    frames: S,
    left: u64,
    broken: bool,
}

impl<S> Exact<S> {
    /// Announces `len` bytes.
    pub(crate) fn new(frames: S, len: u64) -> Self {
        Self {
            frames,
            left: len,
            broken: false,
        }
    }
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The storage failed in the middle.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The storage delivered another number of bytes than it said: a bug.
    #[error("answer has another length than announced")]
    Length,
}

impl<S, E> Stream for Exact<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<AnswerError>,
{
    type Item = Result<Bytes, AnswerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.broken {
            return Poll::Ready(None);
        }
        let error = match std::task::ready!(Pin::new(&mut self.frames).poll_next(cx)) {
            Some(Ok(frame)) => match self.left.checked_sub(frame.len() as u64) {
                Some(left) => {
                    self.left = left;
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => AnswerError::Length,
            },
            Some(Err(error)) => error.into(),
            None if self.left == 0 => return Poll::Ready(None),
            None => AnswerError::Length,
        };
        self.broken = true;
        tracing::error!(error = super::error::chain(&error), "answer broke off");
        Poll::Ready(Some(Err(error)))
    }
}

/// Waits until the body has a first frame or ended; for tests.
#[cfg(test)]
pub(crate) async fn next(body: &RequestBody) -> Option<Result<Bytes, BodyError>> {
    std::future::poll_fn(|cx| body.lock().poll(cx)).await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;
    use crate::store::StoreError;

    const STALL: Duration = Duration::from_secs(30);

    fn frames(frames: &[&'static str]) -> Body {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| Ok::<_, Infallible>(Bytes::from_static(frame.as_bytes())))
            .collect();
        Body::from_stream(stream::iter(frames))
    }

    fn take(body: Body, bytes_max: u64) -> (RequestBody, Arc<AtomicU64>) {
        let counter = Arc::new(AtomicU64::new(0));
        let body = RequestBody::new(
            body,
            &HeaderMap::new(),
            bytes_max,
            STALL,
            Arc::clone(&counter),
        );
        (body, counter)
    }

    #[tokio::test]
    async fn collects_up_to_the_limit() {
        for (sent, max, fits) in [
            (vec![], 0, true),
            (vec!["abc"], 3, true),
            (vec!["abc"], 2, false),
            (vec!["a", "bc"], 3, true),
            (vec!["a", "bc"], 2, false),
            (vec!["", "a", "", "b", "c"], 3, true),
        ] {
            let (body, counter) = take(frames(&sent), 100);
            let collected = body.collect(None, max).await;
            assert_eq!(collected.is_ok(), fits, "{sent:?}");
            if let Ok(bytes) = collected {
                assert_eq!(bytes, sent.concat());
                assert_eq!(counter.load(Relaxed), sent.concat().len() as u64);
            }
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_unread() {
        let (body, counter) = take(frames(&["abc"]), 100);
        assert!(body.collect(Some(101), 100).await.is_err());
        assert_eq!(counter.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up() {
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let (body, _) = take(body, 100);
        let started = Instant::now();
        assert!(matches!(next(&body).await, Some(Err(BodyError::Timeout))));
        assert_eq!(started.elapsed(), STALL);
        assert!(next(&body).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_runs_for_each_read() {
        let slow = stream::unfold(0, |count| async move {
            tokio::time::advance(STALL - Duration::from_secs(1)).await;
            (count < 5).then_some((Ok::<_, Infallible>(Bytes::from_static(b"x")), count + 1))
        });
        let (body, _) = take(Body::from_stream(slow), 100);
        assert_eq!(body.collect(None, 100).await.unwrap(), "xxxxx");
    }

    #[tokio::test]
    async fn too_long_a_body_is_cut() {
        let (body, _) = take(frames(&["abc", "def"]), 5);
        assert!(matches!(next(&body).await, Some(Ok(_))));
        assert!(matches!(next(&body).await, Some(Err(BodyError::TooLarge))));
    }

    #[tokio::test]
    async fn a_refused_body_is_drained_unless_the_client_waits() {
        let (body, counter) = take(frames(&["abc", "def"]), 100);
        body.drain().await;
        assert_eq!(counter.load(Relaxed), 6);

        let headers = HeaderMap::from_iter([(header::EXPECT, "100-continue".parse().unwrap())]);
        let counter = Arc::new(AtomicU64::new(0));
        let body = RequestBody::new(frames(&["abc"]), &headers, 100, STALL, Arc::clone(&counter));
        body.drain().await;
        assert_eq!(counter.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn an_answer_of_another_length_breaks() {
        async fn check(frames: Vec<Result<Bytes, StoreError>>, len: u64, good: bool) {
            let sent: Vec<_> = Exact::new(stream::iter(frames), len).collect().await;
            assert_eq!(sent.iter().all(Result::is_ok), good);
        }
        let frame = || Ok(Bytes::from_static(b"abc"));
        check(vec![], 0, true).await;
        check(vec![frame(), frame()], 6, true).await;
        check(vec![frame(), frame()], 7, false).await;
        check(vec![frame(), frame()], 5, false).await;
        check(vec![], 1, false).await;
        check(vec![frame(), Err(StoreError::Full), frame()], 9, false).await;
    }
}
