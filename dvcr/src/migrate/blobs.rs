//! Bringing blobs over, each once.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use dvcr_client::{Begun, BlobSource, BlobStream, BoxError, Client, Error, Upload};
use dvcr_core::oci::{Descriptor, Digest, RepositoryName};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{
    Counters, MigrateError, Options, Source, SourceError,
    execute::is_over,
    report::{Failure, count},
    sessions::Sessions,
};

/// Why a blob, manifest or tag did not come over.
pub(super) enum Failed {
    /// Nothing else will either.
    Over(MigrateError),
    /// This one; it is in the report.
    Item,
}

/// Where a blob is by now.
#[derive(Debug)]
enum Known {
    Nowhere,
    /// The server has it in this repository.
    At(RepositoryName),
    /// The source's is no good.
    Broken,
}

/// The blobs of one migration.
pub(super) struct Blobs<'a> {
    source: &'a Source,
    server: &'a Client,
    sessions: Sessions,
    counters: Arc<Counters>,
    /// Blobs under way.
    permits: Semaphore,
    /// One entry a blob; whoever copies it holds its lock, so that others find it on the server.
    known: Mutex<HashMap<Digest, Arc<AsyncMutex<Known>>>>,
    /// Blobs that count as done.
    settled: Mutex<HashSet<Digest>>,
}

