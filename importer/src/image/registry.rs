//! A repository of a registry.

use std::{
    io::{self, Read},
    mem,
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use dvcr_client::BlobReader;
use dvcr_core::oci::{Descriptor, Digest, Reference};
use quick_cache::sync::Cache;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Document, Repository};
use crate::source::{PieceSender, Pieces, ReadAt, check_range, retry::SourceError};

/// What is fetched at a time: some ten frames of our layout, so that requests cost little beside what they bring, and so does what is
/// fetched again at the edges of what an earlier run wrote.
const WINDOW_BYTES: u64 = 512 << 10;

/// Windows that are kept for those who read neighbours of what was asked for: 32 MiB.
const WINDOWS: usize = 64;

/// What a stream gives its reader at a time: to wake it for each piece of the network costs more than what is in it.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces that wait for the reader of a stream, so that the network goes on while it decodes: 1 MiB.
const PIECES_AHEAD: usize = 4;

/// A repository that is asked over the network. Its methods block: they are not for threads of the runtime.
#[derive(Clone, Debug)]
pub struct Registry {
    repository: dvcr_client::Repository,
    runtime: Handle,
    stop: CancellationToken,
}

impl Registry {
    /// A repository, and the runtime that its connections live on. `stop` ends every wait with [`SourceError::Stopped`].
    pub fn new(
        repository: dvcr_client::Repository,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Self {
        Self {
            repository,
            runtime,
            stop,
        }
    }

    /// Waits for an answer.
    fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, dvcr_client::Error>>,
    ) -> io::Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => Err(SourceError::Stopped.into()),
                answer = answer => answer.map_err(failed),
            }
        })
    }

    /// Waits for an answer that comes in many pieces. They are put together on the runtime's threads: to wake the caller for each
    /// costs more than what is in it.
    fn wait_for_all<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<T, dvcr_client::Error>> + Send + 'static,
    ) -> io::Result<T> {
        let task = AbortOnDropHandle::new(self.runtime.spawn(answer));
        let ended = self.wait(async { Ok(task.await) })?;
        ended.map_err(io::Error::other)?.map_err(failed)
    }
}

impl Repository for Registry {
    fn manifest(&self, reference: &Reference) -> io::Result<Document> {
        let manifest = self.wait(self.repository.manifest(reference))?;
        let media_type = manifest.media_type();
        Ok(Document {
            media_type: (!media_type.is_empty()).then(|| media_type.to_owned()),
            bytes: manifest.bytes().to_vec(),
        })
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(RemoteBlob {
            registry: self.clone(),
            digest: blob.digest,
            len: blob.size,
            windows: Cache::new(WINDOWS),
        }))
    }

    fn stream_from(&self, blob: &Descriptor, start: u64) -> io::Result<Box<dyn Read + Send>> {
        // A range even of everything: whoever reads it compares its digest, once is enough.
        let reader = self.repository.blob_range(&blob.digest, start..blob.size);
        let reader = self.wait(reader)?;
        let stop = self.stop.clone();
        let pieces = Pieces::receive(&self.runtime, PIECES_AHEAD, |out| async move {
            tokio::select! {
                () = stop.cancelled() => Err(SourceError::Stopped.into()),
                end = read_ahead(reader, &out) => end.map_err(failed),
            }
        });
        Ok(Box::new(pieces))
    }
}

/// Gives out a blob, in pieces of about [`PIECE_BYTES`]. A connection that breaks is replaced by the client.
async fn read_ahead(
    mut reader: BlobReader,
    out: &PieceSender<io::Error>,
) -> Result<(), dvcr_client::Error> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    while let Some(chunk) = reader.chunk().await? {
        if piece.len() + chunk.len() > PIECE_BYTES {
            let full = mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
            if out.send(Ok(Some(full.into()))).await.is_err() {
                return Ok(());
            }
        }
        piece.extend_from_slice(&chunk);
    }
    let _ = out.send(Ok(Some(piece.into()))).await;
    Ok(())
}

/// The client's error inside, and what helps by its kind.
fn failed(error: dvcr_client::Error) -> io::Error {
    let kind = if error.is_not_found() {
        io::ErrorKind::NotFound
    } else if error.is_retryable() {
        io::ErrorKind::ConnectionAborted
    } else {
        io::ErrorKind::InvalidData
    };
    io::Error::new(kind, error)
}

/// A blob that is fetched in windows, each once for all who read it at the same time.
struct RemoteBlob {
    registry: Registry,
    digest: Digest,
    len: u64,
    windows: Cache<u64, Bytes>,
}

impl RemoteBlob {
    fn fetch(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (repository, digest) = (self.registry.repository.clone(), self.digest);
        self.registry.wait_for_all(async move {
            let len = (range.end - range.start) as usize;
            let mut reader = repository.blob_range(&digest, range).await?;
            let mut bytes = Vec::with_capacity(len);
            // The client gives as much as was asked for, or an error.
            while let Some(chunk) = reader.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.into())
        })
    }
}

impl ReadAt for RemoteBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(self.len, offset, buf.len())?;
        if buf.len() as u64 >= WINDOW_BYTES {
            buf.copy_from_slice(&self.fetch(offset..offset + buf.len() as u64)?);
            return Ok(());
        }
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let start = offset / WINDOW_BYTES * WINDOW_BYTES;
            let window = self.windows.get_or_insert_with(&start, || {
                self.fetch(start..(start + WINDOW_BYTES).min(self.len))
            })?;
            let window = &window[(offset - start) as usize..];
            let (part, behind) = rest.split_at_mut(window.len().min(rest.len()));
            part.copy_from_slice(&window[..part.len()]);
            offset += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}
