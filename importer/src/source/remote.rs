//! A file on a server, whatever breaks on the way.

mod ranged;

use std::{
    io::{self, Read},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::{StreamExt, stream};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    fetch::{Fetch, FetchError, Opened, Version},
    retry::{RetryPolicy, SourceError, Tries},
};

pub use ranged::Ranged;

/// What is asked for at first: it shows what the file is, and whether the server knows ranges.
const PROBE_BYTES: u64 = 64 << 10;

/// What one request of several in parallel asks for: an import that is killed loses no more of each.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Requests in parallel, unless the options say otherwise. With [`SEGMENT_BYTES`] that is 16 MiB ahead of the reader.
pub const CONNECTIONS: usize = 4;

/// Most requests in parallel.
pub const CONNECTIONS_MAX: usize = 16;

/// Chunks between the network and the reader of a single request: of 16 KiB each in TLS, 4 MiB.
const CHUNKS_AHEAD: usize = 256;

/// How to read a file on a server.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// When to try again.
    pub retry: RetryPolicy,
    /// Requests in parallel where the server knows ranges, 1 to [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// Ends every wait and every read with [`SourceError::Stopped`].
    pub stop: CancellationToken,
    /// Counts the bytes that were received, those received twice included.
    pub received: Arc<AtomicU64>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            connections: CONNECTIONS,
            stop: CancellationToken::new(),
            received: Arc::default(),
        }
    }
}

/// A file on a server that has answered.
///
/// Its methods block and are not for threads of the runtime.
pub struct Remote {
    link: Arc<Link>,
    /// The first answer of a server without ranges, which is the whole file.
    first: Mutex<Option<Opened>>,
}

/// What all readers of a file share.
struct Link {
    fetch: Arc<dyn Fetch>,
    runtime: Handle,
    options: RemoteOptions,
    version: Version,
    ranges: bool,
}

impl Remote {
    /// Asks for the start of the file.
    pub fn open(
        fetch: Arc<dyn Fetch>,
        runtime: Handle,
        options: RemoteOptions,
    ) -> Result<Self, SourceError> {
        let asking = async {
            let mut tries = Tries::new(options.retry, false);
            loop {
                match fetch.open(0..PROBE_BYTES, None).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => {
                        let wait = tries.failed(error)?;
                        pause(&options.stop, wait).await?;
                    }
                }
            }
        };
        let opened = runtime.block_on(until_stopped(&options.stop, asking))?;
        let link = Arc::new(Link {
            fetch,
            runtime,
            version: opened.version.clone(),
            ranges: opened.ranges,
            options,
        });
        Ok(Self {
            link,
            first: Mutex::new((!opened.ranges).then_some(opened)),
        })
    }

    /// Length of the file, if the server knows it.
    pub fn length(&self) -> Option<u64> {
        self.link.version.len
    }

    /// What tells this version of the file from another.
    pub fn version(&self) -> &Version {
        &self.link.version
    }

    /// The file to be read at random; `None` unless the server knows ranges and the file's length.
    pub fn ranged(&self) -> Option<Ranged> {
        let len = self.link.version.len.filter(|_| self.link.ranges)?;
        Some(Ranged::new(self.link.clone(), len))
    }

    /// The file from `start` on, which is not beyond its end. `before` has hashed everything before `start`: where the server
    /// can only begin at 0, what it sends again must be the same.
    pub fn stream(&self, start: u64, before: blake3::Hasher) -> RemoteStream {
        let link = self.link.clone();
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let len = self.length().filter(|_| link.ranges);
        let ahead = if len.is_some() { 1 } else { CHUNKS_AHEAD };
        let (sender, receiver) = mpsc::channel(ahead);
        let task = link.runtime.clone().spawn(async move {
            let work = async {
                match len {
                    Some(len) => link.clone().parallel(start..len, &sender).await,
                    None => link.follow(first, start, before, &sender).await,
                }
            };
            let end = until_stopped(&link.options.stop, work).await;
            // Nobody reads any more if that fails.
            let _ = sender.send(end.map(|()| None)).await;
        });
        RemoteStream {
            receiver,
            chunk: Bytes::new(),
            ended: false,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("address", &self.link.fetch.address())
            .field("version", &self.link.version)
            .field("ranges", &self.link.ranges)
            .finish_non_exhaustive()
    }
}

/// Chunks on their way to the reader; `None` is the file's end, which a channel that just closes is not.
type Sender = mpsc::Sender<Result<Option<Bytes>, SourceError>>;