impl<'a> Blobs<'a> {
    pub(super) fn new(
        source: &'a Source,
        server: &'a Client,
        options: &Options,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            source,
            server,
            sessions: Sessions::load(options.sessions.as_deref(), server.url().as_str()),
            counters: Arc::clone(counters),
            permits: Semaphore::new(options.parallel),
            known: Mutex::default(),
            settled: Mutex::default(),
        }
    }

    /// Notes that the server has a blob; `counted` of its bytes were already counted as done.
    pub(super) fn settle(&self, blob: &Descriptor, counted: u64) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.insert(blob.digest) {
            count(&self.counters.done_blobs, 1);
            count(&self.counters.done_bytes, blob.size);
        }
        self.counters
            .done_bytes
            .fetch_sub(counted, Ordering::Relaxed);
    }

    /// Looks for a blob anew the next time.
    pub(super) async fn forget(&self, digest: &Digest) {
        *self.entry(digest).lock().await = Known::Nowhere;
    }

    fn entry(&self, digest: &Digest) -> Arc<AsyncMutex<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(AsyncMutex::new(Known::Nowhere));
        Arc::clone(known.entry(*digest).or_insert_with(new))
    }

    /// Brings a blob into a repository.
    pub(super) async fn copy(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<(), Failed> {
        let entry = self.entry(&blob.digest);
        let mut known = entry.lock().await;
        let from = match &*known {
            Known::Broken => {
                let reason = "is damaged in the source, see there".to_owned();
                return Err(self.failed(repository, blob, reason));
            }
            Known::At(at) if at == repository => return Ok(()),
            Known::At(at) => Some(at.clone()),
            Known::Nowhere => None,
        };
        let permit = self.permits.acquire().await;
        let counted = Arc::new(AtomicU64::new(0));
        let result = self.bring(repository, blob, from.as_ref(), &counted).await;
        drop(permit);
        let counted = counted.load(Ordering::Relaxed);
        let error = match result {
            Ok(()) => {
                self.settle(blob, counted);
                *known = Known::At(repository.clone());
                return Ok(());
            }
            Err(error) => error,
        };
        self.counters
            .done_bytes
            .fetch_sub(counted, Ordering::Relaxed);
        match error {
            Error::Source(source) => {
                let source = match source.downcast::<SourceError>() {
                    Ok(source) => *source,
                    Err(other) => match other.downcast::<Error>() {
                        Ok(error) => SourceError::Client(*error),
                        Err(other) => {
                            return Err(self.failed(repository, blob, other.to_string()));
                        }
                    },
                };
                if source.is_fatal() {
                    return Err(Failed::Over(MigrateError::Source(source)));
                }
                *known = Known::Broken;
                Err(self.failed(repository, blob, source.to_string()))
            }
            error if is_over(&error) => Err(Failed::Over(MigrateError::Server(error))),
            error => {
                if error.is_corrupt() {
                    *known = Known::Broken;
                }
                Err(self.failed(repository, blob, error.to_string()))
            }
        }
    }

    fn failed(&self, repository: &RepositoryName, blob: &Descriptor, reason: String) -> Failed {
        let item = format!("blob {}", blob.digest);
        self.counters
            .fail(Failure::new(repository.as_str(), &item, reason));
        Failed::Item
    }

    async fn bring(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        from: Option<&RepositoryName>,
        counted: &Arc<AtomicU64>,
    ) -> Result<(), Error> {
        let target = self.server.repository(repository);
        if target.blob_info(&blob.digest).await?.is_some() {
            count(&self.counters.blobs_present, 1);
            // The previous run may have been killed just after it was done with this one.
            self.sessions.set(repository, &blob.digest, None);
            return Ok(());
        }
        // The previous run may have been interrupted in the middle of it.
        let algorithm = blob.digest.algorithm();
        let begun = match self.sessions.get(repository, &blob.digest) {
            Some(location) => target.resume_upload(&location, algorithm).await?,
            None => None,
        };
        let mut upload = match begun {
            Some(upload) if upload.offset() <= blob.size => upload,
            _ => match target.mount_or_upload(&blob.digest, from).await? {
                Begun::Mounted => {
                    count(&self.counters.blobs_mounted, 1);
                    self.sessions.set(repository, &blob.digest, None);
                    return Ok(());
                }
                Begun::Upload(upload) => upload,
            },
        };
        self.sessions
            .set(repository, &blob.digest, Some(upload.location()));
        // What the server has needs no reading.
        let counting = Counting {
            source: self
                .source
                .blob(repository, blob)
                .await
                .map_err(Error::Source)?,
            counters: Arc::clone(&self.counters),
            counted: Arc::clone(counted),
        };
        let result = self.send(&mut upload, blob, &counting).await;
        match &result {
            Ok(()) => self.sessions.set(repository, &blob.digest, None),
            // Of no use to the next run either.
            Err(error) if !error.is_retryable() => {
                self.sessions.set(repository, &blob.digest, None);
                upload.cancel().await;
            }
            Err(_) => {
                let location = Some(upload.location());
                self.sessions.set(repository, &blob.digest, location);
            }
        }
        result
    }

    async fn send(
        &self,
        upload: &mut Upload,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<(), Error> {
        let sent = upload.push(source, blob.size).await?;
        count(&self.counters.bytes_sent, sent);
        upload.finish(&blob.digest).await?;
        count(&self.counters.blobs_sent, 1);
        Ok(())
    }
}

/// A source that tells how far it has been read.
struct Counting {
    source: Box<dyn BlobSource>,
    counters: Arc<Counters>,
    counted: Arc<AtomicU64>,
}

impl BlobSource for Counting {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        async move {
            let (counters, counted) = (Arc::clone(&self.counters), Arc::clone(&self.counted));
            // A push that begins again, or in the middle, stands where it stands.
            let before = counted.swap(offset, Ordering::Relaxed);
            counters.done_bytes.fetch_add(offset, Ordering::Relaxed);
            counters.done_bytes.fetch_sub(before, Ordering::Relaxed);
            let stream = self.source.open(offset).await?;
            let stream = stream.inspect(move |read| {
                if let Ok(bytes) = read {
                    let len = bytes.len() as u64;
                    count(&counters.bytes_read, len);
                    count(&counters.done_bytes, len);
                    counted.fetch_add(len, Ordering::Relaxed);
                }
            });
            Ok(stream.boxed())
        }
        .boxed()
    }
}
