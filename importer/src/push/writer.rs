//! Writing into an upload.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use dvcr_client::{Error, Upload};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

/// Bytes of one request: what is sent again if it breaks. The registry has made them durable when it answers, which
/// takes a few milliseconds each time.
const REQUEST_BYTES: usize = 16 << 20;

/// What is written goes to a registry, in requests of [`REQUEST_BYTES`]. Three of them are in memory at most: one that
/// fills, one that waits, one on its way.
pub(super) struct UploadWriter {
    runtime: Handle,
    /// Bytes that the registry has from an earlier try.
    skip: u64,
    buf: BytesMut,
    sender: Option<mpsc::Sender<Bytes>>,
    task: JoinHandle<Result<Upload, Error>>,
}

impl UploadWriter {
    /// Goes on with `upload`: as many bytes as it has are taken for granted.
    pub(super) fn new(runtime: &Handle, mut upload: Upload) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
        let skip = upload.offset();
        let task = runtime.spawn(async move {
            while let Some(bytes) = receiver.recv().await {
                upload.append(bytes).await?;
            }
            Ok(upload)
        });
        Self {
            runtime: runtime.clone(),
            skip,
            buf: BytesMut::with_capacity(REQUEST_BYTES),
            sender: Some(sender),
            task,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buf, BytesMut::with_capacity(REQUEST_BYTES));
        let sent = self
            .sender
            .as_ref()
            .is_some_and(|sender| sender.blocking_send(full.freeze()).is_ok());
        if !sent {
            // Why is known to `finish`.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    /// Sends what is left and waits until the registry has all. Its error comes before any of ours.
    pub(super) fn finish(mut self) -> Result<Upload, Error> {
        let last = self.send();
        self.sender = None;
        let task = &mut self.task;
        match self.runtime.block_on(task) {
            Ok(Ok(upload)) => match last {
                Ok(()) => Ok(upload),
                Err(error) => Err(Error::Source(error.into())),
            },
            Ok(Err(error)) => Err(error),
            Err(error) => Err(Error::Source(error.into())),
        }
    }
}

impl Write for UploadWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(buf.len() as u64);
        self.skip -= skipped;
        let mut rest = &buf[skipped as usize..];
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
