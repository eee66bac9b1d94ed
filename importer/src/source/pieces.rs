//! Bytes that a task of the runtime receives for a reader outside of it.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::retry::SourceError;

/// Takes pieces from the task. It fails when nobody reads any more.
pub type PieceSender<E> = mpsc::Sender<Result<Option<Bytes>, E>>;

/// What a task received, in order. To read it blocks and is not for threads of the runtime; dropping it ends the task.
pub struct Pieces<E> {
    /// `None` is the end.
    receiver: mpsc::Receiver<Result<Option<Bytes>, E>>,
    piece: Bytes,
    ended: bool,
    _task: AbortOnDropHandle<()>,
}

impl<E: Send + 'static> Pieces<E> {
    /// Starts a task that may be `ahead` pieces further than the reader, who gets the task's error behind what it sent.
    pub fn receive<F>(
        runtime: &Handle,
        ahead: usize,
        task: impl FnOnce(PieceSender<E>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(ahead);
        let task = task(sender.clone());
        let task = runtime.spawn(async move {
            let end = task.await;
            // Nobody reads any more if that fails.
            let _ = sender.send(end.map(|()| None)).await;
        });
        Self {
            receiver,
            piece: Bytes::new(),
            ended: false,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl<E: Into<io::Error>> Read for Pieces<E> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error.into()),
                // Its task was ended with the runtime.
                None => return Err(SourceError::Stopped.into()),
            }
        }
        let len = self.piece.len().min(buf.len());
        self.piece.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}
