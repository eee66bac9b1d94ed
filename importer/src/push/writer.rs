//! Writing into an upload.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use dvcr_client::{Error, Upload};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::session::Blocks;
use crate::source::retry::SourceError;

/// Bytes of one request: what is sent again if the registry fails. It has made them durable when it answers, which takes a few
/// milliseconds each time.
pub(super) const REQUEST_BYTES: usize = 6 << 20;

/// What is written goes to a registry, in blocks of [`REQUEST_BYTES`]. Three of them are in memory at most: one that fills, one
/// that waits, one on its way.
///
/// What the registry has from an earlier try is not sent, but compared with what was noted when it was: see [`Blocks`].
pub(super) struct UploadWriter {
    runtime: Handle,
    /// Bytes that the registry has from an earlier try.
    has: u64,
    blocks: Option<Blocks>,
    /// The block that fills, and bytes before it.
    number: usize,
    start: u64,
    buf: BytesMut,
    /// A block that the registry has was another one.
    differs: bool,
    sender: Option<mpsc::Sender<Bytes>>,
    task: JoinHandle<Result<Upload, Error>>,
}

/// How an upload stands when all was written.
pub(super) enum Written {
    /// The registry has everything.
    Whole(Upload),
    /// What the registry has from an earlier try is of something else.
    Other(Upload),
}

impl UploadWriter {
    /// Goes on with `upload`. Without `blocks` it has to be a new one.
    pub(super) fn new(
        runtime: &Handle,
        stop: &CancellationToken,
        mut upload: Upload,
        blocks: Option<Blocks>,
    ) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
        let has = upload.offset();
        let stop = stop.clone();
        let task = runtime.spawn(async move {
            while let Some(bytes) = receiver.recv().await {
                tokio::select! {
                    () = stop.cancelled() => return Err(Error::Source(SourceError::Stopped.into())),
                    sent = upload.append(bytes) => sent?,
                }
            }
            Ok(upload)
        });
        Self {
            runtime: runtime.clone(),
            has,
            blocks,
            number: 0,
            start: 0,
            buf: BytesMut::with_capacity(REQUEST_BYTES),
            differs: false,
            sender: Some(sender),
            task,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.buf, BytesMut::with_capacity(REQUEST_BYTES));
        let (block, number) = (block.freeze(), self.number);
        let known = self.has.saturating_sub(self.start).min(block.len() as u64);
        self.number += 1;
        self.start += block.len() as u64;
        match &mut self.blocks {
            Some(blocks) if known > 0 && !blocks.was(number, &block) => self.differs = true,
            Some(blocks) if known == 0 => blocks.note(number, &block)?,
            None if known > 0 => self.differs = true,
            _ => {}
        }
        if self.differs {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let rest = block.slice(known as usize..);
        let sent = rest.is_empty()
            || self
                .sender
                .as_ref()
                .is_some_and(|sender| sender.blocking_send(rest).is_ok());
        if !sent {
            // Why is known to `finish`.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    /// Sends what is left and waits until the registry has all. Its error comes before any of ours.
    pub(super) fn finish(mut self) -> Result<Written, Error> {
        let last = if self.differs { Ok(()) } else { self.send() };
        self.differs |= last.is_ok() && self.start < self.has;
        self.sender = None;
        let task = &mut self.task;
        match self.runtime.block_on(task) {
            Ok(Ok(upload)) if self.differs => Ok(Written::Other(upload)),
            Ok(Ok(upload)) => match last {
                Ok(()) => Ok(Written::Whole(upload)),
                Err(error) => Err(Error::Source(error.into())),
            },
            Ok(Err(error)) => Err(error),
            Err(error) => Err(Error::Source(error.into())),
        }
    }
}

impl Write for UploadWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut rest = buf;
        while !rest.is_empty() {
            let room = REQUEST_BYTES - self.buf.len();
            let (part, behind) = rest.split_at(room.min(rest.len()));
            self.buf.extend_from_slice(part);
            rest = behind;
            if self.buf.len() == REQUEST_BYTES {
                self.send()?;
            }
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for UploadWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
