//! A file on a server, whatever breaks on the way.

mod ranged;

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    fetch::{Fetch, FetchError, Opened, Version},
    pieces::{PieceSender, Pieces},
    retry::{RetryPolicy, SourceError, Tries},
};

pub use ranged::Ranged;

/// What is asked for at first: it shows what the file is, and whether the server knows ranges.
const PROBE_BYTES: u64 = 64 << 10;

/// What one request of several in parallel asks for: all of it may wait in a socket, and is lost if the importer is killed.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Requests in parallel, unless the options say otherwise. With [`SEGMENT_BYTES`] that is 6 MiB on their way: 120 MB/s from a server
/// that is 50 ms away.
pub const CONNECTIONS: usize = 6;

/// Most requests in parallel.
pub const CONNECTIONS_MAX: usize = 16;

/// Chunks between the network and the reader of a single request: of 16 KiB each in TLS, 4 MiB.
const CHUNKS_AHEAD: usize = 256;

/// The same where what comes is kept at once: who is killed loses them.
const PART_CHUNKS_AHEAD: usize = 16;

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
    pub fn stream(&self, start: u64, before: blake3::Hasher) -> Pieces<SourceError> {
        let link = self.link.clone();
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let len = self.length().filter(|_| link.ranges);
        let ahead = if len.is_some() { 1 } else { CHUNKS_AHEAD };
        Pieces::receive(&self.link.runtime, ahead, |out| async move {
            let work = async {
                match len {
                    Some(len) => link.clone().parallel(start..len, &out).await,
                    None => link.follow(first, start, before, &out).await,
                }
            };
            until_stopped(&link.options.stop, work).await
        })
    }
}

/// Bytes and where they belong, on their way to whoever keeps them; `None` behind the last.
type PartSender = mpsc::Sender<Result<Option<(u64, Bytes)>, SourceError>>;

impl Remote {
    /// Parts of a file on a server that knows ranges. Several are fetched at once, so that only what belongs to one of them, and to
    /// one segment of [`SEGMENT_BYTES`], comes in order.
    pub fn parts(&self, ranges: Vec<Range<u64>>) -> RemoteParts {
        let link = self.link.clone();
        let (sender, receiver) = mpsc::channel(PART_CHUNKS_AHEAD);
        let task = link.runtime.clone().spawn(async move {
            let end = until_stopped(&link.options.stop, link.clone().parts(ranges, &sender)).await;
            // Nobody reads any more if that fails.
            let _ = sender.send(end.map(|()| None)).await;
        });
        RemoteParts {
            receiver,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Parts of a file on a server. Dropping it ends its requests.
pub struct RemoteParts {
    receiver: mpsc::Receiver<Result<Option<(u64, Bytes)>, SourceError>>,
    _task: AbortOnDropHandle<()>,
}

impl RemoteParts {
    /// The next bytes, and where they belong; `None` if all have come.
    pub fn receive(&mut self) -> io::Result<Option<(u64, Bytes)>> {
        match self.receiver.blocking_recv() {
            Some(part) => Ok(part?),
            // Its task was ended with the runtime.
            None => Err(SourceError::Stopped.into()),
        }
    }
}

/// Where the bytes of one request go.
enum Sink<'a> {
    Memory(Vec<u8>),
    Parts(&'a PartSender),
}

impl Sink<'_> {
    /// False if nobody wants more.
    async fn put(&mut self, at: u64, chunk: Bytes) -> bool {
        match self {
            Self::Memory(bytes) => {
                bytes.extend_from_slice(&chunk);
                true
            }
            Self::Parts(sender) => sender.send(Ok(Some((at, chunk)))).await.is_ok(),
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
type Sender = PieceSender<SourceError>;

impl Link {
    /// Fetches a part of the file, going on after breaks. For parts that fit in memory.
    async fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        let mut sink = Sink::Memory(Vec::with_capacity((range.end - range.start) as usize));
        self.fetch_into(range, &mut sink).await?;
        match sink {
            Sink::Memory(bytes) => Ok(bytes),
            Sink::Parts(_) => Ok(vec![]),
        }
    }

    /// Gives a part of the file to `sink`, in order, going on after breaks.
    async fn fetch_into(&self, range: Range<u64>, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        let mut at = range.start;
        let mut tries = Tries::new(self.options.retry, true);
        loop {
            let from = at;
            let error = match self.fetch_once(&mut at, range.end, sink).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if at > from {
                tries.progress();
            }
            let wait = tries.failed(error)?;
            pause(&self.options.stop, wait).await?;
        }
    }

    async fn fetch_once(
        &self,
        at: &mut u64,
        end: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        let mut opened = self.fetch.open(*at..end, Some(&self.version)).await?;
        if opened.start != *at {
            return Err(FetchError::Final(
                "the server does not keep to the ranges that it promised; ask for none with --no-ranges"
                    .to_owned(),
            ));
        }
        while *at < end {
            let Some(chunk) = opened.body.next().await else {
                return Err(FetchError::again("the answer ended early"));
            };
            let mut chunk = chunk?;
            self.count(&chunk);
            chunk.truncate(usize::try_from(end - *at).unwrap_or(usize::MAX));
            let len = chunk.len() as u64;
            if !sink.put(*at, chunk).await {
                return Ok(());
            }
            *at += len;
        }
        Ok(())
    }

    /// Several segments at once, given out as they come.
    async fn parts(
        self: Arc<Self>,
        ranges: Vec<Range<u64>>,
        out: &PartSender,
    ) -> Result<(), SourceError> {
        let segments = ranges.into_iter().flat_map(|range| {
            let starts = range.clone().step_by(SEGMENT_BYTES as usize);
            starts.map(move |start| start..(start + SEGMENT_BYTES).min(range.end))
        });
        let tasks = segments.map(|segment| {
            let (link, out) = (self.clone(), out.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                link.fetch_into(segment, &mut Sink::Parts(&out)).await
            }))
        });
        let mut segments = stream::iter(tasks).buffer_unordered(self.options.connections.max(1));
        while let Some(segment) = segments.next().await {
            segment.map_err(|_| SourceError::Stopped)??;
            if out.is_closed() {
                return Ok(());
            }
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
