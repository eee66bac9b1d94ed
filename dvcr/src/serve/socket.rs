//! A socket that notices clients which stop reading.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::http::activity::Activity;

/// Fails a write that makes no progress for too long, and reports what arrives.
///
/// Below TLS, so that it sees the socket itself. Complements [`Activity`]'s watch over answers: that one sees whether the
/// next frame is asked for, this one whether the last bytes leave.
pub(super) struct Socket<S> {
    stream: S,
    activity: Arc<Activity>,
    stall: Duration,
    /// Runs while a write waits for the client.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Socket<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>, stall: Duration) -> Self {
        Self {
            stream,
            activity,
            stall,
            timer: Box::pin(tokio::time::sleep(stall)),
            waiting: false,
        }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            let deadline = Instant::now() + self.stall;
            self.timer.as_mut().reset(deadline);
        }
        std::task::ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "client reads nothing",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_reads_fails() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut socket = Socket::new(ours, Arc::default(), STALL);
        socket.write_all(b"1234").await.unwrap();
        // Slow is fine: each write that gets on starts the time anew.
        for _ in 0..5 {
            let read = async {
                tokio::time::advance(STALL - Duration::from_secs(1)).await;
                theirs.read_u8().await
            };
            let (written, read) = tokio::join!(socket.write_all(b"x"), read);
            written.unwrap();
            read.unwrap();
        }
        let started = Instant::now();
        let error = socket.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), STALL);
    }
}