impl Link {
    /// Fetches a part of the file, going on after breaks. For parts that fit in memory.
    async fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut tries = Tries::new(self.options.retry, true);
        loop {
            let from = range.start + bytes.len() as u64;
            let error = match self.fetch_once(from..range.end, &mut bytes).await {
                Ok(()) => return Ok(bytes),
                Err(error) => error,
            };
            if range.start + bytes.len() as u64 > from {
                tries.progress();
            }
            let wait = tries.failed(error)?;
            pause(&self.options.stop, wait).await?;
        }
    }

    async fn fetch_once(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), FetchError> {
        let Range { start, end } = range;
        let mut opened = self.fetch.open(range, Some(&self.version)).await?;
        if opened.start != start {
            return Err(FetchError::Final(
                "the server does not keep to the ranges that it promised; ask for none with --no-ranges"
                    .to_owned(),
            ));
        }
        let mut rest = end - start;
        while rest > 0 {
            let Some(chunk) = opened.body.next().await else {
                return Err(FetchError::again("the answer ended early"));
            };
            let chunk = chunk?;
            self.count(&chunk);
            let len = rest.min(chunk.len() as u64);
            bytes.extend_from_slice(&chunk[..len as usize]);
            rest -= len;
        }
        Ok(())
    }

    /// Several segments at once, given out in order.
    async fn parallel(self: Arc<Self>, range: Range<u64>, out: &Sender) -> Result<(), SourceError> {
        let starts = range.clone().step_by(SEGMENT_BYTES as usize);
        let tasks = starts.map(|start| {
            let segment = start..(start + SEGMENT_BYTES).min(range.end);
            let link = self.clone();
            AbortOnDropHandle::new(tokio::spawn(async move { link.fetch(segment).await }))
        });
        let mut segments = stream::iter(tasks).buffered(self.options.connections.max(1));
        while let Some(segment) = segments.next().await {
            let segment = segment.map_err(|_| SourceError::Stopped)??;
            if out.send(Ok(Some(segment.into()))).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One request after the other, each going on where the last one broke.
    async fn follow(
        &self,
        mut first: Option<Opened>,
        start: u64,
        mut given: blake3::Hasher,
        out: &Sender,
    ) -> Result<(), SourceError> {
        let mut at = start;
        let mut tries = Tries::new(self.options.retry, true);
        loop {
            let before = at;
            let opened = match first.take() {
                Some(opened) => Ok(opened),
                None => self.fetch.open(at..u64::MAX, Some(&self.version)).await,
            };
            let result = match opened {
                Ok(opened) => self.follow_once(opened, &mut at, &mut given, out).await,
                Err(error) => Err(error),
            };
            let Err(error) = result else {
                return Ok(());
            };
            if at > before {
                tries.progress();
            }
            let wait = tries.failed(error)?;
            pause(&self.options.stop, wait).await?;
        }
    }

    async fn follow_once(
        &self,
        mut opened: Opened,
        at: &mut u64,
        given: &mut blake3::Hasher,
        out: &Sender,
    ) -> Result<(), FetchError> {
        // What was given already comes again from servers without ranges.
        let mut again = blake3::Hasher::new();
        let mut skip = at.saturating_sub(opened.start);
        while let Some(chunk) = opened.body.next().await {
            let mut chunk = chunk?;
            self.count(&chunk);
            if skip > 0 {
                let seen = chunk.split_to(skip.min(chunk.len() as u64) as usize);
                again.update(&seen);
                skip -= seen.len() as u64;
                if skip == 0 && again.finalize() != given.finalize() {
                    return Err(FetchError::Final(
                        "the server sends other bytes than before; import it again".to_owned(),
                    ));
                }
            }
            if chunk.is_empty() {
                continue;
            }
            if !self.ranges {
                given.update(&chunk);
            }
            *at += chunk.len() as u64;
            if out.send(Ok(Some(chunk))).await.is_err() {
                return Ok(());
            }
        }
        match self.version.len {
            Some(len) if *at < len => Err(FetchError::again("the answer ended early")),
            None if skip > 0 => Err(FetchError::again("the answer ended early")),
            _ => Ok(()),
        }
    }

    fn count(&self, chunk: &Bytes) {
        let len = chunk.len() as u64;
        self.options.received.fetch_add(len, Ordering::Relaxed);
    }
}

async fn pause(stop: &CancellationToken, wait: Duration) -> Result<(), SourceError> {
    tokio::select! {
        () = stop.cancelled() => Err(SourceError::Stopped),
        () = tokio::time::sleep(wait) => Ok(()),
    }
}

async fn until_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    tokio::select! {
        () = stop.cancelled() => Err(SourceError::Stopped),
        result = work => result,
    }
}

/// A file on a server from start to end. Dropping it ends its requests.
pub struct RemoteStream {
    receiver: mpsc::Receiver<Result<Option<Bytes>, SourceError>>,
    chunk: Bytes,
    ended: bool,
    _task: AbortOnDropHandle<()>,
}

impl Read for RemoteStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(chunk))) => self.chunk = chunk,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error.into()),
                // Its task was ended with the runtime.
                None => return Err(SourceError::Stopped.into()),
            }
        }
        let len = self.chunk.len().min(buf.len());
        self.chunk.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}
